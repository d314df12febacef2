"""The wall clock is set by an hour while a context runs: nothing happens earlier or later, and ages stay the
same.
"""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from context import Context
from waiting import PATIENCE, stop_process

HOUR = 3600


class Clock:
    """The wall clock that a daemon and zmsvcctl see."""

    def __init__(self, context: Context) -> None:
        self._file = context.home / "clock"
        self._jump = 0
        path = os.pathsep.join([str(Path(__file__).parent / "shim"), os.environ.get("PYTHONPATH", "")])
        self.environment = {"CLOCK_FILE": str(self._file), "PYTHONPATH": path}

    def set(self, seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._file)
        self._jump = seconds

    def age(self, at: str) -> float:
        """Return the seconds from a time in `status` until now, by this clock."""
        return time.time() + self._jump - datetime.fromisoformat(at).timestamp()


@pytest.fixture
def clock(context: Context, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(context)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_no_alarm_comes_early_or_late(context: Context, clock: Clock, jump: int) -> None:
    context.looped("Echo")
    context.looped(
        "Deaf", "def setup(self):\n    __import__('signal').signal(15, __import__('signal').SIG_IGN)"
    )
    context.looped("Late", "def setup(self):\n    self.wait(1000)")
    context.looped("Frail", "def step(self):\n    __import__('os')._exit(3)")
    context.task("fed", "Echo", service="<watchdog>10s</watchdog>")
    context.task("hung", "Echo", service="<watchdog>3s</watchdog><stop_timeout>500ms</stop_timeout>")
    context.task("deaf", "Deaf", service="<stop_timeout>1s</stop_timeout>")
    context.task("late", "Late", entry=False, service="<start_timeout>3s</start_timeout>")
    context.task(
        "frail",
        "Frail",
        service="<restart_delay>1s</restart_delay><restart_max_delay>1s</restart_max_delay>",
        rules={"on_fail": ("restart", "frail")},
    )
    context.start("--transaction", "T")
    pids = {name: task["pid"] for name, task in context.tasks().items()}
    began = time.monotonic()
    stop_process(pids["hung"])
    assert context.ask(verb="stop", tasks=["deaf"], block=False)["ok"]
    assert context.ask(verb="start", transaction="T", tasks=["late"], block=False)["ok"]
    turns = context.tasks()["frail"]["restarts"]
    clock.set(jump)
    answer = context.ask(verb="start", transaction="T", tasks=["late"], timeout=0.2)
    assert (answer["ok"], answer["code"]) == (False, 124)
    assert context.task_is("hung", "failed")["exit"]["reason"] == "watchdog"
    assert context.task_is("deaf", "stopped")["exit"]["signal"] == "SIGKILL"
    assert context.task_is("late", "failed")["exit"]["reason"] == "not-ready"
    assert time.monotonic() - began >= 1.0, "nothing rang early"
    context.task_is("frail", "back-off", also=lambda task: task["restarts"] > turns)
    fast = context.tasks()["frail"]["restarts"] - turns
    assert fast <= time.monotonic() - began + 1, "a delay of 1 s is one"
    assert (context.tasks()["fed"]["pid"], context.tasks()["fed"]["sub"]) == (pids["fed"], "running")
    assert context.status()["restarts"] == 0


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_ages_and_the_order_of_the_history_stay(context: Context, clock: Clock, jump: int) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    began = time.monotonic()
    context.ctl("restart", "--task", "ts_1")
    clock.set(jump)
    context.ctl("restart", "--task", "ts_1")
    context.kill_supervisor()
    context.ctl("stop", "--task", "ts_1")
    task, status = context.tasks()["ts_1"], context.status()
    spent = time.monotonic() - began
    for at in (task["since"], task["exit"]["at"]):
        assert -1 <= clock.age(at) <= spent + 1, at
    assert -1 <= clock.age(status["transactions"][0]["opened"]) <= spent + PATIENCE
    rows = [
        json.loads(line)["event"] for line in context.ctl("--json", "events", "-n", "100").stdout.splitlines()
    ]
    words = [word for word in rows if word in ("launching", "started", "stopping", "stopped", "adopted")]
    life = ["launching", "started", "stopping", "stopped"]
    assert words == [*life, *life, "launching", "started", "adopted", "stopping", "stopped"]
    assert "ago" in context.ctl("status", check=None).stdout
