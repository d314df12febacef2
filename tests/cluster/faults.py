"""Break a cluster of three hosts in each way that docs/promises.md has a row for, and measure when the context runs
again: `make cluster`, or `make cluster RUNS=3` for the table. Needs root, and the archive of the distribution once.

A task writes ten times a second where it runs. So two copies at a time are seen, and so is each other transaction.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import image
import manual
from cluster_bench import Bench, BenchError, wait_until

SERVICE = '''
import os, socket, time
from zmsvc.task import LoopedTask, TaskService

class Beating(LoopedTask):
    """Writes down ten times a second where it runs."""
    interval = 0.1
    def step(self):
        with open("/share/beats", "a") as file:
            file.write(f"{time.time():.3f} {socket.gethostname()} {os.getpid()} {self.transaction}\\n")

class ServiceBeat(TaskService):
    service_name = "beat"
    task_class = Beating
'''
CONTEXT = """<Context>
<ContextID>orders</ContextID><TaskLogName>Orders</TaskLogName>
<TaskService id="ts_1" topic="process" instance="Beat" serviceType="Process"><Task><description>beats</description>
<message><header><action>start</action><service_name>beat</service_name></header>
<content><configuration><device_action>beat</device_action></configuration></content></message>
<state type="on_start"><on_fail><action>restart</action><call>ts_1</call></on_fail></state></Task></TaskService>
</Context>
"""
SAME, OTHER = "the same host", "another host"
AGAIN, SILENT = "from the fault", "from the last beat"
"""The two figures. The command of an orderly move thinks for a while before the context stops, so its limit is for the
silence.
"""
AFTER = 1.0
"""Seconds for which the beats after a fault are watched for a second copy."""
BLOCKED = 10.0
"""Seconds for which a context is watched that must not start elsewhere."""


@dataclass(frozen=True, slots=True)
class Beat:
    at: float
    host: int
    pid: str
    transaction: str


@dataclass(slots=True)
class Measured:
    """The figures of one kind of fault, in seconds, one of each run."""

    where: str
    limit: float
    judged: str
    """The figure that the limit is for."""
    silent: list[float] = field(default_factory=list)
    """From the last beat to the next."""
    again: list[float] = field(default_factory=list)
    """From the fault to the next beat."""
    overlap: list[float] = field(default_factory=list)

    @property
    def figures(self) -> list[float]:
        return self.again if self.judged == AGAIN else self.silent


class Orders:
    """The context on the bench, and what is known of it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._file = bench.share / "beats"
        self.table: dict[str, Measured] = {}

    def prepare(self) -> None:
        """Put the files on each host, as configuration management would."""
        self._file.touch()
        self._file.chmod(0o666)
        for number in self.bench.numbers:
            self.bench.put(number, "/etc/zmsvc/Context-Orders.xml", CONTEXT)
            self.bench.put(number, "/etc/zmsvc/services/Beat/__init__.py", "")
            self.bench.put(number, "/etc/zmsvc/services/Beat/ServiceBeat.py", SERVICE)
            # Not in /etc/systemd/system, which a boot of a test machine empties.
            drop_in = "/usr/lib/systemd/system/zmsvc@Orders.service.d/share.conf"
            self.bench.put(number, drop_in, "[Service]\nReadWritePaths=/share\n")
            self.bench.on(number, "systemctl", "daemon-reload")

    def beats(self, since: float = 0.0) -> list[Beat]:
        found = []
        for line in self._file.read_text().splitlines():
            words = line.split()
            if len(words) == 4 and float(words[0]) >= since:
                found.append(Beat(float(words[0]), int(words[1][1:]), words[2], words[3]))
        return found

    def last(self) -> Beat:
        wait_until("a beat", lambda: self.beats(time.time() - 0.5))
        return self.beats(time.time() - 2)[-1]

    @contextmanager
    def breaking(
        self, what: str, where: str, limit: float, judged: str = AGAIN, before: Beat | None = None
    ) -> Iterator[int]:
        """Measure a fault, which the body makes on the host whose number it gets. The context must run again in
        the same transaction, and never twice at a time. `before` is its last beat if it does not run now.
        `judged` says which figure the limit is for.
        """
        before = before or self.last()
        began = time.time()
        yield before.host
        wait_until(f"another run after: {what}", lambda: self._others(before, began), 60)
        time.sleep(AFTER)
        self._judge(what, self.table.setdefault(what, Measured(where, limit, judged)), before, began)

    def _others(self, before: Beat, since: float) -> list[Beat]:
        return [each for each in self.beats(since) if (each.host, each.pid) != (before.host, before.pid)]

    def _judge(self, what: str, measured: Measured, before: Beat, began: float) -> None:
        old = [each for each in self.beats() if (each.host, each.pid) == (before.host, before.pid)]
        new = self._others(before, began)
        if {each.transaction for each in new} != {before.transaction}:
            raise BenchError(f"{what}: another transaction than {before.transaction}: {new[:3]}")
        if (new[0].host == before.host) is not (measured.where == SAME):
            raise BenchError(f"{what}: it runs again on h{new[0].host}, expected on {measured.where}")
        runs = {(each.host, each.pid) for each in new}
        if len(runs) != 1:
            raise BenchError(f"{what}: it was started more than once: {runs}")
        overlap = max(0.0, old[-1].at - new[0].at)
        measured.silent.append(new[0].at - old[-1].at)
        measured.again.append(new[0].at - began)
        measured.overlap.append(overlap)
        print(
            f"{what:32} runs again after {new[0].at - began:5.2f} s, silent for {new[0].at - old[-1].at:5.2f} s, "
            f"overlap {overlap:.2f} s, on h{new[0].host}",
            flush=True,
        )
        if overlap:
            raise BenchError(f"{what}: two copies for {overlap:.2f} s")


