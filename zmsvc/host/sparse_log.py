"""Count refused or dropped things, and log them sparsely: a flood is logged as a line now and then."""

from __future__ import annotations

from collections.abc import Callable


class SparseLog:
    """A counter that calls `log` only for the 1st, 2nd, 4th, 8th, ... event."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self.count = 0

    def add(self, text: str, *arguments: object) -> None:
        """Count an event. The arguments are those of a call of `logging` that describes it."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            self._log(f"{text % arguments} ({self.count} so far)")
