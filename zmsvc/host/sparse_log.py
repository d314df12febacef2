"""Counts what is refused or dropped, and logs it sparsely: the first ones in full, a flood in a line now
and then.
"""

from __future__ import annotations

from collections.abc import Callable


class SparseLog:
    """A count. Each is told to `say` whose number is a power of two."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.count = 0

    def add(self, text: str, *arguments: object) -> None:
        """One more, and why (as for `logging`)."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            self._say(f"{text % arguments} ({self.count} so far)")
