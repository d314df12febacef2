"""Send the results of a task to the supervisor. Each is sent once and unchanged, or the caller is told that
it was not sent.

The supervisor accepts a sustained rate of 1,000 results per second and task. A task that reports faster waits
here for a millisecond with each result, and a task that finds the queue of the supervisor full waits for
room. Meanwhile the watchdog is fed; a stop request ends the wait.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from zmsvc.core import updates
from zmsvc.task.stop import Stop, Stopped

Feed = Callable[[], object]

LAST_WORDS = 1.0
"""Seconds that a result may wait for room after the stop request, for example a result of `close`."""


class UpdateReporter(Protocol):
    """A receiver of results: a Notifier, or a terminal."""

    def fileno(self) -> int: ...

    def update(self, json_text: str, sequence: int) -> bool:
        """Send a result. Return False if the notify socket is full."""


class Updates:
    """The results of one task, from any of its threads."""

    def __init__(self, reporter: UpdateReporter, stop: Stop) -> None:
        self._reporter = reporter
        self._stop = stop
        self._turn = threading.RLock()
        self._sequence = 0
        self._tokens, self._tokens_at = updates.OWN_BURST, stop.now()

    def report(self, items: Mapping[str, Any], *, wait: bool, feed: Feed | None) -> bool:
        """Send a result. Return False if it was not sent: there was no room and `wait` is False, or the task
        is to stop.

        In the task's own thread `feed` feeds the watchdog when that is due; in other threads it is None.
        Raises TypeError and ValueError for invalid items.
        """
        text = updates.as_json(items)
        if feed is None:
            return self._report(text, wait=wait, feed=None)
        # If a signal came between the send and the count, the next result would have the same number, and the
        # supervisor would drop it as a duplicate.
        before, stopping, self._stop.interruptible = self._stop.interruptible, self._stop.requested, False
        try:
            done = self._report(text, wait=wait, feed=feed)
        finally:
            self._stop.interruptible = before
        if before and self._stop.requested and not stopping:
            raise Stopped(0)
        return done

    def _report(self, text: str, *, wait: bool, feed: Feed | None) -> bool:
        # The lock keeps the results of all threads in the order of their numbers.
        while not self._turn.acquire(timeout=0.1 if wait else 0):
            if not wait:
                return False
            if feed is not None:
                feed()
        try:
            if not (self._paced(wait=wait, feed=feed) and self._sent(text, wait=wait, feed=feed)):
                return False
            self._sequence += 1
            self._tokens -= 1.0
            return True
        finally:
            self._turn.release()

    def _paced(self, *, wait: bool, feed: Feed | None) -> bool:
        """Wait until the rate allows one more result. This takes a millisecond at most, so a stop request
        need not end it.
        """
        while True:
            now = self._stop.now()
            self._tokens = min(updates.OWN_BURST, self._tokens + (now - self._tokens_at) * updates.RATE)
            self._tokens_at = now
            if self._tokens >= 1.0:
                return True
            if not wait:
                return False
            if feed is not None:
                feed()
            self._stop.sleep((1.0 - self._tokens) / updates.RATE)

    def _sent(self, text: str, *, wait: bool, feed: Feed | None) -> bool:
        until = self._stop.now() + LAST_WORDS if self._stop.requested else None
        while not self._reporter.update(text, self._sequence + 1):
            if (
                not wait
                or (until is None and self._stop.requested)
                or (until is not None and self._stop.now() >= until)
            ):
                return False
            if self._await_room(until) and feed is not None:
                # Only when there is room: WATCHDOG=1 goes through the same queue.
                feed()
        return True

    def _await_room(self, until: float | None) -> bool:
        """Wait for room or for the stop request; return True if there is room."""
        poll = select.poll()
        poll.register(self._reporter.fileno(), select.POLLOUT)
        if until is None:
            poll.register(self._stop.fd, select.POLLIN)
        left = 1.0 if until is None else max(0.0, until - self._stop.now())
        return any(fd == self._reporter.fileno() for fd, _ in poll.poll(round(left * 1000)))
