"""Compare the device with the bare proxy: messages a second, and the delay of one message.

Both run at the same time and are used in turn. Meanwhile another process keeps the supervisor busy with
requests, as in a context whose supervisor works. The bare proxy runs under the same load.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contenders.zmsvc import Zmsvc, ZmsvcSession
from bench.figures import idle
from bench.fleet import Fleet, running
from bench.results import Results

SIZES = (128, 1500, 65536)
SUBSCRIBERS = (1, 100)
BARE = "bare proxy"
LATENCIES = 400
REPEATS = 3
"""The load of the machine changes from moment to moment, so the two take turns."""
RATE = 100e6
"""The limit of bytes a second while the delay of single messages is measured, so that they do not queue."""
TASKS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarder:
    """The device or the bare proxy: the endpoints at which to publish and to subscribe, and its process."""

    name: str
    publish_endpoint: str
    subscribe_endpoint: str
    pid: int


def run(ours: Zmsvc, mebibytes: int, results: Results, home: Path) -> None:
    with contextlib.ExitStack() as stack:
        context = home / "context"
        context.mkdir()
        session = stack.enter_context(ours.open(Fleet(size=TASKS), context))
        session.order_start()
        session.receiver.hear(session.fleet.entry)
        session.started()
        publish_endpoint, subscribe_endpoint = f"ipc://{home}/front", f"ipc://{home}/back"
        # The proxy gets a session of its own, as the device has: a kernel may distribute its processors by
        # session.
        proxy = stack.enter_context(
            running(
                [sys.executable, "-m", "bench.proxy", publish_endpoint, subscribe_endpoint],
                home / "proxy.log",
                start_new_session=True,
            )
        )
        device = Forwarder(
            name=ours.name,
            publish_endpoint=session.context.publish_endpoint,
            subscribe_endpoint=session.context.subscribe_endpoint,
            pid=session.managers()["device"][0],
        )
        bare = Forwarder(
            name=BARE, publish_endpoint=publish_endpoint, subscribe_endpoint=subscribe_endpoint, pid=proxy.pid
        )
        for subscribers in SUBSCRIBERS:
            _compare([device, bare], subscribers, mebibytes << 20, session, results, home)


def _compare(
    both: list[Forwarder], subscribers: int, volume: int, session: ZmsvcSession, results: Results, home: Path
) -> None:
    with contextlib.ExitStack() as stack:
        lines = {each.name: stack.enter_context(line(each, subscribers, home)) for each in both}
        for size in SIZES:
            count = max(50, min(80_000, volume // size) // subscribers)
            pace = max(0.001, size * subscribers / RATE)
            for each in both * REPEATS:
                with _busy(session):
                    _throughput(each, lines[each.name], subscribers, size, count, results)
            for each in both:
                delays = lines[each.name].transfer(LATENCIES if pace < 0.01 else 50, size, pace)["delays"]
                results.add(f"latency.{size}", each.name, subscribers, delays)


def _throughput(
    each: Forwarder, line: Line, subscribers: int, size: int, count: int, results: Results
) -> None:
    before = idle.used([each.pid])
    heard = line.transfer(count, size, 0.0)
    cpu = (idle.used([each.pid]) - before).seconds
    results.add(
        f"throughput.{size}", each.name, subscribers, (count * subscribers - heard["lost"]) / heard["took"]
    )
    results.add(f"lost.{size}", each.name, subscribers, float(heard["lost"]))
    results.add(f"device.cpu.{size}", each.name, subscribers, cpu / (count * subscribers))


class Line:
    """A sender and its subscribers."""

    def __init__(self, sender: subprocess.Popen[bytes], hearer: subprocess.Popen[bytes]) -> None:
        self._sender, self._hearer = sender, hearer
        self._answer(sender)
        self._answer(hearer)
        while True:
            self._order(hearer, do="probe")
            self._order(sender, do="probe")
            self._answer(sender)
            if self._answer(hearer)["heard"]:
                return

    def transfer(self, count: int, size: int, pace: float) -> dict[str, Any]:
        """Send the messages, and wait until all have been received. `took` is in seconds, from the order to
        the last message.
        """
        self._order(self._hearer, do="hear", count=count)
        begin = time.monotonic()
        self._order(self._sender, do="send", count=count, size=size, pace=pace)
        self._answer(self._sender)
        heard = self._answer(self._hearer)
        return heard | {"took": heard["last"] - begin}

    @staticmethod
    def _order(process: subprocess.Popen[bytes], **order: Any) -> None:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()

    @staticmethod
    def _answer(process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        text = process.stdout.readline()
        if not text:
            raise RuntimeError("cannot measure the device: the sender or the subscribers have ended")
        return dict(json.loads(text))


@contextlib.contextmanager
def line(each: Forwarder, subscribers: int, home: Path) -> Iterator[Line]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-m", "bench.traffic"]
    with (
        running([*command, "send", each.publish_endpoint], home / "traffic.log", **pipes) as sender,
        running(
            [*command, "hear", each.subscribe_endpoint, str(subscribers)], home / "traffic.log", **pipes
        ) as hearer,
    ):
        yield Line(sender, hearer)


@contextlib.contextmanager
def _busy(session: ZmsvcSession) -> Iterator[None]:
    """Request the status of all tasks from the supervisor again and again."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            session.ask(verb="status")

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        yield
    finally:
        over.set()
        asker.join()
