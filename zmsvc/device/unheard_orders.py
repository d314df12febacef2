"""Count the orders that reach the device while no supervisor is subscribed, and report the number to the next
supervisor.

This is a peer of the proxy within the device's process, so it does not delay messages on their way from
publishers to subscribers. A supervisor is present while a subscription to `unheard.ORIGIN` exists. ORIGIN is
the `origin` in the header of the messages that the supervisor itself publishes: messages with the
supervisor's origin are the context's own and do not count as orders.
"""

from __future__ import annotations

from typing import Protocol

import zmq

from zmsvc.core import messages
from zmsvc.core.access import BUS
from zmsvc.core.errors import ProtocolError
from zmsvc.host.bus import socket_options
from zmsvc.host.bus.socket_options import Context, Socket, is_readable

SUBSCRIPTION_BATCH = 1000
"""The number of subscriptions that are read before the guard, connections and signals have their turn. It
takes some 2 ms.
"""
ORDER_BATCH = 1000
"""Messages read at once."""
MAX_ORDER = 1 << 20
"""The limit in bytes of a message that is parsed, which takes 10 ms. A longer one is not counted."""
_XSUB, _XPUB = "inproc://xsub", "inproc://xpub"


class SubscriptionCounter(Protocol):
    """A callback for changes of subscriptions.

    `changes` is the number of messages that were read. `subscriptions` is the number of added subscriptions
    minus the number of ended ones; `size` is the same in bytes of their prefixes. `more` is True if further
    changes may wait.
    """

    def __call__(self, changes: int, subscriptions: int, size: int, *, more: bool) -> None: ...


class UnheardOrders:
    """Counts the orders that no supervisor has received. Create the counter before the first subscription and
    before the proxy runs: from then on only the proxy's thread may use the proxy's sockets.

    The device calls `connect` when everything else is ready.
    """

    def __init__(self, ctx: Context, xsub: Socket, xpub: Socket) -> None:
        xsub.bind(_XSUB)
        xpub.bind(_XPUB)
        self.count = 0
        self._present: set[bytes] = set()
        self._origin = ""
        # libzmq lets any type of socket connect by inproc. An XPUB would process all waiting messages, and
        # all that arrive meanwhile, before `recv` returns the first one: in a flood the guard would not have
        # its turn for 0.7 s. An XPUB would also have a tree of subscriptions, which the device does not need.
        self._subscriber, self._peer = ctx.socket(zmq.SUB), ctx.socket(zmq.PAIR)
        for peer in (self._subscriber, self._peer):
            peer.set_hwm(socket_options.CLIENT_HWM)
            peer.setsockopt(zmq.LINGER, 0)
        # Connect before the first subscription: earlier ones would arrive in another form.
        self._peer.connect(_XSUB)

    @property
    def sockets(self) -> tuple[Socket, Socket]:
        """The sockets to poll; call `take` when one is readable."""
        return self._subscriber, self._peer

    def connect(self) -> None:
        for topic in ("context", "process"):
            self._subscriber.subscribe(messages.prefix(topic))
        self._subscriber.connect(_XPUB)

    def take(self, count: SubscriptionCounter) -> bool:
        """Read subscriptions and orders; never block. Return True if subscriptions have changed. `count` is
        called with the changes. More than SUBSCRIPTION_BATCH and ORDER_BATCH wait for the next call: the
        sockets announce them again.
        """
        changes = balance = size = 0
        for _ in range(SUBSCRIPTION_BATCH):
            try:
                subscription = socket_options.parse_subscription(self._peer.recv(zmq.DONTWAIT))
            except zmq.Again:
                break
            changes += 1
            if subscription is None:
                # libzmq forwards this message to each publisher, like a subscription, so it counts as a
                # change.
                continue
            subscribed, prefix = subscription
            change = 1 if subscribed else -1
            balance, size = balance + change, size + change * len(prefix)
            if prefix.startswith(messages.UNHEARD_ORDERS):
                self._note(subscribed, prefix)
        if changes:
            count(changes, balance, size, more=changes == SUBSCRIPTION_BATCH)
        self._count_orders(ORDER_BATCH)
        return changes > 0

    def _note(self, subscribed: bool, prefix: bytes) -> None:
        """Note that a supervisor has subscribed or is gone."""
        if not subscribed:
            self._present.discard(prefix)
            return
        topic = prefix.removesuffix(messages.SEPARATOR).decode("utf-8", "replace")
        self._origin = topic.rpartition(".")[2]
        # The messages in this queue arrived before the supervisor subscribed. A few may arrive while the
        # proxy passes the subscription on.
        self._count_orders()
        self._present.add(prefix)
        self._report(topic)

    def _count_orders(self, most: int = 1_000_000) -> None:
        for _ in range(most):
            if not is_readable(self._subscriber):
                return
            frame = self._subscriber.recv(copy=False)
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

    def _report(self, topic: str) -> None:
        if self.count:
            try:
                self._peer.send(messages.encode(topic, messages.unheard_orders(self.count)), zmq.DONTWAIT)
            except zmq.Again:
                return  # The proxy is behind; the next supervisor gets the report.
            self.count = 0

    def close(self) -> None:
        for peer in self.sockets:
            peer.close(0)
