"""Services that talk over the bus, under the real daemon."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from context import Context, Subscriber
from others import others
from waiting import wait_for

PAGE = (Path(__file__).parents[2] / "docs/services.md").read_text()
HEAD = """
import sqlite3, sys
from dataclasses import dataclass
from zmsvc.task import LoopedTask, Message, MessageTask, SingleTask, TaskService

def read_sensor():
    return 20.5
"""


def test_the_three_services_of_the_page_talk_to_each_other(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    (code,) = re.findall(r"```python\n(class Sensor.*?)```", PAGE, re.DOTALL)
    for name in ("Sensor", "Filter", "Writer"):
        context.service(name, f"{HEAD}{code}\nclass Service{name}(TaskService):\n    task_class = {name}\n")
    context.service("Count", f"""{HEAD}
class Count(SingleTask):
    topics = "filtered"
    def run(self):
        with sqlite3.connect(self.config["file"]) as database:
            database.execute("CREATE TABLE readings (celsius REAL)")
        first, second = next(self.messages()), next(self.messages())
        self.update(sender=first.sender, celsius=second.content["celsius"], missed=second.missed,
            step=second.sequence - first.sequence, types="zmsvc.task.message_types" in sys.modules)

class ServiceCount(TaskService):
    task_class = Count
""")  # fmt: skip
    file = f"<file>{home}/readings.db</file>"
    context.task("ts_count", "Count", config=file, entry=False)
    context.task("ts_writer", "Writer", config=file, entry=False)
    context.task("ts_filter", "Filter", kind="Thread", entry=False)
    context.task("ts_sensor", "Sensor", entry=False)
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", "T", "ts_count", "ts_filter")
    context.ctl("start", "--transaction", "T", "ts_sensor")
    told = heard.control("updated", "ts_count")["content"]["status"]
    assert {name: told[name] for name in ("sender", "celsius", "missed", "step", "types")} == {
        "sender": "ts_filter",
        "celsius": 20.5,
        "missed": 0,
        "step": 1,
        "types": False,
    }
    context.ctl("start", "--transaction", "T", "ts_writer")
    context.ctl("stop", "--transaction", "T")
    assert "failed" not in {each["state"] for each in context.tasks("T").values()}


def test_a_script_of_a_command_publishes_a_message_of_its_task(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    (home / "Services").mkdir()
    words = [sys.executable, "-m", "zmsvc.ctl", "publish", "temperature", '{"celsius": 20}']
    command = "".join(f"<arg>{word}</arg>" for word in words)
    context.task("ts_shell", "Shell", kind="Command", config=f"<command>{command}</command>", entry=False)
    context.start("--transaction", "T")
    heard = subscriber(b"temperature @@@ ")
    context.ctl("start", "--transaction", "T", "ts_shell")
    assert heard.next() == (
        "temperature",
        {
            "header": {
                "service_transaction": "T",
                "service_id": "ts_shell",
                "action": "published",
                "service_name": "Shell",
            },
            "content": {"celsius": 20},
        },
    )


@pytest.mark.parametrize("user", ["", "daemon"])
def test_a_script_of_a_command_reports_a_result_of_its_task(
    context: Context, home: Path, subscriber: Callable[..., Subscriber], user: str
) -> None:
    if user:
        others(1)  # Its program runs zmsvcctl as that user.
    home.chmod(0o755)
    (home / "Services").mkdir()
    script = home / "script.sh"
    large = "x" * 70_000
    script.write_text(
        f'ctl() {{ {sys.executable} -m zmsvc.ctl "$@"; }}\n'
        "ctl update celsius=20.5 unit=C list=[1] word='\"7\"' && echo saved >&2\n"
        f'ctl update large={large} && ctl update pid=1; echo "code $?" >&2\n'
    )
    command = f"<command><arg>sh</arg><arg>{script}</arg></command>"
    rules = {"on_update": ("start", "ts_next")}
    service = f"<user>{user}</user>" if user else ""
    context.task(
        "ts_shell", "Shell", kind="Command", config=command, entry=False, rules=rules, service=service
    )
    context.looped("Next")
    context.task("ts_next", "Next", entry=False)
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    context.ctl("start", "--transaction", "T", "ts_shell")
    told = heard.control("updated", "ts_shell")["content"]["status"]
    assert {name: told[name] for name in ("celsius", "unit", "list", "word")} == {
        "celsius": 20.5,
        "unit": "C",
        "list": [1],
        "word": "7",
    }
    assert heard.control("updated", "ts_shell")["content"]["status"]["large"] == large
    context.task_is("ts_shell", "exited")
    # The output of a task may come after its end.
    wait_for(lambda: "code 2\n" in context.log.read_text())
    log = context.log.read_text()
    assert log.count("saved\n") == 1
    assert "cannot update: zmsvc itself sets pid" in log
    context.task_is("ts_next", "running", "T")


@pytest.mark.parametrize("kind", ["Process", "Thread", "fresh"])
def test_a_task_hears_messages_in_every_kind_of_process(
    context: Context, subscriber: Callable[..., Subscriber], kind: str
) -> None:
    context.service("Hearing", f"""{HEAD}
