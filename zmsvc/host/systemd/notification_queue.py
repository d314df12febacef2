"""Notifications that wait until their receiver reads again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

MAX_WAITING = 64
"""Notifications. Beyond these the queue drops the oldest STATUS= and WATCHDOG= lines first."""


class NotificationQueue:
    """The notifications that one socket has had no room for, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self.dropped = 0
        """The number of notifications that were dropped because the queue was full."""

    def add(self, notification: str) -> None:
        """Append one notification; the queue drops another one if it is full."""
        if len(self._waiting) >= MAX_WAITING:
            self._drop_oldest_repeatable()
        self._waiting.append(notification)

    def _drop_oldest_repeatable(self) -> None:
        """Drop one notification, if possible a watchdog ping or a status line: those are sent again, while
        READY and STOPPING are not.
        """
        repeatable = next(
            (text for text in self._waiting if text.startswith(("STATUS=", "WATCHDOG="))), self._waiting[0]
        )
        self._waiting.remove(repeatable)
        self.dropped += 1

    def send(self, send: Callable[[str], object]) -> bool:
        """Give the notifications to `send`, which raises BlockingIOError if its socket has no room. Return
        True if some still wait. Raises what `send` raises otherwise.
        """
        try:
            while self._waiting:
                send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            return True
        return False

    def clear(self) -> None:
        """Remove all notifications: their receiver is gone."""
        self._waiting.clear()
