"""Search the lines of tasks for the patterns by which they are ready.

A search may take exponential time. The pattern comes from the operator and the line from a program, so the
CPU time of each search is limited: other tasks must not wait for it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

from zmsvc.core import logline
from zmsvc.core.ready_line import SEARCHED

LIMIT = 0.5
"""Seconds of CPU time for the lines of one read. On a busy machine this is still shorter than the time in
which the keeper expects the answer to a ping.
"""


class SearchTooLong(Exception):
    """A search has reached its limit."""


class LineSearch:
    """The patterns of all pipes, by their descriptors. It uses SIGVTALRM: Python's `re` looks for signals
    while it searches, and an exception in their handler ends the search.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._patterns: dict[int, re.Pattern[str]] = {}
        self._searching = False
        signal.signal(signal.SIGVTALRM, self._on_limit)

    def add(self, fd: int, pattern: str) -> str:
        """Search the lines of this pipe from here on. Return the reason if that is impossible: the supervisor
        may run on another version of Python.
        """
        try:
            self._patterns[fd] = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            return str(error)
        return ""

    def drop(self, fd: int) -> None:
        """Search no further line of this pipe."""
        self._patterns.pop(fd, None)

    def found(self, fd: int, lines: Iterable[bytes]) -> bool:
        """Return True if the pattern of this pipe occurs in a line; no further line is searched then. Raises
        SearchTooLong, after which no further line is searched either.
        """
        pattern = self._patterns.get(fd)
        if pattern is None:
            return False
        try:
            found = self._any(pattern, lines)
        except SearchTooLong:
            self.drop(fd)
            raise
        if found:
            self.drop(fd)
        return found

    def _any(self, pattern: re.Pattern[str], lines: Iterable[bytes]) -> bool:
        self._searching = True
        signal.setitimer(signal.ITIMER_VIRTUAL, self._limit)
        try:
            return any(pattern.search(_text(line)) for line in lines if not logline.is_record(line))
        finally:
            self._searching = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _on_limit(self, _number: int, _frame: object) -> None:
        # The signal may also arrive when the search has just ended.
        if self._searching:
            self._searching = False
            raise SearchTooLong


def _text(line: bytes) -> str:
    _, text = logline.prefixed(line.rstrip(b"\r"))
    return text[:SEARCHED].decode("utf-8", "replace")
