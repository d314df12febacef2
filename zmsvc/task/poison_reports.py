"""The reports of a task about messages that it could not handle. Each goes to the supervisor, which keeps it
in the quarantine of the context.

A task that goes on after such a message may receive any number of them. So it reports up to the rate of
core.poison; the others are counted, and the last of them is reported when the rate allows it.
"""

from __future__ import annotations

import logging
import math
import select
import traceback
from typing import Protocol

from zmsvc.core import poison
from zmsvc.core.errors import ProtocolError
from zmsvc.core.poison import Poison
from zmsvc.host.sparse_log import SparseLog
from zmsvc.task.headline import headline
from zmsvc.task.stop import Stop

ROOM = 1.0
"""Seconds that the report of a task that fails waits for room in the queue of the supervisor."""


class PoisonReporter(Protocol):
    """A receiver of reports: a Notifier, or a terminal."""

    def fileno(self) -> int: ...

    def poison(self, json_text: str) -> bool:
        """Send a report. Return False if the notify socket is full."""


class PoisonReports:
    """The reports of one launch about messages that it could not handle. Only the task's own thread uses
    them.
    """

    def __init__(self, reporter: PoisonReporter, stop: Stop, log: logging.Logger) -> None:
        self._reporter, self._stop, self._log = reporter, stop, log
        self._sparse = SparseLog(log.warning)
        self._count = 0
        self._tokens, self._tokens_at = poison.OWN_BURST, stop.now()
        self._waiting: Poison | None = None
        """The last message, if it is not reported yet."""

    def add(self, frame: bytes, error: BaseException, *, goes_on: bool, where: str) -> None:
        """Report a message that led to this exception. `goes_on` is True if the task goes on after it;
        `where` names the code that has raised it.
        """
        text = "".join(traceback.format_exception(error))
        line = headline(error)[: poison.MAX_TEXT]
        self._count += 1
        self._waiting = found = poison.poison(frame, line, text)
        which = "A message" if found.sequence is None else f"Message {found.sequence}"
        sender = found.sender or "an unknown sender"
        if goes_on:
            self._sparse.add("%s on %s from %s is set aside: %s", which, found.topic, sender, line)
            self.flush(self._stop.now())
        else:
            if not isinstance(error, ProtocolError):  # a ProtocolError names the message itself
                self._log.error(
                    "%s on %s from %s ends this task: %s raised an exception",
                    which,
                    found.topic,
                    sender,
                    where,
                )
            self.finish()

    def flush(self, now: float) -> float:
        """Send the report that waits, if that is due. Return the seconds until the next time."""
        if self._waiting is None:
            return math.inf
        self._tokens = poison.refilled(self._tokens, now - self._tokens_at, poison.OWN_BURST)
        self._tokens_at = now
        if self._tokens >= 1.0 and self._send(self._waiting):
            self._tokens -= 1.0
            self._waiting = None
            return math.inf
        return max((1.0 - self._tokens) / poison.RATE, 1.0 / poison.RATE)

    def finish(self) -> None:
        """Send the report that waits, because the task ends. Wait a while for room."""
        until = self._stop.now() + ROOM
        while self._waiting is not None and not self._send(self._waiting):
            left = until - self._stop.now()
            poller = select.poll()
            poller.register(self._reporter.fileno(), select.POLLOUT)
            if left <= 0 or not poller.poll(round(left * 1000)):
                self._log.error("Cannot report a message that this task could not handle: the queue is full")
                break
        self._waiting = None

    def _send(self, found: Poison) -> bool:
        try:
            return self._reporter.poison(poison.as_json(self._count, found))
        except OSError as error:
            self._log.error("Cannot report a message that this task could not handle: %s", error.strerror)
            return True
