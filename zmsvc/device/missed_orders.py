"""MissedOrders: counts the orders that reach the device while no supervisor hears them, and tells the next
one how many there were.

It is a peer of the device within its own process, so nothing is looked at on the way from publishers to
subscribers. A supervisor is there while somebody subscribes to `unheard.ORIGIN`, ORIGIN being the mark of its
own messages, which are no orders to it.
"""

from __future__ import annotations

from typing import Protocol

import zmq

from zmsvc.core import messages
from zmsvc.core.access import BUS
from zmsvc.core.errors import ProtocolError
from zmsvc.host.bus import socket_options
from zmsvc.host.bus.socket_options import Context, Socket, is_readable

TOLD = 1000
"""Subscriptions that are taken at once, in some 2 ms, before the guard, connections and signals have their
turn again.
"""
TAKEN = 1000
"""The same of messages."""
MAX_ORDER = 1 << 20
"""Bytes of a message that is looked into; a longer one is not counted. It takes 10 ms, and none waits here
for a supervisor.
"""
_FRONT, _BACK = "inproc://front", "inproc://back"


class SubscriptionCounter(Protocol):
    """Takes how many subscriptions began or ended, how many more there are by that, of how many bytes, and
    whether more may wait.
    """

    def __call__(self, changes: int, subscriptions: int, size: int, *, more: bool) -> None: ...


class MissedOrders:
    """To be made before the proxy runs and before the first subscription, since from then on only the proxy
    may touch its sockets.

    The device calls `connect` when everything else is ready.
    """

    def __init__(self, ctx: Context, front: Socket, back: Socket) -> None:
        front.bind(_FRONT)
        back.bind(_BACK)
        self.count = 0
        self._present: set[bytes] = set()
        self._origin = ""
        # libzmq lets any type connect by inproc. An XPUB would take in all that waits before `recv` returns
        # the first, and what comes meanwhile, too: in a flood 0.7 s in which the guard has no turn. And it
        # would keep a tree of what nobody asks it for.
        self._ear, self._mouth = ctx.socket(zmq.SUB), ctx.socket(zmq.PAIR)
        for peer in (self._ear, self._mouth):
            peer.set_hwm(socket_options.CLIENT_HWM)
            peer.setsockopt(zmq.LINGER, 0)
        # Before the first subscription: what there is when a peer connects is told in another form.
        self._mouth.connect(_FRONT)

    @property
    def sockets(self) -> tuple[Socket, Socket]:
        """What to wait for before calling `take`."""
        return self._ear, self._mouth

    def connect(self) -> None:
        for topic in ("context", "process"):
            self._ear.subscribe(messages.prefix(topic))
        self._ear.connect(_BACK)

    def take(self, count: SubscriptionCounter) -> bool:
        """Take in who subscribes now and what was ordered; does not block. Returns whether subscriptions
        were told.

        `count` is called with their changes, how many more subscriptions and bytes of them that makes, and
        whether more may wait. What is beyond TOLD and TAKEN waits for the next call, and is announced again.
        """
        changes = more = size = 0
        for _ in range(TOLD):
            try:
                subscription = socket_options.parse_subscription(self._mouth.recv(zmq.DONTWAIT))
            except zmq.Again:
                break
            changes += 1
            if subscription is None:
                # It goes to each publisher as a subscription does, so it counts as a change.
                continue
            begun, prefix = subscription
            sign = 1 if begun else -1
            more, size = more + sign, size + sign * len(prefix)
            if prefix.startswith(messages.MISSED_ORDERS):
                self._note(begun, prefix)
        if changes:
            count(changes, more, size, more=changes == TOLD)
        self._hear(TAKEN)
        return changes > 0

    def _note(self, there: bool, prefix: bytes) -> None:
        """A supervisor has come, or is gone."""
        if not there:
            self._present.discard(prefix)
            return
        topic = prefix.removesuffix(messages.SEPARATOR).decode("utf-8", "replace")
        self._origin = topic.rpartition(".")[2]
        # What waits came before it was there, but for what came in the moment since the proxy let it in.
        self._hear()
        self._present.add(prefix)
        self._tell(topic)

    def _hear(self, most: int = 1_000_000) -> None:
        for _ in range(most):
            if not is_readable(self._ear):
                return
            frame = self._ear.recv(copy=False)
            if not self._present and len(frame) <= MAX_ORDER and self._is_order(frame.bytes):
                self.count += 1

    def _is_order(self, frame: bytes) -> bool:
        try:
            topic, body = messages.decode(frame)
            if body.get("header", {}).get("origin") == self._origin:
                return False
            return messages.order(topic, body).action in BUS.get(topic, ())
        except ProtocolError:
            return False

    def _tell(self, topic: str) -> None:
        if self.count:
            try:
                self._mouth.send(messages.encode(topic, messages.missed_orders(self.count)), zmq.DONTWAIT)
            except zmq.Again:
                return  # The proxy is behind; the next supervisor is told.
            self.count = 0

    def close(self) -> None:
        for peer in self.sockets:
            peer.close(0)
