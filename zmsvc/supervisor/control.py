"""The control socket: a request becomes a fact, a Reply becomes the answer. A request a line, an answer a
line, JSON both ways.

Who may ask for what is in core/access.py, and who asks is told by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Coroutine, Mapping, Set
from typing import Any, Protocol

from zmsvc.core.access import CONTROL, Who
from zmsvc.host.kernel import linux
from zmsvc.supervisor.connection import ClientConnection, TooLongError

MAX_LINE = 256 << 10
"""Bytes of requests that one client may have waiting: an order that names 5,000 tasks has 100 kB."""
FIRST_LINE = 10.0
"""Seconds in which a client has to ask for something."""
MAX_CLIENTS = 1024
"""Connections at once; more are refused with a word."""
RESERVED = 64
"""Of these for root and the daemon's own user alone, whom no other user of its group can keep out."""
MAX_OF_USER = 256
"""Connections of one other user."""
GRACE = 1.0
"""Seconds that a client which is refused has to hear so."""
ACCEPT = 64
"""Clients that are taken in one turn of the loop."""
LAST_WORDS = 0.1
"""Seconds for answers that are under way when the supervisor leaves: those who come now wait for the next
one.
"""
PAUSE = 1.0
"""Seconds until the next try to take a client, when no descriptor or no thread could be had."""


Answer = dict[str, Any]


class Write(Protocol):
    """Sends an answer that is not the last one. Raises ConnectionError when the client is gone."""

    async def __call__(self, answer: Answer, /) -> None: ...


class Handler(Protocol):
    """Answers one verb, for the user `uid`."""

    async def __call__(self, request: Mapping[str, Any], uid: int, write: Write, /) -> Answer: ...


Verbs = Mapping[str, Handler]

log = logging.getLogger(__name__)


def failure(code: int, error: str, **data: Any) -> Answer:
    """An answer that says no. `code` is the exit status of zmsvcctl."""
    return {"ok": False, "code": code, "error": error, "data": data}


def success(data: Mapping[str, Any]) -> Answer:
    return {"ok": True, "code": 0, "data": data}


