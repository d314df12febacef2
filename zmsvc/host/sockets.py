"""ZMQ sockets: every option of every kind of socket that zmsvc uses, in one place. What is sent and when is for others to decide.

The figures behind the numbers are of pyzmq 27 with libzmq 4.3.5.
"""

from __future__ import annotations

import os
import socket
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import zmq

from zmsvc.core.errors import ConfigError, UsageError
from zmsvc.host.endpoints import address, listen, safe_bind

__all__ = [
    "CLIENT_HWM", "DEVICE_HWM", "HEARTBEAT_S", "MAX_MESSAGE", "SENTINEL", "Context", "Curve", "Mouth", "Socket",
    "address", "attached", "back", "bind", "check_size", "context", "front", "listen", "load_curve", "publish", "publisher",
    "safe_bind", "subscriber",
]  # fmt: skip

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

DEVICE_HWM = 100_000
"""Messages. At libzmq's 1,000 bursts and a restart's backlog are lost silently; this is 150 MB at worst at 1.5 kB each, shared."""
CLIENT_HWM = 20_000
"""Messages. libzmq sends up to half of it less than it says, because peers report what they have read only in such steps."""
MAX_MESSAGE = 64 << 20
"""Bytes. Without a limit one peer can make the device allocate anything."""
HEARTBEAT_S = 30.0
"""Seconds between two PINGs to each subscriber. With 1,000 idle tasks the device uses 0.09 % of a CPU at 30 s for subscribers
only, 1.6 % at 5 s for publishers too; and each PING wakes its task. A stuck subscriber costs at most the high-water mark."""
HEARTBEAT_PATIENCE = 3
"""A subscriber that has not answered for this many heartbeats is disconnected, which frees what is queued for it."""
LINGER_MS = 2000
RECONNECT_MS = 10
RECONNECT_MAX_MS = 1000

SENTINEL = b"\xff\xffzmsvc.device"
"""The device itself subscribes to this, which no topic can be (it is not UTF-8). libzmq sends subscriptions in the order of
their bytes, so a publisher that has got this one knows all others, and knows that it is attached when there are no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """CURVE keys as 40 bytes of Z85: our pair, and the device's public key where we connect to it."""

    public: bytes
    secret: bytes
    server_public: bytes | None = None


def load_curve(file: Path, server: Path | None = None) -> Curve:
    """Keys from files of ZeroMQ's usual form: ours with public-key and secret-key, the device's with public-key."""
    # Imported here for start-up time: 17 ms (glob, datetime, logging) that only those pay who use CURVE.
    from zmq.auth.certs import load_certificate

    try:
        public, secret = load_certificate(file)
        server_public = load_certificate(server)[0] if server else None
    except (OSError, ValueError) as error:
        raise ConfigError([f"cannot read CURVE keys: {error}"]) from error
    if secret is None:
        raise ConfigError([f"cannot read CURVE keys: {file} has no secret-key"])
    return Curve(public=public, secret=secret, server_public=server_public)


def context() -> Context:
    """A context whose sockets wait a bounded time for what is unsent when they are closed; libzmq's own default is for ever."""
    made: Context = zmq.Context()
    made.setsockopt(zmq.LINGER, LINGER_MS)
    return made


def publisher(ctx: Context, endpoint: str, curve: Curve | None = None) -> Socket:
    """An XPUB connected to where the device takes messages in. XPUB, not PUB: it learns who is interested, see `attached`."""
    made = _client(ctx, zmq.XPUB, curve)
    # Where the queue is full a send says so instead of dropping silently.
    made.setsockopt(zmq.XPUB_NODROP, 1)
    return _connect(made, endpoint)


def subscriber(ctx: Context, endpoint: str, prefixes: Iterable[bytes], curve: Curve | None = None) -> Socket:
    """A SUB connected to where the device gives messages out. A prefix is a topic with its separator, see core.messages.prefix."""
    made = _client(ctx, zmq.SUB, curve)
    for prefix in prefixes:
        made.setsockopt(zmq.SUBSCRIBE, prefix)
    return _connect(made, endpoint)


def attached(publisher: Socket, timeout_s: float) -> bool:
    """Wait until the device's subscriptions arrive; what is published before is lost. Call it once, before the first `publish`."""
    return bool(publisher.poll(round(timeout_s * 1000)))


