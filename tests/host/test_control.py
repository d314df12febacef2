"""The server of the control socket alone, with clients that attack it: none of them delays another one, or
the loop.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, wait_for

from zmsvc.host.kernel import unix_sockets
from zmsvc.supervisor import control
from zmsvc.supervisor.control import MAX_LINE, Control, success

LINGER = 3600
"""Seconds for which the kernel blocks a thread that closes the descriptor of the attacker, unless the other end is
closed.
"""


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


@contextlib.asynccontextmanager
async def serving(
    path: Path, begun: list[str] | None = None, ended: asyncio.Event | None = None, **limits: float
) -> AsyncIterator[Path]:
    async def answer(_request: Any, _uid: int, _write: Any) -> control.Answer:
        return success({"here": True})

    async def wait(request: Any, _uid: int, _write: Any) -> control.Answer:
        assert begun is not None
        assert ended is not None
        begun.append(request["verb"])
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return success({})

    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listening.bind(str(path))
    listening.listen(100)
    server = Control(listening, {"status": answer, "start": wait}, **limits)
    await server.open()
    try:
        yield path
    finally:
        await server.close()
        listening.close()


def clients() -> list[threading.Thread]:
    """Return the threads that serve a client."""
    return [thread for thread in threading.enumerate() if thread.name == "control client"]


def lingering() -> tuple[socket.socket, socket.socket]:
    """Return a TCP connection to ourselves whose last close waits, because it has data that the other end
    does not take.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(bytes(65536))
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
    return ours, other


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(path))
    return client


def ask(path: Path, request: bytes = b'{"verb":"status"}\n') -> dict[str, Any]:
    with connect(path) as client:
        client.sendall(request)
        with client.makefile("rb") as answers:
            told: dict[str, Any] = json.loads(answers.readline())
    return told


async def asked(path: Path, request: bytes = b'{"verb":"status"}\n') -> dict[str, Any]:
    return await asyncio.to_thread(ask, path, request)


@pytest.mark.parametrize("spoken", [b"x", b'{"verb":"status"}\n'], ids=["half a request", "a whole one"])
def test_a_descriptor_whose_close_hangs_blocks_one_connection_only(
    tmp_path: Path, spoken: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel does not refuse descriptors here. In the thread of the loop, the close would block the
    supervisor for an hour.
    """
    monkeypatch.setattr(unix_sockets, "refuse_descriptors", lambda sock: False)

    async def attack() -> None:
        async with serving(tmp_path / "c") as path:
            ours, other = lingering()
            with other, connect(path) as attacker:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours.fileno()]))]
                attacker.sendmsg([spoken], rights)
                ours.close()
                for _ in range(5):
                    assert (await asked(path))["ok"]
                assert clients(), "the thread of the attacker hangs"

    run(attack())
    # The blocked thread goes on when the other end is closed.
    wait_for(lambda: not clients())


def test_a_client_without_a_free_thread_waits_and_blocks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To hang up at once would close the descriptor in the thread of the loop."""
    monkeypatch.setattr(unix_sockets, "refuse_descriptors", lambda sock: False)
    made, failures = control.ClientConnection, ["can't start new thread"]

    def connection(*arguments: Any) -> control.ClientConnection:
        if failures:
            raise RuntimeError(failures.pop())
        return made(*arguments)

    monkeypatch.setattr(control, "ClientConnection", connection)

    async def attack() -> None:
        async with serving(tmp_path / "c", pause=0.05) as path:
            ours, other = lingering()
            with other, connect(path) as attacker:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours.fileno()]))]
                attacker.sendmsg([b"x"], rights)
                ours.close()
                assert (await asked(path))["ok"]
                assert not failures
                assert clients(), "it is served as well"

    run(attack())
    wait_for(lambda: not clients())


def test_the_kernel_refuses_descriptors_where_it_can(tmp_path: Path) -> None:
    async def attack() -> None:
        async with serving(tmp_path / "c") as path:
            with connect(path) as attacker:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
                if unix_sockets.refuse_descriptors(attacker):
                    with pytest.raises(PermissionError):
                        attacker.sendmsg([b"x"], rights)
                else:
                    attacker.sendmsg([b"x"], rights)
            assert (await asked(path))["ok"]

    run(attack())


