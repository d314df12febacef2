"""Publish one message from a short-lived process, and confirm that the device has received it."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from select import POLLRDHUP, poll
from types import TracebackType

import zmq

from zmsvc.core.errors import ZmsvcError
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.refusal import barred, refusal
from zmsvc.host.bus.socket_monitor import open_monitor, pending_events
from zmsvc.host.bus.socket_options import (
    SENTINEL,
    check_size,
    client,
    connect,
    context,
    is_readable,
    parse_subscription,
    secured,
)

_SETTLE_MS = 20
_TCP_CLOSE_WAIT = 8
"""The peer has closed its side in order: enum in linux/tcp_states.h. After a reset the state is TCP_CLOSE."""


def send_once(
    endpoint: str, frame: bytes, timeout_s: float = 2.0, curve: Curve | None = None, *, presence: bytes = b""
) -> bool:
    """Publish one message, and return True when the device has received it.

    With `presence`, wait for a subscription that begins with it first: the recipient may be starting. Return
    False if the device was reached but has no subscription for the message, or if the recipient did not
    subscribe in time; the message was not sent. Raises RefusedError if the device does not let this user
    connect. Raises ZmsvcError if no device answers, or if the device may not have received the message.
    """
    check_size(frame)
    with _Connection(endpoint, time.monotonic() + timeout_s, curve) as connection:
        connection.connect()
        subscribed = connection.await_subscriber(frame, presence)
        if subscribed:
            connection.send(frame)
    return subscribed


class _Connection:
    """A connected publisher of one message, with a duplicate of the descriptor of its connection, which
    outlives the socket of libzmq.

    HANDSHAKE_SUCCEEDED says nothing about the message (of 50 sent right after it, 15 arrived), and libzmq's
    linger does not report its outcome. So the publisher shuts down its side of the connection after libzmq
    has written everything and closed its socket. The device closes the other side after it has read
    everything. If the device dies before that, the kernel resets the connection.
    """

    def __init__(self, endpoint: str, deadline: float, curve: Curve | None) -> None:
        self._endpoint = endpoint
        self._deadline = deadline
        self._connection: socket.socket | None = None
        self._refused = self._connected_once = self._failed_once = False
        self._keys = secured(endpoint, curve) is not None
        self._context = context()
        self._publisher = client(self._context, zmq.XPUB, secured(endpoint, curve))
        self._monitor = open_monitor(
            self._publisher,
            zmq.EVENT_CONNECTED
            | zmq.EVENT_CONNECT_RETRIED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        )

    def __enter__(self) -> _Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._close(0)
        self._hang_up()

    def connect(self) -> None:
        """Begin to connect. Raises RefusedError for a socket that this user may not open: libzmq would retry
        for ever.
        """
        if barred(self._endpoint):
            raise refusal(self._endpoint)
        connect(self._publisher, self._endpoint)

    def await_subscriber(self, frame: bytes, presence: bytes) -> bool:
        """Wait until the device has sent its subscriptions. Return True if one matches the frame and one
        begins with `presence`.
        """
        poller = zmq.Poller()
        poller.register(self._publisher, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        reached = complete = matched = False
        present = not presence
        # If libzmq has subscriptions in a sorted tree, the sentinel is the last one. A build that sends it
        # earlier gets 20 ms for the others.
        while self._left_ms() and poller.poll(
            min(_SETTLE_MS, self._left_ms()) if complete and present else self._left_ms()
        ):
            self._note_connection()
            while is_readable(self._publisher):
                subscription = parse_subscription(self._publisher.recv())
                if subscription is None:
                    continue
                reached = True
                begun, prefix = subscription
                complete = complete or prefix == SENTINEL
                matched = matched or (begun and frame.startswith(prefix))
                if presence and prefix.startswith(presence):
                    present = begun
            if matched and present and self._connection:
                return True
            if self._refused:
                break
        if reached and not (matched and present):
            return False
        if self._refused and not self._keys:
            raise refusal(self._endpoint)
        raise ZmsvcError(f"cannot reach {self._endpoint}: {self._why_not()}")

    def send(self, frame: bytes) -> None:
        """Send the frame, and wait until the device has read it."""
        self._publisher.send(frame)
        self._note_connection()
        lost = ZmsvcError(f"cannot send to {self._endpoint}: the device went away; the message may be lost")
        self._close(self._left_ms())
        connection = self._connection
        if connection is None:
            raise lost
        if _peer_has_closed(connection):
            # The device ends after an order to exit, so this need not be a failure.
            if not _had_read_all(connection, self._left_ms()):
                raise lost
            return
        try:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(max(self._left_ms(), 1) / 1000)
            while connection.recv(65536):
                pass
        except TimeoutError as error:
            raise ZmsvcError(
                f"cannot send to {self._endpoint}: the device did not take the message in time"
            ) from error
        except OSError as error:
            raise lost from error

    def _left_ms(self) -> int:
        return max(0, round((self._deadline - time.monotonic()) * 1000))

    def _note_connection(self) -> None:
        for event, value in pending_events(self._monitor):
            self._refused = self._refused or event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            self._failed_once = self._failed_once or event == zmq.EVENT_CONNECT_RETRIED
            self._hang_up()
            if event == zmq.EVENT_CONNECTED:
                self._connected_once = True
                try:
                    self._connection = socket.socket(fileno=os.dup(value))
                except OSError:
                    pass  # The connection is closed already; DISCONNECTED is the next event.

    def _why_not(self) -> str:
        if self._refused:
            return "the device does not know our CURVE key"
        if self._connection:
            return (
                "the peer accepted the connection, but did not answer as a device in time (does it require "
                "CURVE keys?)"
            )
        if self._connected_once:
            return (
                "the peer closed the connection (is this the subscriber port? publish to the backend "
                "endpoint)"
            )
        return "no process listens there" if self._failed_once else "no connection was made in time"

    def _close(self, linger_ms: int) -> None:
        if not self._publisher.closed:
            self._publisher.disable_monitor()
            self._publisher.close(linger_ms)
        self._monitor.close(0)
        self._context.term()

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None


def _peer_has_closed(connection: socket.socket) -> bool:
    watched = poll()
    watched.register(connection, POLLRDHUP)
    return bool(watched.poll(0))


def _had_read_all(connection: socket.socket, timeout_ms: int) -> bool:
    """Return True if the peer had read everything before it closed a TCP connection. Otherwise the kernel of
    the peer resets the connection. libzmq has taken the error of the reset, but the state of the connection
    still shows it. A Unix socket has no such state.
    """
    if connection.family == socket.AF_UNIX:
        return False
    if _unacknowledged(connection):
        # A reset takes time over a network. The kernel announces no acknowledgment, so this may wait until
        # the deadline although everything has been read.
        watched = poll()
        watched.register(connection, 0)  # poll() always reports POLLERR and POLLHUP.
        watched.poll(timeout_ms)
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _TCP_CLOSE_WAIT and not _unacknowledged(connection)


def _unacknowledged(connection: socket.socket) -> int:
    """Return how many bytes the peer has not acknowledged: SIOCOUTQ, tcp(7)."""
    # Only zmsvcctl needs termios, and each library that the zygote has loaded makes its forks slower.
    import termios

    count = bytearray(4)
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)
