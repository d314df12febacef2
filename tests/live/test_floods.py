"""A member of the daemon's group floods the bus: other clients are not delayed, the memory is freed, and
`status` counts what was refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from context import Context, Subscriber
from others import command, others
from ports import free_ports
from waiting import wait_for, wait_until_it_sleeps

FLOOD = str(Path(__file__).parents[1] / "flood.py")
SECONDS = 6.0
LONGEST = 40.0
"""Seconds of a flood, unless it has had its effect before."""
MEMORY = 128 << 20
"""Bytes that the device may take here before it closes connections. The default is 512 MiB."""
ANSWERS = 20
"""The number of questions that the supervisor has to answer while the flood goes on."""


@pytest.fixture
def bus(context: Context) -> Context:
    """A context whose tasks use the bus, over ipc endpoints that the group may open."""
    context.looped(
        "Talk",
        "interval = 0.02\nn = 0\ndef step(self):\n    self.n += 1\n    self.publish('beacon', {'n': self.n})",
    )
    context.task("talk", "Talk")
    context.home.chmod(0o755)
    context.start("--transaction", "T", ZMSVC_DEVICE_MEMORY=str(MEMORY))
    return context


@contextmanager
def flood(
    context: Context, way: str, endpoint: str, count: int = 1, seconds: float = LONGEST
) -> Iterator[subprocess.Popen[str]]:
    """Run the flood as another user, who is in the daemon's group."""
    words = [sys.executable, "-P", FLOOD, way, endpoint, str(seconds), str(count)]
    with subprocess.Popen(
        [*command(others(1)[0], os.getegid()), *words], stdout=subprocess.PIPE, text=True, cwd="/"
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            yield process
        finally:
            process.kill()


def memory(pid: int | None) -> int:
    """Return the bytes of memory that belong to this process alone. Raises FileNotFoundError without such a
    process: status has none while the keeper replaces it.
    """
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


class Seen:
    """Answers and memory during the flood."""

    def __init__(self) -> None:
        self.answers = 0
        self.most = {"device": 0, "supervisor": 0}

    def look(self, context: Context) -> dict[str, int]:
        """Ask for the status, and note the memory of the processes."""
        status = context.status()
        self.answers += 1
        for name, pid in (("device", status["device_pid"]), ("supervisor", status["pid"])):
            # The keeper may replace the device meanwhile.
            with suppress(FileNotFoundError, ProcessLookupError):
                self.most[name] = max(self.most[name], memory(pid))
        dropped: dict[str, int] = status["dropped"]
        return dropped

    def until_over(
        self, context: Context, process: subprocess.Popen[str], enough: Callable[[], bool]
    ) -> None:
        """Repeat `look` until the flood has had its effect, which takes longer on a busy machine, and check that
        other clients were answered before its end.
        """
        while process.poll() is None and not (enough() and self.answers >= ANSWERS):
            self.look(context)
            # An answer takes a millisecond. The rest of the time is for the flood.
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        assert self.answers >= ANSWERS, "clients wait for the end of the flood"


def counts(context: Context, *names: str) -> int:
    dropped = context.status()["dropped"]
    return sum(dropped.get(name, 0) for name in names)


def cut_off(context: Context, *names: str) -> bool:
    """Return True if a client was disconnected, or the device was replaced because memory grew before it
    found one.
    """
    return counts(context, *names) > 0 or context.status()["device_restarts"] > 0


def settles(context: Context, before: dict[str, int], room: int = 64 << 20) -> None:
    """Check that memory is freed after the attacker has left, and that the bus works as before."""
    wait_for(lambda: all(size < before[name] + room for name, size in now(context).items()))
    subscriber = Subscriber(context.subscribe_endpoint, context.publish_endpoint, b"beacon @@@ ")
    subscriber.next()
    subscriber.close()


def now(context: Context) -> dict[str, int]:
    status = context.status()
    return {"device": memory(status["device_pid"]), "supervisor": memory(status["pid"])}


@pytest.mark.parametrize(
    ("way", "reasons"),
    [
        ("long", ("flooding_peers", "handshakes")),
        ("many", ("flooding_peers",)),
        ("churn", ("flooding_peers",)),
        ("words", ("flooding_peers",)),
    ],
)
def test_endless_subscriptions_delay_no_client_and_their_memory_is_freed(
    bus: Context, way: str, reasons: tuple[str, ...]
) -> None:
    before, seen = now(bus), Seen()
    begun = time.monotonic()

    def enough() -> bool:
        return time.monotonic() - begun > SECONDS and (way == "long" or counts(bus, *reasons) > 0)

    with flood(bus, way, bus.subscribe_endpoint) as process:
        seen.until_over(bus, process, enough)
    assert seen.most["device"] < 3 * MEMORY
    assert seen.most["supervisor"] < before["supervisor"] + (100 << 20)
    settles(bus, before)
    if way != "long":
        assert counts(bus, *reasons) > 0
    assert bus.status()["device_restarts"] == 0


@pytest.mark.parametrize("way", ["parts", "parts_of_subscriptions"])
def test_an_endless_message_is_cut_off(bus: Context, way: str) -> None:
    before, seen = now(bus), Seen()
    endpoint = bus.publish_endpoint if way == "parts" else bus.subscribe_endpoint
    with flood(bus, way, endpoint) as process:
        seen.until_over(bus, process, lambda: cut_off(bus, "flooding_peers"))
    assert seen.most["device"] < 3 * MEMORY
    assert cut_off(bus, "flooding_peers")
    settles(bus, before)


def test_huge_orders_delay_no_client(bus: Context) -> None:
    before, seen, begun = now(bus), Seen(), time.monotonic()
    with flood(bus, "orders", bus.publish_endpoint) as process:
        seen.until_over(bus, process, lambda: time.monotonic() - begun > SECONDS)
    assert seen.most["device"] < 3 * MEMORY
    settles(bus, before)


def test_subscribers_that_never_read_are_disconnected_when_they_fill_memory(bus: Context) -> None:
    before, seen = now(bus), Seen()
    with (
        flood(bus, "deaf", bus.subscribe_endpoint, 20) as process,
        flood(bus, "orders", bus.publish_endpoint),
    ):
        seen.until_over(bus, process, lambda: cut_off(bus, "slow_subscribers", "flooding_peers"))
    assert seen.most["device"] < 3 * MEMORY
    # On a busy machine the guard may find the publisher of the flood first. tests/host/test_memory_guard.py
    # shows that it need not.
    assert cut_off(bus, "slow_subscribers", "flooding_peers")
    settles(bus, before)


def test_silent_connections_take_no_place_of_others(context: Context) -> None:
    """Use tcp, where a client connects without being a member of a group."""
    context.looped(
        "Talk",
        "interval = 0.02\nn = 0\ndef step(self):\n    self.n += 1\n    self.publish('beacon', {'n': self.n})",
    )
    context.task("talk", "Talk")
    context.home.chmod(0o755)
    context.subscribe_endpoint, context.publish_endpoint = (
        f"tcp://127.0.0.1:{port}" for port in free_ports()
    )
    context.wrapper = ["prlimit", "--nofile=400"]
    context.start("--transaction", "T")
    seen = Seen()
    device = context.status()["device_pid"]
    with flood(context, "silent", context.publish_endpoint, 600) as process:
        wait_for(lambda: counts(context, "connections", "handshakes") > 100)
        begun = time.monotonic()
        for _ in range(5):
            subscriber = Subscriber(context.subscribe_endpoint, context.publish_endpoint, b"beacon @@@ ")
            subscriber.next()
            subscriber.close()
        seen.until_over(context, process, lambda: time.monotonic() - begun > SECONDS)
        wait_until_it_sleeps(device)
    assert context.status()["device_restarts"] == 0
