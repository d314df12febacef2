"""memory_restart: a task that uses more memory than that is restarted, with and without control groups."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from context import Context

GREEDY = """
from zmsvc.task import LoopedTask, TaskService
class Work(LoopedTask):
    interval = 0.1
    def step(self):
        import os
        if os.path.exists(self.config["appetite"]):
            self.eaten = bytes(range(256)) * (80 << 12)
class ServiceGreedy(TaskService):
    task_class = Work
"""
PROGRAM = """import os, subprocess, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
subprocess.run([sys.executable, "-c", "eaten = bytes(range(256)) * (80 << 12); import time; time.sleep(3600)"])
"""
LIMIT = "<memory_restart>50M</memory_restart><restart_delay>0</restart_delay>"


def add(context: Context, kind: str, appetite: Path) -> None:
    if kind == "Process":
        context.service("Greedy", GREEDY)
        config = f"<appetite>{appetite}</appetite>"
    else:
        (context.home / "Services").mkdir()
        script = context.home / "greedy.py"
        script.write_text(PROGRAM)
        words = ("/usr/bin/python3", script, appetite)
        config = f"<command>{''.join(f'<arg>{word}</arg>' for word in words)}</command>"
    context.task(
        "ts_1", "Greedy", kind=kind, config=config, service=LIMIT, rules={"on_fail": ("start", "ts_2")}
    )
    context.task("ts_2", "Greedy", kind="Command", entry=False, config="<command>sleep 3600</command>")


@pytest.mark.parametrize("kind", ["Process", "Command"])
def test_a_task_above_its_limit_is_restarted_and_its_other_rules_act(either: Context, kind: str) -> None:
    """The Command itself is small: its child uses the memory."""
    appetite = either.home / "appetite"
    add(either, kind, appetite)
    either.start("--transaction", "T")
    before = either.tasks()["ts_1"]["pid"]
    appetite.touch()
    either.task_is("ts_2", "running")
    appetite.unlink()
    task = either.task_is("ts_1", "running", also=lambda task: task["pid"] != before)
    assert (task["exit"]["reason"], task["restarts"] > 0) == ("memory-limit", True)
    events = [json.loads(line) for line in either.ctl("--json", "events", "-n", "1000").stdout.splitlines()]
    failed = next(each for each in events if each["event"] == "failed")
    assert failed["detail"]["message"].endswith("of memory, above its memory_restart of 50.0M")


def test_the_next_supervisor_measures_too(context: Context) -> None:
    appetite = context.home / "appetite"
    add(context, "Process", appetite)
    context.start("--transaction", "T")
    context.kill_supervisor()
    appetite.touch()
    context.task_is("ts_2", "running")
    os.unlink(appetite)


def test_a_thread_task_may_not_have_the_option(context: Context) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo", kind="Thread", service=LIMIT)
    context.write()
    done = context.ctl("check", str(context.file), check=2)
    assert (
        "<memory_restart> is for a Process or Command, expected none for a Thread, whose memory is that of all "
        "tasks in its process"
    ) in done.stderr + done.stdout
