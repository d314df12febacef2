"""keeper/relay: what the supervisor says reaches systemd, which drops a notification of 4 KiB or more."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.machine import Machine
from zmsvc.keeper.relay import LONGEST, Relay


@pytest.mark.parametrize(
    ("lines", "sent"),
    [
        pytest.param(
            [("READY", "1"), ("STATUS", "5 of 5"), ("X_ZMSVC_NOTES", "n" * 9000), ("X_ZMSVC_ERROR", "e")],
            ["READY=1\nSTATUS=5 of 5"],
            id="notes are for the keeper alone",
        ),
        pytest.param(
            [("READY", "1"), ("STATUS", "é" * 4096)],
            ["READY=1", f"STATUS={'é' * ((LONGEST - 7) // 2)}"],
            id="a long status is cut, and does not take READY with it",
        ),
        pytest.param([("X_ZMSVC_NOTES", "n")], [], id="nothing for systemd"),
    ],
)
def test_systemd_gets_no_notification_that_it_would_drop(
    tmp_path: Path, lines: list[tuple[str, str]], sent: list[str]
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        relay = Relay(str(tmp_path / "notify"), Dispatcher(Machine()))
        relay.pass_on(lines)
        relay.send("WATCHDOG=1")
        assert relay._sock is not None
        relay._sock.close()
        found = [systemd.recv(65536) for _ in range(len(sent) + 1)]
    assert [each.decode() for each in found] == [*sent, "WATCHDOG=1"]
    assert max(map(len, found)) < 4096