# --- the faults


def keeper_killed(orders: Orders) -> None:
    with orders.breaking("keeper killed", SAME, 1.6) as host:
        orders.bench.sh(host, "kill -9 $(systemctl show -p MainPID --value zmsvc@Orders)")


def moved(orders: Orders) -> None:
    with orders.breaking("orderly move", OTHER, 2.0, SILENT) as host:
        orders.bench.sh(host, f"pcs resource move orders h{host % 3 + 1}")


def powered_off(orders: Orders) -> None:
    with orders.breaking("power-off of the host", OTHER, 2.0, SILENT) as host:
        orders.bench.on(host, "systemctl", "poweroff", check=False)
    wait_until(f"h{host} off", lambda: not orders.bench.is_on(host))
    orders.bench.rejoin(host)


def power_cut(orders: Orders) -> None:
    with orders.breaking("power cut", OTHER, 6.5) as host:
        orders.bench.power_off(host)
    orders.bench.rejoin(host)


def cable_cut(orders: Orders) -> None:
    with orders.breaking("cable cut", OTHER, 6.5) as host:
        orders.bench.cut(host)
    wait_until(f"h{host} fenced", lambda: not orders.bench.is_on(host))
    orders.bench.mend(host)
    orders.bench.rejoin(host)


def fencing_fails(orders: Orders) -> None:
    """The power of a host is cut, and the switch cannot confirm it: nothing may start until a person confirms."""
    bench = orders.bench
    before = orders.last()
    bench.switch_works = False
    bench.power_off(before.host)
    other = before.host % 3 + 1
    wait_until("the host is unclean", lambda: f"Node h{before.host}: UNCLEAN (offline)" in bench.status())
    time.sleep(BLOCKED)
    if orders.beats(time.time() - BLOCKED / 2):
        raise BenchError("fencing failed, and the context runs elsewhere")
    bench.switch_works = True
    with orders.breaking("fencing fails, then confirmed", OTHER, 3.0, AGAIN, before):
        bench.sh(other, f"pcs stonith confirm h{before.host} --force")
    bench.rejoin(before.host)


FAULTS: tuple[Callable[[Orders], None], ...] = (
    keeper_killed,
    moved,
    powered_off,
    power_cut,
    cable_cut,
    fencing_fails,
)


def with_shared_disk(orders: Orders) -> None:
    """Set the context up by the second page of the manual. Its history must move along."""
    bench = orders.bench
    disk = bench.share / "disk"
    disk.mkdir()
    bench.sh(1, "pcs resource delete orders")
    wait_until("no beat", lambda: not orders.beats(time.time() - 1))
    began = time.time()
    manual.follow(bench, "With a shared disk")
    wait_until("a beat with the shared disk", lambda: orders.beats(began), 60)
    with orders.breaking("orderly move, shared disk", OTHER, 4.0, SILENT) as host:
        bench.sh(host, f"pcs resource move orders-all h{host % 3 + 1}")
    told = bench.sh(orders.last().host, "zmsvcctl -c Orders events")
    if told.count(" started ") < 2:
        raise BenchError(f"the history has not moved along:\n{told}")


# --- the program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="how often to make each fault; the table follows")
    parser.add_argument("--only", default="", help="a part of the names of the faults to make")
    args = parser.parse_args()
    began = time.monotonic()
    try:
        layers = image.layers()
        print(f"{time.monotonic() - began:6.1f} s  image is there", flush=True)
        began = time.monotonic()
        with Bench(layers) as bench:
            return _run(bench, args.runs, args.only, began)
    except (BenchError, image.ImageError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _run(bench: Bench, runs: int, only: str, began: float) -> int:
    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    bench.power_on(*bench.numbers)
    say("hosts booted")
    say(f"cluster formed within {bench.form_cluster():.1f} s")
    orders = Orders(bench)
    orders.prepare()
    try:
        bench.let_in()
        manual.follow(bench, "Without a shared disk")
        wait_until("the first beat", orders.beats, 60)
        say(f"context runs on h{orders.last().host}, by the first page of the manual")
        for _ in range(runs):
            for fault in FAULTS:
                if only in fault.__name__:
                    fault(orders)
        say("all faults made")
        with_shared_disk(orders)
        say("the same with a shared disk, by the second page of the manual")
    except BenchError:
        number = next(each for each in bench.numbers if bench.is_on(each))
        print(bench.status(), bench.sh(number, "journalctl -n 60 --no-pager -o short-precise", check=False))
        raise
    return _table(orders.table, runs)


def _figures(found: list[float]) -> str:
    return f"{statistics.median(found):.1f} s, at most {max(found):.1f} s"


def _table(table: dict[str, Measured], runs: int) -> int:
    late = [what for what, each in table.items() if statistics.median(each.figures) > each.limit]
    if runs > 1:
        print(
            "\n| fault | runs again within | on | median, highest | silent | overlap |\n|---|---|---|---|---|---|"
        )
        for what, each in table.items():
            print(
                f"| {what} | {each.limit} s {each.judged} | {each.where} | {_figures(each.again)} "
                f"| {_figures(each.silent)} | {max(each.overlap):.2f} s |"
            )
    for what in late:
        print(f"cluster: later than the goal of {table[what].limit} s: {what}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
