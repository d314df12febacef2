"""Options: every ZMQ option of every kind of socket that zmsvc uses, in one place. Nothing is sent or received here.

The figures behind the numbers are of pyzmq 27 with libzmq 4.3.5.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

import zmq

from zmsvc.core.errors import UsageError
from zmsvc.host.endpoints import address
from zmsvc.host.keys import Curve

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

DEVICE_HWM = 100_000
"""Messages. At libzmq's 1,000 bursts and a restart's backlog are lost silently; this is 150 MB at worst at 1.5 kB each, shared."""
CLIENT_HWM = 20_000
"""Messages. libzmq sends up to half of it less than it says, because peers report what they have read only in such steps."""
MAX_MESSAGE = 64 << 20
"""Bytes. Without a limit one peer can make the device allocate anything."""
_SEALING = 64
"""Bytes that CURVE adds to a message (33), with room."""
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


def context() -> Context:
    """A context whose sockets wait a bounded time for what is unsent when they are closed; libzmq's own default is for ever."""
    made: Context = zmq.Context()
    made.setsockopt(zmq.LINGER, LINGER_MS)
    return made


def secured(endpoint: str, curve: Curve | None) -> Curve | None:
    """The keys to use for an endpoint: none where a file's mode and owner say who may come in."""
    return curve if endpoint.startswith("tcp://") else None


def client(ctx: Context, kind: int, curve: Curve | None) -> Socket:
    """A socket of a peer of the device, not connected yet."""
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


def connect(made: Socket, endpoint: str) -> Socket:
    """Begin to connect; raises UsageError for what is no endpoint, and closes the socket then."""
    made.setsockopt(zmq.IPV6, int(endpoint.startswith("tcp://[")))
    try:
        made.connect(endpoint)
    except zmq.ZMQError as error:
        made.close(0)
        raise UsageError(f"cannot connect to {endpoint}: {str(error).lower()}") from error
    return made


def publisher(ctx: Context, endpoint: str, curve: Curve | None = None) -> Socket:
    """An XPUB connected to where the device takes messages in. XPUB, not PUB: it learns who is interested, see `attached`."""
    made = client(ctx, zmq.XPUB, secured(endpoint, curve))
    # Where the queue is full a send says so instead of dropping silently.
    made.setsockopt(zmq.XPUB_NODROP, 1)
    return connect(made, endpoint)


def subscriber(ctx: Context, endpoint: str, prefixes: Iterable[bytes], curve: Curve | None = None) -> Socket:
    """A SUB connected to where the device gives messages out. A prefix is a topic with its separator, see core.messages.prefix."""
    made = client(ctx, zmq.SUB, secured(endpoint, curve))
    for prefix in prefixes:
        made.setsockopt(zmq.SUBSCRIBE, prefix)
    return connect(made, endpoint)


def check_size(frame: bytes) -> None:
    """Raise UsageError for a message that would make the device drop the connection."""
    if len(frame) > MAX_MESSAGE:
        raise UsageError(f"cannot publish message: it has {len(frame)} bytes, {MAX_MESSAGE} are allowed")


def readable(made: Socket) -> bool:
    """Whether something waits to be received; asking also makes libzmq take in what its threads have to tell."""
    return bool(int(made.get(zmq.EVENTS)) & zmq.POLLIN)


def front(ctx: Context, *, hwm: int, curve: Curve | None) -> Socket:
    """The device's XSUB, for publishers. No heartbeats: a stuck publisher costs nothing, a dead one closes its connection."""
    return _server(ctx, zmq.XSUB, hwm, curve)


def back(ctx: Context, *, hwm: int, heartbeat_s: float, curve: Curve | None) -> Socket:
    """The device's XPUB, for subscribers. No XPUB_NODROP: with it one stuck subscriber stops all others."""
    made = _server(ctx, zmq.XPUB, hwm, curve)
    made.setsockopt(zmq.HEARTBEAT_IVL, round(heartbeat_s * 1000))
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(heartbeat_s * 1000 * HEARTBEAT_PATIENCE))
    return made


def public(ctx: Context, kind: int, curve: Curve | None) -> Socket:
    """A PUB or REP of a service's own, for strangers, to be bound with `bind`."""
    return _server(ctx, kind, CLIENT_HWM, curve)


def bind(made: Socket, listener: socket.socket) -> None:
    """Let a socket take connections from a listening one, which stays open: whoever holds it can hand it to the next device."""
    endpoint = address(listener)
    made.setsockopt(zmq.IPV6, int(endpoint.startswith("tcp://[")))
    # libzmq closes the descriptor that it is given. The address is parsed and then not used, but its transport must be right.
    made.setsockopt(zmq.USE_FD, os.dup(listener.fileno()))
    made.bind(endpoint)


def _server(ctx: Context, kind: int, hwm: int, curve: Curve | None) -> Socket:
    made = ctx.socket(kind)
    made.setsockopt(zmq.LINGER, 0)
    made.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE + _SEALING)
    made.set_hwm(hwm)
    _keepalive(made)
    if curve:
        made.setsockopt(zmq.CURVE_SERVER, 1)
        made.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
        made.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
        # Without a domain libzmq never asks our allow-list, and says nothing about it.
        made.setsockopt(zmq.ZAP_DOMAIN, b"zmsvc")
    return made


def _keepalive(made: Socket) -> None:
    """Let the kernel find out that a peer beyond this machine has vanished (2 to 4 minutes); it wakes no process for that."""
    made.setsockopt(zmq.TCP_KEEPALIVE, 1)
    made.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 120)
    made.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 30)
    made.setsockopt(zmq.TCP_KEEPALIVE_CNT, 4)
