"""A ZAP handler that lets only the users of the bus connect over loopback tcp without CURVE keys. The
kernel reports the peer's user ID, and libzmq waits for the answer.

A ZAP request of the NULL mechanism names neither port nor descriptor, so it cannot be matched to a
connection. That is not necessary. libzmq's I/O thread reports ACCEPTED before a connection can send a
request, and DISCONNECTED when none of its messages can be forwarded any more. So the request is answered with
200 only when each connection that was accepted before it is either permitted or closed: the request's own
connection is one of them. A test sends hostile and permitted connections in a mix.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from zmsvc.core.access import MAY_CONNECT
from zmsvc.host.bus.bus_users import BusUsers
from zmsvc.host.bus.socket_options import Context, is_readable
from zmsvc.host.bus.zap import ADDRESS, BATCH, ZapHandler
from zmsvc.host.directories import user
from zmsvc.host.kernel.sockdiag import SockDiag
from zmsvc.host.sparse_log import SparseLog

REFUSAL = b"\x04\x0a\x05ERROR\x03400"
"""The ERROR command of ZMTP, with the status that libzmq in a client reports as HANDSHAKE_FAILED_AUTH."""
GRACE_S = 1.0
"""Seconds that a refused connection has for its handshake, in which the gate sends ERROR. After that the gate
closes the connection even without a handshake.
"""
_MAX_WAITING = 256
"""Refused connections that may wait for their handshake at once. Each takes two descriptors, so beyond this
number the gate closes the oldest.
"""
_MAX_NAMED = 64
"""Users whose refusals are logged separately."""


@dataclass(slots=True, kw_only=True)
class _Refused:
    """A refused connection, by a duplicate of its descriptor, until libzmq has closed it."""

    number: int
    connection: socket.socket | None
    until: float

    def hang_up(self) -> None:
        """Send the client an ERROR and shut the connection down. libzmq has sent its greeting before its ZAP
        request, and sends nothing more before the answer.
        """
        if self.connection is None:
            return
        with contextlib.suppress(OSError):
            self.connection.send(REFUSAL, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.connection = None


@dataclass(slots=True, kw_only=True)
class _Request:
    """A ZAP request, and the refused connections that may have caused it."""

    frames: list[bytes]
    suspects: set[int] = field(default_factory=set)


class LoopbackGate(ZapHandler):
    """The ZAP handler for tcp endpoints without keys. A refused connection has `grace_s` seconds for its
    handshake, to get the reason. Raises ZmsvcError if the kernel offers no sock_diag.
    """

    def __init__(
        self, ctx: Context, members: Path | None, report: Callable[[str], None], *, grace_s: float = GRACE_S
    ) -> None:
        # A ROUTER can have several unanswered requests, a REP only one.
        self.socket = ctx.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)
        self._bus_users = BusUsers(members)
        self._kernel = SockDiag()
        self._report = report
        self._grace_s = grace_s
        self._refusal_logs: dict[int | None, SparseLog] = {}
        self._refused: dict[tuple[str, int], _Refused] = {}
        """By ZMQ socket and descriptor of libzmq."""
        self._waiting: deque[_Refused] = deque()
        """Connections that wait for their handshake, the oldest first. Some of them may be closed already."""
        self._numbers = itertools.count()
        self._new_requests: list[_Request] = []
        self._pending: list[_Request] = []

    # --- events of libzmq, in their order

    def receive(self) -> None:
        """Read requests. Events that are read after this call are newer than each of these requests."""
        for _ in range(BATCH):
            if not is_readable(self.socket):
                return
            self._new_requests.append(_Request(frames=self.socket.recv_multipart()))

    def accepted(self, side: str, fd: int) -> None:
        """Permit or refuse a connection. One that is closed or half closed by now is refused, because its
        user is not known.
        """
        self.ended(side, fd)
        try:
            connection = socket.socket(fileno=os.dup(fd))
        except OSError:
            self._refuse((side, fd), None)
            return
        if connection.family == socket.AF_UNIX:
            connection.close()
            return
        uid = self._uid(connection)
        if uid is not None and self._bus_users.admit(uid):
            connection.close()
            return
        self._count(uid)
        self._refuse((side, fd), connection)

    def _uid(self, connection: socket.socket) -> int | None:
        try:
            return self._kernel.peer(connection)
        except OSError as error:
            self._report(f"cannot find the user of a connection: {error.strerror or error}")
            return None

    def _refuse(self, key: tuple[str, int], connection: socket.socket | None) -> None:
        refused = _Refused(
            number=next(self._numbers), connection=connection, until=time.monotonic() + self._grace_s
        )
        self._refused[key] = refused
        self._waiting.append(refused)
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft().hang_up()

    def ended(self, side: str, fd: int) -> None:
        """Note that libzmq has closed a connection: its request may now be answered."""
        gone = self._refused.pop((side, fd), None)
        if gone is None:
            return
        if gone.connection is not None:
            gone.connection.close()
            gone.connection = None
        for request in self._pending:
            request.suspects.discard(gone.number)

    # --- answers

    def answer(self, *, complete: bool) -> None:
        """Answer the requests that can be answered. The connections that may have caused a request are fixed
        when it arrives, so later connections cannot delay it.
        """
        if complete:
            self._answer_new_requests()
        now = time.monotonic()
        for each in self._late(now):
            each.hang_up()

    def _answer_new_requests(self) -> None:
        new, self._new_requests = self._new_requests, []
        if new:
            for each in self._refused.values():
                each.hang_up()
        for request in new:
            request.suspects = {each.number for each in self._refused.values()}
        pending = [*self._pending, *new]
        for request in pending:
            if not request.suspects:
                self._accept(request.frames)
        self._pending = [request for request in pending if request.suspects]

    def _accept(self, frames: list[bytes]) -> None:
        peer, empty, version, request = frames[:4]
        self.socket.send_multipart([peer, empty, version, request, b"200", b"OK", b"", b""])

    def _late(self, now: float) -> Iterator[_Refused]:
        return (each for each in self._refused.values() if each.connection is not None and each.until <= now)

    def timeout_ms(self) -> int | None:
        """Return the milliseconds until `answer` has to close a late connection; None if there is none."""
        due = [each.until for each in self._refused.values() if each.connection is not None]
        return max(0, round((min(due) - time.monotonic()) * 1000)) + 1 if due else None

    def _count(self, uid: int | None) -> None:
        if uid is None:
            return
        key = uid if uid in self._refusal_logs or len(self._refusal_logs) < _MAX_NAMED else None
        refusals = self._refusal_logs.setdefault(key, SparseLog(self._report))
        who = user(uid) if key is not None else "another user"
        refusals.add(
            "a connection of %s (uid %d) is refused: only %s may connect without CURVE keys",
            who,
            uid,
            MAY_CONNECT,
        )

    def forget(self) -> None:
        for key in list(self._refused):
            self.ended(*key)

    def close(self) -> None:
        self.forget()
        self._kernel.close()
        super().close()
