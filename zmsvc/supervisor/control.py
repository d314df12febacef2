"""The server of the control socket. Each request and each answer is a line of JSON.

core/access.py says which users may send which request. The kernel tells the user of a client.
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
from zmsvc.host.kernel import unix_sockets
from zmsvc.supervisor.connection import ClientConnection, TooLongError

MAX_LINE = 256 << 10
"""The limit in bytes for the waiting requests of one client: an order that names 5,000 tasks has 100 kB."""
FIRST_LINE = 10.0
"""Seconds in which a client has to send its first request."""
MAX_CLIENTS = 1024
"""The number of connections at once; more are refused with an answer."""
RESERVED = 64
"""The number of these connections that are reserved for root and the daemon's user, so that users of the
group cannot keep them out.
"""
MAX_OF_USER = 256
"""The most connections of one user, other than root and the daemon's own user."""
GRACE = 1.0
"""Seconds in which a refused client can read the answer."""
ACCEPT = 64
"""The number of clients that are accepted in one turn of the loop."""
LAST_WORDS = 0.1
"""Seconds for pending answers when the supervisor leaves. Later clients wait for the next supervisor."""
PAUSE = 1.0
"""Seconds until the next attempt to accept, if there was no descriptor or no thread."""


Answer = dict[str, Any]


class Write(Protocol):
    """The function that sends an answer before the last one. Raises ConnectionError if the client is gone."""

    async def __call__(self, answer: Answer, /) -> None: ...


class Handler(Protocol):
    """The function that answers one verb for the user `uid`."""

    async def __call__(self, request: Mapping[str, Any], uid: int, write: Write, /) -> Answer: ...


Verbs = Mapping[str, Handler]

log = logging.getLogger(__name__)


def failure(code: int, error: str, **data: Any) -> Answer:
    """Return the answer to a refused or failed request. `code` is the exit status of zmsvcctl."""
    return {"ok": False, "code": code, "error": error, "data": data}


def success(data: Mapping[str, Any]) -> Answer:
    return {"ok": True, "code": 0, "data": data}


class Control:
    """The server on the listening socket that the keeper holds."""

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
        """Connections by user ID, including those whose thread hangs."""
        self._closing = False
        self._unserved: socket.socket | None = None
        """A client for which no thread could be started. It waits for one, because the loop itself could hang
        when it closes the socket.
        """

    async def open(self) -> None:
        unix_sockets.refuse_descriptors(self._listening)
        self._loop.add_reader(self._listening.fileno(), self._accept)

    async def close(self) -> None:
        """Send pending answers, and hang up."""
        self._closing = True
        self._loop.remove_reader(self._listening.fileno())
        if self._unserved is not None:
            # Leave the descriptor open: at the end of the process the kernel closes it without waiting.
            self._unserved.detach()
        if self._clients:
            await asyncio.wait(self._clients, timeout=self._last_words)
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accept(self) -> None:
        """Accept the waiting clients. While there is no descriptor or no thread for them, they stay in the
        backlog.
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
            uid = unix_sockets.peer_credentials(sock)[1]
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
        """Stop accepting for a while. Connected clients are still served."""
        log.warning(
            "Cannot accept clients on the control socket, trying again in %g s: %s (raise LimitNOFILE= of "
            "the unit if too many files are open)",
            self._pause_time,
            error,
        )
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
        # A callback does this and not the asyncio task itself: one that is canceled before its first turn
        # runs no code.
        connection.close()
        self._clients.discard(task)

    async def _client(self, connection: ClientConnection, uid: int) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._serve(connection, uid)

    async def _serve(self, connection: ClientConnection, uid: int) -> None:
        async def write(answer: Answer) -> None:
            await connection.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")

        groups = unix_sockets.peer_groups(connection.sock)
        if refusal := self._too_many(uid, groups):
            await write(failure(1, f"too many connections: {refusal}"))
            if self._open.total() <= MAX_CLIENTS + RESERVED:
                # Read the request first: a client that writes to a closed connection gets an error before it
                # reads the answer.
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
                await write(
                    failure(
                        2, f"cannot read request: longer than {MAX_LINE} bytes (name fewer tasks at once)"
                    )
                )
                return
            except TimeoutError:
                await write(failure(1, f"cannot read request: none came within {self._first_line:g} s"))
                return
            if not line:
                return
            # After its first request a client may be silent: it may follow events.
            patience = None
            answer = await self._while_there(connection, self._answer(line, uid, groups, write))
            if answer is not None:
                await write(answer)

    def _too_many(self, uid: int, groups: Set[int]) -> str:
        """Return the reason to refuse a client; empty if it is to be served. Some connections are reserved
        for root and the daemon's user.
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
        """Return the answer, or None if the client has hung up. Its order is carried out nevertheless."""
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
            return failure(1, f"cannot {verb}: permission denied for uid {uid}: only {CONTROL[verb]} may")
        problem = _shape(request)
        if problem:
            return failure(2, f"cannot {verb}: {problem}")
        try:
            return await self._verbs[verb](request, uid, write)
        except Exception as error:
            # One request must not end the supervisor of all tasks: answer it, and log the error.
            if isinstance(error, ConnectionError):
                raise
            log.exception("Cannot answer %s", verb)
            return failure(1, f"cannot {verb}: {error!r}")


def _may(who: Who, uid: int, groups: Set[int]) -> bool:
    """Return True if a user may send a request. This depends on the credentials from the kernel and not on
    the mode of the socket file, which someone may have changed.
    """
    return uid in (0, os.geteuid()) or (who is Who.GROUP and os.getegid() in groups)


def _shape(request: Mapping[str, Any]) -> str:
    """Return the fault in the types of a request; empty if there is none."""
    tasks = request.get("tasks") or []
    if not isinstance(tasks, list) or not all(map(_is_text, tasks)):
        return "tasks is not a list of task ids"
    transaction = request.get("transaction")
    return "" if transaction is None or _is_text(transaction) else "transaction is not a string"


def _is_text(value: Any) -> bool:
    """Return True for a string that can be written as UTF-8: one from JSON may have lone surrogates."""
    return isinstance(value, str) and not any("\ud800" <= each <= "\udfff" for each in value)
