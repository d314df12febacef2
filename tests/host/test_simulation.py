"""zmsvc.testing.Simulation: services with the real runtime, on a bus in memory and with simulated time."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any, assert_type

import pytest

from zmsvc import testing
from zmsvc.core.errors import LaunchError
from zmsvc.task import AsyncTask, LoopedTask, Message, MessageTask, SingleTask, TaskService
from zmsvc.testing import Simulation


class Sensor(LoopedTask):
    interval = 10.0

    def step(self) -> None:
        self.update(celsius=20)


class ServiceSensor(TaskService):
    service_name = "sensor"
    task_class = Sensor


class Listener(SingleTask):
    def setup(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def run(self) -> None:
        while not self.wait(25):
            self.publish("count", {"content": {"n": len(self.heard)}})

    def close(self) -> None:
        self.update(closed=True)


class ServiceListener(TaskService):
    task_class = Listener
    task: Listener

    def on_control(self, message: dict[str, Any]) -> None:
        self.task.heard.append((message["header"]["action"], message["header"]["service_id"]))


class Coroutine(AsyncTask):
    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.ticks(3600, "hour"))
            group.create_task(self.ticks(1500, "part"))

    async def ticks(self, seconds: float, name: str) -> None:
        while not await self.wait_async(seconds):
            await self.update_async(at=name)


@dataclass
class Settings:
    limit: int = 3


class Failing(SingleTask):
    settings_class = Settings
    settings: Settings

    def run(self) -> None:
        self.wait(self.settings.limit)
        raise ValueError("out of order")


def test_time_passes_as_the_test_says(zmsvc_simulation: Simulation) -> None:
    began = time.monotonic()
    sensor = zmsvc_simulation.start(ServiceSensor)
    assert (sensor.state, sensor.updates) == ("active", [{"celsius": 20}])
    zmsvc_simulation.run(9.9)
    assert len(sensor.updates) == 1
    zmsvc_simulation.run(0.1)
    assert len(sensor.updates) == 2
    zmsvc_simulation.run(3600)
    assert len(sensor.updates) == 362
    assert time.monotonic() - began < 3600


def test_tasks_hear_each_other_and_the_test(zmsvc_simulation: Simulation) -> None:
    listener = zmsvc_simulation.start(ServiceListener, service_id="ts_1")
    sensor = zmsvc_simulation.start(Sensor, service_id="ts_2", config={"interval": "20s"})
    zmsvc_simulation.run(30)
    head = {"service_transaction": "TEST", "service_id": "ts_9", "action": "failed", "service_name": "x"}
    zmsvc_simulation.publish("control", {"header": head})
    zmsvc_simulation.publish("control", {"header": head | {"service_transaction": "OTHER"}})
    sensor.stop()
    zmsvc_simulation.run(0)
    assert listener.task.heard == [
        ("started", "ts_2"), ("updated", "ts_2"), ("updated", "ts_2"), ("failed", "ts_9"), ("stopped", "ts_2"),
    ]  # fmt: skip
    assert listener.published == [("count", {"content": {"n": 3}})]
    assert [topic for topic, _ in zmsvc_simulation.messages].count("count") == 1
    assert (sensor.state, sensor.exit_status) == ("inactive", 0)


def test_a_coroutine_has_the_same_clock() -> None:
    with Simulation() as simulation:
        task = simulation.start(Coroutine)
        simulation.run(7200)
        assert [each["at"] for each in task.updates] == ["part", "part", "hour", "part", "part", "hour"]
    assert (task.state, task.exit_status, task.error) == ("inactive", 0, None)


def test_the_end_of_the_block_stops_all_tasks_in_order() -> None:
    with Simulation() as simulation:
        tasks = [simulation.start(cls) for cls in (ServiceListener, Sensor, Coroutine)]
    assert [each.state for each in tasks] == ["inactive"] * 3
    assert tasks[0].updates == [{"closed": True}]


def test_an_exception_of_a_task_is_raised_in_the_test() -> None:
    with Simulation() as simulation:
        simulation.start(Failing)
        with pytest.raises(ValueError, match="out of order"):
            simulation.run(3)
    with pytest.raises(ValueError, match="out of order"), Simulation() as simulation:
        simulation.start(Failing, config={"limit": "4000"}).stop()
    with Simulation() as simulation:
        task = simulation.start(Failing, may_fail=True, config={"limit": "2"})
        simulation.run(2)
        assert (task.state, task.exit_status, str(task.error)) == ("failed", 1, "out of order")
        assert simulation.messages[-1][1]["header"]["action"] == "failed"
    with pytest.raises(LaunchError, match="<limit> 'x' is not a whole number"), Simulation() as simulation:
        simulation.start(Failing, config={"limit": "x"})


def test_a_task_without_a_pause_comes_to_the_end_of_the_run(zmsvc_simulation: Simulation) -> None:
    class Busy(LoopedTask):
        interval = 0.0

        def step(self) -> None:
            self.count = getattr(self, "count", 0) + 1

    task = zmsvc_simulation.start(Busy)
    zmsvc_simulation.run(0.1)
    assert task.task.count > 100


def test_a_coroutine_that_nothing_would_await_is_refused_in_a_simulation() -> None:
    class Wrong(SingleTask):
        async def run(self) -> None:  # type: ignore[override]
            pass

    with pytest.raises(LaunchError, match="must be an AsyncTask"), Simulation() as simulation:
        simulation.start(Wrong)


def test_a_simulation_leaves_no_descriptors() -> None:
    def run() -> int:
        with Simulation() as simulation:
            for cls in (ServiceListener, Sensor, Coroutine):
                simulation.start(cls)
            simulation.run(100)
        return len(os.listdir("/proc/self/fd"))

    first = run()
    assert run() <= first


def test_the_types_of_services_are_those_that_their_author_wrote() -> None:
    """mypy checks the types; the values are those of a run."""
    service = assert_type(testing.make(ServiceListener), ServiceListener)
    assert assert_type(service.task, Listener).service_id == "ServiceListener"
    assert assert_type(testing.make(Failing).settings.limit, int) == 3


def test_the_public_names_of_testing_have_docstrings() -> None:
    assert [name for name in testing.__all__ if not getattr(testing, name).__doc__] == []


class Thermometer(LoopedTask):
    interval = 10.0

    def setup(self) -> None:
        self.celsius = 20.0

    def step(self) -> None:
        self.publish("temperature", {"celsius": self.celsius})


@dataclass
class Reading:
    celsius: float


class Filter(MessageTask):
    topics = ("temperature",)

    def on_message(self, message: Message[Reading]) -> None:
        self.publish("kelvin", {"kelvin": message.content.celsius + 273, "of": message.sender})


class Writer(SingleTask):
    topics = "kelvin"

    def run(self) -> None:
        for message in self.messages(timeout=100):
            self.update(row=message.sequence, **message.content)
        self.update(silent=True)


class AsyncWriter(AsyncTask):
    topics = ("kelvin",)

    async def run(self) -> None:
        async for message in self.messages(timeout=100):
            await self.update_async(row=message.sequence, **message.content)
        await self.update_async(silent=True)


@pytest.mark.parametrize("writer_class", [Writer, AsyncWriter])
def test_messages_go_from_task_to_task(zmsvc_simulation: Simulation, writer_class: type[SingleTask]) -> None:
    writer = zmsvc_simulation.start(writer_class)
    zmsvc_simulation.start(Filter)
    sensor = zmsvc_simulation.start(Thermometer, service_id="ts_1")
    zmsvc_simulation.run(20)
    zmsvc_simulation.publish("temperature", {"celsius": 0})
    zmsvc_simulation.run(1)
    assert writer.updates == [
        *({"row": row, "kelvin": 293.0, "of": "ts_1"} for row in (1, 2, 3)),
        {"row": 4, "kelvin": 273.0, "of": ""},
    ]
    assert sensor.published == [("temperature", {"celsius": 20.0})] * 3
    bodies = [body for topic, body in zmsvc_simulation.messages if topic == "temperature"]
    assert bodies[-1] == {"celsius": 0}
    assert bodies[0]["header"] == {
        "service_transaction": "TEST",
        "service_id": "ts_1",
        "action": "published",
        "service_name": "Thermometer",
        "launch": 1,
        "sequence": 1,
    }
    sensor.stop()
    zmsvc_simulation.run(98)
    assert writer.state == "active"
    zmsvc_simulation.run(1)
    assert (writer.state, writer.updates[-1]) == ("inactive", {"silent": True})


def test_a_message_that_does_not_fit_fails_the_simulated_task(zmsvc_simulation: Simulation) -> None:
    found = zmsvc_simulation.start(Filter, may_fail=True)
    zmsvc_simulation.publish("temperature", {"celsius": "warm"})
    zmsvc_simulation.run(0)
    assert found.state == "failed"
    assert str(found.error) == (
        "cannot use a message on temperature from an unknown sender: content.celsius is 'warm', expected a "
        "number"
    )


def test_a_simulated_task_sets_messages_aside_that_it_cannot_handle(zmsvc_simulation: Simulation) -> None:
    task = zmsvc_simulation.start(Filter, sets_aside=True)
    for celsius in ("hot", 3.0):
        zmsvc_simulation.publish("temperature", {"content": {"celsius": celsius}})
    zmsvc_simulation.run(1)
    assert task.state == "active"
    (found,) = task.quarantined
    assert (found["topic"], found["number"]) == ("temperature", 1)
    assert "celsius" in found["error"]


class Reloading(LoopedTask):
    interval = 10.0
    limit = 1

    def step(self) -> None:
        self.update(limit=self.limit)

    def on_reload(self) -> None:
        self.limit += 1


class ReloadingCoroutine(AsyncTask):
    limit = 1

    async def run(self) -> None:
        while not await self.wait_async(10):
            await self.update_async(limit=self.limit)

    async def on_reload(self) -> None:
        self.limit += 1


@pytest.mark.parametrize("cls", [Reloading, ReloadingCoroutine])
def test_a_simulated_task_reloads_when_the_test_asks(
    zmsvc_simulation: Simulation, cls: type[LoopedTask] | type[AsyncTask]
) -> None:
    task = zmsvc_simulation.start(cls)
    zmsvc_simulation.run(15)
    task.reload()
    zmsvc_simulation.run(1)
    assert (task.state, task.updates[-1], task.task.limit) == ("active", {"limit": 1}, 2)
    zmsvc_simulation.run(10)
    assert task.updates[-1] == {"limit": 2}
    actions = [body["header"]["action"] for _, body in zmsvc_simulation.messages]
    assert actions.count("started") == 1, "a reload does not start it again"


def test_a_simulated_task_without_on_reload_cannot_be_asked(zmsvc_simulation: Simulation) -> None:
    with pytest.raises(AttributeError, match="Sensor has no on_reload"):
        zmsvc_simulation.start(ServiceSensor).reload()
