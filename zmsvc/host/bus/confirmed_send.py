"""Once: one message from a process that is gone right after it, and the certainty that the device has it."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios
import time
from select import POLLRDHUP, poll
from types import TracebackType

import zmq

from zmsvc.core.errors import ZmsvcError
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.refusal import barred, refusal
from zmsvc.host.bus.socket_monitor import seen, watch
from zmsvc.host.bus.socket_options import (
    SENTINEL,
    check_size,
    client,
    connect,
    context,
    readable,
    secured,
    told,
)

_SETTLE_MS = 20
_TCP_CLOSE_WAIT = 8
"""The peer has ended its side in order: enum in linux/tcp_states.h. After a reset the state is TCP_CLOSE."""


def send_once(
    endpoint: str, frame: bytes, timeout_s: float = 2.0, curve: Curve | None = None, *, presence: bytes = b""
) -> bool:
    """Publish one message; return when the device has it.

    With `presence` it waits until somebody has a subscription that begins with this: who is meant may be
    about to come. False: the device was reached, and nobody subscribes to such a message, or whoever is meant
    did not come; it was not sent. Raises RefusedError when the device lets this user not connect, ZmsvcError
    when none answers, or when it is not certain that it took the message.
    """
    check_size(frame)
    with _Line(endpoint, time.monotonic() + timeout_s, curve) as line:
        line.connect()
        wanted = line.wanted(frame, presence)
        if wanted:
            line.send(frame)
    return wanted


class _Line:
    """A connected publisher of one message, and a duplicate of its connection's descriptor that outlives
    libzmq's socket.

    HANDSHAKE_SUCCEEDED tells nothing about the message (15 of 50 sent right after it arrived), and libzmq's
    linger does not tell how it ended. So, when libzmq has written all and is gone, we end our side of the
    connection. The device closes the other side after it has read everything; if it dies before that, the
    kernel resets the connection.
    """

    def __init__(self, endpoint: str, until: float, curve: Curve | None) -> None:
        self._endpoint = endpoint
        self._until = until
        self._connection: socket.socket | None = None
        self._refused = self._met = False
        self._keys = secured(endpoint, curve) is not None
        self._context = context()
        self._publisher = client(self._context, zmq.XPUB, secured(endpoint, curve))
        self._monitor = watch(
            self._publisher, zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )

    def __enter__(self) -> _Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._close(0)
        self._hang_up()

    def connect(self) -> None:
        """Begin to connect. Raises RefusedError for a socket that this user may not open: libzmq would try
        in vain.
        """
        if barred(self._endpoint):
            raise refusal(self._endpoint)
        connect(self._publisher, self._endpoint)

    def wanted(self, frame: bytes, presence: bytes) -> bool:
        """Wait until the device has told its subscriptions, and whoever is meant is among the subscribers;
        whether all that is so.
        """
        poller = zmq.Poller()
        poller.register(self._publisher, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        reached = complete = wanted = False
        there = not presence
        # After the sentinel we have all, if libzmq keeps subscriptions in a sorted tree; a build that does
        # not is given 20 ms.
        while self._left_ms() and poller.poll(
            min(_SETTLE_MS, self._left_ms()) if complete and there else self._left_ms()
        ):
            self._note_connection()
            while readable(self._publisher):
                subscription = told(self._publisher.recv())
                if subscription is None:
                    continue
                reached = True
                begun, prefix = subscription
                complete = complete or prefix == SENTINEL
                wanted = wanted or (begun and frame.startswith(prefix))
                if presence and prefix.startswith(presence):
                    there = begun
            if wanted and there and self._connection:
                return True
            if self._refused:
                break
        if reached and not (wanted and there):
            return False
        if self._refused and not self._keys:
            raise refusal(self._endpoint)
        raise ZmsvcError(f"cannot reach {self._endpoint}: {self._why_not()}")

    def send(self, frame: bytes) -> None:
        """Send, and wait until the device has read it."""
        self._publisher.send(frame)
        self._note_connection()
        lost = ZmsvcError(f"cannot send to {self._endpoint}: the device went away; the message may be lost")
        self._close(self._left_ms())
        connection = self._connection
        if connection is None:
            raise lost
        if _ended(connection):
            # So it is where the order was to end the context.
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
        return max(0, round((self._until - time.monotonic()) * 1000))

    def _note_connection(self) -> None:
        for event, value in seen(self._monitor):
            self._refused = self._refused or event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
            self._hang_up()
            if event == zmq.EVENT_CONNECTED:
                self._met = True
                try:
                    self._connection = socket.socket(fileno=os.dup(value))
                except OSError:
                    pass  # It is gone already; its DISCONNECTED comes next.

    def _why_not(self) -> str:
        if self._refused:
            return "the device does not know our CURVE key"
        if self._connection:
            return (
                "somebody took the connection, but no device answered in time (does it want CURVE keys that "
                "we have not?)"
            )
        if self._met:
            return "the peer ends the connection (is it where one subscribes? That is another port)"
        return "nobody listens there"

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


def _ended(connection: socket.socket) -> bool:
    watched = poll()
    watched.register(connection, POLLRDHUP)
    return bool(watched.poll(0))


def _had_read_all(connection: socket.socket, timeout_ms: int) -> bool:
    """Tell whether the peer, which has closed a TCP connection, had read all of it before: its kernel resets
    the connection otherwise.

    The error of a reset has gone to libzmq, but the state of the connection is another one. A Unix socket has
    no such state.
    """
    if connection.family == socket.AF_UNIX:
        return False
    if _unacknowledged(connection):
        # Over a network a reset takes its time; an acknowledgement is no event, so that this wait may be for
        # nothing.
        watched = poll()
        watched.register(connection, 0)  # POLLERR and POLLHUP are always told.
        watched.poll(timeout_ms)
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == _TCP_CLOSE_WAIT and not _unacknowledged(connection)


def _unacknowledged(connection: socket.socket) -> int:
    """Return how many bytes wait for the acknowledgement of the other side: SIOCOUTQ, tcp(7)."""
    count = bytearray(4)
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return int.from_bytes(count, sys.byteorder)
