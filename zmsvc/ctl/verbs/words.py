"""The hidden verb `words`: the names that a shell offers for completion, each on a line of its own.

A shell waits for it at each press of a key, so it never takes long, and it says nothing on a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import threading
import time

from zmsvc.core.replicas import base
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError
from zmsvc.ctl.select_context import running
from zmsvc.ctl.status_reply import objects
from zmsvc.host import paths

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Iterator

    from zmsvc.ctl.client import Json

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}(@[0-9]{1,4})?")
"""The form of the names of transactions and tasks. core/values.py is more exact, but importing it takes as
long as all the rest.
"""
LIMIT = 0.5
"""Seconds until it ends without an answer."""
PATIENCE = 0.4
"""Seconds in which all contexts together have to answer, so that those that do are offered."""


def words(args: argparse.Namespace) -> int:
    """words: print contexts, transactions, tasks or hosts. Returns 0 in each case."""
    threading.Thread(target=_give_up, daemon=True).start()
    found: dict[str, None] = {}
    with contextlib.redirect_stderr(None), contextlib.suppress(Exception):
        # Nothing may appear on the line that the user types, not even a traceback.
        for word in _CHOICES[args.kind](args):
            found[word] = None
    with contextlib.suppress(OSError):
        terminal.out("".join(f"{word}\n" for word in found), flush=True)
    return 0


def _give_up() -> None:
    # This is a thread and not an alarm, because Python handles a signal only after a call that blocks.
    time.sleep(LIMIT)
    os._exit(0)


def _contexts(_args: argparse.Namespace) -> Iterator[str]:
    """Yield the contexts that have a file, run or have run, as far as their names are valid."""
    names = {*paths.known_contexts(), *paths.running_contexts(), *paths.past_contexts()}
    yield from sorted(name for name in names if paths.CONTEXT_NAME.fullmatch(name))


def _transactions(args: argparse.Namespace) -> Iterator[str]:
    for answer in _answers(args):
        yield from _valid(each.get("id") for each in objects(answer.get("transactions")))


def _tasks(args: argparse.Namespace) -> Iterator[str]:
    """Yield the tasks. The name of a task stands for all its replicas, too."""
    for answer in _answers(args):
        for each in objects(answer.get("transactions")):
            if args.transaction in (None, each.get("id")):
                for name in _valid(task.get("id") for task in objects(each.get("tasks"))):
                    yield base(name)
                    yield name


def _hosts(args: argparse.Namespace) -> Iterator[str]:
    for answer in _answers(args):
        yield from _valid(each.get("name") for each in objects(answer.get("hosts")))


_CHOICES = {"contexts": _contexts, "transactions": _transactions, "tasks": _tasks, "hosts": _hosts}


def _valid(names: Iterator[object]) -> Iterator[str]:
    """Yield the names that can be one. The answer may be that of another user's program, and a shell would
    take other characters for more than a word.
    """
    return (name for name in names if isinstance(name, str) and NAME.fullmatch(name))


def _answers(args: argparse.Namespace) -> Iterator[Json]:
    """Yield the states of the named context, or of all that run. The state file of one that does not run is
    left alone, because it takes 0.2 s to read.
    """
    until = time.monotonic() + PATIENCE
    contexts = running() if args.context is None else [paths.places(args.context)]
    for number, places in enumerate(contexts):
        # A context that does not answer must leave the others their share of the time.
        with contextlib.suppress(CtlError):
            left = max(0.01, until - time.monotonic())
            yield Client(places, patience=left / (len(contexts) - number)).ask("status")
