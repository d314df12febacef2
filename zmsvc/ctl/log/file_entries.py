"""The entries of the daemon's log file, by the heads of their lines, and the filters that journalctl has."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from pathlib import Path
from typing import IO

from zmsvc.core import logline
from zmsvc.core.errors import PlaceError, UsageError
from zmsvc.core.replicas import is_named
from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.ctl.log.log_directory import LogDirectory
from zmsvc.host.log_file import stamp

TAIL = 1 << 20
"""Bytes at the end of a log file that are searched for the last lines of a task."""
LATE = 1000
"""The number of entries that may stand before an entry although they are later."""
FOLLOWED = 10
"""Entries that `-f` shows first, as journalctl and tail do."""


class LogEntry:
    """One entry: its lines as in the file. A file may begin in the middle of an entry, which then has no
    head.
    """

    __slots__ = ("head", "lines")

    def __init__(self, head: logline.EntryHead | None, line: str) -> None:
        self.head = head
        self.lines = [line]

    @property
    def message(self) -> str:
        """The text without head and indents."""
        first = self.lines[0][self.head.size :] if self.head else self.lines[0]
        return "".join([first, *(line.removeprefix(logline.INDENT) for line in self.lines[1:])]).removesuffix(
            "\n"
        )


Test = Callable[[LogEntry], bool]


class EntryFilter:
    """A filter of entries: by transaction and task, time, priority and text."""

    def __init__(
        self,
        transaction: str | None,
        tasks: Sequence[str],
        *,
        since: str | None = None,
        until: str | None = None,
        priority: str | None = None,
        grep: str | None = None,
    ) -> None:
        """Raises UsageError."""
        self.transaction = transaction
        self.tasks = tasks
        self._grep = grep
        self.tests: list[Test] = [self._is_about] if transaction is not None or tasks else []
        self._add_times(since, until)
        self._allowed: range | None = None
        if priority is not None:
            # Imported here for start-up time: it needs datetime, and most calls have neither a time nor a
            # priority.
            from zmsvc.ctl.log import time_ranges

            self._allowed = allowed = time_ranges.priorities(priority)
            self.tests.append(lambda entry: entry.head is not None and entry.head.priority in allowed)
        if grep is not None:
            pattern = _pattern(grep)
            self.tests.append(lambda entry: pattern.search(entry.message) is not None)

    def _add_times(self, since: str | None, until: str | None) -> None:
        self._since = self._until = None
        if since is None and until is None:
            return
        from zmsvc.ctl.log import time_ranges  # As above.

        low = self._since = None if since is None else time_ranges.moment(since)
        high = self._until = None if until is None else time_ranges.moment(until)
        if low is not None and high is not None and low > high:
            raise UsageError("--since must be before --until")

        def in_time(entry: LogEntry) -> bool:
            at = time_ranges.stamped(entry.head.stamp) if entry.head else 0.0
            return (low is None or at >= low) and (high is None or at <= high)

        self.tests.append(in_time)

    def _is_about(self, entry: LogEntry) -> bool:
        head = entry.head
        return (
            head is not None
            and self.transaction in (None, head.transaction)
            and (not self.tasks or is_named(head.task, self.tasks))
        )

    def pick(self, entries: Iterable[LogEntry]) -> Iterator[LogEntry]:
        """Yield the entries that pass the filter."""
        tests = self.tests
        return (entry for entry in entries if all(test(entry) for test in tests))

    def query(self, path: str) -> str:
        """Return a command that finds the same lines."""
        if not self.tests:
            return f"cat {shlex.quote(path)}"
        conditions = []
        # awk's patterns need a backslash before a slash.
        task = rf"\/({self._any_task()})(@[0-9]+)?" if self.tasks else r"(\/[^ ]+)?"
        whose = f"{_literal(self.transaction) if self.transaction else '[^ ]+'}{task} "
        levels = (
            "|".join(logline.NAMES[number] for number in self._allowed)
            if self._allowed is not None
            else "[A-Z]+"
        )
        if self.transaction is not None or self.tasks:
            conditions.append(f"$0 ~ /^[^ ]+ .*\\[[0-9]+\\] {whose}({levels}): /")
        elif self._allowed is not None:
            conditions.append(f"$0 ~ /^[^ ]+ .*\\[[0-9]+\\] ([^ ]+ )?({levels}): /")
        for sign, at in ((">=", self._since), ("<=", self._until)):
            if at is not None:
                # Time stamps of one zone sort like text.
                conditions.append(f'$1 {sign} "{stamp(at)}"')
        if self._grep is not None:
            text, pattern = ("$0", self._grep) if _sensitive(self._grep) else ("tolower($0)", self._grep)
            conditions.append(f"{text} ~ /{pattern.replace('/', chr(92) + '/')}/")
        program = f"/^[0-9]+-[0-9]+-[0-9]+T/ {{ shown = {' && '.join(conditions)} }} shown"
        return f"awk {shlex.quote(program)} {shlex.quote(path)}"

    def _any_task(self) -> str:
        return "|".join(map(_literal, self.tasks))


def _literal(name: str) -> str:
    return name.replace(".", "[.]")


def _sensitive(pattern: str) -> bool:
    """Return True if the pattern has a capital letter. As in journalctl, other patterns ignore case."""
    return any(char.isupper() for char in pattern)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, 0 if _sensitive(text) else re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"cannot use the pattern {text!r}: {error}") from None


# --- reading


def entries(lines: Iterable[str]) -> Iterator[LogEntry]:
    """Group lines into entries."""
    current: LogEntry | None = None
    for line in lines:
        head = logline.head(line)
        if head is None and current is not None:
            current.lines.append(line)
            continue
        if current is not None:
            yield current
        current = LogEntry(head, line)
    if current is not None:
        yield current


def in_order(picked: Iterable[LogEntry]) -> Iterator[LogEntry]:
    """Yield the entries by their times. Several processes write the file, and an entry of one may come after
    a later entry of another. Entries with stamps of another zone, as at the end of daylight saving time, are
    not compared with those before them.
    """
    waiting: list[tuple[str, int, LogEntry]] = []
    last, zone = "", ""
    for number, entry in enumerate(picked):
        last = entry.head.stamp if entry.head else last
        if last[-5:] != zone:
            yield from (each for *_, each in sorted(waiting))
            waiting, zone = [], last[-5:]
        heappush(waiting, (last, number, entry))
        if len(waiting) > LATE:
            yield heappop(waiting)[-1]
    yield from (each for *_, each in sorted(waiting))


def texts(file: Iterable[bytes]) -> Iterator[str]:
    return (line.decode(errors="replace") for line in file)


def end_of(file: IO[bytes]) -> list[str]:
    """Return the last lines of a file, each with its end."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
    return file.read(TAIL).decode(errors="replace").splitlines(keepends=True)


