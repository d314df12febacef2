"""Test services: one task alone, several in a simulation, or a whole context.

A task alone, without zmsvcd, bus or waiting:

    from zmsvc import testing

    def test_a_step_reports_the_temperature() -> None:
        task = testing.make(Sensor, config={"unit": "K"})
        task.setup()
        task.step()
        assert testing.recorder(task).updates == [{"kelvin": 293.0}]

`Sensor()` works as well, with an empty configuration. The test itself calls `setup`, `step`, `run`,
`on_control` and `close`.

Services with the real runtime, on a bus in memory and with a clock of the test (see `Simulation`):

    def test_an_alarm_follows_the_sensor(zmsvc_simulation: testing.Simulation) -> None:
        alarm = zmsvc_simulation.start(ServiceAlarm)
        zmsvc_simulation.start(ServiceSensor, config={"interval": "10"})
        zmsvc_simulation.run(60)
        assert alarm.updates == [{"alarm": True}]

A whole context with the real zmsvcd (see `ContextUnderTest`):

    def test_the_plant_starts(zmsvc_context: testing.MakeContext) -> None:
        context = zmsvc_context("Context-Plant.xml")
        context.start()
        context.wait_for("ts_1", "active")

pytest finds the fixtures zmsvc_simulation and zmsvc_context by itself. Other test frameworks use the classes
as context managers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmsvc.task.last_value import ServiceLastValue
from zmsvc.task.recorder import Recorder
from zmsvc.task.runtime import interval_of
from zmsvc.task.sdk import LoopedTask, M, Task, TaskService, cause_of, instantiate
from zmsvc.testing.context import ContextUnderTest, MakeContext, Messages
from zmsvc.testing.simulation import SimulatedTask, Simulation

__all__ = [
    "ContextUnderTest",
    "MakeContext",
    "Messages",
    "Recorder",
    "ServiceLastValue",
    "SimulatedTask",
    "Simulation",
    "make",
    "recorder",
]


def make(
    cls: type[M],
    *,
    config: Mapping[str, Any] | None = None,
    settings: Any = None,
    context: str = "test",
    transaction: str = "TEST",
    service_id: str = "",
    cause: Mapping[str, Any] | None = None,
    waits: int = 100,
) -> M:
    """Return a task, or a service with its task, in the state before `setup`.

    `config` is its `<configuration>`: a dict of str, list and dict, as from XML. For a task with a
    `settings_class`, `settings` is made from it, unless the test gives an instance. `service_id` defaults to
    the name of the class. `cause` is the reason of the start, such as {"by": "rule", "sources": [{"task":
    "ts_1", "trigger": "on_fail"}]}; by default the operator. After `waits` calls of `wait` the task is asked
    to stop, so that a loop in `run` ends. Raises zmsvc.core.errors.LaunchError for an invalid configuration.
    """
    start = cause_of(cause or {"by": "operator"})
    runtime = Recorder(
        cls,
        start,
        settings=settings,
        config=config,
        context=context,
        transaction=transaction,
        service_id=service_id,
        waits=waits,
    )
    member = instantiate(cls, runtime)
    if isinstance(member, TaskService):
        member.task = _with_interval(instantiate(member.task_class, runtime))
    return _with_interval(member)


def _with_interval(member: M) -> M:
    if isinstance(member, LoopedTask):
        member.interval = interval_of(member.config, member.interval)
    return member


def recorder(member: Task | TaskService) -> Recorder:
    """Return the record of a task's or a service's calls. A service and its task share one record.

    Raises TypeError if zmsvc, and not a test, created `member`.
    """
    if not isinstance(member._runtime, Recorder):
        raise TypeError(f"{type(member).__name__} was not created by a test but by a process of zmsvc")
    return member._runtime
