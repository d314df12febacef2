"""Options: every ZMQ option of every kind of socket that zmsvc uses, in one place. Nothing is sent or
received here.

The figures behind the numbers are of pyzmq 27 with libzmq 4.3.5.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Protocol, TypeVar

import zmq
import zmq.backend

from zmsvc.core.errors import UsageError
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.endpoints import address, is_far

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]
Bare = zmq.backend.Socket
"""What every socket is, and a `Socket` only has a wide interface around: its making costs a fresh fork 0.3
ms and 50 copied pages.
"""

S = TypeVar("S", bound=Bare)
S_co = TypeVar("S_co", bound=Bare, covariant=True)


class SocketMaker(Protocol[S_co]):
    """A context, as far as making a kind of socket is concerned."""

    def socket(self, socket_type: int, /) -> S_co: ...


class BareContext(zmq.backend.Context):
    """Make bare sockets, for a process that has few of them and shall start fast."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[Bare] = []

    def socket(self, socket_type: int, /) -> Bare:
        made = Bare(self, socket_type)
        self._made = [*(each for each in self._made if not each.closed), made]
        return made

    def term(self) -> None:
        # One that was lost to an exception does not close itself, and libzmq waits for all of them, for ever.
        for each in self._made:
            each.close()
        super().term()


DEVICE_HWM = 100_000
"""Messages. At libzmq's 1,000 bursts and a restart's backlog are lost silently; this is 150 MB at 1.5 kB
each, shared. libzmq counts no bytes, so the device looks at its own memory, see zmsvc.device.guard."""
CLIENT_HWM = 20_000
"""Messages. libzmq sends up to half of it less than it says, because peers report what they have read only
in such steps.
"""
EAR_HWM = 64
"""Messages that wait in a supervisor; more wait in the device, which bounds them in bytes. Of the longest
ones these are 1 GiB.
"""
PUBLIC_HWM = 64
"""Messages that wait for one client of an endpoint of a service's own."""
MAX_MESSAGE = 16 << 20
"""Bytes. Without a limit one peer can make the device allocate anything. `context_info` of 5,000 tasks has
2.4 MB.
"""
MAX_SUBSCRIPTION = 1024
"""Bytes of a prefix that a subscriber sends. libzmq keeps a node for each byte of it, about 70 bytes in
the device.
"""
SUBSCRIBED_HWM = 100
"""Subscriptions of one peer that wait in the device. More stay in the kernel, where the guard sees that the
peer has sent them; and it slows a flood down, since two threads take turns."""
NEWS_HWM = 1000
"""Subscriptions that wait in a publisher; more wait in the device. libzmq takes in all that waits at once:
20,000 take it 100 ms.
"""
TOLD_HWM = 50_000
"""Subscriptions that wait in the device for one publisher: more than there may be at once, so each that
comes is told all.
"""
HANDSHAKE_S = 5.0
"""Seconds after which a connection without a handshake is ended; libzmq's own 30 s keep six times as many
descriptors.
"""
_SEALING = 64
"""Bytes that CURVE adds to a message (33), with room."""
HEARTBEAT_S = 30.0
"""Seconds between two PINGs to each subscriber. With 1,000 idle tasks the device uses 0.09 % of a CPU at 30 s
for subscribers only, 1.6 % at 5 s for publishers too; and each PING wakes its task. A stuck subscriber costs
at most the high-water mark."""
HEARTBEAT_PATIENCE = 3
"""A subscriber that has not answered for this many heartbeats is disconnected, which frees what is queued
for it.
"""
FAR_HEARTBEAT_S = 1.5
"""Seconds between two PINGs of a client to a device beyond this machine. A subscriber sends nothing, so that
no host resets its connection when the device's host is gone: it was deaf for minutes, and hears again within
5 to 7 s with this. Each PING wakes the task, therefore not on loopback, where the kernel tells the end of the
other process."""
FAR_PATIENCE_S = 4.5
"""Seconds without an answer after which such a client connects anew; the same for its handshake."""
FAR_CONNECT_S = 3.0
"""Seconds until an attempt to connect is given up; the kernel's own limit is two minutes, whatever host
has the address meanwhile.
"""
LINGER_MS = 2000
RECONNECT_MS = 10
RECONNECT_MAX_MS = 1000

SENTINEL = b"\xff\xffzmsvc.device"
"""The device itself subscribes to this, which no topic can be (it is not UTF-8). libzmq sends subscriptions
in the order of their bytes, so a publisher that has got this one knows all others, and knows that it is
attached when there are no others."""


