"""The health of tasks: when their probes run, and what follows from the results. Pure.

A task with `<ready>` has an auxiliary process that ends with status 0 as soon as its probe succeeds. A
running task with `<health>` has one that reports each change of its health.
"""

from __future__ import annotations

from zmsvc.core import auxiliary
from zmsvc.core import events as ev
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.draft import Draft
from zmsvc.core.events import Key
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.model import TaskService
from zmsvc.core.probing import Health
from zmsvc.core.transitions import apply
from zmsvc.core.world import Auxiliary, Task

FIRST_DELAY = 1.0
"""Seconds until a probe process that has ended is started again. They double with each end in a row."""
MAX_DELAY = 60.0
"""The longest of these delays. A probe process that has lived longer begins with the first one again."""


def reported(draft: Draft, key: Key, fact: ev.HealthReported) -> None:
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


def ended(draft: Draft, key: Key, which: Auxiliary, fact: ev.TaskExited | ev.LaunchFailed) -> None:
    """Take the end of a probe process: that of `<ready>` ends when its probe has succeeded. Any other end
    leads to a new process after a delay.
    """
    task = draft.tasks[key]
    if which.name is AuxiliaryName.READY and isinstance(fact, ev.TaskExited) and fact.code == 0:
        apply(draft, key, TaskEvent.READY)
    elif which.name is _wanted(task, draft.service(key)):
        lived = draft.now - which.since
        ends = 0 if lived > MAX_DELAY else task.probe_ends
        delay = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(ends, 10))
        code, signal = (None, None) if isinstance(fact, ev.LaunchFailed) else (fact.code, fact.signal)
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
    wanted = _wanted(draft.tasks[key], draft.service(key))
    if wanted is not None:
        auxiliary.start(draft, key, wanted)


def _wanted(task: Task, service: TaskService | None) -> AuxiliaryName | None:
    """Return the probe process that a task has in its sub-state."""
    if service is None:
        return None
    if task.sub_state is SubState.START and service.ready is not None:
        return AuxiliaryName.READY
    if task.state is State.ACTIVE and service.health is not None:
        return AuxiliaryName.HEALTH
    return None
