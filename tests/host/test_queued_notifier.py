"""host/systemd/queued_notifier: a process reports to a keeper that does not read, and never waits for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmsvc.host.systemd.notification_queue import MAX_WAITING
from zmsvc.host.systemd.queued_notifier import QueuedNotifier

SAID = 10 * MAX_WAITING
"""More than the receiver's socket (at most 512 datagrams in the usual settings) and the queue can hold."""
DEADLINE = 60


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


async def said_to_a_reader_that_sleeps(receiver: socket.socket, path: str) -> list[str]:
    """Report READY=1 in the middle of many status lines. Return what the receiver finds when it reads."""
    notifier = QueuedNotifier(path)
    for number in range(SAID):
        notifier.status(f"line {number}")
        if number == SAID // 2:
            notifier.ready()
    found: list[str] = []
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE):
        while f"STATUS=line {SAID - 1}" not in found:
            found.append((await loop.sock_recv(receiver, 65536)).decode())
    notifier.close()
    return found


def test_what_waits_comes_later_and_in_order(
    receiver: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = asyncio.run(said_to_a_reader_that_sleeps(receiver, str(tmp_path / "notify")))
    statuses = [int(line.removeprefix("STATUS=line ")) for line in found if line != "READY=1"]
    assert found.count("READY=1") == 1
    assert statuses == sorted(statuses)
    dropped = SAID + 1 - len(found)
    assert dropped > 0, "the receiver had room for everything, so nothing had to wait"
    assert [record.getMessage() for record in caplog.records] == [
        f"{dropped} notifications were dropped while the keeper did not read"
    ]


async def closed_while_something_waits(path: str) -> bool:
    notifier = QueuedNotifier(path)
    for number in range(SAID):
        notifier.status(f"line {number}")
    notifier.close()
    return notifier.notify("READY=1")


@pytest.mark.usefixtures("receiver")
def test_nothing_is_sent_after_it_is_closed(tmp_path: Path) -> None:
    assert asyncio.run(closed_while_something_waits(str(tmp_path / "notify"))) is False


async def without_a_receiver(path: str) -> bool:
    notifier = QueuedNotifier(path)
    notifier.ready()
    waits = notifier._waits
    notifier.close()
    return waits


def test_a_receiver_that_is_gone_keeps_nothing_waiting(tmp_path: Path) -> None:
    assert asyncio.run(without_a_receiver(str(tmp_path / "nobody"))) is False
