"""Measure how far one context goes on one machine: tasks, transactions, messages, updates, history.

`python -m bench.scale`, or `make bench-scale`, prints the tables of docs/scale.md. It measures the CPU time
of processes as the kernel counts it, and from that how much one core could do in a second: other work of the
machine changes these figures little, while it changes a time by the clock a lot. The number of runs is fixed,
and a new run begins only before `--seconds` have passed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from context import Context

from bench import about, environment
from bench.contenders.zmsvc import Zmsvc, ZmsvcSession
from bench.figures import memory
from bench.figures.device import Forwarder, line
from bench.figures.idle import used
from bench.fleet import Fleet

ASKED = 10
"""Requests of which each run takes the mean."""
TRANSACTIONS = (50, 300)
OPENED = 50
"""Transactions whose mean is taken."""
MESSAGES = 10_000
SUBSCRIBERS = (1, 10)
SIZES = (128, 1500)
UPDATES = 1_500
ROWS = (0, 100_000)
"""Rows of history: none, and as many as it keeps."""
UPDATING = f"""
from zmsvc.task import SingleTask, TaskService

class Work(SingleTask):
    def run(self):
        for number in range({UPDATES}):
            self.update(number=number, text="x" * 100)

class ServiceWork(TaskService):
    service_name = "work"
    task_class = Work
"""

WAITING = """
from zmsvc.task import LoopedTask, TaskService

class Work(LoopedTask):
    interval = 86400.0
    def step(self):
        pass

class ServiceWork(TaskService):
    service_name = "work"
    task_class = Work
"""

ROWS_OF_THE_PAGE = {
    "start": "CPU time of all processes for the start of a task",
    "decide": "of this the supervisor's",
    "pss": "memory of a task (PSS)",
    "managers": "memory of the context's own processes (PSS)",
    "status": "CPU time of the supervisor for an answer to `status`",
    "open": "CPU time of the supervisor to open one more transaction of one task",
    "small": "CPU time of the device for a message of 128 bytes, to one subscriber",
    "large": "CPU time of the device for a message of 1,500 bytes, to one subscriber",
    "copy": "CPU time of the device for each further subscriber of 1,500 bytes",
    "update": "CPU time of the supervisor for an update",
    "bytes": "state file, for a row of history",
    "take-over": "CPU time of a supervisor's start",
    "events": "CPU time of the supervisor for the last 1,000 rows",
}
"""The title of each figure in docs/scale.md."""
UNITS = {"pss": (1e6, "MB"), "managers": (1e6, "MB"), "bytes": (1.0, "bytes")}
"""The factor and unit of a figure; the others are seconds."""


@dataclass(slots=True)
class Found:
    """The figures of all runs, by name and size."""

    values: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, size: int, value: float) -> None:
        self.values[name, size].append(value)

    def markdown(self) -> str:
        lines = ["| figure | at | median | one core does in a second | runs |", "|---|---|---|---|---|"]
        for name, title in ROWS_OF_THE_PAGE.items():
            for (each, size), found in sorted(self.values.items()):
                if each == name:
                    middle = statistics.median(found)
                    rate = f"{1 / middle:,.0f}" if name not in UNITS and middle else "-"
                    lines.append(f"| {title} | {size:,} | {_shown(name, middle)} | {rate} | {len(found)} |")
        return "\n".join(lines)


def _shown(name: str, value: float) -> str:
    if name in UNITS:
        factor, unit = UNITS[name]
        return f"{value / factor:.{1 if factor > 1 else 0}f} {unit}"
    return f"{value * 1e6:.{0 if value > 1e-5 else 1}f} µs" if value < 1e-3 else f"{value * 1e3:.1f} ms"


def spent(pid: int) -> float:
    """Return the seconds of CPU time of a process, also of its threads that have ended: the supervisor has one
    for each client.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tasks(found: Found, home: Path, size: int) -> None:
    """Start `size` tasks that connect to the bus, and ask for their status."""
    with Zmsvc().open(Fleet(size=size), home) as session:
        pids = {role: one[0] for role, one in session.managers().items()}
        before = used(pids.values()).seconds
        deciding = spent(pids["supervisor"])
        session.order_start()
        session.receiver.hear(session.fleet.entry)
        session.started()
        own = used([session.receiver.pids[name] for name in session.fleet.entry])
        found.add("start", size, (used(pids.values()).seconds - before + own.seconds) / size)
        found.add("decide", size, (spent(pids["supervisor"]) - deciding) / size)
        figures = memory.measure(session)
        found.add("pss", size, figures["memory"])
        found.add("managers", size, figures["memory.own"])
        found.add("status", size, _of_asking(session, pids["supervisor"], verb="status"))


def _of_asking(session: ZmsvcSession, supervisor: int, **request: object) -> float:
    """Return the seconds of CPU time of the supervisor for an answer, the mean of some."""
    times = ASKED
    before = spent(supervisor)
    for _ in range(times):
        session.ask(**request)
    # The kernel counts in steps of 10 ms: ask often enough.
    while spent(supervisor) - before < 0.5 and times < 100 * ASKED:
        session.ask(**request)
        times += 1
    return (spent(supervisor) - before) / times