def context() -> Context:
    """A context whose sockets wait a bounded time for what is unsent when they are closed; libzmq's own
    default is for ever.
    """
    made: Context = zmq.Context()
    made.setsockopt(zmq.LINGER, LINGER_MS)
    return made


def secured(endpoint: str, curve: Curve | None) -> Curve | None:
    """The keys to use for an endpoint: none where a file's mode and owner say who may come in."""
    return curve if endpoint.startswith("tcp://") else None


def client(ctx: SocketMaker[S], kind: int, curve: Curve | None) -> S:
    """A socket of a peer of the device, not connected yet."""
    made = ctx.socket(kind)
    made.set(zmq.LINGER, LINGER_MS)
    _set_hwm(made, CLIENT_HWM)
    # IMMEDIATE stays off: it would throw the queue away at each disconnect.
    made.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    made.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    if curve:
        if curve.server_public is None:
            raise UsageError("cannot connect with CURVE: the device's public key is not known")
        made.set(zmq.CURVE_SERVERKEY, curve.server_public)
        made.set(zmq.CURVE_PUBLICKEY, curve.public)
        made.set(zmq.CURVE_SECRETKEY, curve.secret)
    return made


def connect(made: S, endpoint: str) -> S:
    """Begin to connect; raises UsageError for what is no endpoint, and closes the socket then."""
    if endpoint.startswith("tcp://"):
        made.set(zmq.IPV6, int(endpoint.startswith("tcp://[")))
        _keepalive(made)
        if is_far(endpoint):
            _heartbeat(made)
    try:
        made.connect(endpoint)
    except zmq.ZMQError as error:
        made.close(0)
        raise UsageError(f"cannot connect to {endpoint}: {str(error).lower()}") from error
    return made


def _heartbeat(made: Bare) -> None:
    """Find out within seconds that the host of the device has vanished."""
    made.set(zmq.HEARTBEAT_IVL, round(FAR_HEARTBEAT_S * 1000))
    made.set(zmq.HEARTBEAT_TIMEOUT, round(FAR_PATIENCE_S * 1000))
    made.set(zmq.HANDSHAKE_IVL, round(FAR_PATIENCE_S * 1000))
    made.set(zmq.CONNECT_TIMEOUT, round(FAR_CONNECT_S * 1000))


def publisher(ctx: SocketMaker[S], endpoint: str, curve: Curve | None = None) -> S:
    """An XPUB connected to where the device takes messages in. XPUB, not PUB: it learns who is interested,
    see `attached`.
    """
    made = client(ctx, zmq.XPUB, secured(endpoint, curve))
    # Where the queue is full a send says so instead of dropping silently.
    made.set(zmq.XPUB_NODROP, 1)
    made.set(zmq.RCVHWM, NEWS_HWM)
    return connect(made, endpoint)


def subscriber(
    ctx: SocketMaker[S],
    endpoint: str,
    prefixes: Iterable[bytes],
    curve: Curve | None = None,
    *,
    hwm: int = CLIENT_HWM,
) -> S:
    """A SUB connected to where the device gives messages out. A prefix is a topic with its separator, see
    core.messages.prefix.
    """
    made = ear(ctx, prefixes, secured(endpoint, curve))
    made.set(zmq.RCVHWM, hwm)
    return connect(made, endpoint)


def ear(ctx: SocketMaker[S], prefixes: Iterable[bytes], curve: Curve | None) -> S:
    """The same, not connected yet."""
    made = client(ctx, zmq.SUB, curve)
    for prefix in prefixes:
        made.set(zmq.SUBSCRIBE, prefix)
    return made


def told(frame: bytes) -> tuple[bool, bytes] | None:
    """Return whether a subscription begins or ends, and its prefix, from what a publisher is told.

    None for anything else: a subscriber can send any message against the stream, and libzmq hands it to every
    publisher.
    """
    kind = frame[:1]
    return (kind == b"\x01", frame[1:]) if kind in (b"\x00", b"\x01") else None


def check_size(frame: bytes) -> None:
    """Raise UsageError for a message that would make the device drop the connection."""
    if len(frame) > MAX_MESSAGE:
        raise UsageError(f"cannot publish message: it has {len(frame)} bytes, {MAX_MESSAGE} are allowed")


_POLLIN = int(zmq.POLLIN)  # an enumeration's own operators are lines of Python


