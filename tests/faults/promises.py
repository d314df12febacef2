"""`make promises`: cause each fault of docs/promises.md several times, and print the table with the times
that were measured. A time is that from the fault to the fact, seen from outside: over the control socket, on
the bus, or in /proc.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from context import Context, Subscriber
from waiting import wait_for, wait_for_end

RUNS = 11
SETTLED = 1.2
"""Seconds after which neither rules nor the keeper delay the next start as a quick one."""
TALK = (
    "interval = 0.005\nn = 0\ndef step(self):\n    self.n += 1\n    self.publish('talk', {'header': {}, "
    "'n': self.n})"
)
LEAVES = """
def setup(self):
    import subprocess
    subprocess.Popen(["sh", "-c", 'trap "" TERM; while :; do sleep 1000; done'], start_new_session=True)
"""


class Bench:
    """A running context with a task for each fault."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.context = context = Context(home)
        self._environment = environment
        context.looped("Talk", TALK)
        context.looped("Echo")
        context.looped("Leaves", LEAVES)
        context.task("talk", "Talk")
        context.task(
            "again",
            "Echo",
            service="<restart_delay>0</restart_delay>",
            rules={"on_fail": ("restart", "again")},
        )
        context.task("still", "Echo", service="<stop_timeout>200ms</stop_timeout>")
        context.task("leaves", "Leaves", service="<stop_timeout>200ms</stop_timeout>")
        for number in range(6):
            context.task(f"other_{number}", "Echo")

    def start(self) -> None:
        self.context.start("--transaction", "T", **self._environment)

    def pid(self, task: str) -> int:
        return int(self.context.task_is(task, "running")["pid"])

    def subscriber(self, *prefixes: bytes) -> Subscriber:
        return Subscriber(self.context.subscribe_endpoint, self.context.publish_endpoint, *prefixes)


def age(pid: int) -> float:
    """Return the age of a process in seconds."""
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - started / os.sysconf("SC_CLK_TCK")


def task_killed(bench: Bench) -> float:
    """Measure the time until `failed` is on the bus."""
    bench.context.ask(verb="start", transaction="T", tasks=["still"])
    return _from_kill_to(bench, "failed", "still")


def task_restarted(bench: Bench) -> float:
    """Measure the time until the task has been started by its own rule and `started` is on the bus. It has
    run for a while, so there is no delay.
    """
    for verb in ("stop", "start"):
        bench.context.ask(verb=verb, transaction="T", tasks=["again"])
    pid = bench.pid("again")
    wait_for(lambda: age(pid) > SETTLED)
    return _from_kill_to(bench, "started", "again")


def _from_kill_to(bench: Bench, word: str, task: str) -> float:
    subscriber, pid = bench.receiver(b"control @@@ "), bench.pid(task)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    subscriber.control(word, task)
    spent = time.monotonic() - began
    subscriber.close()
    return spent


def supervisor_killed(bench: Bench) -> float:
    """Measure the time until the next supervisor answers `status` with all tasks."""
    bench.pid("again")
    pid = int(bench.context.status()["pid"])
    wait_for(lambda: age(pid) > SETTLED)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    assert bench.context.status()["pid"] != pid
    return time.monotonic() - began


def supervisor_hung(bench: Bench) -> float:
    """Measure the time until the next supervisor answers. The watchdog has 2 s: WATCHDOG=1 comes every
    second, and its lack is followed by SIGABRT, then SIGKILL.
    """
    pid = int(bench.context.status()["pid"])
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    wait_for_end(pid)
    assert bench.context.status()["pid"] != pid
    return time.monotonic() - began


def killed_under_load(bench: Bench) -> float:
    """Return the longest time that an order took while the supervisor was killed."""
    return _longest_order(bench, lambda pid: os.kill(pid, signal.SIGKILL))


def reexec_under_load(bench: Bench) -> float:
    """Return the longest time that an order took while the supervisor was replaced by `reexec`."""
    return _longest_order(bench, lambda _pid: bench.context.ask_again(verb="reexec"))


