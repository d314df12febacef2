"""The time by which another process has to show that it works."""

from __future__ import annotations

LATE = 0.5
"""Seconds. An observer that looks later than this after the time stood still itself."""


class Deadline:
    """A time at which an observer wants to look. An observer that looks late stood still, and the observed
    process may have stood still with it, as on a machine that was suspended: it then gets its time once more.
    """

    def __init__(self) -> None:
        self.due: float | None = None
        """The time, in seconds of the observer's monotonic clock; None while nothing is expected."""
        self._seconds = 0.0
        self._had_more = False

    def begin(self, now: float, seconds: float) -> None:
        """Expect a sign of life within this time."""
        self.due, self._seconds, self._had_more = now + seconds, seconds, False

    def clear(self) -> None:
        """Expect nothing."""
        self.due = None

    def is_over(self, now: float) -> bool:
        """Return True if the time is over, and the observer looks in time or has given more time already."""
        if self.due is None or now < self.due:
            return False
        if now - self.due <= LATE or self._had_more:
            return True
        self.due, self._had_more = now + self._seconds, True
        return False