class Control:
    """The server on the socket that the keeper listens with."""

    def __init__(
        self,
        listening: socket.socket,
        verbs: Verbs,
        *,
        first_line: float = FIRST_LINE,
        last_words: float = LAST_WORDS,
        pause: float = PAUSE,
    ) -> None:
        self._listening = listening
        self._verbs = verbs
        self._first_line, self._last_words, self._pause_time = first_line, last_words, pause
        self._loop = asyncio.get_running_loop()
        self._clients: set[asyncio.Task[Any]] = set()
        self._open: Counter[int] = Counter()
        """Connections by uid, those whose thread hangs included."""
        self._closing = False
        self._unserved: socket.socket | None = None
        """A client for whom no thread could be had. To close it might hang the loop, so it waits for one."""

    async def open(self) -> None:
        linux.refuse_descriptors(self._listening)
        self._loop.add_reader(self._listening.fileno(), self._accept)

    async def close(self) -> None:
        """Let the answers that are under way go out, and hang up."""
        self._closing = True
        self._loop.remove_reader(self._listening.fileno())
        if self._unserved is not None:
            # The kernel does not wait for what an ended process had.
            self._unserved.detach()
        if self._clients:
            await asyncio.wait(self._clients, timeout=self._last_words)
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self) -> None:
        """Take the clients that wait; each waits in the backlog while no descriptor or no thread can
        be had.
        """
        for _ in range(ACCEPT):
            try:
                sock = self._unserved or self._listening.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                self._pause(error)
                return
            self._unserved = None
            sock.setblocking(False)
            uid = linux.peer_credentials(sock)[1]
            self._open[uid] += 1
            try:
                connection = ClientConnection(sock, MAX_LINE, functools.partial(self._gone, uid))
            except RuntimeError as error:
                self._gone(uid)
                self._unserved = sock
                self._pause(error)
                return
            task = self._loop.create_task(self._client(connection, uid))
            self._clients.add(task)
            task.add_done_callback(functools.partial(self._done, connection))

    def _pause(self, error: Exception) -> None:
        """Those who are connected are served meanwhile."""
        log.warning("Cannot take a client: %s", error)
        self._loop.remove_reader(self._listening.fileno())
        self._loop.call_later(self._pause_time, self._resume)

    def _resume(self) -> None:
        if not self._closing:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _gone(self, uid: int) -> None:
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]

    def _done(self, connection: ClientConnection, task: asyncio.Task[Any]) -> None:
        # Not in the task: one that is cancelled before its first turn runs nothing of it.
        connection.close()
        self._clients.discard(task)

    async def _client(self, connection: ClientConnection, uid: int) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._serve(connection, uid)

    async def _serve(self, connection: ClientConnection, uid: int) -> None:
        async def write(answer: Answer) -> None:
            await connection.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")

        groups = linux.peer_groups(connection.sock)
        if refusal := self._too_many(uid, groups):
            await write(failure(1, f"too many connections: {refusal}"))
            if self._open.total() <= MAX_CLIENTS + RESERVED:
                # A client that is about to ask would find the connection broken, and not look for the answer.
                connection.end()
                with contextlib.suppress(TimeoutError, TooLongError):
                    async with asyncio.timeout(GRACE):
                        await connection.readline()
            return
        patience: float | None = self._first_line
        while True:
            try:
                async with asyncio.timeout(patience):
                    line = await connection.readline()
            except TooLongError:
                await write(failure(2, f"cannot read request: longer than {MAX_LINE} bytes"))
                return
            except TimeoutError:
                await write(failure(1, f"cannot read request: none came within {self._first_line:g} s"))
                return
            if not line:
                return
            # A client that has asked once may wait for as long as it likes, for it may be one that follows
            # what happens.
            patience = None
            answer = await self._while_there(connection, self._answer(line, uid, groups, write))
            if answer is not None:
                await write(answer)

    def _too_many(self, uid: int, groups: Set[int]) -> str:
        """Tell why a client has to go; empty when it may stay. The daemon's user and root have places that
        no other user can take.
        """
        owners = sum(self._open[owner] for owner in {0, os.geteuid()})
        others = self._open.total() - owners
        if _may(Who.OWNER, uid, groups):
            return f"{MAX_CLIENTS} are open" if owners > RESERVED and self._open.total() > MAX_CLIENTS else ""
        if self._open[uid] > MAX_OF_USER:
            return f"{MAX_OF_USER} of uid {uid} are open"
        return f"{others - 1} are open" if others > MAX_CLIENTS - RESERVED else ""

    async def _while_there(
        self, connection: ClientConnection, work: Coroutine[Any, Any, Answer]
    ) -> Answer | None:
        """Return the answer, or None when the client has hung up. Its order is carried out all the same,
        without waiting for the end.
        """
        task, me = asyncio.ensure_future(work), asyncio.current_task()
        connection.on_hang_up(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            assert me is not None
            if me.cancelling():
                raise
            return None
        finally:
            connection.on_hang_up(None)

    async def _answer(self, line: bytes, uid: int, groups: Set[int], write: Write) -> Answer:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return failure(2, f"cannot read request: {error}")
        if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
            return failure(2, "cannot read request: it is not an object with a verb")
        verb = request["verb"]
        if verb not in self._verbs or verb not in CONTROL:
            return failure(2, f"cannot {verb}: the supervisor knows {', '.join(sorted(self._verbs))}")
        if not _may(CONTROL[verb], uid, groups):
            return failure(1, f"cannot {verb}: only {CONTROL[verb]} may, and uid {uid} is none of them")
        problem = _shape(request)
        if problem:
            return failure(2, f"cannot {verb}: {problem}")
        try:
            return await self._verbs[verb](request, uid, write)
        except Exception as error:
            # One request of one client must not end the supervisor of all tasks: it is answered, logged, and
            # over.
            if isinstance(error, ConnectionError):
                raise
            log.exception("Cannot answer %s", verb)
            return failure(1, f"cannot {verb}: {error!r}")


def _may(who: Who, uid: int, groups: Set[int]) -> bool:
    """Judged by what the kernel says of the peer, not by the mode of the socket's file, which somebody may
    have widened.
    """
    return uid in (0, os.geteuid()) or (who is Who.GROUP and os.getegid() in groups)


def _shape(request: Mapping[str, Any]) -> str:
    """What is wrong with the types of a request; empty when nothing is."""
    tasks = request.get("tasks") or []
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        return "tasks is not a list of task ids"
    if not isinstance(request.get("transaction"), str | None):
        return "transaction is not a string"
    return ""