def _longest_order(bench: Bench, replace: Callable[[int], object]) -> float:
    """Let three clients restart tasks without a pause. Return the longest time of the orders of a fourth
    client, which change nothing.
    """
    context, over, took = bench.context, threading.Event(), [0.0]

    def load(task: str) -> None:
        while not over.is_set():
            context.ask_again(verb="restart", transaction="T", tasks=[task])

    def measure() -> None:
        while not over.is_set():
            began = time.monotonic()
            assert context.ask_again(verb="start", transaction="T", tasks=["still"])["ok"]
            took.append(time.monotonic() - began)

    def answered() -> int:
        return len(took)

    bench.pid("still")
    pid = int(context.status()["pid"])
    wait_for(lambda: age(pid) > SETTLED)
    clients = [threading.Thread(target=load, args=(f"other_{number}",)) for number in range(3)]
    clients.append(threading.Thread(target=measure))
    for client in clients:
        client.start()
    try:
        wait_for(lambda: answered() > 5)
        replace(pid)
        wait_for_end(pid)
        assert context.status()["pid"] != pid
        then = answered()
        wait_for(lambda: answered() > then + 1)
    finally:
        over.set()
        for client in clients:
            client.join()
    return max(took)


def device_killed(bench: Bench) -> float:
    """Measure the time until a subscriber has a message of a task again. The supervisor starts a task, and
    does not receive its own probe.
    """
    subscriber = bench.receiver(b"talk @@@ ")
    subscriber.next()
    pid = int(bench.context.status()["device_pid"])
    wait_for(lambda: age(pid) > SETTLED)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid)
    return _until_the_next_message(bench, subscriber, pid, began)


def _until_the_next_message(bench: Bench, subscriber: Subscriber, device: int, began: float) -> float:
    """Return the time from `began` to the first message that comes by another device than this one."""
    while subscriber._socket.poll(0):
        subscriber.next()
    subscriber.next()
    spent = time.monotonic() - began
    subscriber.close()
    wait_for(lambda: bench.context.status()["device_pid"] not in (None, device))
    return spent


def device_hung(bench: Bench) -> float:
    """Measure the time until a subscriber gets a message of a task again. The supervisor starts a task, and
    does not receive its own message about that.
    """
    subscriber = bench.receiver(b"talk @@@ ")
    subscriber.next()
    pid = int(bench.context.status()["device_pid"])
    wait_for(lambda: age(pid) > SETTLED)
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    for verb in ("stop", "start"):
        bench.context.ask(verb=verb, transaction="T", tasks=["still"])
    wait_for_end(pid)
    return _until_the_next_message(bench, subscriber, pid, began)


def keeper_killed(bench: Bench) -> float:
    """Measure the time until no process of the context is left."""
    context = bench.context
    assert context.daemon is not None
    keeper = context.daemon.pid
    pids = [int(word) for word in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()]
    pids += [
        int(word) for pid in pids for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]
    began = time.monotonic()
    context.daemon.kill()
    for pid in [keeper, *pids]:
        wait_for_end(pid)
    spent = time.monotonic() - began
    context.wait()
    bench.start()
    return spent


def task_stopped_dead(bench: Bench) -> float:
    """Measure the time until an order to stop the task is answered. stop_timeout is 0.2 s of it."""
    bench.context.ask(verb="start", transaction="T", tasks=["still"])
    pid = bench.pid("still")
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert bench.context.ask(verb="stop", tasks=["still"])["ok"]
    spent = time.monotonic() - began
    assert not Path(f"/proc/{pid}").exists()
    return spent


def left_behind(bench: Bench) -> float:
    """Measure the time until an order to stop its task is answered, and check the answer."""
    bench.context.ask(verb="start", transaction="T", tasks=["leaves"])
    bench.pid("leaves")
    began = time.monotonic()
    answer = bench.context.ask(verb="stop", tasks=["leaves"])
    assert answer["ok"], answer
    assert answer["data"]["ended"], answer
    return time.monotonic() - began


