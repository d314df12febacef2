"""A task process's own connection to the bus: one mouth for all its threads, and an ear for each service that
listens.

Both are made when they are needed first. A task that only reports results needs neither: its updates go by
sd_notify. Without them a process has two threads, ten descriptors and half a megabyte less, and a connection
less at the device.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence

import zmq

from zmsvc.host.bus import refusal, sockets
from zmsvc.host.sparse_log import SparseLog

ATTACH = 2.0
"""Seconds to wait for the device; the task goes on without it, and libzmq connects when it is there."""

log = logging.getLogger(__name__)


class Subscription:
    """A subscriber for one thread."""

    def __init__(self, socket: sockets.Bare) -> None:
        self._socket = socket

    def fileno(self) -> int:
        """Becomes readable at a change only: poll it after `receive` gave None."""
        return sockets.fileno(self._socket)

    def receive(self) -> bytes | None:
        """The next message, or None when there is none now."""
        try:
            return self._socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None

    def close(self) -> None:
        self._socket.close(0)


class Bus:
    """The connection; `publish` may be called from any thread."""

    def __init__(self, backend: str, frontend: str, curve: sockets.Curve | None = None) -> None:
        self._backend = backend
        self._frontend = frontend
        self._curve = curve
        self._lock = threading.RLock()
        self._context: sockets.BareContext | None = None
        self._mouth: sockets.Publisher | None = None
        self._dropped = SparseLog(log.warning)

    def publish(self, frame: bytes) -> bool:
        """Hand a message to the device's queue; False: the queue is full, it is dropped. The first call waits
        for the device.

        Raises RefusedError when the device lets the task's user not connect.
        """
        with self._lock:
            sent = self._speak().send(frame)
            if not sent:
                self._dropped.add("Cannot publish: the queue to the device is full, a message is dropped")
        return sent

    def ear(self, prefixes: Sequence[bytes]) -> Subscription:
        """A subscriber that hears everything from now on, as far as the device is there within ATTACH
        seconds.
        """
        # Our own publisher is told of every subscription that the device knows, so we know when it knows
        # ours. libzmq sends them in the order of their bytes: this one, which no topic can be, comes after
        # `prefixes`.
        mark = b"\xff\xffzmsvc.ear %d %d" % (os.getpid(), threading.get_ident())
        with self._lock:
            until = time.monotonic() + ATTACH
            made = sockets.subscriber(self._own_context(), self._frontend, [*prefixes, mark], self._curve)
            mouth = self._speak()
            mouth.await_told(mark)
            while not mouth.told() and (left := until - time.monotonic()) > 0:
                sockets.readable(mouth.socket, round(left * 1000) + 1)
        made.set(zmq.UNSUBSCRIBE, mark)
        return Subscription(made)

    def _own_context(self) -> sockets.BareContext:
        if self._context is None:
            self._context = sockets.BareContext()
        return self._context

    def _speak(self) -> sockets.Publisher:
        if self._mouth is None:
            self._mouth = sockets.Publisher(
                sockets.publisher(self._own_context(), self._backend, self._curve)
            )
            if not self._mouth.wait(ATTACH):
                if self._curve is None and refusal.refused(self._backend, b"PUB"):
                    raise refusal.refusal(self._backend)
                log.warning("Cannot reach %s within %g s: messages will wait for it", self._backend, ATTACH)
        return self._mouth

    def close(self) -> None:
        """Send what is unsent, for a bounded time. All ears must be closed."""
        with self._lock:
            if self._mouth is not None:
                self._mouth.socket.close()
            if self._context is not None:
                self._context.term()
