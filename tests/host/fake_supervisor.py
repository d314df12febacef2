"""A fake supervisor that gives the answers of a test: a real Unix socket and the real protocol, without
processes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zmsvc import __version__

Json = dict[str, Any]


class HangUp:
    """Close the connection instead of an answer."""


class Silence:
    """Send no answer, until the client hangs up."""


Say = Json | bytes | HangUp | Silence
"""An answer, raw bytes, or an action instead of one."""
Reply = Say | list[Say] | Callable[[Json], "Reply"]


def yes(**data: Any) -> Json:
    return {"ok": True, "code": 0, "data": data}


def no(code: int, error: str, **data: Any) -> Json:
    return {"ok": False, "code": code, "error": error, "data": data}


def more(**data: Any) -> Json:
    return {"ok": True, "more": True, "data": data}


def task(task_id: str = "ts_100", state: str = "active", sub: str = "running", **other: Any) -> Json:
    """Return a task as `status` shows it."""
    told = {
        "id": task_id,
        "name": "echo",
        "instance": "EchoAction",
        "description": "An echo",
        "pid": 4194305,
        "state": state,
        "sub": sub,
        "action": "started",
        "since": "2026-11-23T12:00:00.000+00:00",
        "restarts": 0,
        "exit": None,
        "status": "",
        "cgroup": None,
        "entry": True,
        "held": False,
        "dropped": 0,
        "cause": {},
    }
    return told | ({} if state == "active" else {"pid": None}) | other


def transaction(name: str = "TX", state: str = "active", tasks: list[Json] | None = None) -> Json:
    return {
        "id": name,
        "state": state,
        "opened": "2026-11-23T11:59:00.000+00:00",
        "tasks": [task()] if tasks is None else tasks,
    }


def status(*transactions: Json, **other: Any) -> Json:
    """Return the answer to `status`."""
    told = {
        "name": "Echo",
        "id": "context001",
        "pid": 4194301,
        "keeper_pid": 4194300,
        "device_pid": 4194302,
        "restarts": 0,
        "state": "active",
        "frontend": "ipc:///nowhere/f",
        "backend": "ipc:///nowhere/b",
        "log": "/nowhere/log",
        "since": None,
        "dropped": {"updates": 0},
        "file": "/nowhere/Context-Echo.xml",
        "unsaved": "",
        "transactions": list(transactions),
        "supervisor_version": __version__,
        "keeper_version": __version__,
        "zygote_version": __version__,
    }
    return yes(**told | other)


class Supervisor:
    """A supervisor of context NAME. `replies` has the replies to each verb, one after the other; the last one
    is repeated for ever.
    """

    def __init__(self, runtime: Path, name: str = "Echo", **replies: Reply | list[Reply]) -> None:
        self.path = runtime / name / "control.sock"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self.requests: list[Json] = []
        self._replies: dict[str, list[Any]] = {"status": [status(transaction())]}
        self.replies(**replies)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(self.path))
        self._listening.listen(8)
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def replies(self, **replies: Any) -> None:
        """Set the replies to verbs. A value is one reply for ever, or a tuple of replies in their order."""
        for verb, reply in replies.items():
            self._replies[verb.replace("_", "-")] = list(reply) if isinstance(reply, tuple) else [reply]

    def asked(self, verb: str) -> list[Json]:
        return [request for request in self.requests if request["verb"] == verb]

    def close(self) -> None:
        """Leave as the keeper does: close the listening socket and hang up every connection."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.path.unlink(missing_ok=True)
        # Wait for the end of the thread first, so that a connection that it has just accepted is closed, too.
        self._thread.join()
        for conn in list(self._open):
            _hang_up(conn)

    def _accept(self) -> None:
        while True:
            try:
                conn, _ = self._listening.accept()
            except OSError:
                return
            self._open.add(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        try:
            with conn, conn.makefile("rb") as lines:
                for line in lines:
                    request = json.loads(line)
                    self.requests.append(request)
                    queue = self._replies.get(request["verb"], [no(2, "unknown verb")])
                    self._say(conn, request, queue.pop(0) if len(queue) > 1 else queue[0])
        except OSError:
            return
        finally:
            self._open.discard(conn)

    def _say(self, conn: socket.socket, request: Json, reply: Any) -> None:
        if callable(reply) and not isinstance(reply, type):
            reply = reply(request)
        for each in reply if isinstance(reply, list) else [reply]:
            if each is HangUp:
                _hang_up(conn)
                return
            if each is Silence:
                conn.recv(1)
                return
            conn.sendall(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n")


def _hang_up(conn: socket.socket) -> None:
    try:
        conn.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The client has closed it before.


class House:
    """Directories for contexts, and the supervisors that a test has started in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config, self.runtime, self.state = root / "conf", root / "run", root / "state"
        for directory in (self.config, self.runtime, self.state):
            directory.mkdir()
        self._running: list[Supervisor] = []

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ZMSVC_CONFIG_DIR": str(self.config),
            "ZMSVC_RUNTIME_DIR": str(self.runtime),
            "ZMSVC_STATE_DIR": str(self.state),
        }

    def supervisor(self, name: str = "Echo", **replies: Any) -> Supervisor:
        made = Supervisor(self.runtime, name, **replies)
        self._running.append(made)
        return made

    def file(self, name: str = "Echo", text: str = "<Context/>") -> Path:
        path = self.config / f"Context-{name}.xml"
        path.write_text(text)
        return path

    def program(self, name: str, script: str) -> Path:
        """Write a shell script. Return its directory, for PATH."""
        directory = self.root / "bin"
        directory.mkdir(exist_ok=True)
        path = directory / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return directory

    def close(self) -> None:
        for each in self._running:
            try:
                each.close()
            except OSError:
                continue  # The test has closed it already.


@contextmanager
def house(root: Path) -> Iterator[House]:
    """Yield a House, whose directories are in the environment of this process. Other variables that zmsvcctl
    reads are removed.
    """
    made = House(root)
    ours = ("ZMSVC_", "SYSTEMD_", "NO_COLOR", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "PAGER", "LESS")
    before = dict(os.environ)
    for name in before:
        if name.startswith(ours):
            del os.environ[name]
    os.environ.update(made.environment)
    # This makes the tests independent of the locale.
    os.environ["SYSTEMD_UTF8"] = "1"
    try:
        yield made
    finally:
        made.close()
        os.environ.clear()
        os.environ.update(before)
