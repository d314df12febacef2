"""The health of tasks: when their probes run, and what follows from the results. Pure.

A Command with the probe of a `<ready>` has an auxiliary process that ends with status 0 as soon as its probe
succeeds. A running task with `<health>` has one that reports each change of its health. Topics have no such
process: see core.topic_watches.
"""

from __future__ import annotations

from zmsvc.core import auxiliary
from zmsvc.core import facts as ft
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.draft import Draft
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.model import TaskDefinition
from zmsvc.core.probing import Health, probe_of, topic_of
from zmsvc.core.service_options import ServiceType
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import apply
from zmsvc.core.world import Auxiliary, Task

FIRST_DELAY = 1.0
"""Seconds until a probe process that has ended is started again. They double with each end in a row."""
MAX_DELAY = 60.0
"""The longest of these delays. After a probe process that has lived longer than this, the delays begin again
with the first one.
"""


def take_report(draft: Draft, key: Key, fact: ft.HealthReported) -> None:
    """Take a report of the probe process of a running task."""
    task = draft.tasks[key]
    if task.state is not State.ACTIVE:
        return
    if fact.health is Health.FAILED:
        draft.change(key, health=Health.UNHEALTHY, health_text=fact.text)
        apply(draft, key, TaskEvent.UNHEALTHY, status=f"unhealthy: {fact.text}")
        return
    if fact.health is task.health:
        return
    if fact.health is Health.UNHEALTHY or task.health is Health.UNHEALTHY:
        ill = fact.health is Health.UNHEALTHY
        draft.record(key, "unhealthy" if ill else "healthy", message=fact.text)
    draft.change(key, health=fact.health, health_text=fact.text)
    draft.mark_changed(key[0])


def ended(draft: Draft, key: Key, which: Auxiliary, fact: ft.TaskExited | ft.LaunchFailed) -> None:
    """Take the end of a probe process: that of `<ready>` ends when its probe has succeeded. Any other end
    leads to a new process after a delay.
    """
    task = draft.tasks[key]
    if which.name is AuxiliaryName.READY and isinstance(fact, ft.TaskExited) and fact.code == 0:
        apply(draft, key, TaskEvent.READY)
    elif which.name in _wanted(task, draft.service(key)):
        lived = draft.now - which.since
        ends = 0 if lived > MAX_DELAY else task.probe_ends
        delay = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(ends, 10))
        code, signal = (None, None) if isinstance(fact, ft.LaunchFailed) else (fact.code, fact.signal)
        draft.change(key, probe_ends=ends + 1, probe_at=draft.now + delay)
        draft.record(
            key,
            "probe-ended",
            name=which.name.value,
            exit_code=code,
            signal=signal,
            message=fact.why,
            delay=delay,
        )


def probe_again(draft: Draft, key: Key) -> None:
    """Start the probe process again, after the delay."""
    draft.change(key, probe_at=None)
    for wanted in _wanted(draft.tasks[key], draft.service(key)):
        auxiliary.start(draft, key, wanted)


def _wanted(task: Task, service: TaskDefinition | None) -> list[AuxiliaryName]:
    """Return the probe processes that a task has in its sub-state."""
    if service is None:
        return []
    command, active = service.service_type is ServiceType.COMMAND, task.state is State.ACTIVE
    starts = task.sub_state is SubState.START
    wanted = {
        AuxiliaryName.READY: starts and probe_of(service.ready) is not None and command,
        AuxiliaryName.HEALTH: active and service.health is not None,
    }
    return [name for name, has in wanted.items() if has]


def heard(draft: Draft, key: Key, fact: ft.TopicHeard) -> None:
    """Take the report about the first message of a task on the topic of its `<ready>`."""
    service = draft.service(key)
    waits = draft.tasks[key].sub_state is SubState.START
    if waits and service is not None and topic_of(service.ready) == fact.topic:
        apply(draft, key, TaskEvent.READY)


def silent(draft: Draft, key: Key, fact: ft.TopicSilent) -> None:
    """Take the report that a task has published nothing on a topic for too long."""
    service = draft.service(key)
    within = [each.within for each in service.expect if each.topic == fact.topic] if service else []
    if within:
        status = f"silent: nothing on {fact.topic} within {min(within):g} s"
        apply(draft, key, TaskEvent.SILENT, status=status)
