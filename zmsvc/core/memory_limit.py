"""The option `memory_restart`: the tasks to measure, and the decision about a measured one. Pure.

The kernel has no event for it: memory.high would slow the task down, and a task without a control group has
none. So the memory is measured at intervals, and only that of tasks with the option.
"""

from __future__ import annotations

from collections.abc import Iterator

from zmsvc.core import facts as ft
from zmsvc.core.amounts import size
from zmsvc.core.draft import Draft
from zmsvc.core.frozen import frozen
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import apply
from zmsvc.core.values import NO_LIMIT, part_of
from zmsvc.core.world import World

INTERVAL = 2.0
"""Seconds between two measurements."""


@frozen
class Measurement:
    """A launch to measure: its main process, and the number of bytes from which on it is restarted."""

    launch: int
    key: Key
    pid: int
    limit: int


def may_measure(context: Context) -> bool:
    """Return True if a task of the context has the option."""
    return any(service.memory_restart != NO_LIMIT for service in context.tasks.values())


def to_measure(world: World, machine: int) -> Iterator[Measurement]:
    """Yield the running tasks that have a limit. `machine` is the memory of the machine in bytes."""
    for key, task in world.tasks.items():
        service = world.context.tasks.get(key[1])
        # The PID of a task on another host means nothing here.
        if service is None or service.memory_restart == NO_LIMIT or task.pid is None or task.host:
            continue
        if task.state is State.ACTIVE or task.sub_state is SubState.START:
            yield Measurement(launch=task.launch, key=key, pid=task.pid, limit=_limit(service, machine))


def _limit(service: TaskDefinition, machine: int) -> int:
    return part_of(service.memory_restart, machine)


def take_measurement(draft: Draft, key: Key, fact: ft.MemoryMeasured) -> None:
    """End a task that uses more memory than its limit. A rule of its on_fail starts it again."""
    service = draft.service(key)
    if service is None or service.memory_restart == NO_LIMIT:
        return
    limit = _limit(service, fact.machine)
    if fact.used > limit:
        text = f"used {size(fact.used)} of memory, above its memory_restart of {size(limit)}"
        apply(draft, key, TaskEvent.MEMORY_EXCEEDED, status=text)
