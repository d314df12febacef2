"""The HTTP server of `zmsvcctl metrics --listen`: its limits, and its sockets."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from waiting import PATIENCE

from zmsvc.core.errors import PlaceError, UsageError
from zmsvc.core.exposition import Family, Kind, Sample
from zmsvc.ctl import metrics_server
from zmsvc.ctl.client import CtlError
from zmsvc.ctl.metrics_server import MetricsServer
from zmsvc.ctl.verbs.metrics import write

OPEN = Family(name="shop_open", kind=Kind.GAUGE, help="1 if open.", samples=(Sample(labels={}, value=1),))
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "m.sock"))
        sock.listen(metrics_server.BACKLOG)
        yield sock


def server(listening: socket.socket, *, uid: int | None = None, patience: float = PATIENCE) -> MetricsServer:
    allowed = frozenset({os.geteuid() if uid is None else uid})
    return MetricsServer([listening], lambda: [OPEN], allowed, patience)


def answer(listening: socket.socket, served: MetricsServer, request: bytes) -> bytes:
    """Send a request, let the server serve it, and return everything that it has answered."""
    with socket.socket(listening.family) as client, closing(served):
        client.settimeout(PATIENCE)
        client.connect(listening.getsockname())
        client.sendall(request)
        served.serve_next()
        found = b""
        while more := client.recv(65536):
            found += more
        return found


def test_a_unix_socket_serves_its_own_user_under_any_host(listening: socket.socket) -> None:
    found = answer(listening, server(listening), GET.replace(b"localhost", b"shop"))
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert found.endswith(b"\r\n\r\n# HELP shop_open 1 if open.\n# TYPE shop_open gauge\nshop_open 1\n")


def test_another_user_is_refused_before_the_request_is_read(
    listening: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(listening, server(listening, uid=os.geteuid() + 1), b"")
    assert found.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert "is refused (--allow USER admits a user)" in capsys.readouterr().err


def test_a_client_that_sends_no_whole_request_is_hung_up_on(listening: socket.socket) -> None:
    assert answer(listening, server(listening, patience=0.05), GET[:-2]) == b""


def test_a_client_that_does_not_read_is_hung_up_on(listening: socket.socket) -> None:
    large = Family(
        name="shop_open",
        kind=Kind.GAUGE,
        help="1 if open.",
        samples=tuple(Sample(labels={"door": "x" * 1000 + str(at)}, value=1) for at in range(2000)),
    )
    served = MetricsServer([listening], lambda: [large], frozenset({os.geteuid()}), 0.05)
    with socket.socket(socket.AF_UNIX) as client, closing(served):
        client.connect(listening.getsockname())
        client.sendall(GET)
        served.serve_next()
        assert len(client.recv(1 << 20)) > 0


def test_a_loopback_port_serves_the_user_that_the_kernel_tells() -> None:
    (listening,) = metrics_server.listen("localhost:0")
    assert answer(listening, server(listening), GET).startswith(b"HTTP/1.1 200 ")
    (listening,) = metrics_server.listen("127.0.0.1:0")
    assert answer(listening, server(listening, uid=4_000_000), GET).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CtlError(4, "cannot show T1: no such transaction"), "cannot show T1: no such transaction"),
        (PlaceError("/run/zmsvc belongs to user daemon"), "/run/zmsvc belongs to user daemon"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/etc/zmsvc"),
            "cannot collect the metrics: /etc/zmsvc: permission denied",
        ),
    ],
    ids=["transaction", "place", "directory"],
)
def test_the_server_goes_on_when_it_cannot_collect(
    listening: socket.socket, error: Exception, told: str
) -> None:
    def collect() -> list[Family]:
        raise error

    served = MetricsServer([listening], collect, frozenset({os.geteuid()}))
    found = answer(listening, served, GET)
    assert found.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert found.endswith(f"\r\n\r\n{told}\n".encode())


@pytest.mark.parametrize(
    "where", ["0.0.0.0:1", "[::]:1", "9649", ":9649", "192.0.2.1:1", "localhost:x", "systemd"]
)
def test_only_loopback_and_the_sockets_of_systemd_are_listened_on(where: str) -> None:
    with pytest.raises(UsageError):
        metrics_server.listen(where)


def test_no_device_and_no_pipe_is_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "stdout").symlink_to("pipe")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "stdout"):
        with pytest.raises(CtlError, match="it is not a regular file"):
            write(tmp_path / name, b"new")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "stdout").is_symlink()


def test_a_file_is_replaced_at_once_and_its_draft_is_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / ".zmsvc.prom.zmsvc-new").symlink_to(victim)
    (tmp_path / "zmsvc.prom").symlink_to(victim)
    write(tmp_path / "zmsvc.prom", b"new")
    assert (tmp_path / "zmsvc.prom").read_bytes() == b"new"
    assert victim.read_text() == "untouched"
    assert {each.name for each in tmp_path.iterdir()} == {"victim", "zmsvc.prom"}
