"""Makes the launch of a task from the world: what the file says of it, its transaction and its cause."""

from __future__ import annotations

import os
import pwd

from zmsvc.core.events import Key
from zmsvc.core.model import Context, ServiceType, TaskService
from zmsvc.core.world import World
from zmsvc.host import paths
from zmsvc.host.paths import Places
from zmsvc.protocol.launch import LaunchSpec


def spec_of(world: World, key: Key, places: Places, log_target: str) -> LaunchSpec:
    """Return the launch of a task."""
    transaction, task_id = key
    service, task = world.context.tasks[task_id], world.tasks[key]
    endpoints = world.context.endpoints
    # Another user's process may have no right to the sockets in the runtime directory.
    same = service.user is None and service.group is None
    frontend, backend = own_endpoints(world.context, places) if same else (endpoints.frontend, endpoints.backend)
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
        log=log_target,
        cause=dict(task.cause),
        # A process that is shared belongs to none of its tasks, so it has no PID file.
        pidfile=None if shared(service) else f"{places.runtime}/{transaction}:{task_id}.pid",
        cgroup=f"{transaction}:+{task.launch}" if shared(service) else cgroup_name(key),
        user=service.user,
        uid=_other_user(service.user),
        group=service.group,
        nice=service.nice,
        no_new_privileges=service.no_new_privileges,
        rlimits=dict(service.rlimits),
        environment=dict(service.environment),
        watchdog=service.limits.watchdog,
        # The Monitor binds a place of its own, for which it needs the context's CURVE keys, if there are any.
        serves=service.instance == "Monitor",
    )


def own_endpoints(context: Context, places: Places) -> tuple[str, str]:
    """Where the supervisor, and tasks of its user, subscribe and publish: not through the gate of a tcp endpoint, nor with keys.

    A keeper that was started by an earlier zmsvc has not made these sockets.
    """
    ends = context.endpoints
    pairs = ((ends.frontend, places.sub_socket), (ends.backend, places.pub_socket))
    frontend, backend = (f"ipc://{own}" if place.startswith("tcp://") and own.is_socket() else place for place, own in pairs)
    return frontend, backend


def _other_user(user: str | None) -> int | None:
    """Return the user ID of a task that runs as another user than the daemon. An unknown user has none: the launch says so."""
    if user is None:
        return None
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
    return uid if uid != os.geteuid() else None


def shared(service: TaskService) -> bool:
    """Whether the task shares its process with others of its transaction."""
    return service.service_type is ServiceType.THREAD


def cgroup_name(key: Key) -> str:
    """The directory of a task below `tasks/`; no ID can contain the colon."""
    return f"{key[0]}:{key[1]}"
