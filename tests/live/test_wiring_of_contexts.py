"""`zmsvcctl wiring`, `graph` and `check` show who publishes what to whom, as declared and as it flows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from context import Context
from waiting import wait_for

HEAD = """
from zmsvc.task import LoopedTask, MessageTask, SingleTask, TaskService
"""
TASKS = {
    "Sensor": """
class Sensor(LoopedTask):
    interval = 0.02
    publishes = ("temperature", "unused")
    def step(self):
        self.publish("temperature", {"celsius": 20})
        self.publish("unused", {})
""",
    "Filter": """
class Filter(MessageTask):
    topics = ("temperature", "smoke")
    def on_message(self, message):
        if message.missed:
            raise ValueError(message.missed)
""",
    "Liar": """
class Liar(LoopedTask):
    interval = 0.02
    def step(self):
        head = {"service_transaction": self.transaction, "service_id": "ts_ghost", "action": "published"}
        self.publish("temperature", {"header": head, "content": {}})
""",
}


def declare(context: Context) -> None:
    for name, code in TASKS.items():
        context.service(name, f"{HEAD}{code}\nclass Service{name}(TaskService):\n    task_class = {name}\n")
        context.task(f"ts_{name.lower()}", name)


def measured(context: Context) -> dict[str, Any]:
    """Return the answer of `wiring` when it has heard all senders."""

    def answer() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(context.ctl("--json", "wiring", "--for", "300ms").stdout)
        assert len(senders(found, "temperature")) == 2
        assert senders(found, "unused")["ts_sensor"]["messages_per_second"]
        return found

    return wait_for(answer)


def senders(found: dict[str, Any], topic: str) -> dict[str, Any]:
    (of_topic,) = (each for each in found["topics"] if each["topic"] == topic)
    return {
        each["task"]: each for each in of_topic["senders"] if each["messages_per_second"] not in (None, 0)
    }


def test_wiring_shows_what_flows_and_what_is_wrong_with_it(context: Context) -> None:
    declare(context)
    context.start("--transaction", "T")
    found = measured(context)
    (topic,) = (each for each in found["topics"] if each["topic"] == "temperature")
    assert topic["hearers"] == ["ts_filter"]
    assert topic["subscribed"]
    sensor = senders(found, "temperature")["ts_sensor"]
    assert sensor["declared"]
    assert sensor["bytes"] > 100
    assert found["unheard"] == ["unused"]
    assert found["unfed"] == ["smoke"]
    assert found["lies"] == ["a sender on temperature says that it is ts_ghost of T, which has no such task"]
    text = context.ctl("wiring", "--for", "0").stdout.splitlines()
    assert [line.split() for line in text[:4]] == [
        ["TOPIC", "FROM", "TO", "MESSAGES/S", "BYTES"],
        ["smoke", "-", "ts_filter", "-", "-"],
        ["temperature", "ts_sensor", "ts_filter", "-", "-"],
        ["unused", "ts_sensor", "-", "-", "-"],
    ]
    assert text[4:] == ["unused has no subscriber", "smoke has no publisher"]
    drawn = context.ctl("wiring", "--for", "0.1", "--format", "mermaid").stdout
    assert "==>|" in drawn
    assert context.tasks()["ts_filter"]["state"] == "active", "listening takes no message away"


def test_check_and_graph_say_the_declared_part_without_running(context: Context, home: Path) -> None:
    declare(context)
    beat = '<expect topic="beat" within="1min"/>'
    context.task("ts_beat", "Beat", kind="Command", config="<command>true</command>", service=beat)
    context.write()
    checked = context.ctl("check", str(context.file)).stdout
    assert f"{context.file}: topic temperature: ts_sensor to ts_filter\n" in checked
    assert f"{context.file}: topic smoke: heard by ts_filter, and no task declares" in checked
    (told,) = json.loads(context.ctl("--json", "check", str(context.file)).stdout)["files"]
    assert "topic unused: ts_sensor, and no task hears it" in told["wiring"]
    drawn = context.ctl("graph", str(context.file)).stdout
    assert 'n0 -> n1 [label="temperature", style=bold' in drawn
    answer = json.loads(context.ctl("--json", "wiring", str(context.file)).stdout)
    assert (answer["seconds"], answer["unheard"], answer["unfed"]) == (None, ["unused"], ["smoke"])
    assert "topic beat: ts_beat, watched by zmsvc" in told["wiring"]
    (line,) = (
        each for each in context.ctl("wiring", str(context.file)).stdout.splitlines() if "beat" in each
    )
    assert line.split() == ["beat", "ts_beat", "zmsvc", "-", "-"]
