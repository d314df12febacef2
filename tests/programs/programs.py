"""Real programs of Debian as Commands of a context, and requests to their servers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from context import Context
from needs import need
from ports import free_ports
from waiting import PATIENCE, wait_for, wait_for_end

PACKAGES = {
    "redis-server": "redis-server",
    "nginx": "nginx-light",
    "gunicorn": "gunicorn",
    "node": "nodejs",
    "logrotate": "logrotate",
    "prometheus": "prometheus",
    "promtool": "prometheus",
}
"""COMMAND: the Debian package that has it."""


def program(name: str) -> str:
    """Return the path of a program. If it is missing, skip the test and name the package to install."""
    found = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    need(found, f"{name} is not installed (apt-get install {PACKAGES[name]})")
    assert found is not None
    return found


class Programs:
    """A context whose tasks are programs."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.home = context.home
        (context.home / "Services").mkdir()

    def command(self, task: str, *words: str, **other: Any) -> None:
        """Add a Command with these words."""
        config = "<command>" + "".join(f"<arg>{escape(word)}</arg>" for word in words) + "</command>"
        self.context.task(task, task.capitalize(), kind="Command", config=config, **other)

    def serves_again_after_a_kill(self, task: str, port: int) -> None:
        """Kill the main process of a server that answers "first". Check that its workers end with it and that
        the next one gives the same answer.
        """
        self.context.start()
        assert http(port) == "first"
        main = self.context.tasks()[task]["pid"]
        workers = children(main)
        assert workers
        os.kill(main, signal.SIGKILL)
        self.context.task_is(task, "running", also=lambda told: told["pid"] != main)
        for pid in workers:
            wait_for_end(pid, 0)
        assert http(port) == "first"

    def context_check(self) -> str:
        """Return the output of `check` for the context file."""
        self.context.write()
        done = self.context.ctl("check", str(self.context.file), check=None)
        return done.stdout + done.stderr

    def file(self, name: str, text: str) -> Path:
        path = self.home / name
        path.write_text(text)
        return path


def children(pid: int) -> list[int]:
    """Return the children of a program with one thread."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port() -> int:
    """Return a port of this machine that no process uses, and that no client gets before the server starts."""
    (port,) = free_ports(1)
    return port


def talk(place: Path | int, said: bytes, until: Callable[[bytes], bool]) -> bytes:
    """Return the reply of a server at a Unix socket or a port of this machine. Wait for a server that does not
    listen yet.
    """

    def answer() -> bytes:
        with socket.socket(socket.AF_INET if isinstance(place, int) else socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            heard = b""
            try:
                sock.connect(("127.0.0.1", place) if isinstance(place, int) else str(place))
                sock.sendall(said)
                while not until(heard) and (more := sock.recv(65536)):
                    heard += more
            except (ConnectionError, FileNotFoundError) as error:
                raise AssertionError(f"{place} does not answer: {error}") from error
        assert until(heard), heard
        return heard

    return wait_for(answer)


def http(place: Path | int) -> str:
    """Return the body of GET /, which ends with a newline."""
    answer = talk(
        place,
        b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
        lambda heard: heard.partition(b"\r\n\r\n")[2].endswith(b"\n"),
    )
    assert b" 200 " in answer.partition(b"\r\n")[0], answer
    return answer.partition(b"\r\n\r\n")[2].decode().strip()
