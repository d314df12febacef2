"""What a launch is told: a task of the file, its transaction and its cause, as the plain JSON that the keeper forks with."""

from __future__ import annotations

from typing import Any

from zmsvc.core.events import Key
from zmsvc.core.model import ServiceType, TaskService
from zmsvc.core.world import World
from zmsvc.host import paths
from zmsvc.host.paths import Places


def spec_of(world: World, key: Key, places: Places, log_target: str) -> dict[str, Any]:
    """The launch of a task as zmsvc.task.runner takes it."""
    transaction, task_id = key
    service, task = world.context.tasks[task_id], world.tasks[key]
    endpoints = world.context.endpoints
    return {
        "launch": task.launch,
        "context": world.context.name,
        "context_id": world.context.id,
        "transaction": transaction,
        "task": task_id,
        "frontend": endpoints.frontend,
        "backend": endpoints.backend,
        "cause": dict(task.cause),
        "notify": str(places.notify_socket),
        "pidfile": str(places.runtime / f"{transaction}:{task_id}.pid"),
        "cgroup": cgroup_name(key),
        "log": log_target,
        **_of_service(service),
    }


def _of_service(service: TaskService) -> dict[str, Any]:
    return {
        "instance": service.instance,
        "service_name": service.service_name,
        # Tasks cannot share a process yet; `check` and the log of the start say so.
        "service_type": "Command" if service.service_type is ServiceType.COMMAND else "Process",
        "device_action": service.device_action,
        "description": service.description,
        "configuration": dict(service.configuration),
        "search": [service.location] if service.location else [str(path) for path in paths.service_path()],
        "command": list(service.command),
        "user": service.user,
        "group": service.group,
        "nice": service.nice,
        "rlimits": dict(service.rlimits),
        "environment": dict(service.environment),
        "watchdog": service.limits.watchdog,
    }


def cgroup_name(key: Key) -> str:
    """The directory of a task below `tasks/`; no ID can contain the colon."""
    return f"{key[0]}:{key[1]}"
