"""The verb `stack`: the supervisor has a task write the stacks of its threads to its log, and zmsvcctl reads
them there.
"""

from __future__ import annotations

import argparse
import functools
import json
import time

from zmsvc.core.errors import PlaceError
from zmsvc.ctl import status_source, terminal
from zmsvc.ctl.client import Client, CtlError
from zmsvc.ctl.log.journal_matches import writers
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, objects
from zmsvc.ctl.verbs.logs import messages_since

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Callable

    from zmsvc.ctl.client import Json
    from zmsvc.ctl.log.journal_matches import Writers

PATIENCE = 5.0
"""Seconds in which the stacks have to be in the log."""
_PAUSE = 0.1
"""Seconds between two looks at the log. The stacks are complete when two looks find the same."""
_HEADS = ("Thread 0x", "Current thread 0x")


def stack(args: argparse.Namespace) -> int:
    """stack: print the stacks of each task. Returns 1 if they do not reach the log in time."""
    places = choose(args.context, args.transaction)
    client = Client(places, args.timeout, patience=status_source.PATIENCE)
    names = list(dict.fromkeys(args.tasks))
    before = time.time()
    told = objects(client.ask("stack", transaction=args.transaction, tasks=names).get("tasks"))
    status = ContextStatus(client.ask("status", transaction=args.transaction, tasks=names))
    of = writers(status, places, client.uid)
    for each in told:
        each["lines"] = _complete(functools.partial(_stacks_of, each, status, of, before))
        if not each["lines"]:
            why = (
                f"they are not in its log after {PATIENCE:g} s (zmsvcctl -c {places.name} logs {each['id']})"
            )
            raise CtlError(1, f"cannot show the stacks of {each['id']}: {why}")
    if args.json:
        terminal.out(json.dumps({"tasks": told}) + "\n")
        return 0
    for each in told:
        head = f"{each['id']} of {each['transaction']}, PID {each['pid']}:\n" if len(told) > 1 else ""
        terminal.out(head + "".join(f"{terminal.clean(line)}\n" for line in each["lines"]))
    return 0


def _complete(read: Callable[[], list[str]]) -> list[str]:
    """Read the log again until the stacks in it are complete; empty if there are none in time."""
    deadline = time.monotonic() + PATIENCE
    last: list[str] = []
    while time.monotonic() < deadline:
        found = read()
        if found and found == last:
            return found
        last = found
        time.sleep(_PAUSE)
    return last


def _stacks_of(task: Json, status: ContextStatus, of: Writers, since: float) -> list[str]:
    """Return the stacks in the log of a task, without the lines that the task has logged between them."""
    transaction = str(task["transaction"])
    known = [
        each
        for one in status.transactions
        if one.id == transaction
        for each in one.tasks
        if each.id == task["id"]
    ]
    found: list[str] = []
    try:
        for line in messages_since(of, status, transaction, known[0], since) if known else ():
            if line.startswith(_HEADS) or (found and line.startswith("  ")):
                found.append(line)
    except (OSError, PlaceError) as error:
        raise CtlError(1, f"cannot read the log of {task['id']}: {error}") from None
    return found
