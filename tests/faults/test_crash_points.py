"""The supervisor dies before each of its side effects in turn: nothing is launched twice, no firing is lost,
and the reported ends are true. The witnesses are the history in the state file and the tasks themselves,
which write their launch to a file when they begin.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from context import Context
from crowd import QUICK, history
from waiting import stop_process, wait_for, wait_for_end

MOST = 80
"""A number that is higher than that of the side effects of each trip."""
STEP = 3 if "CI" in os.environ else 1
"""In CI, where each point takes a second, the supervisor dies before every third side effect, and at least
once before each kind of them.
"""

BORN = """
def setup(self):
    import os
    with open("{home}/born", "a") as file:
        file.write(os.environ["ZMSVC_LAUNCH"] + "\\n")
"""
BRITTLE = """
interval = 0.01
def step(self):
    import os
    if os.path.exists("{home}/die"):
        os.unlink("{home}/die")
        os._exit(42)
"""
PARENT = """
def setup(self):
    import signal, subprocess
    child = subprocess.Popen(["sleep", "100000"], preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    with open("{home}/child", "w") as file:
        file.write(str(child.pid))
"""


class Crash:
    """The hook for fault injection, and the place where the supervisor died."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_text("")

    def arm(self, point: int | str) -> None:
        """Die before the side effect of this number from now, or before the first one of this name."""
        self._file.write_text(str(point))

    def died(self) -> str:
        """Return the place where the supervisor died; empty if the trip had fewer side effects."""
        text = self._file.read_text()
        self._file.write_text("")
        return text.removeprefix("died before ") if text.startswith("died") else ""


@pytest.fixture
def crash(context: Context, home: Path) -> Crash:
    context.looped("Steady", BORN.format(home=home))
    context.looped("Brittle", (BORN + BRITTLE).format(home=home))
    context.looped("Parent", PARENT.format(home=home))
    context.task("steady", "Steady")
    context.task("parent", "Parent", entry=False, service="<stop_timeout>1s</stop_timeout>")
    context.task("brittle", "Brittle", entry=False, rules={"on_fail": ("start", "heir")})
    context.task("heir", "Steady", entry=False, service=QUICK)
    found = Crash(file := home / "crash")
    context.start("--transaction", "T", ZMSVC_CRASH_FILE=str(file))
    return found


def held(context: Context) -> dict[str, dict[str, Any]]:
    """Return the tasks by ID. Check that the children of the keeper are exactly the processes of tasks and
    the workers: no task has two, and none is unknown.
    """

    def compared() -> dict[str, dict[str, Any]]:
        # A worker may be replaced between the questions, so the answers may differ at first.
        children = context.children()
        status = context.status()
        tasks = {task["id"]: task for task in status["transactions"][0]["tasks"]}
        alive = {task["pid"] for task in tasks.values() if task["pid"]}
        assert set(children) == alive | {
            status["pid"],
            status["device_pid"],
            context.zygote(),
            context.output(),
        }
        return tasks

    return wait_for(compared)


def once(context: Context) -> None:
    """Check that each launch happened once, began and ended once, and was in the history before it began."""
    born = Counter(int(line) for line in (context.home / "born").read_text().split())
    rows = [row for row in history(context) if "launch" in row.detail]
    for events in (("launching",), ("started",), ("failed", "stopped")):
        told = Counter(row.detail["launch"] for row in rows if row.event in events)
        assert not told - Counter(told.keys()), f"{events} twice: {told}"
    assert not born - Counter(born.keys()), f"forked twice: {born}"
    assert born.keys() <= {row.detail["launch"] for row in rows if row.event == "launching"}
    assert not [row for row in rows if row.event in ("lost", "stranger", "survivor")]


def every_point(
    context: Context, crash: Crash, names: str, trip: Callable[[], Any], again: Callable[[], Any]
) -> None:
    """Take the trip again and again. The supervisor dies before the first of its side effects, and then STEP
    later each time. Turns differ from one run to the next, so this count may miss a side effect. So in the
    end the supervisor dies before each of the named ones that were missed.
    """
    steady = context.tasks()["steady"]["pid"]

    def die(point: int | str) -> str:
        crash.arm(point)
        trip()
        # This answer comes after a turn. By then everything that follows the answer of the trip has been
        # done, or the supervisor has died.
        context.status()
        place = crash.died()
        tasks = held(context)
        assert (tasks["steady"]["pid"], tasks["steady"]["restarts"]) == (steady, 0), place
        once(context)
        return place

    missing = dict.fromkeys(names.split(", "))
    for point in range(1, MOST, STEP):
        place = die(point)
        if not place:
            break
        missing.pop(place, None)
        again()
    assert point < MOST - STEP, "the trip never ended"
    for name in missing:
        again()
        assert die(name) == name, f"the trip has no {name}"


def start(context: Context, task: str) -> None:
    """Start a task as an operator does: the command outlives the supervisor that it asked."""
    context.ctl("start", "--transaction", "T", "--task", task)
    context.task_is(task, "running")


def stop(context: Context, task: str) -> None:
    context.ctl("stop", "--transaction", "T", "--task", task)
    context.task_is(task, "stopped")


def back(context: Context, verb: str, task: str) -> None:
    """Give the same order without a command, to return to the beginning of a trip."""
    assert context.ask(verb=verb, transaction="T", tasks=[task])["ok"]


def kill(context: Context, task: str) -> None:
    """End a task without an order, so that a rule may start it again: no rule starts a task that the operator
    has stopped.
    """
    os.kill(context.tasks()[task]["pid"], signal.SIGKILL)
    context.task_is(task, "failed")


def test_a_start_survives_a_crash_at_every_point(context: Context, crash: Crash) -> None:
    names = "save, Record, PublishProcess, Launch, WakeAt, discard datagrams, PublishControl, Reply"
    every_point(context, crash, names, lambda: start(context, "heir"), lambda: back(context, "stop", "heir"))


def test_a_stop_survives_a_crash_at_every_point(context: Context, crash: Crash, home: Path) -> None:
    """The task leaves a child behind, which gets a stop signal and is killed later."""

    def trip() -> None:
        pid, child = context.tasks()["parent"]["pid"], int((home / "child").read_text())
        stop(context, "parent")
        assert not Path(f"/proc/{pid}").exists()
        assert not Path(f"/proc/{child}").exists()
        end = context.tasks()["parent"]["exit"]
        assert (end["code"], end["signal"], end["reason"]) == (0, None, "requested")

    start(context, "parent")
    # The status of the unit is not sent after each change, so there may be none about a task that was started
    # and stopped in between.
    names = "save, Terminate, KillAll, WakeAt, PublishControl, Forget, acknowledge end"
    every_point(context, crash, names, trip, lambda: back(context, "start", "parent"))


def test_a_crash_before_the_status_of_the_unit_is_repaired(context: Context, crash: Crash) -> None:
    """The status is not sent after each change, and comes after the turn. It has no fixed place in a trip,
    but comes after each trip that lasts.
    """
    steady, supervisor = context.tasks()["steady"]["pid"], context.status()["pid"]
    crash.arm("say status")
    start(context, "heir")
    wait_for_end(supervisor)
    context.status()  # of the next supervisor
    assert crash.died() == "say status"
    tasks = held(context)
    assert (tasks["steady"]["pid"], tasks["heir"]["sub"]) == (steady, "running")
    once(context)


class Firings:
    """`brittle` fails with 42, and its rule starts `heir`, once for each end and with the right cause."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._count = 0
        start(context, "brittle")

    def fire(self) -> None:
        (self._context.home / "die").touch()

    def check(self) -> None:
        end = self._context.task_is("brittle", "failed")["exit"]
        assert (end["code"], end["signal"], end["reason"]) == (42, None, "exit-code")
        heir = self._context.task_is("heir", "running")
        (source,) = heir["cause"]["sources"]
        assert (source["task"], source["rule"], source["exit"]["code"]) == (
            "brittle",
            "on_fail:start:heir",
            42,
        )
        self._count += 1
        assert heir["restarts"] == self._count - 1, "once a firing"
        fired = Counter(row.detail["launch"] for row in history(self._context) if row.event == "rule")
        assert sorted(fired.values()) == [1] * self._count, "each is in the history once"

    def again(self) -> None:
        kill(self._context, "heir")
        back(self._context, "start", "brittle")


@pytest.mark.deadline(300)
def test_a_firing_survives_a_crash_at_every_point(context: Context, crash: Crash) -> None:
    firings = Firings(context)

    def trip() -> None:
        firings.fire()
        firings.check()

    every_point(
        context,
        crash,
        "save, Record, Launch, Forget, discard datagrams, acknowledge end",
        trip,
        firings.again,
    )


@pytest.mark.deadline(300)
def test_an_adoption_survives_a_crash_at_every_point(context: Context, crash: Crash) -> None:
    """The supervisor that takes over dies, too, before each of its own side effects. A task has failed while
    there was no supervisor.
    """
    firings = Firings(context)
    assert context.daemon is not None
    keeper = context.daemon.pid

    def trip() -> None:
        status, brittle = context.status(), context.tasks()["brittle"]["pid"]
        stop_process(keeper)
        try:
            os.kill(status["pid"], signal.SIGKILL)
            wait_for_end(status["pid"])
            firings.fire()
            wait_for_end(brittle)
        finally:
            os.kill(keeper, signal.SIGCONT)
        firings.check()

    names = (
        "take over state, tell device, open control, save, Record, Launch, PublishInfo, say status, "
        "acknowledge end"
    )
    every_point(context, crash, names, trip, firings.again)
