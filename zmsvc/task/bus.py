"""A task process's own connection to the bus: one publisher for all its threads, and a subscriber for each
service that overrides on_control.

Both are created on first use. A task that only reports results needs neither, because its updates go by
sd_notify. That saves the process two threads, ten descriptors, half a megabyte, and a connection to the
device.
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
"""Seconds to wait for the device. After that the task goes on, and libzmq connects when the device starts."""

log = logging.getLogger(__name__)


class Subscription:
    """A subscriber for one thread."""

    def __init__(self, socket: sockets.BareSocket) -> None:
        self._socket = socket

    def fileno(self) -> int:
        """Return a descriptor that becomes readable only when the socket's state changes: poll it after
        `receive` has returned None.
        """
        return sockets.fileno(self._socket)

    def receive(self) -> bytes | None:
        """Return the next message, or None if none waits."""
        try:
            return self._socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None

    def close(self) -> None:
        self._socket.close(0)


class TaskBus:
    """The connection. Any thread may call its methods."""

    def __init__(
        self, publish_endpoint: str, subscribe_endpoint: str, curve: sockets.Curve | None = None
    ) -> None:
        self._publish_endpoint = publish_endpoint
        self._subscribe_endpoint = subscribe_endpoint
        self._curve = curve
        self._lock = threading.RLock()
        self._context: sockets.BareContext | None = None
        self._publisher: sockets.Publisher | None = None
        self._dropped = SparseLog(log.warning)

    def publish(self, frame: bytes) -> bool:
        """Queue a message for the device. Return False if the queue is full: the message is dropped. The
        first call waits for the device.

        Raises RefusedError if the device does not let the task's user connect.
        """
        with self._lock:
            sent = self._connected_publisher().send(frame)
            if not sent:
                self._dropped.add("Cannot publish: the queue to the device is full, a message is dropped")
        return sent

    def subscribe(self, prefixes: Sequence[bytes]) -> Subscription:
        """Return a subscriber that gets every message from now on, provided that the device answers within
        ATTACH seconds.
        """
        # The device forwards every subscription to every publisher. When our publisher receives the
        # subscription to the marker, the device has those to `prefixes` as well: libzmq sends subscriptions
        # in the order of their bytes, and no topic sorts after the marker.
        marker = b"\xff\xffzmsvc.subscriber %d %d" % (os.getpid(), threading.get_ident())
        with self._lock:
            deadline = time.monotonic() + ATTACH
            subscriber = sockets.subscriber(
                self._own_context(), self._subscribe_endpoint, [*prefixes, marker], self._curve
            )
            publisher = self._connected_publisher()
            publisher.expect_subscription(marker)
            while not publisher.has_expected_subscription() and (left := deadline - time.monotonic()) > 0:
                sockets.is_readable(publisher.socket, round(left * 1000) + 1)
        subscriber.set(zmq.UNSUBSCRIBE, marker)
        return Subscription(subscriber)

    def _own_context(self) -> sockets.BareContext:
        if self._context is None:
            self._context = sockets.BareContext()
        return self._context

    def _connected_publisher(self) -> sockets.Publisher:
        if self._publisher is None:
            self._publisher = sockets.Publisher(
                sockets.publisher(self._own_context(), self._publish_endpoint, self._curve)
            )
            if not self._publisher.wait(ATTACH):
                if self._curve is None and refusal.refused(self._publish_endpoint, b"PUB"):
                    raise refusal.refusal(self._publish_endpoint)
                log.warning(
                    "Cannot reach %s within %g s: messages will wait for it", self._publish_endpoint, ATTACH
                )
        return self._publisher

    def close(self) -> None:
        """Send the queued messages for a bounded time, then close. Close all subscribers before this."""
        with self._lock:
            if self._publisher is not None:
                self._publisher.socket.close()
            if self._context is not None:
                self._context.term()
