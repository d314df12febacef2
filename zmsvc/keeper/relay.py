"""What the supervisor tells systemd goes through the keeper, under the main PID: NotifyAccess=main is
enough. It never blocks.
"""

from __future__ import annotations

import socket
from collections import deque

from zmsvc.keeper.dispatcher import WRITE, Dispatcher

MAX_WAITING = 64
"""Notifications that wait for a systemd that does not read; the oldest STATUS= lines are the ones to lose."""


class Relay:
    """A line upwards; without an address it takes everything and does nothing."""

    def __init__(self, address: str | None, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._waiting: deque[bytes] = deque()
        self._sock: socket.socket | None = None
        if address:
            sock = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
            try:
                sock.connect("\0" + address[1:] if address.startswith("@") else address)
                self._sock = sock
            except OSError:
                sock.close()

    def say(self, text: str) -> None:
        if self._sock is None:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._drop_one()
        self._waiting.append(text.encode(errors="replace"))
        self._flush()

    def _drop_one(self) -> None:
        """Watchdog pings and status lines are told again; READY and STOPPING are not."""
        again = next(
            (text for text in self._waiting if text.startswith((b"STATUS=", b"WATCHDOG="))), self._waiting[0]
        )
        self._waiting.remove(again)

    def _flush(self) -> None:
        assert self._sock is not None
        try:
            while self._waiting:
                self._sock.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:
            # Nobody is there any more: a keeper has no other way to tell, and its tasks matter more.
            self._waiting.clear()
        fd = self._sock.fileno()
        if self._waiting and not self._dispatcher.watched(fd):
            self._dispatcher.watch(fd, self._flush, events=WRITE)
        elif not self._waiting and self._dispatcher.watched(fd):
            self._dispatcher.unwatch(fd)
