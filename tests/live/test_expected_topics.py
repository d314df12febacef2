"""`<expect>` and `<ready topic="...">`: a task that is silent on a topic has failed, and one that has published
there is ready.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from context import Context, Subscriber
from waiting import context_switches, wait_for

LOOPED = """
interval = 0.02
def step(self):
    import os, time
    if os.path.exists(self.config["hang"]):
        time.sleep(3600)
    if not os.path.exists(self.config["quiet"]):
        self.publish("t", {"n": 1})
"""
PROGRAM = """
import itertools, os, sys, time
sys.path.insert(0, {tree!r})
import zmq
from zmsvc.core import messages
pub = zmq.Context().socket(zmq.PUB)
pub.connect(os.environ["ZMSVC_BACKEND"])
head = messages.header(transaction=os.environ["ZMSVC_TRANSACTION"], service_id=os.environ["ZMSVC_TASK"],
    action="published", service_name="x")
for number in itertools.count():
    if not os.path.exists({quiet!r}):
        pub.send(messages.encode("t", {{"header": head, "content": number}}))
    time.sleep(0.02)
"""
WITHIN = '<expect topic="t" within="3s"/><expect topic="t" within="1min"/>'


def add(context: Context, kind: str, task: str, service: str, **more: Any) -> Path:
    """Add a task that publishes on the topic `t` until a file exists. Return the file."""
    quiet, hang = context.home / f"{task}.quiet", context.home / f"{task}.hang"
    if kind == "Command":
        (context.home / "Services").mkdir(exist_ok=True)
        program = context.home / f"{task}.py"
        program.write_text(PROGRAM.format(tree=str(Path(__file__).parents[2]), quiet=str(quiet)))
        config = f"<command><arg>{sys.executable}</arg><arg>{program}</arg></command>"
    else:
        context.looped("Work", LOOPED)
        config = f"<quiet>{quiet}</quiet><hang>{hang}</hang>"
    context.task(task, "Work", kind=kind, service=service, config=config, **more)
    return quiet


@pytest.mark.parametrize("kind", ["Process", "Thread", "Command"])
def test_a_task_that_falls_silent_has_failed_and_its_rules_fire(
    context: Context, subscriber: Callable[..., Subscriber], kind: str
) -> None:
    service = f"{WITHIN}<stop_timeout>100ms</stop_timeout>"
    quiet = add(context, kind, "ts_1", service, rules={"on_fail": ("start", "ts_2")})
    add(context, "Process" if kind == "Command" else kind, "ts_2", "", entry=False)
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    if kind == "Process":
        (context.home / "ts_1.hang").touch()
    else:
        quiet.touch()
    assert heard.control("failed", "ts_1")["content"]["status"]["reason"] == "silent"
    task = context.task_is("ts_2", "running") and context.tasks("T")["ts_1"]
    assert (task["exit"]["reason"], task["status"]) == ("silent", "silent: nothing on t within 3 s")


def watchers(context: Context) -> list[int]:
    return [pid for pid, name in context.children().items() if name == "zmsvc-watcher"]


def test_no_crash_beside_a_task_makes_it_silent_and_the_next_silence_is_noticed(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    quiet = add(context, "Command", "ts_1", '<expect topic="t" within="3s"/>')
    quiet_too = add(context, "Command", "ts_2", '<expect topic="t" within="4s"/>')
    add(context, "Process", "ts_3", "")
    context.start("--transaction", "T")
    (first,) = wait_for(lambda: watchers(context))
    os.kill(first, signal.SIGKILL)
    context.kill_supervisor()
    (second,) = wait_for(lambda: [pid for pid in watchers(context) if pid != first])
    heard = subscriber(b"t @@@ ")
    for _ in range(100):
        heard.next()
    os.kill(context.status()["device_pid"], signal.SIGKILL)
    for _ in range(100):
        heard.next()
    tasks = context.tasks("T")
    assert {tasks[name]["sub"] for name in ("ts_1", "ts_2")} == {"running"}
    assert not {tasks[name]["restarts"] for name in ("ts_1", "ts_2")} - {0}
    assert watchers(context) == [second], "one process watches all tasks"
    quiet.touch()
    assert context.task_is("ts_1", "failed")["exit"]["reason"] == "silent"
    assert context.tasks("T")["ts_2"]["sub"] == "running", "a task that publishes answers for itself alone"
    quiet_too.touch()
    assert context.task_is("ts_2", "failed")["exit"]["reason"] == "silent"


def test_a_context_without_such_commands_has_no_watcher(context: Context) -> None:
    add(context, "Process", "ts_1", WITHIN)
    context.task("ts_2", "Sleep", kind="Command", config="<command>sleep 3600</command>")
    context.start("--transaction", "T")
    assert not watchers(context)


def switches(status: dict[str, Any]) -> int:
    """Return how often supervisor and keeper have slept or were interrupted."""
    return sum(
        int(line.split()[-1]) for name in ("pid", "keeper_pid") for line in context_switches(status[name])
    )


def test_messages_cost_the_supervisor_nothing(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    add(context, "Command", "ts_1", '<expect topic="t" within="1min"/>')
    program = context.home / "ts_1.py"
    program.write_text(program.read_text().replace("time.sleep(0.02)", "time.sleep(0.0005)"))
    context.start("--transaction", "T")
    wait_for(lambda: watchers(context))
    status = context.status()
    heard = subscriber(b"t @@@ ")
    before = switches(status)
    for _ in range(3000):
        heard.next()
    assert switches(status) - before < 300, "they wake up for messages"


def test_a_reload_changes_what_is_watched(context: Context) -> None:
    add(context, "Command", "ts_1", '<expect topic="t" within="1min"/>')
    context.start("--transaction", "T")
    (before,) = wait_for(lambda: watchers(context))
    context.file.write_text(
        context.file.read_text().replace('topic="t" within="1min"', 'topic="u" within="1s"')
    )
    context.ctl("reload")
    assert context.task_is("ts_1", "failed")["status"] == "silent: nothing on u within 1 s"
    assert watchers(context) == [before]


@pytest.mark.parametrize("kind", ["Process", "Command"])
def test_a_task_is_ready_at_its_first_message(
    context: Context, subscriber: Callable[..., Subscriber], kind: str
) -> None:
    quiet = add(context, kind, "ts_1", '<ready topic="t"/><expect topic="t" within="1min"/>', entry=False)
    add(context, "Process", "ts_2", "")
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    quiet.touch()
    context.ctl("start", "--no-block", "--transaction", "T", "ts_1")
    context.task_is("ts_1", "start", also=lambda task: bool(task["pid"]))
    quiet.unlink()
    heard.control("started", "ts_1")
    context.task_is("ts_1", "running")
