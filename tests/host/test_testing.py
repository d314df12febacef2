"""zmsvc.testing: a task or a service in a unit test, without a process, a supervisor or a bus around it."""

from __future__ import annotations

import asyncio
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest

import zmsvc.task
from zmsvc import testing
from zmsvc.core.errors import LaunchError
from zmsvc.task import AsyncTask, LoopedTask, Message, SingleTask, TaskService
from zmsvc.task.sdk import Task, _TaskAttributes


class Sensor(LoopedTask):
    """A class as users write it, whose __init__ does not call that of zmsvc."""

    interval = 10.0

    def __init__(self) -> None:
        self.unit = self.config.get("unit", "C")

    def step(self) -> None:
        self.update(unit=self.unit, by=self.cause.by)
        self.publish("temperature", {"content": {"values": (1, 2)}})
        self.log.warning("a step of %s in %s/%s", self.service_id, self.context, self.transaction)


class Once(SingleTask):
    def run(self) -> None:
        while not self.wait(0.5):
            self.update(result="failed")


class Coroutine(AsyncTask):
    async def run(self) -> None:
        while not await self.wait_async(0.5):
            await self.update_async(result="failed")
        await self.publish_async("news", {})


class ServiceSensor(TaskService):
    task_class = Sensor
    task: Sensor

    def on_control(self, message: dict[str, Any]) -> None:
        self.task.unit = message["content"]["unit"]


def test_a_task_runs_in_a_unit_test_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    task = Sensor()
    task.setup()
    task.step()
    assert testing.recorder(task).updates == [{"unit": "C", "by": "operator"}]
    assert testing.recorder(task).published == [("temperature", {"content": {"values": [1, 2]}})]
    assert caplog.messages == ["a step of Sensor in test/TEST"]


def test_a_task_is_made_with_what_the_context_file_would_say() -> None:
    task = testing.make(
        Sensor, config={"unit": "K", "interval": "0.5"}, context="Plant", transaction="T1", service_id="ts_1",
        cause={"by": "rule", "sources": [{"task": "ts_2", "trigger": "on_fail", "exit": {"code": 3}}]},
    )  # fmt: skip
    task.step()
    assert (task.unit, task.interval, task.context, task.transaction, task.service_id) == (
        "K",
        0.5,
        "Plant",
        "T1",
        "ts_1",
    )
    assert (task.cause.by, task.cause.task, task.cause.trigger, task.cause.exit) == (
        "rule",
        "ts_2",
        "on_fail",
        {"code": 3},
    )
    with pytest.raises(LaunchError, match="cannot use interval"):
        testing.make(Sensor, config={"interval": "soon"})


def test_a_service_is_made_with_its_task() -> None:
    service = testing.make(ServiceSensor, config={"unit": "K"})
    service.on_control({"header": {}, "content": {"unit": "F"}})
    service.task.step()
    assert testing.recorder(service).updates == [{"unit": "F", "by": "operator"}]


@pytest.mark.parametrize("waits", [0, 3])
def test_a_loop_ends_after_so_many_waits_and_no_time_passes(waits: int) -> None:
    task = testing.make(Once, waits=waits)
    task.run()
    assert testing.recorder(task).waited == [0.5] * (waits + 1)
    assert testing.recorder(task).updates == [{"result": "failed"}] * waits


def test_a_coroutine_runs_in_the_event_loop_of_the_test() -> None:
    task = testing.make(Coroutine, waits=3)
    asyncio.run(task.run())
    assert testing.recorder(task).waited == [0.5] * 4
    assert testing.recorder(task).updates == [{"result": "failed"}] * 3
    assert testing.recorder(task).published == [("news", {})]


def test_a_test_can_tell_a_task_to_stop() -> None:
    task = Once()
    assert not task.wait(1)
    testing.recorder(task).stopping = True
    assert task.wait(1)
    assert Once().wait(), "else it would wait for ever"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda task: task.update(x=object()), TypeError),
        (lambda task: task.update(pid=1), ValueError),
        (lambda task: task.publish("", {}), ValueError),
        (lambda task: task.publish("t", {"x": object()}), TypeError),
    ],
)
def test_updates_that_a_real_task_refuses_are_refused_in_a_unit_test(
    wrong: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        wrong(Sensor())


def test_a_class_with_its_own_new_is_created_by_it() -> None:
    class Odd(Sensor):
        def __new__(cls) -> Odd:
            made = super().__new__(cls)
            made.odd = True  # type: ignore[attr-defined]
            return made

    assert testing.make(Odd).odd  # type: ignore[attr-defined]
    assert Odd().odd  # type: ignore[attr-defined]


def test_the_help_of_the_sdk_lists_what_a_task_has() -> None:
    shown = pydoc.plain(pydoc.render_doc(zmsvc.task))
    names = [
        name
        for cls in (_TaskAttributes, Task, TaskService)
        for name in (*cls.__annotations__, *vars(cls))
        if not name.startswith("_")
    ]
    assert [name for name in names if name not in shown] == []


def test_the_manual_page_of_services_has_every_public_name() -> None:
    page = (Path(zmsvc.__file__).parent / "data/man/zmsvc-task.7").read_text()
    classes = [getattr(zmsvc.task, name) for name in zmsvc.task.__all__]
    names = {
        name
        for cls in (_TaskAttributes, Task, *classes)
        for name in (*vars(cls).get("__annotations__", ()), *vars(cls))
        if not name.startswith("_") and name not in ("listens", "handles_messages")
    }
    assert sorted(name for name in {*names, *zmsvc.task.__all__} if not re.search(rf"\b{name}\b", page)) == []


def test_every_public_method_of_the_sdk_has_a_docstring() -> None:
    classes = [getattr(zmsvc.task, name) for name in zmsvc.task.__all__]
    bare = [
        f"{cls.__name__}.{name}"
        for cls in (_TaskAttributes, Task, *classes)
        for name, value in vars(cls).items()
        if callable(value) and not name.startswith("_") and not value.__doc__
    ]
    assert bare == []


class Hearing(SingleTask):
    topics = ("a",)

    def run(self) -> None:
        self.update(heard=[each.content for each in self.messages()])

    def on_message(self, message: Message[int]) -> None:
        self.update(one=message.content, missed=message.missed)


def test_a_test_passes_messages_to_a_task() -> None:
    task = testing.make(Hearing)
    testing.recorder(task).incoming += [
        Message(topic=topic, content=number) for number, topic in enumerate("aba")
    ]
    task.run()
    task.on_message(Message(topic="a", content=5, missed=1))
    assert testing.recorder(task).updates == [{"heard": [0, 2]}, {"one": 5, "missed": 1}]
    assert [each.content for each in testing.recorder(task).incoming] == [1]
    assert task.endpoints == ("", "")
