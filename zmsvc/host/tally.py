"""Counts what is refused or dropped, and logs it sparsely: the first ones in full, a flood in a line now and then."""

from __future__ import annotations

import logging


class Tally:
    """A count. Each is logged whose number is a power of two."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self.count = 0

    def add(self, text: str, *arguments: object) -> None:
        """One more, and why (as for `logging`)."""
        self.count += 1
        if self.count & (self.count - 1) == 0:
            self._log.warning(f"{text} (%d so far)", *arguments, self.count)
