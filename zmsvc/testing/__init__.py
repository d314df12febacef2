"""Unit tests of tasks and services, without zmsvcd, bus or waiting:

    from zmsvc import testing

    def test_a_step_reports_the_temperature() -> None:
        task = testing.make(Sensor, config={"unit": "K"})
        task.setup()
        task.step()
        assert testing.recorder(task).updates == [{"kelvin": 293.0}]

`Sensor()` works as well, without a configuration. The test calls `setup`, `step`, `run`, `on_control` and
`close` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmsvc.task.recorder import Recorder
from zmsvc.task.runtime import interval_of
from zmsvc.task.sdk import LoopedTask, M, Task, TaskService, cause_of, made

__all__ = ["Recorder", "make", "recorder"]


def make(
    cls: type[M],
    *,
    config: Mapping[str, Any] | None = None,
    context: str = "test",
    transaction: str = "TEST",
    service_id: str = "",
    cause: Mapping[str, Any] | None = None,
    waits: int = 100,
) -> M:
    """Make a task, or a service with its task, as zmsvc makes it before `setup`.

    `config` is its `<configuration>`: texts, lists and dicts of them, as from XML. `service_id` is the
    class's name if it is not given. `cause` is what started it, such as {"by": "rule", "sources": [{"task":
    "ts_1", "trigger": "on_fail"}]}; by default the operator. After so many `waits` the task is told to stop,
    so that a loop in `run` ends. Raises LaunchError for an `<interval>` that is none.
    """
    told = cause_of(cause or {"by": "operator"})
    companion = Recorder(
        cls.__name__,
        told,
        config=config,
        context=context,
        transaction=transaction,
        service_id=service_id,
        waits=waits,
    )
    member = made(cls, companion)
    if isinstance(member, TaskService):
        member.task = _with_interval(made(member.task_class, companion))
    return _with_interval(member)


def _with_interval(member: M) -> M:
    if isinstance(member, LoopedTask):
        member.interval = interval_of(member.config, member.interval)
    return member


def recorder(member: Task | TaskService) -> Recorder:
    """Return what a task or a service of a test has asked for; both have the same, where the service has
    made its task.
    """
    if not isinstance(member._companion, Recorder):
        raise TypeError(f"{type(member).__name__} was not made by a test: a process of zmsvc is around it")
    return member._companion
