"""The verb `events`: the lifecycle history of a context, from its supervisor or from the state file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from zmsvc.core import history
from zmsvc.core.errors import UsageError
from zmsvc.ctl import render, terminal
from zmsvc.ctl.client import SERVED, Client, DropCount, DroppedError, NotRunningError
from zmsvc.ctl.select_context import choose

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json
    from zmsvc.host.paths import Places

INDENT = "  "
MAX_DEPTH = 20
"""The most steps of the indent of a tree: a ring of rules makes one of any depth."""
MAX_SINCE = 100_000
"""The most rows since a time: as many as the history keeps."""
MAX_ROWS = 1000
"""The number of rows of history that are shown of a context that does not run; a supervisor shows as many."""


def events(args: argparse.Namespace, served: float = SERVED) -> int:
    """Print the lifecycle history; with -f also new events, across replacements of the supervisor. `served`
    is that of `DropCount`.
    """
    if args.tree and (args.follow or args.json):
        raise UsageError(f"--tree and {'--follow' if args.follow else '--json'} exclude each other")
    places = choose(args.context, args.transaction)
    client = Client(places, args.timeout)
    wanted = _Wanted(args)
    request = {**wanted.request(), "follow": args.follow}
    last, count = 0, DropCount(served)
    shown: list[Json] = []
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
            for row in client.stream("events", **request, limit=wanted.limit if not last else None):
                seq = row.get("seq")
                if not isinstance(seq, int) or seq <= last or not wanted.fits(row):
                    continue
                last = seq
                count.answer()
                if args.tree:
                    shown.append(row)
                else:
                    terminal.out((json.dumps(row) if args.json else event(row)) + "\n", flush=args.follow)
            if not last:
                _complain_of_nothing(args, places)
            _print_tree(shown)
            return 0
        except NotRunningError:
            if last or args.follow or not _of_the_past(args, wanted, places):
                raise
            return 0
        except DroppedError:
            if not args.follow or not count.drop():
                raise
        except KeyboardInterrupt:
            return 0  # Ctrl-C is the way to end --follow.


class _Wanted:
    """The events that the command line selects."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.transaction = args.transaction
        self.tasks = [*args.tasks, *args.task]
        self.kinds = list(dict.fromkeys(args.event))
        self.since: float | None = None
        if args.since is not None:
            # Imported here for start-up time: it needs datetime, and most calls have no time.
            from zmsvc.ctl.log import time_ranges

            self.since = time_ranges.moment(args.since)
        # With a time, all events since then are wanted.
        self.limit = args.lines if args.lines is not None or self.since is None else MAX_SINCE

    def request(self) -> Json:
        chosen = {"events": self.kinds, "since": self.since}
        return {
            "transaction": self.transaction,
            "tasks": self.tasks,
            **{name: value for name, value in chosen.items() if value},
        }

    def fits(self, row: Json) -> bool:
        """Return False for a row outside the selection: a supervisor of an earlier release does not know the
        selection and sends every row.
        """
        at = row.get("at")
        moment = render.epoch(at) if self.since is not None and isinstance(at, str) else None
        late = self.since is None or moment is None or moment >= self.since - 0.001
        return late and (not self.kinds or row.get("event") in self.kinds)


def _print_tree(rows: list[Json]) -> None:
    """Print rows with each below the one that has caused it."""
    # Imported here for start-up time: most calls show no tree.
    from zmsvc.core import history_tree

    for depth, index in history_tree.tree(list(history_tree.as_rows(rows))):
        terminal.out(event(rows[index], depth) + "\n")


def _of_the_past(args: argparse.Namespace, wanted: _Wanted, places: Places) -> bool:
    """Show the history of a context that does not run; after a failed start nothing else tells why. Return
    False if there is no state file.
    """
    # Imported here for start-up time: usually a supervisor answers.
    from zmsvc.ctl import state_file_reader

    if not state_file_reader.exists(places.state_file):
        return False
    rows = state_file_reader.events(
        places.state_file,
        transaction=wanted.transaction,
        tasks=wanted.tasks,
        limit=MAX_ROWS if wanted.limit is None else wanted.limit,
        kinds=wanted.kinds,
        since=wanted.since,
    )
    terminal.complain(state_file_reader.note(places))
    if not rows:
        _complain_of_nothing(args, places)
    if args.tree:
        _print_tree(rows)
        return True
    for row in rows:
        terminal.out((json.dumps(row) if args.json else event(row)) + "\n")
    return True


def _complain_of_nothing(args: argparse.Namespace, places: Places) -> None:
    """Tell the user that the history has no event of the named tasks: most often the name is wrong."""
    if named := " ".join(
        [*([args.transaction] if args.transaction else []), *args.tasks, *args.task, *args.event]
    ):
        terminal.complain(
            f"the history of {places.name} has no event of {named} (zmsvcctl -c {places.name} status)"
        )


def event(row: Json, depth: int = 0) -> str:
    """Return one row of the history as a line, with its event indented by `depth`."""
    at = str(row.get("at", ""))[:23].replace("T", " ")
    return _row(
        at,
        str(row.get("transaction") or "-"),
        str(row.get("task") or "-"),
        f"{INDENT * min(depth, MAX_DEPTH)}{row.get('event', '')}",
        as_text(row.get("detail")),
    )


def _row(*cells: str) -> str:
    """Lay out one row. The widths are guesses that are nearly always right, since later rows are not known
    yet.
    """
    return "  ".join(
        terminal.clean(cell).ljust(width) for cell, width in zip(cells, (23, 20, 12, 10, 0), strict=True)
    ).rstrip()


def as_text(detail: Any) -> str:
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
