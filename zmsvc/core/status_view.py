"""The transactions of a world and their tasks, as `status` shows them. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.core.hosts import HostState
from zmsvc.core.lifecycle import State
from zmsvc.core.model import TaskDefinition
from zmsvc.core.ordering import wait_text
from zmsvc.core.replicas import is_named
from zmsvc.core.task_key import Key
from zmsvc.core.world import Task, World, is_starting, service_of, status_at, task_as_json, transaction_state

TaskEntry = tuple[Key, Task]
"""A task of a transaction."""
OfMachine = Callable[[Key, Task, TaskDefinition | None], Mapping[str, Any]]
"""A function that returns the fields of a task that depend on the machine."""


@frozen
class Clock:
    """The time at which the world is shown."""

    now: float
    """The monotonic time."""
    text: Callable[[float], str]
    """Converts a monotonic time to RFC 3339."""


def tasks_of(world: World, transaction: str) -> list[TaskEntry]:
    """Return the tasks of a transaction in the order of the file; removed ones come last."""
    return _in_order(world, [each for each in world.tasks.items() if each[0][0] == transaction])


def task_entries(world: World) -> dict[str, list[TaskEntry]]:
    """Return the tasks of all transactions, in one pass."""
    found: dict[str, list[TaskEntry]] = {name: [] for name in world.transactions}
    for each in world.tasks.items():
        # An edited state file may have tasks without a transaction.
        if each[0][0] in found:
            found[each[0][0]].append(each)
    return {name: _in_order(world, own) for name, own in found.items()}


def _in_order(world: World, tasks: list[TaskEntry]) -> list[TaskEntry]:
    place = {name: at for at, name in enumerate(world.context.tasks)}
    return sorted(tasks, key=lambda each: place.get(each[0][1], len(place)))


def transactions(
    world: World, clock: Clock, of_machine: OfMachine, *, only: str | None = None, tasks: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Return the transactions, or one, with their tasks, or those that are named."""
    return [
        {
            "id": name,
            "state": _state(world, name, own).value,
            "opened": clock.text(world.transactions[name].opened),
            "since": clock.text(_since(world, name, own)),
            "tasks": [
                _task(world, key, task, clock, of_machine)
                for key, task in own
                if not tasks or is_named(key[1], tasks)
            ],
        }
        for name, own in task_entries(world).items()
        if only is None or name == only
    ]


def _since(world: World, transaction: str, own: list[TaskEntry]) -> float:
    """Return the time at which a transaction entered its state, which follows from the times of its tasks."""
    state, opened = _state(world, transaction, own), world.transactions[transaction].opened
    alike = [
        task.since
        for _, task in own
        if (is_starting(task) if state is State.ACTIVATING else task.state is state)
    ]
    if state is State.ACTIVE:
        # The latest start counts, even if that task has ended meanwhile.
        return max([opened, *alike, *(task.launched_at for _, task in own if task.resting)])
    if state is State.INACTIVE:
        return max([opened, world.transactions[transaction].closed, *(task.since for _, task in own)])
    return min(alike, default=opened)


def _state(world: World, transaction: str, own: list[TaskEntry]) -> State:
    return transaction_state(world, transaction, [task for _, task in own])


def _task(world: World, key: Key, task: Task, clock: Clock, of_machine: OfMachine) -> dict[str, Any]:
    service = service_of(world.context, key[1], task)
    return {
        **task_as_json(key[1], task, service, clock.text, disabled=key[1] in world.disabled),
        "status": wait_text(world, key) or status_at(task, clock.now),
        **of_machine(key, task, service),
    }


def hosts(world: World, clock: Clock) -> list[dict[str, Any]]:
    """Return the other hosts of the context: those that its file lists, and those that still have tasks of
    it.
    """
    others = sorted({*world.hosts, *world.load}.difference(world.context.hosts))
    return [_host(world, name, clock) for name in (*world.context.hosts, *others)]


def _host(world: World, name: str, clock: Clock) -> dict[str, Any]:
    known = world.hosts.get(name)
    state = None if known is None or (known.state is HostState.SILENT and not known.epoch) else known.state
    return {
        "name": name,
        "state": _HOST_WORDS[state],
        "since": clock.text(known.since) if known is not None and state is not None else None,
        "drained": known is not None and known.drained,
        "tasks": world.load.get(name, 0),
    }


_HOST_WORDS = {
    None: "not-joined",
    HostState.HERE: "joined",
    HostState.SILENT: "silent",
    HostState.OFF: "lost",
}
"""The words for users."""


def context_state(world: World) -> State:
    """Return the state of the context: that of its worst transaction."""
    if world.stopping:
        return State.DEACTIVATING
    states = {
        _state(world, name, own) for name, own in task_entries(world).items() if world.transactions[name].open
    }
    return next((state for state in (State.FAILED, State.ACTIVATING) if state in states), State.ACTIVE)
