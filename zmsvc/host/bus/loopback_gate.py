"""Lets only members connect over loopback tcp without CURVE keys: the kernel tells the uid at the other end,
libzmq waits for the verdict.

A ZAP request of the NULL mechanism names neither port nor descriptor, so it cannot be tied to one connection.
It need not be. libzmq's I/O thread reports ACCEPTED of a connection before that connection can ask, and
DISCONNECTED when nothing of it can be forwarded any more. So a request is answered with 200 only when each
connection that had been accepted when it came was either judged well or is gone: whosever request it is, that
connection is one of them. A test fires hostile and allowed connections at it, mixed.
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
from zmsvc.host.bus.members import Members
from zmsvc.host.bus.socket_options import Context, is_readable
from zmsvc.host.bus.zap import ADDRESS, ASKED, ZapHandler
from zmsvc.host.directories import user
from zmsvc.host.kernel.sockdiag import SockDiag
from zmsvc.host.sparse_log import SparseLog

REFUSAL = b"\x04\x0a\x05ERROR\x03400"
"""ZMTP's ERROR command with the status that a client's libzmq reports as HANDSHAKE_FAILED_AUTH."""
_GRACE_S = 1.0
"""Seconds that a refused connection may take to its handshake, in which it can be told why; then it is
ended without a word.
"""
_MAX_WAITING = 256
"""Refused connections that may wait for that at once: of more the oldest is ended, since each takes two
descriptors.
"""
_MAX_NAMED = 64
"""Users whose refusals are counted apart."""


@dataclass(slots=True, kw_only=True)
class _Refused:
    """A connection that is not to be let in, by a duplicate of its descriptor, until libzmq has ended it."""

    number: int
    connection: socket.socket | None
    until: float

    def hang_up(self) -> None:
        """Tell the client and end the connection. When libzmq asks it has sent its greeting; it sends no
        more before the answer.
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
    """A question of libzmq's, and the refused connections of which one may have asked it."""

    frames: list[bytes]
    suspects: set[int] = field(default_factory=set)


class LoopbackGate(ZapHandler):
    """The ZAP handler of a device whose tcp endpoints are not secured by keys. Raises ZmsvcError when the
    kernel cannot be asked.
    """

    def __init__(self, ctx: Context, members: Path | None, report: Callable[[str], None]) -> None:
        # A ROUTER may have several requests in hand, a REP only one.
        self.socket = ctx.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)
        self._members = Members(members)
        self._kernel = SockDiag()
        self._report = report
        self._tallies: dict[int | None, SparseLog] = {}
        self._refused: dict[tuple[str, int], _Refused] = {}
        """By the device's socket and libzmq's descriptor."""
        self._waiting: deque[_Refused] = deque()
        """Those that may be told why, the oldest first, and some that are gone."""
        self._numbers = itertools.count()
        self._fresh: list[_Request] = []
        self._held: list[_Request] = []

    # --- what libzmq tells, in the order in which it happened

    def receive(self) -> None:
        """Take what is asked; the news of connections that is taken after this is newer than each
        request.
        """
        for _ in range(ASKED):
            if not is_readable(self.socket):
                return
            self._fresh.append(_Request(frames=self.socket.recv_multipart()))

    def accepted(self, side: str, fd: int) -> None:
        """Judge a connection. One that is gone by now, or half closed, is refused as well: nothing vouches
        for it.
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
        if uid is not None and self._members.admit(uid):
            connection.close()
            return
        self._count(uid)
        self._refuse((side, fd), connection)

    def _uid(self, connection: socket.socket) -> int | None:
        try:
            return self._kernel.peer(connection)
        except OSError as error:
            self._report(f"cannot tell who connects: {error.strerror or error}")
            return None

    def _refuse(self, key: tuple[str, int], connection: socket.socket | None) -> None:
        refused = _Refused(
            number=next(self._numbers), connection=connection, until=time.monotonic() + _GRACE_S
        )
        self._refused[key] = refused
        self._waiting.append(refused)
        if len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft().hang_up()

    def ended(self, side: str, fd: int) -> None:
        """libzmq is through with a connection: whatever it had asked may be answered."""
        gone = self._refused.pop((side, fd), None)
        if gone is None:
            return
        if gone.connection is not None:
            gone.connection.close()
            gone.connection = None
        for request in self._held:
            request.suspects.discard(gone.number)

    # --- what is answered

    def answer(self, *, known: bool) -> None:
        """Answer what can be answered. A request keeps the suspects it came with, so a flood of later ones
        does not hold it up.
        """
        if known:
            self._answer_fresh()
        now = time.monotonic()
        for each in self._late(now):
            each.hang_up()

    def _answer_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        if fresh:
            for each in self._refused.values():
                each.hang_up()
        for request in fresh:
            request.suspects = {each.number for each in self._refused.values()}
        held = [*self._held, *fresh]
        for request in held:
            if not request.suspects:
                self._let_in(request.frames)
        self._held = [request for request in held if request.suspects]

    def _let_in(self, frames: list[bytes]) -> None:
        peer, empty, version, request = frames[:4]
        self.socket.send_multipart([peer, empty, version, request, b"200", b"OK", b"", b""])

    def _late(self, now: float) -> Iterator[_Refused]:
        return (each for each in self._refused.values() if each.connection is not None and each.until <= now)

    def timeout_ms(self) -> int | None:
        """How long the device may wait for news before `answer` has something to do."""
        due = [each.until for each in self._refused.values() if each.connection is not None]
        return max(0, round((min(due) - time.monotonic()) * 1000)) + 1 if due else None

    def _count(self, uid: int | None) -> None:
        if uid is None:
            return
        key = uid if uid in self._tallies or len(self._tallies) < _MAX_NAMED else None
        tally = self._tallies.setdefault(key, SparseLog(self._report))
        who = user(uid) if key is not None else "another user"
        tally.add(
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
