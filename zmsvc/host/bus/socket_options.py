"""Create ZMQ sockets: every option of every kind of socket that zmsvc uses. Messages are sent and received
elsewhere.

The figures were measured with pyzmq 27 and libzmq 4.3.5.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Protocol, TypeVar

import zmq
import zmq.backend

from zmsvc.core.errors import UsageError
from zmsvc.core.messages import MAX_FRAME
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.endpoints import address, is_far

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]
BareSocket = zmq.backend.Socket
"""The base class of `Socket`, without its wide interface. To create a `Socket` costs a new fork 0.3 ms and 50
copied pages.
"""

S = TypeVar("S", bound=BareSocket)
S_co = TypeVar("S_co", bound=BareSocket, covariant=True)


class SocketFactory(Protocol[S_co]):
    """The part of a context that creates sockets of type S_co."""

    def socket(self, socket_type: int, /) -> S_co: ...


class BareContext(zmq.backend.Context):
    """A context of bare sockets, for a process that has few of them and must start fast."""

    def __init__(self) -> None:
        super().__init__()
        self._sockets: list[BareSocket] = []

    def socket(self, socket_type: int, /) -> BareSocket:
        sock = BareSocket(self, socket_type)
        self._sockets = [*(each for each in self._sockets if not each.closed), sock]
        return sock

    def term(self) -> None:
        # A bare socket that an exception left open does not close itself, and libzmq waits for it for ever.
        for each in self._sockets:
            each.close()
        super().term()


DEVICE_HWM = 100_000
"""Messages. With libzmq's default of 1,000 the device silently loses bursts and the backlog of a restart.
100,000 messages of 1.5 kB take 150 MB, shared by all queues. libzmq counts no bytes, so the device watches
its own memory, see zmsvc.device.memory_guard.
"""
CLIENT_HWM = 20_000
"""Messages. In effect the limit can be half of this number, because a peer reports the messages that it has
read only once for each half.
"""
SUPERVISOR_HWM = 64
"""Messages that wait in a supervisor. More wait in the device, which bounds them in bytes. 64 messages of the
maximum size take 1 GiB.
"""
PUBLIC_HWM = 64
"""Messages that wait for one client of a service's own endpoint."""
MAX_MESSAGE = MAX_FRAME
"""Bytes. `context_info` of 5,000 tasks has 2.4 MB."""
MAX_SUBSCRIPTION = 1024
"""Bytes of a subscriber's prefix. libzmq keeps a node of about 70 bytes in the device for each byte of a
prefix.
"""
XPUB_SUBSCRIPTIONS_HWM = 100
"""Subscriptions of one peer that wait in the device. More stay in the kernel, where the memory guard sees
that the peer has sent them. A low mark also slows a flood down, since two threads have to take turns.
"""
PUBLISHER_SUBSCRIPTIONS_HWM = 1000
"""Subscriptions that wait in a publisher; more wait in the device. libzmq processes all of them in one go:
20,000 take 100 ms.
"""
XSUB_SUBSCRIPTIONS_HWM = 50_000
"""Subscriptions that wait in the device for one publisher. There are never as many prefixes at once, so a
publisher that connects gets all of them.
"""
HANDSHAKE_S = 5.0
"""Seconds until libzmq closes a connection without a handshake. With its default of 30 s six times as many
descriptors stay open.
"""
_SEALING = 64
"""Bytes that CURVE adds to a message (33), with a reserve."""
HEARTBEAT_S = 30.0
"""Seconds between two PINGs to each subscriber. With 1,000 idle tasks the device uses 0.09 % of a CPU at 30 s
for subscribers only, and 1.6 % at 5 s for publishers too. Each PING wakes its task. A stuck subscriber costs
at most the high-water mark.
"""
HEARTBEAT_PATIENCE = 3
"""Unanswered heartbeats after which libzmq disconnects a subscriber, which frees its queue."""
FAR_HEARTBEAT_S = 1.5
"""Seconds between two PINGs of a client to a device on another machine. A subscriber sends nothing, so its
connection is not reset when the host of the device is gone. Without PINGs it received nothing for minutes;
with them it receives again within 5 to 7 s. Each PING wakes the task, so there are none on loopback, where
the kernel reports the end of the other process.
"""
FAR_PATIENCE_S = 4.5
"""Seconds without an answer after which such a client reconnects. The handshake has the same limit."""
FAR_CONNECT_S = 3.0
"""Seconds until an attempt to connect is abandoned. The kernel's own limit is two minutes, even if another
host takes the address over in the meantime.
"""
LINGER_MS = 2000
RECONNECT_MS = 10
RECONNECT_MAX_MS = 1000

