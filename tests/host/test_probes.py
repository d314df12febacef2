"""The probes of `<health>` and `<ready>` against real programs and real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from waiting import wait_for

from zmsvc.core import probing
from zmsvc.core.probing import HEALTH, Health
from zmsvc.task import probes


class Answer(BaseHTTPRequestHandler):
    """The answers of an HTTP server: the status that the path names."""

    def do_GET(self) -> None:
        assert self.headers["Host"]
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def ports() -> Iterator[dict[str, int]]:
    with (
        HTTPServer(("127.0.0.1", 0), Answer) as server,
        socket.create_server(("127.0.0.1", 0)) as mute,
        socket.socket() as closed,
    ):
        # It does not listen, and no other process gets its port.
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield {"PORT": server.server_port, "MUTE": mute.getsockname()[1], "CLOSED": port}
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "text", "timeout", "why"),
    [
        ("http", "http://127.0.0.1:PORT/204", 20, ""),
        ("http", "http://localhost:PORT/399", 20, ""),
        ("http", "http://localhost:PORT/503", 20, "HTTP status 503"),
        ("http", "http://127.0.0.1:MUTE", 0.05, "no answer within 0.05 s"),
        ("http", "http://127.0.0.1:CLOSED", 20, "cannot connect: Connection refused"),
        ("tcp", "PORT", 20, ""),
        ("tcp", "127.0.0.1:MUTE", 20, ""),
        ("tcp", "127.0.0.1:CLOSED", 20, "cannot connect: Connection refused"),
        ("exec", "true", 20, ""),
        ("exec", "sh -c 'echo; echo It hurts; echo a lot; exit 7'", 20, "exit status 7: It hurts"),
        ("exec", "sh -c 'kill -9 $$'", 20, "SIGKILL"),
        ("exec", "sleep 3600", 0.05, "timed out"),
        ("exec", "/nowhere/probe", 20, "cannot execute /nowhere/probe: No such file or directory"),
    ],
)
def test_a_probe_succeeds_or_says_why_it_does_not(
    ports: dict[str, int], kind: str, text: str, timeout: float, why: str
) -> None:
    for word, port in ports.items():
        text = text.replace(word, str(port))
    read = {"http": probing.http, "tcp": probing.tcp, "exec": probing.command}[kind]
    result = probes.once(probing.health(**{kind: read(text), "timeout": timeout}))
    assert (result.ok, "" if result.ok else result.text) == (not why, why)


def test_a_probe_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = f"sleep 3600 & echo $! > {tmp_path}/pid; wait"
    # The shell may take a second to start.
    assert probes.once(probing.health(exec=("sh", "-c", script), timeout=3.0)).text == "timed out"
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_probe_with_much_output_does_not_block_and_keeps_little_of_it() -> None:
    result = probes.once(probing.health(exec=("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; exit 1")))
    assert result.text == f"exit status 1: {'x' * 200}"


def test_a_probe_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for command in ("true", "/nowhere/probe"):
        probes.once(probing.health(exec=(command,)))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_only_changes_of_the_health_are_reported(tmp_path: Path) -> None:
    """The third probe and the fourth one fail."""
    count = tmp_path / "count"
    script = f"echo >> {count}; test $(wc -l < {count}) -lt 3"
    reports: list[tuple[Health, str]] = []

    class EnoughError(Exception):
        pass

    def report(health: Health, text: str) -> None:
        reports.append((health, text))
        if health is Health.FAILED:
            raise EnoughError

    probe = probing.health(exec=("sh", "-c", script), interval=0.01, retries=2, timeout=HEALTH.timeout)
    with pytest.raises(EnoughError):
        probes.watch(probe, report)
    assert [health for health, _ in reports] == [Health.HEALTHY, Health.UNHEALTHY, Health.FAILED]
    assert reports[-1][1] == "exit status 1"
