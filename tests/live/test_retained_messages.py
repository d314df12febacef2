"""A LastValue keeps the last message of each sender and topic for tasks that subscribe later."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from context import Context, Subscriber

SAY = """
from zmsvc.task import SingleTask, TaskService

class Say(SingleTask):
    def run(self):
        for n in range(1, 4):
            self.publish("temperature", {{"n": n}})
        open({gate!r}).read()
        self.publish("temperature", {{"n": 4}})
        self.wait()

class ServiceSay(TaskService):
    task_class = Say
"""
HEAR = """
from zmsvc.task import AsyncTask, MessageTask, TaskService

class Hear(MessageTask):
    topics = "temperature"
    def on_message(self, message):
        self.update(n=message.content["n"], of=message.sender, sequence=message.sequence,
            missed=message.missed, retained=message.retained)

class HearAsync(AsyncTask):
    async def run(self):
        async for message in self.messages("temperature"):
            Hear.on_message(self, message)

class ServiceHear(TaskService):
    task_class = Hear

class ServiceHearAsync(TaskService):
    task_class = HearAsync
"""
RESTARTS = "<restart>on-failure</restart><restart_delay>10ms</restart_delay>"


def told(heard: Subscriber, *tasks: str) -> list[dict[str, Any]]:
    """Return the next message that each of these tasks has got, in the order of their names."""
    found: dict[str, dict[str, Any]] = {}

    def is_last(topic: str, body: dict[str, Any]) -> bool:
        status, task = body["content"]["status"], body["header"]["service_id"]
        if topic == "control" and "retained" in status and task in tasks:
            assert task not in found, (found, status)
            found[task] = {name: status[name] for name in ("n", "of", "sequence", "missed", "retained")}
        return len(found) == len(tasks)

    heard.until(is_last)
    return [found[task] for task in tasks]


def value(n: int, *, retained: bool) -> dict[str, Any]:
    return {"n": n, "of": "ts_say", "sequence": n, "missed": 0, "retained": retained}


def test_a_late_subscriber_gets_the_last_message_first_also_after_a_kill_of_the_last_value(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    gate = home / "gate"
    os.mkfifo(gate)
    context.service("Say", SAY.format(gate=str(gate)))
    context.service("Hear", HEAR)
    context.service("HearAsync", HEAR)
    context.task("ts_last", "LastValue", service=RESTARTS)
    context.task("ts_say", "Say", entry=False)
    context.task("ts_late", "Hear", entry=False)
    context.task("ts_later", "HearAsync", entry=False)
    context.task("ts_again", "Hear", kind="Thread", service='<queue policy="last">5</queue>', entry=False)
    context.start("--transaction", "T")
    heard, news = subscriber(b"control @@@ "), subscriber(b"temperature @@@ ")
    context.ctl("start", "--transaction", "T", "ts_say")
    for _ in range(3):
        news.next()
    context.ctl("start", "--transaction", "T", "ts_late")
    assert told(heard, "ts_late") == [value(3, retained=True)]
    context.kill_supervisor()
    first = context.tasks("T")["ts_last"]["pid"]
    os.kill(first, signal.SIGKILL)
    context.task_is("ts_last", "running", "T", lambda task: task["pid"] != first)
    context.ctl("start", "--transaction", "T", "ts_later", "ts_again")
    assert told(heard, "ts_later", "ts_again") == [value(3, retained=True)] * 2
    gate.write_bytes(b"")
    assert told(heard, "ts_late", "ts_later", "ts_again") == [value(4, retained=False)] * 3
    assert {each["missed"] for each in context.tasks("T").values()} == {0}