def stopped_in_order(bench: Bench) -> float:
    """Measure the time until the daemon with its 10 tasks has ended with status 0."""
    began = time.monotonic()
    assert bench.context.stop() == 0
    spent = time.monotonic() - began
    bench.start()
    return spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A row of the table. docs/promises.md has both texts, word by word; a test in tests/house compares
    them.
    """

    fault: str
    happens: str
    until: str
    measure: Callable[[Bench], float]
    environment: tuple[tuple[str, str], ...] = ()


PROMISES = (
    Promise(
        fault="a task is killed",
        happens="the supervisor publishes its end once, with the signal",
        until="`failed` is on the bus",
        measure=task_killed,
    ),
    Promise(
        fault="a task with `on_fail: restart` is killed",
        happens=(
            "the keeper ends the processes that it left behind, then starts it again (here without a "
            "delay and without such processes)"
        ),
        until="`started` is on the bus",
        measure=task_restarted,
    ),
    Promise(
        fault="the supervisor is killed",
        happens=(
            "the keeper starts the next one, which knows the ends of tasks meanwhile; tasks keep their PIDs"
        ),
        until="`status` is answered",
        measure=supervisor_killed,
    ),
    Promise(
        fault="the supervisor is killed while three clients restart tasks without a pause",
        happens="the keeper starts the next one; a client whose connection is closed asks again",
        until="the slowest order of a fourth client is answered",
        measure=killed_under_load,
    ),
    Promise(
        fault="`reexec` replaces the supervisor under the same load",
        happens="the supervisor answers until it leaves; a client whose connection is closed asks again",
        until="the slowest order of a fourth client is answered",
        measure=reexec_under_load,
    ),
    Promise(
        fault="the supervisor hangs",
        happens=(
            "the keeper gets no `WATCHDOG=1` from it, kills it and starts the next one (here "
            "`WatchdogSec=2s`; without systemd 30 s)"
        ),
        until="`status` is answered",
        measure=supervisor_hung,
        environment=(("WATCHDOG_USEC", "2000000"),),
    ),
    Promise(
        fault="the device is killed",
        happens=(
            "the keeper restarts it on the same sockets; peers reconnect by themselves; messages in "
            "flight are lost"
        ),
        until="a task's next message arrives",
        measure=device_killed,
    ),
    Promise(
        fault="the device hangs (SIGSTOP)",
        happens=(
            "if the supervisor does not receive its own `process` message (start or stop of a task) for "
            "3 s, the keeper replaces the device; an idle context does not notice"
        ),
        until="a task's next message arrives",
        measure=device_hung,
    ),
    Promise(
        fault="the keeper is killed",
        happens="all processes of the context end, including grandchildren; the next start starts afresh",
        until="no process is left",
        measure=keeper_killed,
    ),
    Promise(
        fault="a task hangs (SIGSTOP) and is ordered to stop",
        happens="the keeper kills it after its `stop_timeout` (here 200 ms)",
        until="`stop` is answered",
        measure=task_stopped_dead,
    ),
    Promise(
        fault="a child in its own session ignores SIGTERM",
        happens=(
            "it gets SIGTERM, and SIGKILL after `stop_timeout` (here 200 ms); the answer names it after "
            "its proven end"
        ),
        until="`stop` is answered",
        measure=left_behind,
    ),
    Promise(
        fault="the context of 10 tasks is stopped",
        happens="all tasks end in order, and no process is left",
        until="`zmsvcd` has ended with 0",
        measure=stopped_in_order,
    ),
)


@contextmanager
def running(promise: Promise) -> Iterator[Bench]:
    home = Path(tempfile.mkdtemp(prefix="zm"))
    bench = Bench(home, **dict(promise.environment))
    try:
        bench.start()
        yield bench
    finally:
        bench.context.close()
        shutil.rmtree(home, ignore_errors=True)


def shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def main() -> int:
    print(f"| fault | what happens | until | median of {RUNS} | worst |\n|---|---|---|---|---|")
    for promise in PROMISES:
        with running(promise) as bench:
            times = [promise.measure(bench) for _ in range(RUNS)]
        middle, worst = shown(statistics.median(times)), shown(max(times))
        print(f"| {promise.fault} | {promise.happens} | {promise.until} | {middle} | {worst} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