def transactions(found: Found, home: Path) -> None:
    """Open transactions of one task, each beside all others."""
    with _context(home, WAITING) as context:
        context.start("--no-autostart", ZMSVC_LOG=str(home / "log"))
        supervisor = context.status()["pid"]
        session = ZmsvcSession(context, Fleet(), None)  # type: ignore[arg-type]
        count = 0
        for size in TRANSACTIONS:
            while count < size - OPENED:
                count += 1
                session.ask(verb="start", transaction=f"T{count}")
            # The mean of the last ones before this number.
            before = spent(supervisor)
            for _ in range(OPENED):
                count += 1
                session.ask(verb="start", transaction=f"T{count}")
            found.add("open", size, (spent(supervisor) - before) / OPENED)


def messages(found: Found, home: Path) -> None:
    """Send messages through the device of a context."""
    with Zmsvc().open(Fleet(size=1), home) as session:
        device = Forwarder(
            name="device",
            publish_endpoint=session.context.publish_endpoint,
            subscribe_endpoint=session.context.subscribe_endpoint,
            pid=session.managers()["device"][0],
        )
        cost: dict[tuple[int, int], float] = {}
        for subscribers in SUBSCRIBERS:
            with line(device, subscribers, home) as pair:
                for size in SIZES:
                    before = used([device.pid]).seconds
                    heard = pair.transfer(MESSAGES, size, 0.0)
                    if heard["lost"]:
                        raise RuntimeError(f"cannot measure: {heard['lost']} messages were lost")
                    cost[subscribers, size] = (used([device.pid]).seconds - before) / MESSAGES
    (small, large), (one, many) = SIZES, SUBSCRIBERS
    found.add("small", small, cost[one, small])
    found.add("large", large, cost[one, large])
    found.add("copy", large, (cost[many, large] - cost[one, large]) / (many - one))


def updates(found: Found, home: Path) -> None:
    """Run a task that reports results as fast as it may."""
    with _context(home, UPDATING) as context:
        context.start("--no-autostart", ZMSVC_LOG=str(home / "log"))
        supervisor = context.status()["pid"]
        before = spent(supervisor)
        context.ctl("start", "--transaction", "T")
        context.ctl("wait", "--for", "inactive", "--transaction", "T", "ts_1")
        found.add("update", UPDATES, (spent(supervisor) - before) / UPDATES)


def history(found: Found, home: Path) -> None:
    """Start a context whose history has no row, and as many rows as it keeps."""
    with _context(home, UPDATING.replace(str(UPDATES), "1")) as context:
        context.start("--no-autostart", ZMSVC_LOG=str(home / "log"))
        context.ctl("start", "--transaction", "T")
        context.ctl("exit")
        context.wait()
        file = home / "state" / context.name / "state.db"
        for rows in ROWS:
            size = file.stat().st_size
            _fill(file, rows)
            if rows:
                found.add("bytes", rows, (file.stat().st_size - size) / rows)
            context.start("--no-autostart", ZMSVC_LOG=str(home / "log"))
            supervisor = context.status()["pid"]
            found.add("take-over", rows, spent(supervisor))
            session = ZmsvcSession(context, Fleet(), None)  # type: ignore[arg-type]
            if rows:
                found.add("events", rows, _of_asking(session, supervisor, verb="events", limit=1000))
            context.ctl("exit")
            context.wait()


def _fill(file: Path, rows: int) -> None:
    """Copy the rows of history until there are this many."""
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        (count,) = db.execute("SELECT count(*) FROM events").fetchone()
        while count < rows:
            db.execute(
                "INSERT INTO events (at, transaction_id, task, event, detail) "
                "SELECT at, transaction_id, task, event, detail FROM events LIMIT ?",
                [rows - count],
            )
            (count,) = db.execute("SELECT count(*) FROM events").fetchone()
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def _context(home: Path, code: str) -> Iterator[Context]:
    context = Context(home, "Bench")
    context.service("Work", code)
    context.task("ts_1", "Work")
    try:
        yield context
    finally:
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scale")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=_sizes, default=(100, 1000), metavar="N,N...", help="tasks")
    parser.add_argument("--seconds", type=float, default=300.0, help="begin no run after this time")
    parser.add_argument("--only", choices=("tasks", "transactions", "messages", "updates", "history"))
    args = parser.parse_args()
    environment.prepare()
    runs: dict[str, list[Callable[[Found, Path], None]]] = {
        "transactions": [transactions],
        "messages": [messages],
        "updates": [updates],
        "history": [history],
        "tasks": [lambda found, home, size=size: tasks(found, home, size) for size in args.sizes],  # type: ignore[misc]
    }
    found, begun = Found(), time.monotonic()
    for _ in range(args.rounds):
        for name, each in runs.items():
            for run in each if args.only in (None, name) else []:
                if time.monotonic() - begun < args.seconds:
                    with tempfile.TemporaryDirectory(prefix="zm") as home:
                        run(found, Path(home))
    machine = "; ".join(
        f"{name} {value}" for name, value in about.machine().items() if name not in ("Supervisor", "Circus")
    )
    print(f"{machine}\n\n{found.markdown()}")


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


if __name__ == "__main__":
    main()