Formatter = Callable[[LogEntry], list[str]]


def line_formatter(output: str | None) -> Formatter:
    """Return a function that formats an entry: for `cat` the text alone, for `json` an object with the
    journal's field names, else the unchanged lines.
    """
    if output == "cat":
        return lambda entry: [f"{entry.message}\n"]
    if output in ("json", "json-pretty"):
        return _json
    return lambda entry: entry.lines


def _json(entry: LogEntry) -> list[str]:
    found = {"MESSAGE": entry.message}
    if (head := entry.head) is not None:
        from zmsvc.ctl.log import time_ranges  # As above.

        found |= {
            "__REALTIME_TIMESTAMP": str(round(time_ranges.stamped(head.stamp) * 1e6)),
            "PRIORITY": str(head.priority),
        }
        found |= {"SYSLOG_IDENTIFIER": head.identifier, "SYSLOG_PID": str(head.pid)}
        found |= {"ZMSVC_TRANSACTION": head.transaction} if head.transaction else {}
        found |= {"ZMSVC_TASK": head.task} if head.task else {}
    return [json.dumps(found) + "\n"]


def show(
    path: str,
    owner: int,
    selection: EntryFilter,
    *,
    lines: int | None,
    reverse: bool,
    follow: bool,
    pager: bool,
    output: str | None,
) -> int:
    """Print the last `lines` entries that pass the filter, of the file of user `owner`; with `follow` also
    new ones.
    """
    formatter = line_formatter(output)
    count = FOLLOWED if follow and lines is None else lines
    try:
        with LogDirectory(Path(path), owner) as log, log.open() as file:
            picked = in_order(selection.pick(entries(texts(file))))
            shown = "".join(_last(picked, formatter, count, reverse=reverse))
            if not follow:
                terminal.page(shown, wanted=pager)
                return 0
            terminal.out(shown, flush=True)
            _follow(log.follow(file), selection, formatter)
    except KeyboardInterrupt:
        return 0  # Ctrl-C is a normal end.
    except PlaceError as error:
        raise CtlError(1, f"cannot read the log: {error}") from None
    except BrokenPipeError:
        raise  # The reader of standard output has gone. The log itself has no fault.
    except OSError as error:
        way = " (root and the daemon's user may)" if isinstance(error, PermissionError) else ""
        raise CtlError(1, f"cannot read {path}: {(error.strerror or str(error)).lower()}{way}") from None
    return 0


def _last(picked: Iterable[LogEntry], formatter: Formatter, count: int | None, *, reverse: bool) -> list[str]:
    last = deque(picked, count)
    # The lines of an entry keep their order, even if the newest entry comes first.
    return [line for entry in (reversed(last) if reverse else last) for line in formatter(entry)]


def _follow(lines: Iterable[bytes], selection: EntryFilter, formatter: Formatter) -> None:
    """Print each line when it arrives. A pattern is searched in the first line of an entry, because the
    others may arrive later.
    """
    going_on = not selection.tests
    for line in texts(lines):
        entry = LogEntry(logline.head(line), line)
        if entry.head is not None:
            going_on = any(selection.pick([entry]))
        if going_on:
            terminal.out("".join(formatter(entry)), flush=True)
