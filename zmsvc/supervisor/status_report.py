"""Views of the world: `status` for the control socket, the state of the context for the bus, the status line
for systemd.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from zmsvc.core import messages, status_view
from zmsvc.core.lifecycle import STATE_OF, State, SubState
from zmsvc.core.model import TaskDefinition
from zmsvc.core.status_view import Clock, TaskEntry, context_state, task_entries, tasks_of
from zmsvc.core.task_key import Key
from zmsvc.core.world import Task, World, service_of
from zmsvc.host.kernel.process_usage import ProcessUsage
from zmsvc.supervisor.launch_spec import cgroup_name, shared

__all__ = ["context_state", "tasks_of", "transactions"]


def rfc3339(at: float) -> str:
    """Return a time in seconds of the epoch as RFC 3339 text."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="milliseconds")


def as_wall_clock(monotonic: float) -> str:
    """Return a monotonic time as RFC 3339 text, converted by the clock of now. So if the clock is set back,
    past times move as well.
    """
    return rfc3339(time.time() - (time.monotonic() - monotonic))


def transactions(
    world: World,
    only: str | None,
    tasks: tuple[str, ...],
    cgroup: str | None,
    stored: Callable[[str], int] = lambda _store: 0,
    usage: Mapping[int, ProcessUsage] | None = None,
) -> list[dict[str, Any]]:
    """Return the transactions as `status` shows them. `stored` returns the number of descriptors in a
    store. `usage` is what tasks use of the machine, by their launches; None leaves it out.
    """

    def of_machine(key: Key, task: Task, service: TaskDefinition | None) -> dict[str, Any]:
        # Of a task on another host, the group is below the unit there.
        in_cgroup = cgroup and not task.host and not (service and shared(service))
        return {
            "stored_descriptors": stored(cgroup_name(key)),
            "cgroup": f"{cgroup}/{cgroup_name(key)}" if in_cgroup else None,
            **({} if usage is None else {"usage": _usage(usage.get(task.launch))}),
        }

    # Tasks that have waited since the same moment have the same text, and it is converted once.
    clock = Clock(now=time.monotonic(), text=functools.cache(as_wall_clock))
    return status_view.transactions(world, clock, of_machine, only=only, tasks=tasks)


def hosts(world: World, dropped: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the other hosts of the context as `status` shows them; none for a context without any. `dropped`
    has the number of facts that each has dropped.
    """
    if not world.context.listed.names and not world.hosts:
        return []
    shown = status_view.hosts(world, Clock(now=time.monotonic(), text=as_wall_clock))
    return [{**each, "dropped": dropped.get(each["name"], 0)} for each in shown]


def _usage(used: ProcessUsage | None) -> dict[str, Any] | None:
    if used is None:
        return None
    return {name: getattr(used, name) for name in ("cpu_seconds", "memory_bytes", "threads")}


def states_of_task(world: World, transaction: str | None, task: str) -> list[State]:
    """Return the state of a task in the named transaction, or its states in all open transactions if none is
    named. A task that no transaction has is inactive.
    """
    names = (
        [name for name, each in world.transactions.items() if each.open]
        if transaction is None
        else [transaction]
    )
    found = [world.tasks[name, task].state for name in names if (name, task) in world.tasks]
    return found or [State.INACTIVE]


def others_than(world: World, transaction: str | None, tasks: Iterable[str], state: str) -> list[str]:
    """Return the tasks of which none is in this state, as `TASK is STATE`. Each replica is a task."""
    every = dict.fromkeys(own for task in tasks for own in world.context.named(task) or (task,))
    states = {task: list(map(str, states_of_task(world, transaction, task))) for task in every}
    return [f"{task} is {', '.join(found)}" for task, found in states.items() if state not in found]


def picture(world: World, transaction: str) -> dict[str, Any]:
    """Return one transaction in the form of `reply_context`."""
    return _picture(world, tasks_of(world, transaction))


def pictures(world: World) -> dict[str, dict[str, Any]]:
    """Return all transactions in the form of `context_info`."""
    return {name: _picture(world, own) for name, own in task_entries(world).items()}


def _picture(world: World, own: list[TaskEntry]) -> dict[str, Any]:
    context = world.context
    return {
        "contextId": context.id,
        "contextName": context.name,
        "contextLogName": context.log_name,
        "configuration": {key: value for key, value in context.source.items() if key != "TaskService"},
        "tasks": [_pictured(world, key, task) for key, task in own],
    }


def _pictured(world: World, key: Key, task: Task) -> Mapping[str, Any]:
    service = service_of(world.context, key[1], task)
    return {
        **_named(key, task, service),
        **states_for_bus(task),
        "task": _ordered(key, task, service) if service else {},
    }


def top_row(world: World, key: Key, task: Task) -> Mapping[str, Any]:
    """Return a task as the sampler reads it, and as `reply_top` shows it. The sampler measures processes of
    this host alone.
    """
    row = {**_named(key, task, service_of(world.context, key[1], task)), **states_for_bus(task)}
    return row | {"pid": None} if task.host else row


def _named(key: Key, task: Task, service: TaskDefinition | None) -> Mapping[str, Any]:
    return {
        "service_id": key[1],
        "serviceName": service.service_name if service else "",
        "instance": service.instance if service else "",
        "pid": task.pid,
    }


def states_for_bus(task: Task) -> dict[str, str]:
    """Return the state of a task for the bus: the two words of zmicroservices 1.0, and systemd's."""
    return {
        "action": task.action or "defined",
        "state": _OLD_STATE.get(task.state, "success"),
        "active_state": task.state.value,
        "sub_state": task.sub_state.value,
    }


_OLD_STATE = {State.ACTIVATING: "in_progress", State.DEACTIVATING: "in_progress", State.FAILED: "failure"}
"""zmicroservices 1.0 shows the result of the last report, and `in_progress` from an order until the next
report. A task without an order is a success.
"""


def _ordered(key: Key, task: Task, service: TaskDefinition) -> Mapping[str, Any]:
    """Return the TaskService element with the header of the last order, as zmicroservices 1.0
    keeps it.
    """
    stops = task.state is State.DEACTIVATING or task.sub_state is SubState.STOPPED
    return messages.with_last_order(
        service.source,
        transaction=key[0],
        action="stop" if stops else "start",
        service_id=key[1],
        service_name=service.service_name,
    )


def line(world: World) -> str:
    """Return the status line of the unit."""
    opened = {name for name, transaction in world.transactions.items() if transaction.open}
    # This takes one pass, since each turn that changes the state of a task needs the line.
    count = Counter(task.sub_state for (transaction, _), task in world.tasks.items() if transaction in opened)
    running = sum(number for sub, number in count.items() if STATE_OF[sub] is State.ACTIVE)
    failed = sum(number for sub, number in count.items() if STATE_OF[sub] is State.FAILED)
    text = (
        f"{running} of {count.total()} tasks running in {len(opened)} "
        f"transaction{'s' if len(opened) != 1 else ''}"
    )
    return f"{text}, {failed} failed" if failed else text