SENTINEL = b"\xff\xffzmsvc.device"
"""The device's own subscription. It is not UTF-8, so it cannot be a topic. libzmq sends subscriptions in the
order of their bytes. So a publisher that has received this one knows all others, and knows that it is
connected if there are no others."""


def context() -> Context:
    """Return a context whose sockets send queued messages for at most LINGER_MS after close. libzmq's default
    is for ever.
    """
    sock: Context = zmq.Context()
    sock.setsockopt(zmq.LINGER, LINGER_MS)
    return sock


def secured(endpoint: str, curve: Curve | None) -> Curve | None:
    """Return the keys to use for an endpoint: None for ipc, where the mode and owner of a file control
    access.
    """
    return curve if endpoint.startswith("tcp://") else None


def client(ctx: SocketFactory[S], kind: int, curve: Curve | None) -> S:
    """Return a socket of a peer of the device, not yet connected."""
    sock = ctx.socket(kind)
    sock.set(zmq.LINGER, LINGER_MS)
    _set_hwm(sock, CLIENT_HWM)
    # IMMEDIATE stays off: it would discard the queue at each disconnect.
    sock.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    sock.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    if curve:
        if curve.server_public is None:
            raise UsageError("cannot connect with CURVE: the device's public key is not known")
        sock.set(zmq.CURVE_SERVERKEY, curve.server_public)
        sock.set(zmq.CURVE_PUBLICKEY, curve.public)
        sock.set(zmq.CURVE_SECRETKEY, curve.secret)
    return sock


def connect(sock: S, endpoint: str) -> S:
    """Begin to connect, and return the socket. If `endpoint` is invalid, close the socket and raise
    UsageError.
    """
    if endpoint.startswith("tcp://"):
        sock.set(zmq.IPV6, int(endpoint.startswith("tcp://[")))
        _keepalive(sock)
        if is_far(endpoint):
            _heartbeat(sock)
    try:
        sock.connect(endpoint)
    except zmq.ZMQError as error:
        sock.close(0)
        raise UsageError(f"cannot connect to {endpoint}: {str(error).lower()}") from error
    return sock


def _heartbeat(sock: BareSocket) -> None:
    """Detect within seconds that the host of the device has vanished."""
    sock.set(zmq.HEARTBEAT_IVL, round(FAR_HEARTBEAT_S * 1000))
    sock.set(zmq.HEARTBEAT_TIMEOUT, round(FAR_PATIENCE_S * 1000))
    sock.set(zmq.HANDSHAKE_IVL, round(FAR_PATIENCE_S * 1000))
    sock.set(zmq.CONNECT_TIMEOUT, round(FAR_CONNECT_S * 1000))


def publisher(ctx: SocketFactory[S], endpoint: str, curve: Curve | None = None) -> S:
    """Return an XPUB connected to the device's endpoint for publishers. An XPUB receives the subscriptions, a
    PUB does not.
    """
    sock = client(ctx, zmq.XPUB, secured(endpoint, curve))
    # If the queue is full, send() fails instead of dropping the message silently.
    sock.set(zmq.XPUB_NODROP, 1)
    sock.set(zmq.RCVHWM, PUBLISHER_SUBSCRIPTIONS_HWM)
    return connect(sock, endpoint)