def readable(made: Bare, timeout_ms: int = 0) -> bool:
    """Whether something waits to be received, or comes in time; asking also makes libzmq take in what its
    threads have to tell.
    """
    if timeout_ms:
        return bool(zmq.backend.zmq_poll([(made, _POLLIN)], timeout_ms))
    return bool(int(made.get(zmq.EVENTS)) & _POLLIN)


def fileno(made: Bare) -> int:
    """A descriptor that becomes readable at a change only: look at the socket first."""
    return int(made.get(zmq.FD))


def front(ctx: Context, *, hwm: int) -> Socket:
    """The device's XSUB, for publishers. No heartbeats: a stuck publisher costs nothing, a dead one closes
    its connection.
    """
    made = _server(ctx, zmq.XSUB, hwm)
    made.set(zmq.SNDHWM, min(hwm, TOLD_HWM))
    return made


def back(ctx: Context, *, hwm: int, heartbeat_s: float) -> Socket:
    """The device's XPUB, for subscribers. No XPUB_NODROP: with it one stuck subscriber stops all others."""
    made = _server(ctx, zmq.XPUB, hwm, longest=MAX_SUBSCRIPTION)
    made.set(zmq.RCVHWM, SUBSCRIBED_HWM)
    made.set(zmq.HEARTBEAT_IVL, round(heartbeat_s * 1000))
    made.set(zmq.HEARTBEAT_TIMEOUT, round(heartbeat_s * 1000 * HEARTBEAT_PATIENCE))
    return made


def public(ctx: Context, kind: int, curve: Curve | None, *, gate: bool) -> Socket:
    """A PUB or REP of a service's own, to be bound with `bind`; with keys or a gate a handler is asked about
    each connection.

    It takes subscriptions and short questions.
    """
    made = _server(ctx, kind, PUBLIC_HWM, longest=MAX_SUBSCRIPTION)
    made.set(zmq.HEARTBEAT_IVL, round(HEARTBEAT_S * 1000))
    made.set(zmq.HEARTBEAT_TIMEOUT, round(HEARTBEAT_S * 1000 * HEARTBEAT_PATIENCE))
    guard(made, curve, gate=gate)
    return made


def guard(made: Socket, curve: Curve | None, *, gate: bool = False) -> None:
    """Have a handler asked about each connection that a later `bind` brings: with keys, or with a gate about
    its user.

    libzmq copies the options of a socket when it binds, so what was bound before this is not guarded.
    """
    if curve:
        made.set(zmq.CURVE_SERVER, 1)
        made.set(zmq.CURVE_PUBLICKEY, curve.public)
        made.set(zmq.CURVE_SECRETKEY, curve.secret)
    if curve or gate:
        # Without a domain libzmq never asks the handler, and says nothing about it. With one it also refuses
        # ZMTP 1 and 2.
        made.set(zmq.ZAP_DOMAIN, b"zmsvc")


def bind(made: Socket, listener: socket.socket) -> None:
    """Let a socket take connections from a listening one, which stays open: whoever holds it can hand it
    to the next device.
    """
    endpoint = address(listener)
    made.set(zmq.IPV6, int(endpoint.startswith("tcp://[")))
    # libzmq closes the descriptor that it is given. The address is parsed and then not used, but its
    # transport must be right.
    made.set(zmq.USE_FD, os.dup(listener.fileno()))
    made.bind(endpoint)


def _server(ctx: Context, kind: int, hwm: int, *, longest: int = MAX_MESSAGE) -> Socket:
    made = ctx.socket(kind)
    made.set(zmq.LINGER, 0)
    made.set(zmq.MAXMSGSIZE, longest + _SEALING)
    made.set(zmq.HANDSHAKE_IVL, round(HANDSHAKE_S * 1000))
    _set_hwm(made, hwm)
    _keepalive(made)
    return made


def _set_hwm(made: Bare, messages: int) -> None:
    made.set(zmq.SNDHWM, messages)
    made.set(zmq.RCVHWM, messages)


def _keepalive(made: Bare) -> None:
    """Let the kernel find out that a peer beyond this machine has vanished (2 to 4 minutes); it wakes no
    process for that.
    """
    made.set(zmq.TCP_KEEPALIVE, 1)
    made.set(zmq.TCP_KEEPALIVE_IDLE, 120)
    made.set(zmq.TCP_KEEPALIVE_INTVL, 30)
    made.set(zmq.TCP_KEEPALIVE_CNT, 4)
