"""Break a cluster of three hosts in each way that docs/promises.md has a row for, and measure when the context runs
again: `make cluster`, or `make cluster RUNS=3` for the table. Needs root, and the archive of the distribution once.

A task writes ten times a second where it runs. So two copies at a time are seen, and so is each other transaction.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import image
import manual
import spread
from beats import AGAIN, OTHER, SAME, SILENT, Beats, Measured, print_table
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
BLOCKED = 10.0
"""Seconds for which a context is watched that must not start elsewhere."""


class Orders(Beats):
    """The context that the cluster moves from host to host."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench, "beats")

    def prepare(self) -> None:
        """Put the files on each host, as configuration management would."""
        super().prepare()
        for number in self.bench.numbers:
            self.bench.put(number, "/etc/zmsvc/Context-Orders.xml", CONTEXT)
            self.bench.put(number, "/etc/zmsvc/services/Beat/__init__.py", "")
            self.bench.put(number, "/etc/zmsvc/services/Beat/ServiceBeat.py", SERVICE)
            # Not in /etc/systemd/system, which a boot of a test machine empties.
            drop_in = "/usr/lib/systemd/system/zmsvc@Orders.service.d/share.conf"
            self.bench.put(number, drop_in, "[Service]\nReadWritePaths=/share\n")
            self.bench.on(number, "systemctl", "daemon-reload")


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
    parser.add_argument(
        "--part",
        choices=("all", "contexts", "tasks"),
        default="all",
        help="what is broken: hosts of contexts, or of tasks",
    )
    parser.add_argument("--only", default="", help="a part of the names of the faults to make")
    args = parser.parse_args()
    began = time.monotonic()
    try:
        layers = image.layers()
        print(f"{time.monotonic() - began:6.1f} s  image is there", flush=True)
        began = time.monotonic()
        with Bench(layers) as bench:
            return _run(bench, args, began)
    except (BenchError, image.ImageError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _run(bench: Bench, args: argparse.Namespace, began: float) -> int:
    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    bench.power_on(*bench.numbers)
    say("hosts booted")
    say(f"cluster formed within {bench.form_cluster():.1f} s")
    found: dict[str, Measured] = {}
    try:
        bench.let_in()
        if args.part != "tasks":
            found |= _contexts(bench, args, say)
        if args.part != "contexts":
            found |= _tasks(bench, args, say)
    except BenchError:
        number = next(each for each in bench.numbers if bench.is_on(each))
        print(bench.status(), bench.sh(number, "journalctl -n 60 --no-pager -o short-precise", check=False))
        raise
    return print_table(found, args.runs)


def _contexts(bench: Bench, args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Measured]:
    """Break the hosts of a context that the cluster moves, by the first two pages of the manual."""
    orders = Orders(bench)
    orders.prepare()
    manual.follow(bench, "Without a shared disk")
    wait_until("the first beat", orders.beats, 60)
    say(f"context runs on h{orders.last().host}, by the first page of the manual")
    for _ in range(args.runs):
        for fault in FAULTS:
            if args.only in fault.__name__:
                fault(orders)
    say("all faults made")
    with_shared_disk(orders)
    say("the same with a shared disk, by the second page of the manual")
    bench.sh(1, "pcs resource delete orders-all")
    return orders.table


def _tasks(bench: Bench, args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Measured]:
    """Break the other hosts on which tasks of a context run."""
    found = spread.begin(bench)
    say(f"a task runs on h{found.last().host}, and its context on h{found.home()}")
    for _ in range(args.runs):
        for fault in spread.FAULTS:
            if args.only in fault.__name__:
                fault(found)
    say("all faults of other hosts made")
    return found.table


if __name__ == "__main__":
    sys.exit(main())
