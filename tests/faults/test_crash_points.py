"""The supervisor dies before each of its side effects in turn: nothing is launched twice, no firing is lost, ends are true."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from context import Context

MOST = 60
"""More side effects than any of these trips has."""

BRITTLE = """
interval = 0.01
def step(self):
    import os
    if os.path.exists("{home}/die"):
        os.unlink("{home}/die")
        os._exit(42)
"""


class Crash:
    """Arms the hook, and tells where the supervisor died."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def arm(self, point: int | str) -> None:
        """Die before the side effect of this number from now, or before the first one of this name."""
        self._file.write_text(str(point))

    def died(self) -> str:
        """Where it died; empty when the trip had fewer side effects than that."""
        text = self._file.read_text()
        self._file.write_text("")
        return text if text.startswith("died") else ""


@pytest.fixture
def crash(context: Context, home: Path) -> Crash:
    context.looped("Steady")
    context.looped("Brittle", BRITTLE.format(home=home))
    context.task("steady", "Steady")
    context.task("brittle", "Brittle", entry=False, rules={"on_fail": ("start", "heir")})
    # It is started again and again by a rule, which is braked otherwise: the faster the machine, the longer it would be made to wait.
    context.task("heir", "Steady", entry=False, service="<restart_max_delay>100ms</restart_max_delay>")
    file = home / "crash"
    file.write_text("")
    context.start("--transaction", "T", ZMSVC_CRASH_FILE=str(file))
    return Crash(file)


def held(context: Context) -> dict[str, dict[str, Any]]:
    """The tasks by id; what the keeper holds is exactly their processes: never two of one task, none that nobody knows."""
    children = Path(f"/proc/{context.daemon.pid}/task/{context.daemon.pid}/children").read_text().split()
    status = context.status()
    tasks = {task["id"]: task for task in status["transactions"][0]["tasks"]}
    alive = {task["pid"] for task in tasks.values() if task["pid"]}
    assert {int(pid) for pid in children} == alive | {status["pid"], status["device_pid"]}
    return tasks


def every_point(context: Context, crash: Crash, names: str, trip: Callable[[], Any], back: Callable[[], Any]) -> None:
    """Take the trip again and again: the supervisor dies before each of these side effects, and then one later each time."""
    steady = context.tasks()["steady"]["pid"]
    for point in [*names.split(", "), *range(1, MOST)]:
        crash.arm(point)
        trip()
        place = crash.died()
        assert held(context)["steady"]["pid"] == steady, place
        if not place:
            assert isinstance(point, int), f"the trip has no {point}"
            assert point > 5, "a trip has more side effects than that"
            return
        back()
    raise AssertionError("the trip never ended")


def start(context: Context, task: str) -> None:
    context.ctl("start", "--transaction", "T", "--task", task)
    context.task_is(task, "running")


def stop(context: Context, task: str) -> None:
    context.ctl("stop", "--transaction", "T", "--task", task)
    context.task_is(task, "stopped")


def kill(context: Context, task: str) -> None:
    """End it without an order, so that a rule may start it again: what the operator stops no rule starts."""
    os.kill(context.tasks()[task]["pid"], signal.SIGKILL)
    context.task_is(task, "failed")


@pytest.mark.deadline(240)
def test_start_at_every_point(context: Context, crash: Crash) -> None:
    names = "save, Record, PublishProcess, Launch, WakeAt, settle datagrams, PublishControl, Reply"
    every_point(context, crash, names, lambda: start(context, "heir"), lambda: stop(context, "heir"))


@pytest.mark.deadline(240)
def test_stop_at_every_point(context: Context, crash: Crash) -> None:
    def trip() -> None:
        pid = context.tasks()["heir"]["pid"]
        stop(context, "heir")
        assert not Path(f"/proc/{pid}").exists()
        assert context.tasks()["heir"]["exit"]["reason"] == "requested"

    start(context, "heir")
    names = "save, Signal, WakeAt, PublishControl, Forget, acknowledge end"
    every_point(context, crash, names, trip, lambda: start(context, "heir"))


@pytest.mark.deadline(300)
def test_a_firing_at_every_point(context: Context, crash: Crash, home: Path) -> None:
    launched = [0]

    def trip() -> None:
        (home / "die").touch()
        end = context.task_is("brittle", "failed")["exit"]
        assert (end["code"], end["reason"]) == (42, "exit-code")
        heir = context.task_is("heir", "running")
        assert [source["task"] for source in heir["cause"]["sources"]] == ["brittle"]
        launched[0] += 1
        assert heir["restarts"] == launched[0] - 1, "once a firing"

    def back() -> None:
        kill(context, "heir")
        start(context, "brittle")

    start(context, "brittle")
    every_point(context, crash, "save, Record, Launch, Forget, acknowledge end", trip, back)


@pytest.mark.deadline(240)
def test_adoption_at_every_point(context: Context, crash: Crash) -> None:
    """The one that takes over dies, too, before each of its own first side effects."""
    start(context, "heir")
    pid = context.tasks()["heir"]["pid"]
    for number in range(1, 12):
        crash.arm(number)
        os.kill(context.status()["pid"], signal.SIGKILL)
        context.task_is("heir", "running")
        assert held(context)["heir"]["pid"] == pid, crash.died()
