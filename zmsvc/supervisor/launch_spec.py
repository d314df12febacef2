"""Make the launch of a task from its definition in the file, its transaction and its cause."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from dataclasses import fields, replace
from operator import attrgetter
from typing import Any

from zmsvc.core import cause, replicas
from zmsvc.core import effects as fx
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.lifecycle import State
from zmsvc.core.listening import ListenSocket
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.probing import probe_of, topic_of
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.resource_limits import CONTROLLERS
from zmsvc.core.service_options import OPTIONS, Limits, Option, ServiceOptions, ServiceType, options_of
from zmsvc.core.task_key import Key
from zmsvc.core.values import NO_LIMIT
from zmsvc.core.world import World
from zmsvc.host import paths, user_ids
from zmsvc.host.kernel import process_marks
from zmsvc.host.paths import Places
from zmsvc.protocol import PROTOCOL_REPLICAS
from zmsvc.protocol.launch import AUXILIARY_GROUP, RELOAD_SIGNAL, LaunchSpec

NOT_IN_FILE = "the context file no longer has it (add it again, and type zmsvcctl reload)"
"""The reason why a task of an earlier context file is not launched."""


def spec_of(
    world: World, key: Key, places: Places, log_target: str, granted: Container[int], *, curve: bool = False
) -> LaunchSpec:
    """Return the launch of a task. `granted` has the IDs of other users who can open the sockets in the
    runtime directory. `curve` is True if the context has CURVE keys.
    """
    transaction, task_id = key
    service, task = world.context.tasks[task_id], world.tasks[key]
    endpoints = world.context.endpoints
    uid = _other_user(service.user)
    own = uid is None or uid in granted
    subscribe_endpoint, publish_endpoint = (
        own_endpoints(world.context, places)
        if own
        else (endpoints.subscribe_endpoint, endpoints.publish_endpoint)
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
        frontend=subscribe_endpoint,
        backend=publish_endpoint,
        notify=str(places.notify_socket),
        mark=process_marks.limit_value(places.context_mark, task.launch),
        log=log_target,
        cause=cause.as_json(task.cause),
        # A shared process belongs to no single task, so it has no PID file.
        pidfile=None if shared(service) else f"{places.runtime}/{transaction}:{task_id}.pid",
        cgroup=f"{transaction}:+{task.launch}" if shared(service) else cgroup_name(key),
        uid=uid,
        **_options(service),
        ready_line=service.ready.pattern if isinstance(service.ready, ReadyLine) else "",
        memory_accounting=service.memory_restart != NO_LIMIT,
        barrier=task.barrier is not None and service.service_type is not ServiceType.COMMAND,
        # A Monitor binds an endpoint of its own and needs the CURVE keys of the context, if it has keys.
        serves=service.instance == "Monitor",
        members=str(places.members_file) if service.instance == "Monitor" else None,
        file=world.context.path,
        # A socket of ipc must not have keys.
        keys=str(places.keys) if curve and subscribe_endpoint.startswith("tcp://") else None,
        retained=_retaining(world, transaction) if world.context.retaining else None,
    )


_ANSWERS = (State.ACTIVATING, State.ACTIVE)


def _retaining(world: World, transaction: str) -> tuple[str, ...]:
    """Return the LastValue tasks of a transaction that have a process, or are about to get one."""
    tasks = ((each, world.tasks.get((transaction, each))) for each in world.context.retaining)
    return tuple(each for each, task in tasks if task and task.live and task.state in _ANSWERS)


def auxiliary_spec(
    world: World, effect: fx.LaunchAuxiliary, places: Places, log_target: str, granted: Container[int]
) -> LaunchSpec | None:
    """Return the launch of an auxiliary process. It begins as its task does, but without the sockets, the
    stored descriptors, the watchdog, the PID file and the group limits of the task. Return None if a reload
    has removed the probe.
    """
    service = world.context.tasks[effect.key[1]]
    probes = {AuxiliaryName.READY: probe_of(service.ready), AuxiliaryName.HEALTH: service.health}
    probe = probes.get(effect.name)
    if probe is None and not effect.command:
        return None
    spec = spec_of(world, effect.key, places, log_target, granted)
    return replace(
        spec,
        launch=effect.launch,
        auxiliary=effect.name.value,
        auxiliary_of=effect.of,
        service_type=(ServiceType.PROCESS if probe else ServiceType.COMMAND).value,
        command=effect.command,
        probe=probe.as_json() if probe else {},
        mark=process_marks.limit_value(places.context_mark, effect.launch),
        pidfile=None,
        cgroup=f"{cgroup_name(effect.key)}/{AUXILIARY_GROUP}{effect.launch}",
        environment={**spec.environment, "MAINPID": str(world.tasks[effect.key].pid)},
        watchdog=0.0,
        barrier=False,
        ready_line="",
        fresh=False,
        python=None,
        listen=(),
        listen_names=(),
        file_descriptor_store_max=0,
        memory_accounting=False,
        serves=False,
        members=None,
        retained=None,
        **_NO_GROUP_LIMITS,
    )


def for_another_host(spec: LaunchSpec, context: Context) -> LaunchSpec:
    """Return a launch without what only this host knows. The envoy of the other one fills that in: see
    envoy/own_launches.py. The bus is reached by tcp from there, with keys.
    """
    located = context.tasks[spec.task].location
    return replace(
        spec,
        frontend=context.endpoints.subscribe_endpoint,
        backend=context.endpoints.publish_endpoint,
        notify="",
        mark=0,
        log="",
        pidfile=None if spec.pidfile is None else "",
        uid=None,
        search=(located,) if located else (),
        keys="",
        members=None if spec.members is None else "",
    )


_FIELDS = {each.name: each for each in fields(LaunchSpec)}
_NO_GROUP_LIMITS: dict[str, Any] = {option: _FIELDS[option].default for option in CONTROLLERS}
_CARRIED = [each.field for each in options_of(ServiceOptions) if each.field in _FIELDS]
_CARRIED_VALUES = attrgetter(*_CARRIED)
_OPTIONS_OF_LIMITS = options_of(Limits)
_CARRIED_LIMITS = [each.field for each in _OPTIONS_OF_LIMITS if each.field in _FIELDS]
_LIMITS = {each.field for each in _OPTIONS_OF_LIMITS}
_LATER = [each for each in OPTIONS if each.protocol]


def _options(service: TaskDefinition) -> dict[str, Any]:
    """Return the options that the task or the keeper applies: those that `LaunchSpec` has a field for."""
    found = dict(zip(_CARRIED, _CARRIED_VALUES(service), strict=True))
    if service.service_type is ServiceType.PROCESS and service.signal_to_reload:
        found["environment"] = {**found["environment"], RELOAD_SIGNAL: service.signal_to_reload}
    found["listen"] = tuple(map(socket_spec, service.listen))
    found["expect"] = tuple(each.as_json() for each in service.expect)
    found["ready_topic"] = topic_of(service.ready)
    found["queue"] = tuple(each.as_json() for each in service.queue)
    found["listen_names"] = tuple(each.name or replicas.base(service.id) for each in service.listen)
    for name in _CARRIED_LIMITS:
        found[name] = getattr(service.limits, name)
    return found


def socket_spec(each: ListenSocket) -> dict[str, Any]:
    """Return a socket as the keeper opens it. The keeper looks up no owner: a user database may be on another
    machine. An unknown name stays a name, and the keeper refuses it.
    """
    uid = None if each.user is None else user_ids.number(each.user)
    gid = None if each.group is None else user_ids.group_number(each.group)
    return {
        **each.as_json(),
        "user": each.user if uid is None else str(uid),
        "group": each.group if gid is None else str(gid),
    }


def dropped_options(service: TaskDefinition, protocol: int, later: Iterable[Option] = _LATER) -> list[str]:
    """Return the names of the options of a task that a keeper of this protocol would drop from its launch.
    `later` has the options that the launches of zmsvc 1.0 did not have.
    """
    found = [each.name for each in later if each.protocol > protocol and _needs(service, each)]
    # The launch of a replica does not say how many replicas there are. The number of the replica is in its
    # ID, where the zygote of an older keeper does not look for it.
    numbered = replicas.number(service.id) is not None and protocol < PROTOCOL_REPLICAS
    return ["replicas", *found] if numbered else found


def _needs(service: TaskDefinition, option: Option) -> bool:
    """Return True if the launch of a task has to carry an option."""
    if option.field == "no_new_privileges" and service.user is not None:
        # This is the default of such a task. Under a keeper of 1.0 it starts as it did with zmsvc 1.0.
        return False
    # The supervisor itself applies an option that a reload changes in place.
    holder = service.limits if option.field in _LIMITS else service
    return service.service_type not in option.in_place and getattr(holder, option.field) != option.default


def own_endpoints(context: Context, places: Places) -> tuple[str, str]:
    """Return the endpoints at which the supervisor and the tasks subscribe and publish. Instead of a tcp
    endpoint they use the socket in the runtime directory, which has no gate and needs no keys. A keeper of an
    earlier zmsvc has not made these sockets.
    """
    ends = context.endpoints
    pairs = (
        (ends.subscribe_endpoint, places.subscribe_socket),
        (ends.publish_endpoint, places.publish_socket),
    )
    subscribe_endpoint, publish_endpoint = (
        f"ipc://{own}" if named.startswith("tcp://") and own.is_socket() else named for named, own in pairs
    )
    return subscribe_endpoint, publish_endpoint


def _other_user(user: str | None) -> int | None:
    """Return the user ID of a task that runs as another user than the daemon. Return None for the user of the
    daemon, and for a user that this machine does not know; the launch of such a task fails.
    """
    uid = None if user is None else user_ids.number(user)
    return uid if uid != os.geteuid() else None


def shared(service: TaskDefinition) -> bool:
    """Return True if the task shares its process with others of its transaction."""
    return service.service_type is ServiceType.THREAD


def cgroup_name(key: Key) -> str:
    """Return the name of a task's directory below `tasks/`. No ID contains a colon."""
    return f"{key[0]}:{key[1]}"
