"""The control socket: a request becomes a fact, a Reply becomes the answer. A request a line, an answer a line, JSON both ways.

Who may ask for what is one table, and who asks is told by the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Set
from enum import StrEnum
from typing import Any

from zmsvc.host import linux
from zmsvc.supervisor.hangups import Hangups

MAX_LINE = 4 << 20
"""Bytes of one request."""
MAX_CLIENTS = 1024
"""Connections at once; more are refused with a word."""
RESERVED = 64
"""Of these for root and the daemon's own user alone, whom nobody of its group can keep out."""


class Who(StrEnum):
    """Who may ask for something; root and the daemon's own user always may."""

    OWNER = "root and the daemon's user"
    GROUP = "root, the daemon's user and its group"


ACCESS: Mapping[str, Who] = {
    "status": Who.GROUP,
    "events": Who.GROUP,
    "start": Who.GROUP,
    "stop": Who.GROUP,
    "restart": Who.GROUP,
    "reset-failed": Who.GROUP,
    "reload": Who.OWNER,
    "reexec": Who.OWNER,
    "exit": Who.OWNER,
}
"""Who may do what. What is not in it cannot be asked for; zmsvcctl(1) shows the same."""

Answer = dict[str, Any]
Write = Callable[[Answer], Awaitable[None]]
Verbs = Mapping[str, Callable[[Mapping[str, Any], int, Write], Coroutine[Any, Any, Answer]]]

log = logging.getLogger(__name__)


def failure(code: int, error: str, **data: Any) -> Answer:
    """An answer that says no. `code` is the exit status of zmsvcctl."""
    return {"ok": False, "code": code, "error": error, "data": data}


def success(data: Mapping[str, Any]) -> Answer:
    return {"ok": True, "code": 0, "data": data}


class Control:
    """The server on the socket that the keeper listens with."""

    def __init__(self, listening: socket.socket, verbs: Verbs) -> None:
        self._listening = listening
        self._verbs = verbs
        self._clients: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._hangups = Hangups()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._client, sock=self._listening, limit=MAX_LINE, backlog=MAX_CLIENTS)

    async def close(self) -> None:
        """Let the answers that are under way go out, and hang up."""
        if self._server is not None:
            self._server.close()
        if self._clients:
            await asyncio.wait(self._clients, timeout=1.0)
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._hangups.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(answer: Answer) -> None:
            writer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
            await writer.drain()

        peer = writer.get_extra_info("socket")
        uid, groups = linux.peer_credentials(peer)[1], linux.peer_groups(peer)
        if len(self._clients) > MAX_CLIENTS - (0 if _may(Who.OWNER, uid, groups) else RESERVED):
            await write(failure(1, f"too many connections: {len(self._clients) - 1} are open"))
            return
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                await write(failure(2, f"cannot read request: longer than {MAX_LINE} bytes"))
                return
            if not line:
                return
            answer = await self._while_there(peer, self._answer(line, uid, groups, write))
            if answer is not None:
                await write(answer)

    async def _while_there(self, peer: socket.socket, work: Coroutine[Any, Any, Answer]) -> Answer | None:
        """The answer, or None when whoever asked has hung up. His order is carried out all the same; nobody waits for its outcome."""
        task, me = asyncio.ensure_future(work), asyncio.current_task()
        with self._hangups.of(peer.fileno(), task.cancel):
            try:
                return await task
            except asyncio.CancelledError:
                assert me is not None
                if me.cancelling():
                    raise
                return None

    async def _answer(self, line: bytes, uid: int, groups: Set[int], write: Write) -> Answer:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return failure(2, f"cannot read request: {error}")
        if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
            return failure(2, "cannot read request: it is not an object with a verb")
        verb = request["verb"]
        if verb not in self._verbs or verb not in ACCESS:
            return failure(2, f"cannot {verb}: the supervisor knows {', '.join(sorted(self._verbs))}")
        if not _may(ACCESS[verb], uid, groups):
            return failure(1, f"cannot {verb}: only {ACCESS[verb]} may, and uid {uid} is none of them")
        problem = _shape(request)
        if problem:
            return failure(2, f"cannot {verb}: {problem}")
        try:
            return await self._verbs[verb](request, uid, write)
        except Exception as error:
            # One request of one client must not end the supervisor of all tasks: it is answered, logged, and over.
            if isinstance(error, ConnectionError):
                raise
            log.exception("Cannot answer %s", verb)
            return failure(1, f"cannot {verb}: {error!r}")


def _may(who: Who, uid: int, groups: Set[int]) -> bool:
    """Judged by what the kernel says of the peer, not by the mode of the socket's file, which somebody may have widened."""
    return uid in (0, os.geteuid()) or (who is Who.GROUP and os.getegid() in groups)


def _shape(request: Mapping[str, Any]) -> str:
    """What is wrong with the types of a request; empty when nothing is."""
    tasks = request.get("tasks") or []
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        return "tasks is not a list of task ids"
    if not isinstance(request.get("transaction"), str | None):
        return "transaction is not a string"
    return ""