class Hearing(MessageTask):
    topics = ("news",)
    def on_message(self, message):
        self.update(heard=message.content)

class ServiceHearing(TaskService):
    task_class = Hearing
""")  # fmt: skip
    more = "<fresh>yes</fresh>" if kind == "fresh" else ""
    context.task("ts_1", "Hearing", kind="Thread" if kind == "Thread" else "Process", service=more)
    context.start("--transaction", "T")
    heard = subscriber(b"control @@@ ")
    context.ctl("send", "news", '{"content": [1]}')
    assert heard.control("updated", "ts_1")["content"]["status"]["heard"] == [1]


@pytest.mark.parametrize(
    ("queue", "second_is_next", "logged"),
    [
        ('<queue topic="news" policy="last">10</queue>', False, False),
        ('<queue policy="drop-oldest">3</queue>', False, True),
        ("<queue>3</queue>", True, True),
    ],
)
def test_a_queue_keeps_what_its_policy_says(
    context: Context,
    home: Path,
    subscriber: Callable[..., Subscriber],
    queue: str,
    second_is_next: bool,
    logged: bool,
) -> None:
    for gate in ("slow", "fast"):
        os.mkfifo(home / gate)
    context.service("Slow", f"""{HEAD}
class Slow(MessageTask):
    topics = ("news",)
    def on_message(self, message):
        self.update(n=message.content["n"], missed=message.missed)
        if message.content["n"] == 0:
            open("{home}/slow").read()

class ServiceSlow(TaskService):
    task_class = Slow
""")  # fmt: skip
    context.service("Fast", f"""{HEAD}
class Fast(SingleTask):
    def run(self):
        for n in range(201):
            self.publish("news", {{"n": n}})
            if n in (0, 199):
                open("{home}/fast").read()

class ServiceFast(TaskService):
    task_class = Fast
""")  # fmt: skip
    context.task("ts_slow", "Slow", service=queue, entry=False)
    context.task("ts_fast", "Fast", entry=False)
    context.start("--transaction", "T")
    heard, news = subscriber(b"control @@@ "), subscriber(b"news @@@ ")
    context.ctl("start", "--transaction", "T", "ts_slow")
    context.ctl("start", "--transaction", "T", "ts_fast")
    told = [status(heard.control("updated", "ts_slow"))]
    (home / "fast").write_text("")
    for _ in range(200):
        news.next()
    # Nearly all of them wait in the process of the slow task by now.
    (home / "slow").write_text("")
    told.append(status(heard.control("updated", "ts_slow")))
    (home / "fast").write_text("")
    while told[-1][0] < 200:
        told.append(status(heard.control("updated", "ts_slow")))
    assert told[0] == (0, 0)
    assert (told[1][0] == 1) == second_is_next
    assert all(n == before + 1 + missed for (before, _), (n, missed) in pairwise(told))
    assert len(told) + sum(missed for _, missed in told) == 201
    assert len(told) < 100
    if logged:
        wait_for(lambda: "the queue of this task has dropped" in context.log.read_text())
    else:
        assert "the queue of this task has dropped" not in context.log.read_text()
    lost = sum(missed for _, missed in told) if logged else 0
    wait_for(lambda: context.tasks("T")["ts_slow"]["missed"] == lost)


def status(body: dict[str, Any]) -> tuple[int, int]:
    found = body["content"]["status"]
    return found["n"], found["missed"]
