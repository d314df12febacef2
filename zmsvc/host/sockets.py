"""Sockets: how device, supervisor, tasks and CLI publish and subscribe. This is the door to ZMQ; what it is made of lies beside it:
endpoints.py (addresses and listening sockets), options.py (every option of every socket), once.py (a message from a short-lived process).
"""

from __future__ import annotations

from bisect import bisect_left, insort

import zmq

from zmsvc.host.endpoints import listen, safe_bind
from zmsvc.host.keys import Curve, load_curve
from zmsvc.host.once import send_once
from zmsvc.host.options import (
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
)

__all__ = [
    "DEVICE_HWM", "MAX_MESSAGE", "Bare", "BareContext", "Context", "Curve", "Mouth", "Socket", "attached", "context", "fileno", "listen",
    "load_curve", "publish", "publisher", "readable", "safe_bind", "send_once", "subscriber",
]  # fmt: skip


def attached(publisher: Bare, timeout_s: float) -> bool:
    """Wait until the device's subscriptions arrive; what is published before is lost. Call it once, before the first `publish`."""
    return readable(publisher, round(timeout_s * 1000))


def publish(publisher: Bare, frame: bytes) -> bool:
    """Send without blocking. False: the queue is full, the message is dropped, and the caller should count it."""
    check_size(frame)
    # Asking also makes libzmq read the device's receipts, which a fast sender skips and then hits its mark too early.
    while readable(publisher):
        publisher.recv()
    return _send(publisher, frame)


class Mouth:
    """A long-lived publisher that knows which subscriptions there are, so that nobody need build a message that nobody wants.

    The device passes on the first subscription to a prefix and the last end of one. After a restart of the device ends that it
    missed are never told: `wants` may say yes for nothing, never no for something.
    """

    def __init__(self, publisher: Bare) -> None:
        self.socket = publisher
        self.attached = False
        self._known: set[bytes] = set()
        self._sorted: list[bytes] = []

    def drain(self) -> None:
        """Take in what the device has told. Does not block."""
        while readable(self.socket):
            told = self.socket.recv()
            self.attached = True
            match told[:1], told[1:]:
                case _, topic if topic == SENTINEL:
                    pass
                case b"\x01", topic if topic not in self._known:
                    self._known.add(topic)
                    insort(self._sorted, topic)
                case b"\x00", topic if topic in self._known:
                    self._known.remove(topic)
                    del self._sorted[bisect_left(self._sorted, topic)]

    def wait(self, timeout_s: float) -> bool:
        """Wait until the device has told its subscriptions; False: it did not in time."""
        if not self.attached:
            readable(self.socket, round(timeout_s * 1000))
            self.drain()
        return self.attached

    def wants(self, prefix: bytes) -> bool:
        """Whether somebody may want a message that starts with `prefix`."""
        self.drain()
        at = bisect_left(self._sorted, prefix)
        if at < len(self._sorted) and self._sorted[at].startswith(prefix):
            return True
        return any(prefix[:length] in self._known for length in range(len(prefix)))

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
