"""Messages for the person who starts a context: warnings about its file, and the transactions of an earlier
run that are started again. They go into the log; the keeper passes them on to `zmsvcd --detach`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zmsvc.core import checks
from zmsvc.core.model import Context
from zmsvc.host.config import separate_reader
from zmsvc.supervisor.records import shortened

MOST = 20
"""The most warnings that `--detach` prints. `zmsvcctl check` prints all."""
MAX_LENGTH = 1000
"""The number of characters of one message. All messages together have to fit into a datagram."""
NAMED = 5
"""The number of transactions that are named."""


def warnings(context: Context, *, curve: bool) -> list[str]:
    """Return the warnings of `zmsvcctl check` that do not depend on the machine, as `FILE:LINE: warning:
    text`.
    """
    found = separate_reader.placed(context, checks.config_warnings(context, curve=curve))
    return [replace(each, text=f"warning: {each.text}").in_file(context.path) for each in found]


def resumption(context: Context, names: Sequence[str], path_before: str | None, host: str = "") -> str:
    """Return the announcement of the transactions that are resumed; empty if there is none. `path_before` is
    the context file of their run, if it is known: another file of the same name would use the same state
    file. `host` is the host that they come from, if it is another one.
    """
    if not names:
        return ""
    shown = ", ".join([*names[:NAMED], *(["..."] if len(names) > NAMED else [])])
    what = f"{len(names)} transaction{'s' if len(names) != 1 else ''}"
    other = f", of another file ({path_before})" if path_before and path_before != context.path else ""
    run = f"another host ({host})" if host else f"an earlier run{other}"
    stop = f"zmsvcctl -c {context.name} stop"
    ways = f"{stop} --transaction ID ends one, {stop} all" if len(names) > 1 else f"{stop} ends it"
    return f"{context.name} resumes {what} of {run}: {shown} ({ways})"


def for_keeper(context: Context, warnings: Sequence[str], announcement: str) -> list[str]:
    """Return the messages that `--detach` prints, bounded in number and length."""
    notes = [*warnings[:MOST], *([f"zmsvcd: {announcement}"] if announcement else [])]
    if len(warnings) > MOST:
        notes.insert(MOST, f"zmsvcd: {len(warnings) - MOST} more warnings: zmsvcctl check {context.path}")
    return [shortened(note, MAX_LENGTH) for note in notes]
