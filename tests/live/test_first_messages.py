"""Tasks that are started together do not miss each other's first messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from context import Context, Subscriber

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
PROGRAM = """
import json, os, sys, time, zmq
from pathlib import Path
from zmsvc.host.systemd.notify import Notifier

Path(sys.argv[1]).read_bytes()  # the program does not subscribe until the test opens the FIFO
sub = zmq.Context().socket(zmq.SUB)
sub.subscribe("raw @@@ ")
sub.connect(os.environ["ZMSVC_FRONTEND"])
sync = zmq.Context().socket(zmq.XPUB)  # the device passes a subscription on to it
sync.connect(os.environ["ZMSVC_BACKEND"])
while sync.recv() != b"\\x01raw @@@ ":
    pass
Notifier(os.environ["NOTIFY_SOCKET"]).ready()
sequence = json.loads(sub.recv().partition(b" @@@ ")[2])["header"]["sequence"]
os.execvp("zmsvcctl", ["zmsvcctl", "update", f"first={sequence}"])
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
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
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
    heard = subscriber(b"control @@@ ")
    publishers = ("ts_process", "ts_thread", "ts_fresh", "ts_async")
    context.ctl("start", "--no-block", "--transaction", "T", "ts_hear", *publishers)
    heard.controls("started", publishers, "T")
    context.kill_supervisor()
    gate.write_bytes(b"")
    told = heard.control("updated", "ts_hear")["content"]["status"]
    assert told["first"] == dict.fromkeys(publishers, 1)


def test_a_task_that_publishes_nothing_waits_for_no_other(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    gate = home / "gate"
    os.mkfifo(gate)
    context.service("Hear", HEAR.format(gate=str(gate)))
    context.service("Free", f"{SAY}\nclass ServiceFree(TaskService):\n    task_class = Free\n")
    context.task("ts_hear", "Hear", entry=False)
    context.task("ts_free", "Free", entry=False)
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    context.ctl("start", "--no-block", "--transaction", "T", "ts_hear", "ts_free")
    heard.control("updated", "ts_free")
    assert context.tasks("T")["ts_hear"]["sub"] == "start"
    gate.write_bytes(b"")


def test_a_command_that_subscribes_misses_no_first_message_either(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    gate, program = home / "gate", home / "hear.py"
    os.mkfifo(gate)
    program.write_text(PROGRAM)
    context.service("Say", f"{SAY}\nclass ServiceSay(TaskService):\n    task_class = Say\n")
    words = "".join(f"<arg>{each}</arg>" for each in (sys.executable, program, gate))
    config = f"<command>{words}</command><notify>yes</notify><subscribe>raw</subscribe>"
    path = f"<environment><PATH>{Path(sys.executable).parent}:{os.environ['PATH']}</PATH></environment>"
    context.task("ts_hear", "Hear", kind="Command", config=config, service=path, entry=False)
    context.task("ts_say", "Say", entry=False)
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    context.ctl("start", "--no-block", "--transaction", "T", "ts_hear", "ts_say")
    heard.control("started", "ts_say")
    context.kill_supervisor()
    gate.write_bytes(b"")
    assert heard.control("updated", "ts_hear")["content"]["status"]["first"] == 1
