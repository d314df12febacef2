"""The world as others see it: `status` for the control socket, the context's picture for the bus, one line for systemd."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from zmsvc.core.events import Key
from zmsvc.core.lifecycle import State
from zmsvc.core.world import Exit, Task, World, service_of, transaction_state
from zmsvc.supervisor.spec import cgroup_name, shared


def rfc3339(at: float) -> str:
    """A time in seconds of the epoch, for people and programs."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="milliseconds")


def wall(monotonic: float) -> str:
    """When that was, by today's clock: what we keep is monotonic, so a clock that was set back shifts the past with it."""
    return rfc3339(time.time() - (time.monotonic() - monotonic))


def tasks_of(world: World, transaction: str) -> list[tuple[Key, Task]]:
    """The tasks of a transaction in the order of the file; those that the file has lost come last."""
    known = [(transaction, name) for name in world.context.tasks if (transaction, name) in world.tasks]
    lost = [key for key in world.tasks if key[0] == transaction and key[1] not in world.context.tasks]
    return [(key, world.tasks[key]) for key in [*known, *lost]]


def transactions(world: World, only: str | None, tasks: tuple[str, ...], cgroup: str | None) -> list[dict[str, Any]]:
    """The transactions as `status` shows them."""
    return [
        {
            "id": name,
            "state": transaction_state(world, name).value,
            "opened": wall(world.transactions[name].opened),
            "tasks": [_task(world, key, task, cgroup) for key, task in tasks_of(world, name) if not tasks or key[1] in tasks],
        }
        for name in world.transactions
        if only is None or name == only
    ]


def _task(world: World, key: Key, task: Task, cgroup: str | None) -> dict[str, Any]:
    service = service_of(world.context, key[1], task)
    return {
        "id": key[1],
        "name": service.service_name if service else "",
        "instance": service.instance if service else "",
        "description": service.description if service else "",
        "pid": task.pid,
        "state": task.state.value,
        "sub": task.sub.value,
        "action": task.action,
        "since": wall(task.since),
        "restarts": task.restarts,
        "exit": exit_of(task.exit),
        "status": task.status,
        "entry": bool(service and service.entry),
        "held": task.held,
        "dropped": task.dropped,
        "cause": dict(task.cause),
        "cgroup": f"{cgroup}/{cgroup_name(key)}" if cgroup and not (service and shared(service)) else None,
    }


def exit_of(end: Exit | None) -> dict[str, Any] | None:
    if end is None:
        return None
    return {"code": end.code, "signal": end.signal, "reason": end.reason.value, "at": wall(end.at)}


def context_state(world: World) -> State:
    """The state of the context: that of its worst transaction."""
    if world.stopping:
        return State.DEACTIVATING
    states = {transaction_state(world, name) for name, transaction in world.transactions.items() if transaction.open}
    return next((state for state in (State.FAILED, State.ACTIVATING) if state in states), State.ACTIVE)


def picture(world: World, transaction: str) -> dict[str, Any]:
    """One transaction as `context_info` and `reply_context` carry it."""
    context = world.context
    return {
        "contextId": context.id,
        "contextName": context.name,
        "contextLogName": context.log_name,
        "configuration": {key: value for key, value in context.source.items() if key != "TaskService"},
        "tasks": [_pictured(world, key, task) for key, task in tasks_of(world, transaction)],
    }


def _pictured(world: World, key: Key, task: Task) -> Mapping[str, Any]:
    service = service_of(world.context, key[1], task)
    return {
        "service_id": key[1],
        "serviceName": service.service_name if service else "",
        "instance": service.instance if service else "",
        "pid": task.pid,
        "action": task.action,
        "state": task.state.value,
        "task": service.source.get("Task", {}) if service else {},
    }


def line(world: World) -> str:
    """What systemd shows as the status of the unit."""
    tasks = [task for key, task in world.tasks.items() if (t := world.transactions.get(key[0])) and t.open]
    running = sum(task.state is State.ACTIVE for task in tasks)
    failed = sum(task.state is State.FAILED for task in tasks)
    opened = sum(transaction.open for transaction in world.transactions.values())
    text = f"{running} of {len(tasks)} tasks running in {opened} transaction{'s' if opened != 1 else ''}"
    return f"{text}, {failed} failed" if failed else text
