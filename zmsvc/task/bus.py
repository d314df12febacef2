"""A task process's own connection to the bus: one publisher for all its threads, and a socket for each
subscription.

Both are created on first use. A task that only reports results needs neither, because its updates go by
sd_notify. That saves the process two threads, ten descriptors, half a megabyte, and a connection to the
device.
"""

from __future__ import annotations

import itertools
import logging
import os
import select
import threading
import time
from collections.abc import Sequence

import zmq

from zmsvc.host.bus import refusal, sockets
from zmsvc.host.sparse_log import SparseLog

ATTACH = 2.0
"""Seconds to wait for the device. After that the task goes on, and libzmq connects when the device starts."""

_DONTWAIT = int(zmq.DONTWAIT)  # the conversion of a member of an enumeration runs Python code

log = logging.getLogger(__name__)


class Subscription:
    """A subscriber for one thread. `bus` receives the device's confirmation of `marker`, which is subscribed
    to last.
    """

    def __init__(self, socket: sockets.BareSocket, marker: bytes, bus: TaskBus) -> None:
        self._socket = socket
        self._marker: bytes | None = marker
        self._bus = bus

    def is_confirmed(self) -> bool:
        """Return True if the device has all of its subscriptions: it loses no message from now on."""
        if self._marker is not None and self._bus.has_subscription(self._marker):
            self._socket.set(zmq.UNSUBSCRIBE, self._marker)
            self._marker = None
        return self._marker is None

    def confirmation_fileno(self) -> int:
        """Return a descriptor that becomes readable when `is_confirmed` may have become True, unless another
        thread of the process uses the bus.
        """
        return self._bus.fileno()

    def await_confirmation(self, seconds: float) -> bool:
        """Wait for the confirmation without looking at the stop request. Return False if it does not come in
        time.
        """
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.confirmation_fileno(), select.POLLIN)
        while not self.is_confirmed():
            left = until - time.monotonic()
            if left <= 0:
                return False
            poll.poll(-(-left * 1000 // 1))
        return True

    def fileno(self) -> int:
        """Return a descriptor that becomes readable only when the socket's state changes: poll it after
        `receive` has returned None.
        """
        return sockets.fileno(self._socket)

    def receive(self) -> bytes | None:
        """Return the next message, or None if none waits."""
        try:
            return self._socket.recv(_DONTWAIT)
        except zmq.Again:
            return None

    def unsubscribe(self, prefix: bytes) -> None:
        """End a subscription to one of its prefixes."""
        self._socket.set(zmq.UNSUBSCRIBE, prefix)

    def is_subscribed(self, prefix: bytes) -> bool:
        """Return True if some client may have subscribed to exactly this prefix."""
        return self._bus.is_subscribed(prefix)

    def subscriptions(self, start: bytes) -> list[bytes]:
        """Return the prefixes of subscriptions that begin with `start`, MAX_KNOWN at most."""
        return self._bus.subscriptions(start)

    def offer(self, frame: bytes) -> bool:
        """Queue a message for the device. Return False, without a log entry, if the queue is full: when there
        is room again, `confirmation_fileno` becomes readable.
        """
        return self._bus.offer(frame)

    def close(self) -> None:
        self._socket.close(0)


class TaskBus:
    """The connection of a task process to the bus. Any thread may call its methods."""

    lossy = True

    def __init__(
        self, publish_endpoint: str, subscribe_endpoint: str, curve: sockets.Curve | None = None
    ) -> None:
        self._publish_endpoint = publish_endpoint
        self._subscribe_endpoint = subscribe_endpoint
        self._curve = curve
        self._lock = threading.RLock()
        self._context: sockets.BareContext | None = None
        self._publisher: sockets.Publisher | None = None
        self._markers = itertools.count()
        self._behind = False
        self._dropped = SparseLog(log.warning)

    def publish(self, frame: bytes) -> bool:
        """Queue a message for the device. Return False if the queue is full: the message is dropped. The
        first call waits for the device.

        Raises RefusedError if the device does not let the task's user connect.
        """
        with self._lock:
            if self._publisher is None or self._behind:
                sent = self.offer(frame)
            else:
                sent = self._publisher.send(frame)
        if not sent:
            self._dropped.add("Cannot publish: the queue to the device is full, a message is dropped")
        return sent

    def offer(self, frame: bytes) -> bool:
        """Queue a message as `publish` does. Return False, without a log entry, if the queue is full."""
        with self._lock:
            if self._behind:
                self._catch_up()
            return self._connected_publisher().send(frame)

    def expect_subscribers(self) -> None:
        """Make the next `publish` wait until this process knows the subscriptions that the device has now. A
        publisher that has not connected yet learns them when it connects.
        """
        with self._lock:
            self._behind = self._publisher is not None

    def _catch_up(self) -> None:
        # The device confirms this subscription after it has forwarded the subscriptions that it already has.
        self._behind = False
        subscription = self.subscribe([])
        try:
            if not subscription.await_confirmation(ATTACH):
                log.warning("The device has not confirmed a subscription within %g s", ATTACH)
        finally:
            subscription.close()

    def subscribe(self, prefixes: Sequence[bytes]) -> Subscription:
        """Return a subscriber that gets every message from the moment on when it is confirmed.

        Raises RefusedError if the device does not let the task's user connect.
        """
        # The device forwards every subscription to every publisher. When our publisher receives the
        # subscription to the marker, the device has those to `prefixes` as well: libzmq sends subscriptions
        # in the order of their bytes, and no topic sorts after the marker.
        marker = b"\xff\xffzmsvc.subscriber %d %d" % (os.getpid(), next(self._markers))
        with self._lock:
            subscriber = sockets.subscriber(
                self._own_context(), self._subscribe_endpoint, [*prefixes, marker], self._curve
            )
            self._connected_publisher().expect_subscription(marker)
        return Subscription(subscriber, marker, self)

    def has_subscription(self, prefix: bytes) -> bool:
        """Return True if the device has this subscription of ours."""
        with self._lock:
            return self._connected_publisher().has_expected_subscription(prefix)

    def is_subscribed(self, prefix: bytes) -> bool:
        """Return True if some client may have subscribed to exactly this prefix."""
        with self._lock:
            return self._connected_publisher().has_subscription(prefix)

    def subscriptions(self, start: bytes) -> list[bytes]:
        """Return the prefixes of subscriptions that begin with `start`, MAX_KNOWN at most."""
        with self._lock:
            publisher = self._connected_publisher()
            publisher.drain()
            return [each for each in publisher.known if each.startswith(start)]

    def fileno(self) -> int:
        """Return the descriptor of the publisher, see `sockets.fileno`."""
        with self._lock:
            return sockets.fileno(self._connected_publisher().socket)

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
