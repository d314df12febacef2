"""Pass notifications of the supervisor on to systemd. The main process of the unit sends them, so
NotifyAccess=main is enough. The keeper never waits for systemd.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable

from zmsvc.host.complain import complain
from zmsvc.host.systemd.notification_queue import NotificationQueue
from zmsvc.host.systemd.notify import socket_address
from zmsvc.keeper.dispatcher import WRITE, Dispatcher

LONGEST = select.PIPE_BUF - 1
"""Bytes. systemd drops a longer notification as a whole: NOTIFY_BUFFER_MAX in its core/manager.c."""
_OWN = "X_ZMSVC_"
"""The start of the keys of lines that only the keeper reads."""


class Relay:
    """A connection to systemd's notify socket. Without an address it drops everything."""

    def __init__(self, address: str | None, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._queue = NotificationQueue()
        self._sock: socket.socket | None = None
        if address:
            sock = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
            try:
                sock.connect(socket_address(address))
                self._sock = sock
            except OSError:
                sock.close()

    def pass_on(self, lines: Iterable[tuple[str, str]]) -> None:
        """Send the lines of a notification that are for systemd. If they are too long for it, each one is
        sent alone, and cut.
        """
        texts = [f"{name}={value}" for name, value in lines if not name.startswith(_OWN)]
        if not texts:
            return
        if len("\n".join(texts).encode(errors="replace")) <= LONGEST:
            self.send("\n".join(texts))
        else:
            for text in texts:
                self.send(text.encode(errors="replace")[:LONGEST].decode(errors="ignore"))

    def send(self, text: str) -> None:
        """Send a notification of at most LONGEST bytes."""
        if self._sock is None:
            return
        self._queue.add(text)
        self._flush()

    def _flush(self) -> None:
        assert self._sock is not None
        sock = self._sock
        try:
            waits = self._queue.send(lambda text: sock.send(text.encode(errors="replace")))
        except OSError:
            # systemd has closed its socket. There is no other way to notify it, and the tasks matter more.
            self._queue.clear()
            waits = False
        if not waits and self._queue.dropped:
            complain(f"zmsvcd: {self._queue.dropped} notifications were dropped while systemd did not read")
            self._queue.dropped = 0
        fd = sock.fileno()
        if waits and not self._dispatcher.watched(fd):
            self._dispatcher.watch(fd, self._flush, events=WRITE)
        elif not waits and self._dispatcher.watched(fd):
            self._dispatcher.unwatch(fd)
