"""Count refused or dropped things, and log them sparsely: a flood is logged as a line now and then."""

from __future__ import annotations

from collections.abc import Callable


class SparseLog:
    """A counter that passes the 1st, 2nd, 4th, 8th, ... line to `log`."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self.count = 0

    def add(self, text: str, *arguments: object) -> None:
        """Count one more, with a line for it in the form of `logging`."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            self._log(f"{text % arguments} ({self.count} so far)")
