"""Publish over ZeroMQ, for the supervisor, tasks and zmsvcctl. This module also re-exports the other modules'
functions for sockets.

Addresses and listening sockets are in endpoints.py, socket options in socket_options.py, and the publication
of one message by a short-lived process in confirmed_send.py.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left, insort

import zmq

from zmsvc.host.bus.confirmed_send import send_once
from zmsvc.host.bus.curve_keys import Curve, load_curve
from zmsvc.host.bus.endpoints import listen, safe_bind
from zmsvc.host.bus.socket_options import (
    DEVICE_HWM,
    MAX_MESSAGE,
    SENTINEL,
    BareContext,
    BareSocket,
    Context,
    Socket,
    check_size,
    context,
    fileno,
    is_readable,
    parse_subscription,
    publisher,
    subscriber,
)
from zmsvc.host.kernel import linux

__all__ = [
    "DEVICE_HWM",
    "MAX_MESSAGE",
    "SENTINEL",
    "BareSocket",
    "BareContext",
    "Context",
    "Curve",
    "Publisher",
    "Socket",
    "await_device",
    "context",
    "fileno",
    "is_readable",
    "listen",
    "load_curve",
    "publish",
    "publisher",
    "safe_bind",
    "send_once",
    "subscriber",
]


_DONTWAIT = int(zmq.DONTWAIT)  # the conversion of a member of an enumeration runs Python code
DRAIN_BATCH = 1000
"""Subscriptions that a publisher reads at once, in a millisecond or two. A subscriber may send any number of
them.
"""
DRAIN_S = 0.001
"""Seconds in which a publisher reads its subscriptions at most once while it sends."""
MAX_KNOWN = 50_000
"""Prefixes that a publisher remembers. The device disconnects subscribers that send more, see
zmsvc.device.memory_guard.
"""
MAX_KNOWN_BYTES = 4 << 20
TRIM_AFTER = 5_000
"""The number of ended subscriptions after which free memory is returned to the kernel. They may have been a
flood.
"""


def await_device(publisher: BareSocket, timeout_s: float) -> bool:
    """Wait for the device's subscriptions; return False after the timeout. Messages published earlier are
    lost. Call this once, before the first `publish`.
    """
    return is_readable(publisher, round(timeout_s * 1000))


def publish(publisher: BareSocket, frame: bytes) -> bool:
    """Send without blocking. Return False if the queue is full: the message is dropped, and the caller should
    count it.
    """
    check_size(frame)
    # `is_readable` also makes libzmq process the device's receipts. A fast sender that skips them reaches its
    # high-water mark too early.
    for _ in range(DRAIN_BATCH):
        if not is_readable(publisher):
            break
        publisher.recv()
    return _send(publisher, frame)


class Publisher:
    """A long-lived publisher that knows the current subscriptions, so that callers build only messages with a
    subscriber.

    The device forwards the first subscription to a prefix and the end of the last one. A restarted device
    does not forward ends that it has missed. So `has_subscriber` may return True if there is no subscriber,
    but never False if there is one. It also returns True while more subscriptions wait than `drain` reads at
    once, and while there are more than this class remembers.
    """

    def __init__(self, publisher: BareSocket) -> None:
        self.socket = publisher
        self.connected = False
        self.behind = False
        """True if further subscriptions wait after `drain`."""
        self.forgotten = 0
        """Number of subscriptions since the start that were not remembered because there were too many."""
        self._known: set[bytes] = set()
        self._sorted: list[bytes] = []
        self._lengths: dict[int, int] = {}
        """The number of known prefixes of each length. Usually there are few lengths."""
        self._size = 0
        self._unknown = 0
        """Number of subscriptions that were not remembered and have not ended."""
        self._expected: set[bytes] = set()
        self._drained_at = -math.inf
        self._ended = 0
        """Number of subscriptions that ended since the last `_trim_memory`."""

    def drain(self) -> None:
        """Read at most DRAIN_BATCH subscriptions; `behind` is True if more wait. Never blocks."""
        for _ in range(DRAIN_BATCH):
            if not is_readable(self.socket):
                self.behind = False
                if self._ended >= TRIM_AFTER:
                    self._trim_memory()
                return
            subscription = parse_subscription(self.socket.recv())
            if subscription is not None:
                self.connected = True
                self._note(*subscription)
        self.behind = True

    def _note(self, begun: bool, prefix: bytes) -> None:
        if begun:
            self._expected.discard(prefix)
        if begun and prefix not in self._known and prefix != SENTINEL:
            if len(self._known) >= MAX_KNOWN or self._size + len(prefix) > MAX_KNOWN_BYTES:
                self.forgotten += 1
                self._unknown += 1
                return
            self._known.add(prefix)
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
            self._size += len(prefix)
            insort(self._sorted, prefix)
        elif not begun and prefix in self._known:
            self._ended += 1
            self._known.remove(prefix)
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]
            self._size -= len(prefix)
            del self._sorted[bisect_left(self._sorted, prefix)]
        elif not begun and self._unknown:
            self._ended += 1
            self._unknown -= 1

    def _trim_memory(self) -> None:
        """Return memory to the kernel after a flood: the tree of libzmq and our set are small again, but
        malloc and the set keep their pages.
        """
        self._ended = 0
        self._known = set(self._known)
        linux.trim_heap()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the device has sent its subscriptions; return False if it did not in time."""
        if not self.connected:
            is_readable(self.socket, round(timeout_s * 1000))
            self.drain()
        return self.connected

    @property
    def known(self) -> tuple[bytes, ...]:
        """The prefixes of the current subscriptions, as far as they have been read."""
        return tuple(self._sorted)

    def has_subscriber(self, prefix: bytes) -> bool:
        """Return True if there may be a subscriber to a message that begins with `prefix`."""
        self.drain()
        if self.behind or self._unknown:
            return True
        at = bisect_left(self._sorted, prefix)
        if at < len(self._sorted) and self._sorted[at].startswith(prefix):
            return True
        lengths = self._lengths if len(self._lengths) < len(prefix) else range(len(prefix))
        return any(length < len(prefix) and prefix[:length] in self._known for length in lengths)

    def has_subscription(self, prefix: bytes) -> bool:
        """Return True if there may be a subscription to exactly this prefix."""
        self.drain()
        return self.behind or self._unknown > 0 or prefix in self._known

    def expect_subscription(self, prefix: bytes) -> None:
        """Make `has_expected_subscription` return True once the device has sent this subscription, however
        many others it sends.
        """
        if prefix not in self._known:
            self._expected.add(prefix)

    def progress(self) -> str:
        """Return the state of the connection and the number of subscriptions, for a message."""
        if not self.connected:
            return "it has sent no subscription"
        return f"it has sent {len(self._known)} subscriptions without the expected one"

    def has_expected_subscription(self, prefix: bytes) -> bool:
        """Read what waits, and return True if this expected subscription has arrived."""
        if prefix in self._expected:
            self.drain()
        return prefix not in self._expected

    def send(self, frame: bytes) -> bool:
        """Send without blocking; return False if the queue is full and the message is dropped."""
        if len(frame) > MAX_MESSAGE:
            check_size(frame)
        # Reading subscriptions takes five times as long as sending, so the message goes first. libzmq itself
        # looks for new subscriptions before it sends, at most once in 1 ms.
        try:
            self.socket.send(frame, _DONTWAIT)
            sent = True
        except zmq.Again:
            sent = False
        now = time.monotonic()
        if not sent or now >= self._drained_at + DRAIN_S:
            self._drained_at = now
            self.drain()
        # The receipts of the device make room.
        return sent or _send(self.socket, frame)


def _send(publisher: BareSocket, frame: bytes) -> bool:
    try:
        publisher.send(frame, _DONTWAIT)
    except zmq.Again:
        return False
    return True