def publish(publisher: Socket, frame: bytes) -> bool:
    """Send without blocking. False: the queue is full, the message is dropped, and the caller should count it."""
    check_size(frame)
    # Asking for EVENTS also makes libzmq read the device's receipts, which a fast sender skips and then hits its mark too early.
    while _readable(publisher):
        publisher.recv()
    return _send(publisher, frame)


class Mouth:
    """A long-lived publisher that knows which subscriptions there are, so that nobody need build a message that nobody wants.

    The device passes on the first subscription to a prefix and the last end of one. After a restart of the device ends that it
    missed are never told: `wants` may say yes for nothing, never no for something.
    """

    def __init__(self, publisher: Socket) -> None:
        self.socket = publisher
        self.attached = False
        self._known: set[bytes] = set()
        self._sorted: list[bytes] = []

    def drain(self) -> None:
        """Take in what the device has told. Does not block."""
        while _readable(self.socket):
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
            self.socket.poll(round(timeout_s * 1000))
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


def front(ctx: Context, *, hwm: int, curve: Curve | None) -> Socket:
    """The device's XSUB, for publishers. No heartbeats: a stuck publisher costs nothing, a dead one closes its connection."""
    return _server(ctx, zmq.XSUB, hwm, curve)


def back(ctx: Context, *, hwm: int, heartbeat_s: float, curve: Curve | None) -> Socket:
    """The device's XPUB, for subscribers. No XPUB_NODROP: with it one stuck subscriber stops all others."""
    made = _server(ctx, zmq.XPUB, hwm, curve)
    made.setsockopt(zmq.HEARTBEAT_IVL, round(heartbeat_s * 1000))
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(heartbeat_s * 1000 * HEARTBEAT_PATIENCE))
    return made


def bind(made: Socket, listener: socket.socket) -> None:
    """Let a socket take connections from a listening one, which stays open: whoever holds it can hand it to the next device."""
    endpoint = address(listener)
    made.setsockopt(zmq.IPV6, int(endpoint.startswith("tcp://[")))
    # libzmq closes the descriptor that it is given. The address is parsed and then not used, but its transport must be right.
    made.setsockopt(zmq.USE_FD, os.dup(listener.fileno()))
    made.bind(endpoint)


def check_size(frame: bytes) -> None:
    """Raise UsageError for a message that makes the device drop the connection."""
    if len(frame) > MAX_MESSAGE:
        raise UsageError(f"cannot publish message: it has {len(frame)} bytes, {MAX_MESSAGE} are allowed")


def _readable(made: Socket) -> bool:
    return bool(int(made.get(zmq.EVENTS)) & zmq.POLLIN)


def _send(publisher: Socket, frame: bytes) -> bool:
    try:
        publisher.send(frame, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


def _server(ctx: Context, kind: int, hwm: int, curve: Curve | None) -> Socket:
    made = ctx.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
    made.set_hwm(hwm)
    _keepalive(made)
    if curve:
        made.setsockopt(zmq.CURVE_SERVER, 1)
        made.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
        made.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
        # Without a domain libzmq never asks our allow-list, and says nothing about it.
        made.setsockopt(zmq.ZAP_DOMAIN, b"zmsvc")
    return made


def _client(ctx: Context, kind: int, curve: Curve | None) -> Socket:
    made = ctx.socket(kind)
    made.setsockopt(zmq.LINGER, LINGER_MS)
    made.set_hwm(CLIENT_HWM)
    # IMMEDIATE stays off: it would throw the queue away at each disconnect.
    made.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    made.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    _keepalive(made)
    if curve:
        if curve.server_public is None:
            raise UsageError("cannot connect with CURVE: the device's public key is not known")
        made.setsockopt(zmq.CURVE_SERVERKEY, curve.server_public)
        made.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
        made.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
    return made


def _keepalive(made: Socket) -> None:
    """Let the kernel find out that a peer beyond this machine has vanished (2 to 4 minutes); it wakes no process for that."""
    made.setsockopt(zmq.TCP_KEEPALIVE, 1)
    made.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 120)
    made.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 30)
    made.setsockopt(zmq.TCP_KEEPALIVE_CNT, 4)


def _connect(made: Socket, endpoint: str) -> Socket:
    made.setsockopt(zmq.IPV6, int(endpoint.startswith("tcp://[")))
    try:
        made.connect(endpoint)
    except zmq.ZMQError as error:
        made.close(0)
        raise UsageError(f"cannot connect to {endpoint}: {str(error).lower()}") from error
    return made
