"""The choice of a host for a task with a placement. Pure: the same world always gives the same host."""

from __future__ import annotations

from collections.abc import Iterator

from zmsvc.core.draft import Draft
from zmsvc.core.hosts import HostState
from zmsvc.core.placement import Placement
from zmsvc.core.task_key import Key
from zmsvc.core.world import World

HOME = ""
"""The host of the supervisor."""
MOST_NAMED = 8
"""The most hosts that a status text names."""
DRAINED = "is drained"
NOT_FOR_ALL = "is not for the tasks that run with it"


def host_for(world: World | Draft, key: Key) -> str | None:
    """Return the host on which a task can be launched now; None if there is none.

    A host that was never heard of, or that holds a process of an unknown launch, may run a copy of the task.
    As long as the placement names such a host, the task is not launched anywhere.
    """
    placements = _placements(world, key)
    if placements is None:
        return HOME
    free = _free(world, _named(world, key))
    if free is None:
        return None
    if key[1] in world.context.apart or key[1] in world.context.together:
        free = tuple(name for name in free if not _unfit(world, key, placements, name))
    if placements[0].hosts:
        return free[0] if free else None
    load = world.load
    return min(free, key=lambda name: load.get(name, 0), default=None)


def _free(world: World | Draft, names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the hosts that take tasks; None if one of them may run copies of tasks. The result is kept for
    the step, in which thousands of tasks may name the same hosts.
    """
    known = world.free_hosts if isinstance(world, Draft) else {}
    if names not in known:
        unknown = any(name not in world.hosts or not world.hosts[name].is_known for name in names)
        known[names] = None if unknown else tuple(name for name in names if not _closed(world, name))
    return known[names]


def obstacles(world: World | Draft, key: Key) -> Iterator[tuple[str, str]]:
    """Yield each host that a placement names, with the reason why the task is not launched there."""
    placements = _placements(world, key)
    for name in _named(world, key) if placements is not None else ():
        if why := _closed(world, name) or _unfit(world, key, placements or (), name):
            yield name, why


def waits_for_undrain(world: World | Draft, key: Key) -> bool:
    """Return True if a task without a host gets one only by an order: each of its hosts is drained."""
    found = [why for _, why in obstacles(world, key)]
    return DRAINED in found and set(found) <= {DRAINED, NOT_FOR_ALL}


def host_wait_text(world: World | Draft, key: Key) -> str:
    """Return why a task has no host, as its status text."""
    found = [f"{name} {why}" for name, why in obstacles(world, key)]
    more = [f"{len(found) - MOST_NAMED} more hosts"] if len(found) > MOST_NAMED else []
    return f"waits for a host: {'; '.join([*found[:MOST_NAMED], *more]) or 'no host has joined'}"


def _placements(world: World | Draft, key: Key) -> tuple[Placement, ...] | None:
    """Return the placement of a task, and those of the tasks that run on the same host. None if one of them
    has none: then all of them run at home.
    """
    tasks = world.context.tasks
    found = []
    for name in (key[1], *world.context.together.get(key[1], ())):
        service = tasks.get(name)
        if service is None or service.placement is None:
            return None
        found.append(service.placement)
    return tuple(found)


def _named(world: World | Draft, key: Key) -> tuple[str, ...]:
    """Return the hosts that a task may be launched on, in the order in which they are tried."""
    service = world.context.tasks[key[1]]
    own = service.placement.hosts if service.placement is not None else ()
    return own or world.context.hosts or tuple(sorted(world.hosts))


def _closed(world: World | Draft, name: str) -> str:
    """Return why no task is launched on a host; empty if tasks can be."""
    host = world.hosts.get(name)
    if host is None or (host.state is HostState.SILENT and not host.epoch):
        return "has not joined, and may run a copy"
    if host.state is not HostState.HERE:
        return f"is {host.state.value}"
    if host.strangers:
        return "still has processes of unknown launches"
    return DRAINED if host.drained else ""


def _unfit(world: World | Draft, key: Key, placements: tuple[Placement, ...], name: str) -> str:
    """Return why other tasks keep a task from a host; empty if none does."""
    if any(each.hosts and name not in each.hosts for each in placements):
        return NOT_FOR_ALL
    transaction, task = key
    together = world.context.together.get(task, ())
    for other in together:
        found = world.tasks.get((transaction, other))
        if found is not None and found.host and found.host != name:
            return f"does not have {other}, which runs on {found.host}"
    for member in (task, *together):
        for other in world.context.apart.get(member, ()):
            found = world.tasks.get((transaction, other))
            if found is not None and found.host == name:
                return f"has {other}"
    return ""