def test_a_request_without_an_end_is_refused_at_its_limit(tmp_path: Path) -> None:
    async def attack() -> None:
        async with serving(tmp_path / "c") as path:
            told = await asked(path, b"x" * (MAX_LINE + 1))
            assert told["error"].startswith(f"cannot read request: longer than {MAX_LINE} bytes (")

    run(attack())


def test_pending_requests_share_one_size_limit(tmp_path: Path) -> None:
    async def attack() -> None:
        async with serving(tmp_path / "c") as path:
            request = b'{"verb":"status"}' + b" " * 1000 + b"\n"

            def flood() -> bool:
                """Return True if the server has hung up on a client that sends requests without end, or has
                said that there are too many.
                """
                with connect(path) as client, client.makefile("rb") as answers:
                    try:
                        client.sendall(request * (4 * MAX_LINE // len(request)))
                        return b"longer than" in answers.read()
                    except ConnectionError:
                        return True

            assert await asyncio.to_thread(flood)
            assert (await asked(path))["ok"]
            await asyncio.to_thread(wait_for, lambda: not clients())

    run(attack())


def test_an_idle_client_is_disconnected(tmp_path: Path) -> None:
    async def attack() -> None:
        async with serving(tmp_path / "c", first_line=0.2) as path:
            told = await asked(path, b"x")
            assert told["error"] == "cannot read request: none came within 0.2 s"

    run(attack())


def test_two_requests_on_one_connection_are_answered_in_turn(tmp_path: Path) -> None:
    async def use() -> None:
        async with serving(tmp_path / "c") as path:

            def both() -> list[bytes]:
                with connect(path) as client, client.makefile("rb") as answers:
                    client.sendall(b'{"verb":"status"}\n{"verb":')
                    first = answers.readline()
                    client.sendall(b'"fly"}\n')
                    return [first, answers.readline()]

            first, second = await asyncio.to_thread(both)
            assert json.loads(first)["ok"]
            assert json.loads(second)["error"].startswith("cannot fly: the supervisor knows ")

    run(use())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"transaction": "\ud800"}, "transaction is not a string"),
        ({"tasks": ["ts_1", "\udfff"]}, "tasks is not a list of task ids"),
    ],
)
def test_a_name_that_is_no_unicode_text_is_refused(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    """No file, database or log could contain it."""

    async def test() -> None:
        async with serving(tmp_path / "s") as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(json.dumps({"verb": "status", **more}).encode() + b"\n")
            assert json.loads(await reader.readline())["error"] == f"cannot status: {why}"
            writer.close()

    run(test())


def test_a_client_accepted_during_shutdown_is_disconnected(tmp_path: Path) -> None:
    """This happens at reexec: the task of the client is canceled before its first turn. There is no error,
    and the client connects to the next supervisor.
    """

    async def test() -> None:
        problems: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: problems.append(about))
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listening.bind(str(tmp_path / "sock"))
        listening.listen(100)
        server = Control(listening, {}, last_words=0.0)
        await server.open()
        with connect(tmp_path / "sock") as client:
            server._accept()
            for task in server._clients:
                task.cancel()
            await server.close()
            assert await asyncio.to_thread(client.recv, 1) == b""
        listening.close()
        assert not problems

    run(test())


@pytest.mark.parametrize("read_first", [False, True], ids=["before it is read", "when it is read"])
def test_the_order_of_a_client_that_hangs_up_at_once_begins_and_is_not_waited_for(
    tmp_path: Path, read_first: bool
) -> None:
    """asyncio runs no code of a task that is canceled before its first step. The order must not be lost by
    that.
    """
    begun: list[str] = []

    async def attack() -> None:
        ended = asyncio.Event()
        async with serving(tmp_path / "c", begun, ended) as path:
            client = connect(path)
            for _ in range(3):
                await asyncio.sleep(0)
            assert clients(), "it is accepted"
            # The loop does not run before the thread of the connection has passed everything on.
            pending = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
            client.sendall(b'{"verb":"start"}\n')
            if read_first:
                wait_for(lambda: len(pending) >= 1)
            client.close()
            wait_for(lambda: len(pending) >= 3)
            async with asyncio.timeout(PATIENCE):
                await ended.wait()

    run(attack())
    assert begun == ["start"]
