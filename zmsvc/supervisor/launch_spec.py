"""Make the launch of a task from the world: what the file says of it, its transaction and its
cause.
"""

from __future__ import annotations

import os
from collections.abc import Container

from zmsvc.core import cause
from zmsvc.core.events import Key
from zmsvc.core.model import Context, ServiceType, TaskService
from zmsvc.core.world import World
from zmsvc.host import paths
from zmsvc.host.bus import members
from zmsvc.host.kernel import process_marks
from zmsvc.host.paths import Places
from zmsvc.protocol.launch import LaunchSpec


def spec_of(world: World, key: Key, places: Places, log_target: str, granted: Container[int]) -> LaunchSpec:
    """Return the launch of a task. `granted` are the other users who can open the sockets in the runtime
    directory.
    """
    transaction, task_id = key
    service, task = world.context.tasks[task_id], world.tasks[key]
    endpoints = world.context.endpoints
    uid = _other_user(service.user)
    own = uid is None or uid in granted
    frontend, backend = (
        own_endpoints(world.context, places) if own else (endpoints.frontend, endpoints.backend)
    )
    return LaunchSpec(
        launch=task.launch,
        context=world.context.name,
        context_id=world.context.id,
        transaction=transaction,
        task=task_id,
        instance=service.instance,
        service_name=service.service_name,
        service_type=service.service_type.value,
        device_action=service.device_action,
        description=service.description,
        configuration=dict(service.configuration),
        search=(service.location,) if service.location else tuple(str(path) for path in paths.service_path()),
        command=tuple(service.command),
        frontend=frontend,
        backend=backend,
        notify=str(places.notify_socket),
        mark=process_marks.limit_value(places.mark, task.launch),
        log=log_target,
        cause=cause.as_json(task.cause),
        # A process that is shared belongs to none of its tasks, so it has no PID file.
        pidfile=None if shared(service) else f"{places.runtime}/{transaction}:{task_id}.pid",
        cgroup=f"{transaction}:+{task.launch}" if shared(service) else cgroup_name(key),
        user=service.user,
        uid=uid,
        group=service.group,
        nice=service.nice,
        stop_signal=service.stop_signal,
        no_new_privileges=service.no_new_privileges,
        log_level=service.log_level,
        fresh=service.fresh,
        rlimits=dict(service.rlimits),
        environment=dict(service.environment),
        watchdog=service.limits.watchdog,
        # The Monitor binds a place of its own, for which it needs the context's CURVE keys, if there are any.
        serves=service.instance == "Monitor",
        members=str(places.members_file) if service.instance == "Monitor" else None,
    )


def own_endpoints(context: Context, places: Places) -> tuple[str, str]:
    """Where the supervisor and the context's tasks subscribe and publish: not through the gate of a tcp
    endpoint, nor with keys.

    A keeper that was started by an earlier zmsvc has not made these sockets.
    """
    ends = context.endpoints
    pairs = ((ends.frontend, places.sub_socket), (ends.backend, places.pub_socket))
    frontend, backend = (
        f"ipc://{own}" if place.startswith("tcp://") and own.is_socket() else place for place, own in pairs
    )
    return frontend, backend


def _other_user(user: str | None) -> int | None:
    """Return the user ID of a task that runs as another user than the daemon. An unknown user has none:
    the launch says so.
    """
    uid = None if user is None else members.number(user)
    return uid if uid != os.geteuid() else None


def shared(service: TaskService) -> bool:
    """Whether the task shares its process with others of its transaction."""
    return service.service_type is ServiceType.THREAD


def cgroup_name(key: Key) -> str:
    """The directory of a task below `tasks/`; no ID can contain the colon."""
    return f"{key[0]}:{key[1]}"
