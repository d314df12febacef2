"""Tasks that are started together do not miss each other's first messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from context import Context, Ear

HEAR = """
from pathlib import Path
from zmsvc.task import SingleTask, TaskService

Path({gate!r}).read_bytes()  # the import takes until the test opens the FIFO

class Hear(SingleTask):
    topics = "raw"
    def run(self):
        first = {{}}
        for message in self.messages():
            first.setdefault(message.sender, message.sequence)
            if len(first) == 4:
                self.update(first=first)

class ServiceHear(TaskService):
    task_class = Hear
"""
SAY = """
from zmsvc.task import AsyncTask, LoopedTask, TaskService

class Say(LoopedTask):
    publishes = ["raw", "other"]
    def step(self):
        self.publish("raw", {})

class SayAsync(AsyncTask):
    async def run(self):
        while not await self.wait_async(0.2):
            await self.publish_async("raw", {})

class Free(LoopedTask):
    publishes = ()
    def step(self):
        self.update(step=1)
        self.wait()
"""


def test_no_first_message_of_a_common_start_is_lost(
    context: Context, home: Path, ear: Callable[..., Ear]
) -> None:
    gate = home / "gate"
    os.mkfifo(gate)
    context.service("Hear", HEAR.format(gate=str(gate)))
    for name in ("Say", "SayAsync", "Free"):
        context.service(name, f"{SAY}\nclass Service{name}(TaskService):\n    task_class = {name}\n")
    context.task("ts_hear", "Hear", entry=False)
    context.task("ts_process", "Say", entry=False)
    context.task("ts_thread", "Say", kind="Thread", entry=False)
    context.task("ts_fresh", "Say", service="<fresh>yes</fresh>", entry=False)
    context.task("ts_async", "SayAsync", entry=False)
    context.task("ts_free", "Free", entry=False)
    context.start("--transaction", "T")
    heard = ear(b"control @@@ ")
    publishers = ("ts_process", "ts_thread", "ts_fresh", "ts_async")
    context.ctl("start", "--no-block", "--transaction", "T", "ts_hear", *publishers)
    heard.controls("started", publishers, "T")
    context.kill_supervisor()
    gate.write_bytes(b"")
    told = heard.control("updated", "ts_hear")["content"]["status"]
    assert told["first"] == dict.fromkeys(publishers, 1)


def test_a_task_that_publishes_nothing_waits_for_no_other(
    context: Context, home: Path, ear: Callable[..., Ear]
) -> None:
    gate = home / "gate"
    os.mkfifo(gate)
    context.service("Hear", HEAR.format(gate=str(gate)))
    context.service("Free", f"{SAY}\nclass ServiceFree(TaskService):\n    task_class = Free\n")
    context.task("ts_hear", "Hear", entry=False)
    context.task("ts_free", "Free", entry=False)
    context.start("--transaction", "T")
    heard = ear(b"control @@@ ")
    context.ctl("start", "--no-block", "--transaction", "T", "ts_hear", "ts_free")
    heard.control("updated", "ts_free")
    assert context.tasks("T")["ts_hear"]["sub"] == "start"
    gate.write_bytes(b"")
