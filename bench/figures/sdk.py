"""Compare messages of the SDK with those of bare pyzmq, through the same device and with the same JSON
library: messages of 1.5 kB a second, and the delay of one message. Also compare the memory of a task that
subscribes with that of one that only publishes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from context import Context

from bench.figures.memory import pss
from bench.fleet import running
from bench.receiver import PATIENCE
from bench.results import Results

SDK, PYZMQ = "SDK", "bare pyzmq"
PUBLISHING, SUBSCRIBED = "Publishing", "Subscribed"
LIBRARIES = ("json", "orjson")
REPEATS = 3
"""The load of the machine changes from moment to moment, so the two take turns."""
COUNT = 3_000
"""Fewer messages than the queues of subscriber and device hold, so that none is lost."""
LATENCIES = 150
PACE = 0.002
TASKS = 10
"""Tasks of each kind whose memory is measured."""
TRANSACTION = "BENCH"

_SERVICES = {
    "Sender": """
class Sender(SingleTask):
    def run(self):
        for count, pace in orders(self.config["orders"]):
            due = time.monotonic()
            for number in range(1, count + 1):
                if pace:
                    due += pace
                    time.sleep(max(0.0, due - time.monotonic()))
                self.publish("sdk", content(number, count))
""",
    "Hearer": """
class Hearer(MessageTask):
    topics = ("sdk",)
    def setup(self):
        self.tally = Tally(self.config["reports"])
    def on_message(self, message):
        self.tally.take(message.content)
""",
    "Publishing": """
class Publishing(LoopedTask):
    interval = 0.05
    def step(self):
        self.publish("some", content(1, 2))
""",
    "Subscribed": """
class Subscribed(LoopedTask):
    interval = 0.05
    topics = ("some",)
    def step(self):
        self.publish("others", content(1, 2))
    def on_message(self, message):
        pass
""",
}
_HEAD = """
import sys, time
sys.path.append({root!r})
from bench.sdk_messages import Tally, content, orders
from zmsvc.task import LoopedTask, MessageTask, SingleTask, TaskService
"""


def missing(library: str) -> str:
    """Return the reason why this machine cannot measure with a JSON library; an empty string if it can."""
    return "" if importlib.util.find_spec(library) else f"{library} is not installed"


def run(library: str, results: Results, home: Path) -> None:
    """Take the figures with a JSON library: `sdk.throughput.LIBRARY`, `sdk.latency.LIBRARY` and
    `sdk.memory.LIBRARY`.
    """
    context = _context(home)
    without = "orjson" if library == "json" else ""
    try:
        context.start("--transaction", TRANSACTION, ZMSVC_LOG=str(home / "log"), ZMSVC_DISABLE=without)
        with _pyzmq(context, home, library) as bare, Pair(home / "orders", home / "reports") as sdk:
            both = {SDK: sdk, PYZMQ: bare}
            for pair in both.values():
                pair.transfer(1, 0.0)
            for _ in range(REPEATS):
                for name, pair in both.items():
                    results.add(f"sdk.throughput.{library}", name, 1, pair.rate(COUNT))
            for _ in range(REPEATS):
                for name, pair in both.items():
                    results.add(f"sdk.latency.{library}", name, 1, pair.transfer(LATENCIES, PACE)["delays"])
        _memory(context, library, results)
    finally:
        context.close()


def _context(home: Path) -> Context:
    context = Context(home, "Sdk")
    for name, code in _SERVICES.items():
        head = _HEAD.format(root=str(Path(__file__).parents[2]))
        context.service(name, f"{head}{code}\n\nclass Service{name}(TaskService):\n    task_class = {name}\n")
    for name in ("orders", "bare.orders"):
        os.mkfifo(home / name)
    context.task("hearer", "Hearer", config=f"<reports>{home}/reports</reports>")
    context.task("sender", "Sender", config=f"<orders>{home}/orders</orders>")
    for kind in (PUBLISHING, SUBSCRIBED):
        for number in range(TASKS):
            context.task(f"{kind}-{number}", kind, entry=False)
    return context


@contextlib.contextmanager
def _pyzmq(context: Context, home: Path, library: str) -> Iterator[Pair]:
    command = [sys.executable, "-m", "bench.pyzmq_peer"]
    hear = [*command, "hear", context.subscribe_endpoint, str(home / "bare.reports"), library]
    send = [*command, "send", context.publish_endpoint, str(home / "bare.orders"), library]
    # Each gets a session of its own, as each task has: a kernel may distribute its processors by session.
    with (
        running(hear, home / "bare.log", start_new_session=True),
        running(send, home / "bare.log", start_new_session=True),
        Pair(home / "bare.orders", home / "bare.reports") as pair,
    ):
        yield pair


class Pair:
    """A sender and a subscriber."""

    def __init__(self, orders: Path, reports: Path) -> None:
        self._reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._reports.bind(str(reports))
        self._orders = orders.open("w")

    def __enter__(self) -> Pair:
        # The first messages come before the sender knows the subscription, and are lost.
        self._reports.settimeout(0.1)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self._order(1, 0.0)
            with contextlib.suppress(TimeoutError):
                self._reports.recv(1 << 20)
                self._reports.settimeout(PATIENCE)
                return self
        raise RuntimeError("cannot measure: no message arrives")

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        self._reports.close()

    def _order(self, count: int, pace: float) -> None:
        self._orders.write(f"{count} {pace}\n")
        self._orders.flush()

    def transfer(self, count: int, pace: float) -> dict[str, Any]:
        """Send messages, and wait for the last one. Return the report, and when the order was given."""
        begun = time.monotonic()
        self._order(count, pace)
        while True:
            told: dict[str, Any] = json.loads(self._reports.recv(1 << 20))
            # An answer to an order of `__enter__` may be late.
            if told["came"] > 1 or count == 1:
                return told | {"begun": begun}

    def rate(self, count: int) -> float:
        """Return the messages a second. Raises RuntimeError if some were lost."""
        told = self.transfer(count, 0.0)
        if told["came"] != count:
            raise RuntimeError(f"cannot measure: {count - told['came']} of {count} messages were lost")
        return float(count / (told["last"] - told["begun"]))


def _memory(context: Context, library: str, results: Results) -> None:
    for kind in (PUBLISHING, SUBSCRIBED):
        context.ctl("start", "--transaction", TRANSACTION, *(f"{kind}-{each}" for each in range(TASKS)))
    # Each has handled some messages by then.
    time.sleep(1.0)
    tasks = context.tasks(TRANSACTION)
    for kind in (PUBLISHING, SUBSCRIBED):
        sizes = [pss(tasks[f"{kind}-{each}"]["pid"]) for each in range(TASKS)]
        results.add(f"sdk.memory.{library}", kind, TASKS, sum(sizes) / TASKS)
