"""The hosts from which nothing is heard, and for which the end of a context does not wait."""

from __future__ import annotations

from zmsvc.core.draft import Draft
from zmsvc.core.hosts import HostState
from zmsvc.core.task_key import Key
from zmsvc.core.world import Task, World

STOP_WAIT = 10.0
"""Seconds for which the stop of a context waits for a silent host. A cluster takes 4 to 7 s to be certain
that a host is off.
"""


def is_silent(world: World | Draft, task: Task) -> bool:
    """Return True if a task is on another host that is not here now."""
    if not task.host:
        return False
    host = world.hosts.get(task.host)
    return host is None or host.state is not HostState.HERE


def is_left(world: World | Draft, host: str) -> bool:
    """Return True if the context ends without waiting for the tasks on this host."""
    if not (host and world.stopping):
        return False
    return world.hands_over or (host in world.hosts and world.hosts[host].given_up)


def is_over(world: World | Draft) -> bool:
    """Return True if the context is stopping, and no task is left that it waits for."""
    if not world.stopping:
        return False
    return len(world.launches) == sum(number for host, number in world.load.items() if is_left(world, host))


def stop_deadline(draft: Draft, key: Key) -> float | None:
    """Return the time until which a task has to end that is asked to stop; None if it has no limit."""
    limit = draft.limits(key).stop_timeout
    if draft.stopping and is_silent(draft, draft.tasks[key]):
        limit = min(limit or STOP_WAIT, STOP_WAIT)
    return draft.now + limit if limit else None
