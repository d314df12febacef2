"""Typed settings under the real daemon and the real `zmsvcctl check`."""

from __future__ import annotations

import subprocess
import sys

from context import Context

SERVICE = """
from dataclasses import dataclass
from zmsvc.task import LoopedTask, TaskService

@dataclass
class Settings:
    limit: int = 10
    sensor: tuple[str, ...] = ()
    def __post_init__(self):
        if self.limit < 0:
            raise ValueError("limit is below 0")

class Work(LoopedTask):
    interval = 3600.0
    settings_class = Settings
    settings: Settings
    def step(self):
        self.update(limit=self.settings.limit + 1, sensor=self.settings.sensor)

class ServiceTyped(TaskService):
    task_class = Work
"""


def test_a_value_of_the_wrong_type_is_a_fault_of_check_and_fails_its_task_alone(context: Context) -> None:
    context.service("Typed", SERVICE)
    context.task("ts_1", "Typed", entry=False, config="\n<limit>5</limit>\n<sensor>a</sensor>")
    context.task("ts_2", "Typed", entry=False, config="\n<limit>\nten</limit>\n<sensors>a</sensors>")
    context.task("ts_3", "Typed", entry=False, config="<limit>-1</limit>", service="<replicas>2</replicas>")
    context.start("--transaction", "T")
    first = 4 + 1 + 1
    where = [f"{context.file}:{line}: " for line in (first, first + 2, first + 3)]
    faults = [
        f"{where[0]}<limit> 'ten' is not a whole number, expected one such as 10",
        f"{where[1]}<sensors> is unknown to Settings, expected limit or sensor (did you mean sensor?)",
    ]
    checked = context.ctl("check", str(context.file), check=2)
    assert checked.stderr.splitlines() == [each.replace(": <", ": ts_2: <", 1) for each in faults]
    context.ctl("start", "--transaction", "T", "ts_1")
    context.task_is("ts_1", "running", "T")
    for task, text in (("ts_2", "; ".join(faults)), ("ts_3@2", f"{where[2]}Settings: limit is below 0")):
        refused = context.ctl("start", "--transaction", "T", task, check=1)
        assert f"cannot use the configuration: {text}" in refused.stderr
        failed = context.task_is(task, "failed", "T")
        assert failed["exit"]["reason"] == "cannot-launch"
    by_hand = subprocess.run(
        [sys.executable, "-m", "zmsvc.task", str(context.home / "Services" / "Typed"), "--task", "ts_2",
         "--context", str(context.file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert by_hand.returncode == 203
    assert faults[0] in by_hand.stderr


def test_a_fault_of_replicas_is_reported_once_with_the_line_of_their_element(context: Context) -> None:
    context.service("Typed", SERVICE)
    context.task("ts_1", "Typed", config="\n<limit>ten</limit>", service="<replicas>3</replicas>")
    context.write()
    checked = context.ctl("check", str(context.file), check=2)
    assert checked.stderr.splitlines() == [
        f"{context.file}:3: ts_1: <limit> 'ten' is not a whole number, expected one such as 10"
    ]