def subscriber(
    ctx: SocketFactory[S],
    endpoint: str,
    prefixes: Iterable[bytes],
    curve: Curve | None = None,
    *,
    hwm: int = CLIENT_HWM,
) -> S:
    """Return a SUB connected to the device's endpoint for subscribers. A prefix is a topic with its
    separator, see core.messages.prefix.
    """
    sock = unconnected_subscriber(ctx, prefixes, secured(endpoint, curve))
    sock.set(zmq.RCVHWM, hwm)
    return connect(sock, endpoint)


def unconnected_subscriber(ctx: SocketFactory[S], prefixes: Iterable[bytes], curve: Curve | None) -> S:
    """Return a SUB with these subscriptions, not yet connected."""
    sock = client(ctx, zmq.SUB, curve)
    for prefix in prefixes:
        sock.set(zmq.SUBSCRIBE, prefix)
    return sock


def parse_subscription(frame: bytes) -> tuple[bool, bytes] | None:
    """Parse a frame that an XPUB or XSUB peer sent upstream. Return (True, prefix) if a subscription begins,
    (False, prefix) if it ends.

    Return None for any other message. A subscriber can send such messages upstream, and libzmq passes them to
    every publisher.
    """
    kind = frame[:1]
    return (kind == b"\x01", frame[1:]) if kind in (b"\x00", b"\x01") else None


def check_size(frame: bytes) -> None:
    """Raise UsageError for a message so large that the device would close the connection."""
    if len(frame) > MAX_MESSAGE:
        raise UsageError(f"cannot publish message: it has {len(frame)} bytes, {MAX_MESSAGE} are allowed")


_POLLIN = int(zmq.POLLIN)  # the operators of an enumeration run Python code


def is_readable(sock: BareSocket, timeout_ms: int = 0) -> bool:
    """Return True if a message can be received within the timeout. The call also makes libzmq process the
    commands of its threads.
    """
    if timeout_ms:
        return bool(zmq.backend.zmq_poll([(sock, _POLLIN)], timeout_ms))
    return bool(int(sock.get(zmq.EVENTS)) & _POLLIN)


def fileno(sock: BareSocket) -> int:
    """Return a descriptor that becomes readable only when the socket's state changes. Call `is_readable`
    before polling it.
    """
    return int(sock.get(zmq.FD))


def device_xsub(ctx: Context, *, hwm: int) -> Socket:
    """Return the device's XSUB, for publishers. It has no heartbeats: a stuck publisher costs nothing, and
    the connection of a dead one is closed.
    """
    sock = _server(ctx, zmq.XSUB, hwm)
    sock.set(zmq.SNDHWM, min(hwm, XSUB_SUBSCRIPTIONS_HWM))
    return sock


def device_xpub(ctx: Context, *, hwm: int, heartbeat_s: float) -> Socket:
    """Return the device's XPUB, for subscribers. XPUB_NODROP is off: with it one stuck subscriber stops all
    others.
    """
    sock = _server(ctx, zmq.XPUB, hwm, longest=MAX_SUBSCRIPTION)
    sock.set(zmq.RCVHWM, XPUB_SUBSCRIPTIONS_HWM)
    sock.set(zmq.HEARTBEAT_IVL, round(heartbeat_s * 1000))
    sock.set(zmq.HEARTBEAT_TIMEOUT, round(heartbeat_s * 1000 * HEARTBEAT_PATIENCE))
    return sock


def public(ctx: Context, kind: int, curve: Curve | None, *, gate: bool) -> Socket:
    """Return a PUB or REP for a service's own endpoint, to be bound with `bind`. With keys or a gate, libzmq
    asks the ZAP handler about each connection.

    The socket receives only subscriptions and short requests.
    """
    sock = _server(ctx, kind, PUBLIC_HWM, longest=MAX_SUBSCRIPTION)
    sock.set(zmq.HEARTBEAT_IVL, round(HEARTBEAT_S * 1000))
    sock.set(zmq.HEARTBEAT_TIMEOUT, round(HEARTBEAT_S * 1000 * HEARTBEAT_PATIENCE))
    enable_zap(sock, curve, gate=gate)
    return sock


