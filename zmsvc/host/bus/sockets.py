"""The sockets of ZeroMQ by which device, supervisor, tasks and zmsvcctl publish and subscribe.

Addresses and listening sockets are in endpoints.py, the options of each socket in socket_options.py, and the
message of a process that ends right after it in confirmed_send.py.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import zmq

from zmsvc.host.bus.confirmed_send import send_once
from zmsvc.host.bus.curve_keys import Curve, load_curve
from zmsvc.host.bus.endpoints import listen, safe_bind
from zmsvc.host.bus.socket_options import (
    DEVICE_HWM,
    MAX_MESSAGE,
    SENTINEL,
    Bare,
    BareContext,
    Context,
    Socket,
    check_size,
    context,
    fileno,
    publisher,
    readable,
    subscriber,
    told,
)
from zmsvc.host.kernel import linux

__all__ = [
    "DEVICE_HWM",
    "MAX_MESSAGE",
    "Bare",
    "BareContext",
    "Context",
    "Curve",
    "Publisher",
    "Socket",
    "attached",
    "context",
    "fileno",
    "listen",
    "load_curve",
    "publish",
    "publisher",
    "readable",
    "safe_bind",
    "send_once",
    "subscriber",
]


TOLD = 1000
"""Subscriptions that a publisher takes in at once, in a millisecond or two: any subscriber can tell it as
many as it likes.
"""
MAX_KNOWN = 50_000
"""Subscriptions that it remembers; the device cuts off who makes more of them, see zmsvc.device.guard."""
MAX_KNOWN_BYTES = 4 << 20
GIVE_BACK = 5_000
"""Ends of subscriptions after which memory is given back, for they may have been a flood's."""


def attached(publisher: Bare, timeout_s: float) -> bool:
    """Wait until the device's subscriptions arrive; what is published before is lost. Call it once, before
    the first `publish`.
    """
    return readable(publisher, round(timeout_s * 1000))


def publish(publisher: Bare, frame: bytes) -> bool:
    """Send without blocking. False: the queue is full, the message is dropped, and the caller should count
    it.
    """
    check_size(frame)
    # Asking also makes libzmq read the device's receipts, which a fast sender skips and then hits its mark
    # too early.
    for _ in range(TOLD):
        if not readable(publisher):
            break
        publisher.recv()
    return _send(publisher, frame)


class Publisher:
    """A long-lived publisher that knows which subscriptions there are, so that nobody need build a message
    that nobody wants.

    The device passes on the first subscription to a prefix and the last end of one. After a restart of the
    device ends that it missed are never told: `wants` may say yes for nothing, never no for something. So it
    does while more is told than it takes at once, and while there are more subscriptions than it remembers.
    """

    def __init__(self, publisher: Bare) -> None:
        self.socket = publisher
        self.attached = False
        self.behind = False
        """The device has told more than `drain` has taken."""
        self.forgotten = 0
        """Subscriptions, counted from the start, that were not remembered because there were too many."""
        self._known: set[bytes] = set()
        self._sorted: list[bytes] = []
        self._size = 0
        self._unknown = 0
        """Of those that were not remembered, how many have not been ended."""
        self._awaited: bytes | None = None
        self._ended = 0
        """Subscriptions that ended since memory was given back."""

    def drain(self) -> None:
        """Take in what the device has told, TOLD subscriptions at most: `behind` says whether more
        wait. Does not block.
        """
        for _ in range(TOLD):
            if not readable(self.socket):
                self.behind = False
                if self._ended >= GIVE_BACK:
                    self._give_back()
                return
            subscription = told(self.socket.recv())
            if subscription is not None:
                self.attached = True
                self._note(*subscription)
        self.behind = True

    def _note(self, begun: bool, prefix: bytes) -> None:
        if begun and prefix == self._awaited:
            self._awaited = None
        if begun and prefix not in self._known and prefix != SENTINEL:
            if len(self._known) >= MAX_KNOWN or self._size + len(prefix) > MAX_KNOWN_BYTES:
                self.forgotten += 1
                self._unknown += 1
                return
            self._known.add(prefix)
            self._size += len(prefix)
            insort(self._sorted, prefix)
        elif not begun and prefix in self._known:
            self._ended += 1
            self._known.remove(prefix)
            self._size -= len(prefix)
            del self._sorted[bisect_left(self._sorted, prefix)]
        elif not begun and self._unknown:
            self._ended += 1
            self._unknown -= 1

    def _give_back(self) -> None:
        """After a flood the nodes of libzmq's tree and our own are free, but malloc and the set keep their
        pages.
        """
        self._ended = 0
        self._known = set(self._known)
        linux.give_back()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the device has told its subscriptions; False: it did not in time."""
        if not self.attached:
            readable(self.socket, round(timeout_s * 1000))
            self.drain()
        return self.attached

    def wants(self, prefix: bytes) -> bool:
        """Whether somebody may want a message that starts with `prefix`."""
        self.drain()
        if self.behind or self._unknown:
            return True
        at = bisect_left(self._sorted, prefix)
        if at < len(self._sorted) and self._sorted[at].startswith(prefix):
            return True
        return any(prefix[:length] in self._known for length in range(len(prefix)))

    def await_told(self, prefix: bytes) -> None:
        """Have `told` say when the device has told this one subscription, however many it tells beside."""
        self._awaited = None if prefix in self._known else prefix

    def told(self) -> bool:
        """Whether it has been told; takes in what waits."""
        if self._awaited is not None:
            self.drain()
        return self._awaited is None

    def send(self, frame: bytes) -> bool:
        """Send without blocking; False: dropped, because the queue is full."""
        self.drain()
        check_size(frame)
        return _send(self.socket, frame)


def _send(publisher: Bare, frame: bytes) -> bool:
    try:
        publisher.send(frame, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True
