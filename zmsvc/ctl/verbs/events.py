"""The verb `events`: the lifecycle history of a context, from its supervisor or from the state file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from zmsvc.core import history
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, DropCount, DroppedError, NotRunningError
from zmsvc.ctl.select_context import choose

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json
    from zmsvc.host.paths import Places

MAX_ROWS = 1000
"""Rows of history that are shown of a context that does not run. A supervisor shows as many."""


def events(args: argparse.Namespace) -> int:
    """Print the lifecycle history; with -f also new events, across replacements of the supervisor."""
    places = choose(args.context, args.transaction)
    client = Client(places, args.timeout)
    request = {"transaction": args.transaction, "tasks": [*args.tasks, *args.task], "follow": args.follow}
    last, count = 0, DropCount()
    if args.follow and args.lines == 0:
        # Only new events are wanted: skip those that are there now.
        last = max(
            (row["seq"] for row in client.stream("events", limit=1) if isinstance(row.get("seq"), int)),
            default=0,
        )
    if not args.json:
        terminal.out(_row("TIME", "TRANSACTION", "TASK", "EVENT", "DETAIL") + "\n", flush=args.follow)
    while True:
        count.send()
        try:
            # After a dropped connection the history is read again; shown rows are known by their number.
            for row in client.stream("events", **request, limit=args.lines if not last else None):
                seq = row.get("seq")
                if not isinstance(seq, int) or seq <= last:
                    continue
                last = seq
                count.answer()
                terminal.out((json.dumps(row) if args.json else event(row)) + "\n", flush=args.follow)
            if not last:
                _complain_of_nothing(args, places)
            return 0
        except NotRunningError:
            if last or args.follow or not _of_the_past(args, places):
                raise
            return 0
        except DroppedError:
            if not args.follow or not count.drop():
                raise
        except KeyboardInterrupt:
            return 0  # Ctrl-C is the way to end --follow.


def _of_the_past(args: argparse.Namespace, places: Places) -> bool:
    """Show the history of a context that does not run; after a failed start nothing else tells why. Return
    False if there is no state file.
    """
    # Imported here for start-up time: usually a supervisor answers.
    from zmsvc.ctl import state_file_reader

    if not state_file_reader.exists(places.state_file):
        return False
    tasks = [*args.tasks, *args.task]
    limit = MAX_ROWS if args.lines is None else args.lines
    rows = state_file_reader.events(places.state_file, transaction=args.transaction, tasks=tasks, limit=limit)
    terminal.complain(state_file_reader.note(places))
    if not rows:
        _complain_of_nothing(args, places)
    for row in rows:
        terminal.out((json.dumps(row) if args.json else event(row)) + "\n")
    return True


def _complain_of_nothing(args: argparse.Namespace, places: Places) -> None:
    """Tell the user that the history has no event of the named tasks: most often the name is wrong."""
    if named := " ".join([*([args.transaction] if args.transaction else []), *args.tasks, *args.task]):
        terminal.complain(
            f"the history of {places.name} has no event of {named} (zmsvcctl -c {places.name} status)"
        )


def event(row: Json) -> str:
    """Return one row of the history as a line."""
    at = str(row.get("at", ""))[:23].replace("T", " ")
    return _row(
        at,
        str(row.get("transaction") or "-"),
        str(row.get("task") or "-"),
        str(row.get("event", "")),
        _detail(row.get("detail")),
    )


def _row(*cells: str) -> str:
    """Lay out one row. The widths are guesses that are nearly always right, since later rows are not known
    yet.
    """
    return "  ".join(
        terminal.clean(cell).ljust(width) for cell, width in zip(cells, (23, 20, 12, 10, 0), strict=True)
    ).rstrip()


def _detail(detail: Any) -> str:
    """Return the details as `reason=exited pid=12`, with a cause in short form."""
    if not isinstance(detail, dict):
        return ""
    shown = history.fields(detail)
    cause = detail.get("cause")
    if isinstance(cause, dict):
        shown |= {name: str(cause[name]) for name in ("by", "uid") if cause.get(name) is not None}
        sources = cause.get("sources")
        named = [each for each in sources if isinstance(each, dict)] if isinstance(sources, list) else []
        shown |= (
            {"after": ",".join(f"{each.get('task')}:{each.get('trigger')}" for each in named)}
            if named
            else {}
        )
    return history.as_text(shown)
