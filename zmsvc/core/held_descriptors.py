"""The sockets of `<listen>` and the descriptor stores that have to be held now on the host of the supervisor.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zmsvc.core.listening import ListenSocket
from zmsvc.core.model import Context
from zmsvc.core.task_key import Key
from zmsvc.core.world import Task


def sockets_in_use(context: Context, tasks: Mapping[Key, Task]) -> frozenset[ListenSocket]:
    """Return the sockets of the tasks that run, stop, or wait for the delay of a restart: those that the
    keeper has to hold. No connection is refused while such a task restarts.
    """
    own = {
        task: frozenset(replace(each, name="") for each in service.listen)
        for task, service in context.tasks.items()
        if service.listen and service.placement is None
    }
    if not own:
        return frozenset()
    return frozenset(
        each for key, task in tasks.items() if key[1] in own and not task.resting for each in own[key[1]]
    )


def stores_in_use(context: Context, tasks: Mapping[Key, Task]) -> frozenset[tuple[Key, int]]:
    """Return the descriptor stores to hold, each with the number of descriptors that it may have: those of
    the tasks that run, stop, or wait for the delay of a restart.
    """
    limits = {
        task: service.file_descriptor_store_max
        for task, service in context.tasks.items()
        if service.file_descriptor_store_max and service.placement is None
    }
    if not limits:
        return frozenset()
    return frozenset(
        (key, limits[key[1]]) for key, task in tasks.items() if key[1] in limits and not task.resting
    )
