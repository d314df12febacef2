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
from context import Context, Ear
from waiting import wait_for

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
import os, sys, time
sys.path.insert(0, {tree!r})
import zmq
from zmsvc.core import messages
pub = zmq.Context().socket(zmq.PUB)
pub.connect(os.environ["ZMSVC_BACKEND"])
head = messages.header(transaction=os.environ["ZMSVC_TRANSACTION"], service_id=os.environ["ZMSVC_TASK"],
    action="published", service_name="x")
while True:
    if not os.path.exists({quiet!r}):
        pub.send(messages.encode("t", {{"header": head, "content": 1}}))
    time.sleep(0.02)
"""
WITHIN = '<expect topic="t" within="1s"/><expect topic="t" within="1min"/>'


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
    context: Context, ear: Callable[..., Ear], kind: str
) -> None:
    service = f"{WITHIN}<stop_timeout>100ms</stop_timeout>"
    quiet = add(context, kind, "ts_1", service, rules={"on_fail": ("start", "ts_2")})
    add(context, "Process" if kind == "Command" else kind, "ts_2", "", entry=False)
    context.start("--transaction", "T")
    heard = ear(b"control @@@ ")
    if kind == "Process":
        (context.home / "ts_1.hang").touch()
    else:
        quiet.touch()
    assert heard.control("failed", "ts_1")["content"]["status"]["reason"] == "silent"
    task = context.task_is("ts_2", "running") and context.tasks("T")["ts_1"]
    assert (task["exit"]["reason"], task["status"]) == ("silent", "silent: nothing on t within 1 s")


def test_no_crash_beside_a_task_makes_it_silent_and_the_next_silence_is_noticed(
    context: Context, ear: Callable[..., Ear]
) -> None:
    quiet = add(context, "Command", "ts_1", '<expect topic="t" within="3s"/>')
    add(context, "Process", "ts_3", "")
    context.start("--transaction", "T")

    def watcher() -> int:
        return next((pid for pid, name in context.children().items() if name == "ts_1-expect"), 0)

    first = wait_for(watcher)
    assert not any(name == "ts_3-expect" for name in context.children().values())
    os.kill(first, signal.SIGKILL)
    context.kill_supervisor()
    second = wait_for(lambda: (found := watcher()) != first and found)
    heard = ear(b"t @@@ ")
    for _ in range(50):
        heard.next()
    os.kill(context.status()["device_pid"], signal.SIGKILL)
    for _ in range(50):
        heard.next()
    task = context.tasks("T")["ts_1"]
    assert (task["sub"], task["restarts"], watcher()) == ("running", 0, second)
    quiet.touch()
    assert context.task_is("ts_1", "failed")["exit"]["reason"] == "silent"


@pytest.mark.parametrize("kind", ["Process", "Command"])
def test_a_task_is_ready_at_its_first_message(context: Context, ear: Callable[..., Ear], kind: str) -> None:
    quiet = add(context, kind, "ts_1", '<ready topic="t"/><expect topic="t" within="1min"/>', entry=False)
    add(context, "Process", "ts_2", "")
    context.start("--transaction", "T")
    heard = ear(b"control @@@ ")
    quiet.touch()
    context.ctl("start", "--no-block", "--transaction", "T", "ts_1")
    context.task_is("ts_1", "start", also=lambda task: bool(task["pid"]))
    quiet.unlink()
    heard.control("started", "ts_1")
    context.task_is("ts_1", "running")
