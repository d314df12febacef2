"""Random kills of the supervisor, of envoys, keepers and tasks of a context that runs on several hosts, and
orderly moves of it: at no time do two processes of one task run, each launch begins and ends once, and each
failure fires its rule once.

Each task holds a lock of the kernel while it lives, on a file that all hosts share, and writes down its
launch: witnesses that do not depend on zmsvc.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from chance import SEED
from context import Context
from crowd import QUICK, history
from needs import need
from other_hosts import Host, other_hosts, placement, start_all
from test_crash_points import Crash
from waiting import wait_for

KILLS = int(os.environ.get("ZMSVC_KILLS", "12"))
"""`make kills` has 100 of them."""
STEP = 1 if "ZMSVC_KILLS" in os.environ else 5
"""In `make kills` the supervisor dies before each side effect."""
MOST = 60
"""A number that is higher than that of the side effects of a failure."""

ALONE = """
def setup(self):
    import fcntl, os
    launch, own = os.environ["ZMSVC_LAUNCH"], "{home}/" + self.service_id
    self.lock = open(own + ".lock", "w")
    try:
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with open("{home}/doubles", "a") as file:
            file.write(self.service_id + " " + launch + "\\n")
    with open("{home}/born", "a") as file:
        file.write(launch + "\\n")
"""
PLACED = {"near": "h2", "far": "h3", "moving": "h2 h3", "free": ""}
TASKS = ("home", *PLACED)


@pytest.fixture
def hosts(context: Context) -> Iterator[tuple[Host, ...]]:
    need(zmq.has("curve"), "this libzmq has no CURVE")
    with other_hosts(context) as made:
        yield made


@pytest.mark.deadline(240 + 8 * KILLS)
def test_random_kills_on_several_hosts(context: Context, hosts: tuple[Host, ...], home: Path) -> None:
    print(f"ZMSVC_SEED={SEED} ZMSVC_KILLS={KILLS}")
    chance = random.Random(SEED)
    context.looped("Alone", ALONE.format(home=home))
    for name in TASKS:
        placed = placement(*PLACED[name].split()) if name in PLACED else ""
        context.task(name, "Alone", service=QUICK + placed, rules={"on_fail": ("restart", name)})
    start_all(context, hosts)
    settled(context, hosts)
    for _ in range(KILLS):
        for victim in chance.sample(
            ("supervisor", "context", "envoy", "envoy", "keeper", *TASKS), chance.choice((1, 2, 3))
        ):
            kill(context, victim, chance.choice(hosts))
        if chance.random() < 0.5:
            settled(context, hosts)
    settled(context, hosts)
    assert not (home / "doubles").exists(), (home / "doubles").read_text()
    check_history(context, home)


def test_the_supervisor_dies_at_a_failure_on_another_host(
    context: Context, hosts: tuple[Host, ...], home: Path
) -> None:
    """It dies before a side effect that follows from the failure, STEP later each time."""
    h2, h3 = hosts
    crash = Crash(file := home / "crash")
    context.looped("Alone", ALONE.format(home=home))
    context.task("one", "Alone", rules={"on_fail": ("start", "two")}, service=placement("h2"))
    context.task("two", "Alone", entry=False, service=placement("h3"))
    start_all(context, hosts, ZMSVC_CRASH_FILE=str(file))
    for fired, point in enumerate(range(1, MOST, STEP), 1):
        one = context.task_is("one", "running")
        crash.arm(point)
        os.kill(one["pid"], signal.SIGKILL)
        two = context.task_is("two", "running")
        wait_for(lambda launch=two["launch"]: (h2.holds(), h3.holds()) == (set(), {launch}))
        place = crash.died()
        assert context.tasks()["one"]["exit"]["signal"] == "SIGKILL", place
        launched = [row for row in history(context) if (row.task, row.event) == ("two", "launching")]
        assert len(launched) == fired, place
        if not place:
            break
        os.kill(two["pid"], signal.SIGKILL)
        context.task_is("two", "failed")
        context.ctl("start", "one")
    assert point > 10, "it died at no side effect"
    assert not (home / "doubles").exists()
    check_history(context, home)


def kill(context: Context, victim: str, host: Host) -> None:
    if victim == "supervisor":
        context.kill_supervisor()
    elif victim == "context":
        # An orderly move, after which another keeper has the tasks at home.
        context.ctl("exit", "--home")
        assert context.wait() == 0
        context.start()
    elif victim == "envoy":
        host.kill_envoy()
    elif victim == "keeper":
        host.kill()
        host.start()
    else:
        pid = context.tasks()[victim]["pid"]
        if pid is not None:
            # Its process may have ended, and on a machine of several hosts nothing else has its PID so soon.
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def settled(context: Context, hosts: tuple[Host, ...]) -> None:
    """Wait until each task runs once, and on other hosts are no other processes than these."""

    def fact() -> bool:
        tasks = context.tasks()
        subs = {name: task["sub"] for name, task in tasks.items()}
        assert set(subs.values()) == {"running"}, subs
        placed = {tasks[name]["launch"] for name in PLACED}
        held = [launch for host in hosts for launch in host.holds()]
        assert sorted(held) == sorted(placed), (held, placed)
        assert {name: task["pid"] for name, task in context.tasks().items()} == {
            name: task["pid"] for name, task in tasks.items()
        }
        for task in tasks.values():
            os.kill(task["pid"], 0)
        return True

    wait_for(fact, 60)


def check_history(context: Context, home: Path) -> None:
    """Check that each launch began and ended at most once, and that each has ended but those that run."""
    rows = [row for row in history(context) if "launch" in row.detail]
    born = Counter(int(line) for line in (home / "born").read_text().split())
    told = {
        event: Counter(row.detail["launch"] for row in rows if row.event in events)
        for event, events in {
            "launching": ("launching",),
            "started": ("started",),
            "ended": ("failed", "stopped"),
        }.items()
    }
    for event, counted in told.items():
        assert not counted - Counter(counted.keys()), f"{event} twice: {counted}"
    assert not born - Counter(born.keys()), f"forked twice: {born}"
    assert born.keys() <= told["launching"].keys()
    running = {task["launch"] for task in context.tasks().values() if task["pid"]}
    assert told["launching"].keys() - running == told["ended"].keys()