ENVOY_RECONNECT_MAX_MS = 250
"""The longest pause of an envoy between two attempts to connect. Only when it has connected can a new
supervisor adopt its tasks.
"""
HOSTS_HWM = 10_000
"""Orders that wait for one host: two for each launch of a large context. If one is dropped, the envoy greets
again, and the core repeats what is missing.
"""


def envoy(ctx: Context, endpoint: str, curve: Curve) -> Socket:
    """Return the DEALER of an envoy, connected to the supervisor's endpoint for hosts."""
    sock = client(ctx, zmq.DEALER, curve)
    _set_hwm(sock, HOSTS_HWM)
    # A message that waited for a connection would reach another supervisor than the one that it is for.
    sock.set(zmq.IMMEDIATE, 1)
    sock.set(zmq.MAXMSGSIZE, MAX_MESSAGE + _SEALING)
    sock.set(zmq.RECONNECT_IVL_MAX, ENVOY_RECONNECT_MAX_MS)
    return connect(sock, endpoint)


def hosts(ctx: Context, curve: Curve) -> Socket:
    """Return the ROUTER of a supervisor for envoys, to be bound with `bind`."""
    sock = _server(ctx, zmq.ROUTER, HOSTS_HWM)
    # A client of the bus that has a key can connect here, too: more of its messages stay in the kernel.
    sock.set(zmq.RCVHWM, SUPERVISOR_HWM)
    sock.set(zmq.HEARTBEAT_IVL, round(FAR_HEARTBEAT_S * 1000))
    sock.set(zmq.HEARTBEAT_TIMEOUT, round(FAR_PATIENCE_S * 1000))
    enable_zap(sock, curve)
    return sock


def enable_zap(sock: Socket, curve: Curve | None, *, gate: bool = False) -> None:
    """Make libzmq ask the ZAP handler about each connection to an endpoint that is bound after this call. The
    handler checks CURVE keys or, with `gate`, the peer's user.

    libzmq copies a socket's options in bind(), so connections to endpoints that are bound already are not
    checked.
    """
    if curve:
        sock.set(zmq.CURVE_SERVER, 1)
        sock.set(zmq.CURVE_PUBLICKEY, curve.public)
        sock.set(zmq.CURVE_SECRETKEY, curve.secret)
    if curve or gate:
        # Without a domain libzmq never asks the handler, and does not say so. With a domain it also refuses
        # ZMTP 1 and 2.
        sock.set(zmq.ZAP_DOMAIN, b"zmsvc")


def bind(sock: Socket, listener: socket.socket) -> None:
    """Make a ZMQ socket accept connections from a listening socket. The listener stays open, so its owner can
    pass it to the next device.
    """
    endpoint = address(listener)
    sock.set(zmq.IPV6, int(endpoint.startswith("tcp://[")))
    # libzmq closes the descriptor of USE_FD. It parses the address but uses only its transport.
    sock.set(zmq.USE_FD, os.dup(listener.fileno()))
    sock.bind(endpoint)


def _server(ctx: Context, kind: int, hwm: int, *, longest: int = MAX_MESSAGE) -> Socket:
    sock = ctx.socket(kind)
    sock.set(zmq.LINGER, 0)
    sock.set(zmq.MAXMSGSIZE, longest + _SEALING)
    sock.set(zmq.HANDSHAKE_IVL, round(HANDSHAKE_S * 1000))
    _set_hwm(sock, hwm)
    _keepalive(sock)
    return sock


def _set_hwm(sock: BareSocket, messages: int) -> None:
    sock.set(zmq.SNDHWM, messages)
    sock.set(zmq.RCVHWM, messages)


def _keepalive(sock: BareSocket) -> None:
    """Make the kernel detect within 2 to 4 minutes that a peer on another machine has vanished. This wakes no
    process.
    """
    sock.set(zmq.TCP_KEEPALIVE, 1)
    sock.set(zmq.TCP_KEEPALIVE_IDLE, 120)
    sock.set(zmq.TCP_KEEPALIVE_INTVL, 30)
    sock.set(zmq.TCP_KEEPALIVE_CNT, 4)
