"""The order of tasks by `<after>` and `<requires>`: the tasks for which a start or a stop has to wait. It
decides nothing; ordering_waits.py does.
"""

from __future__ import annotations

from zmsvc.core.draft import Draft
from zmsvc.core.host_choice import host_wait_text
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.silent_hosts import is_left
from zmsvc.core.task_key import Key
from zmsvc.core.world import Task, World


def awaited_starts(world: World | Draft, key: Key) -> list[str]:
    """Return the tasks that a start of this one waits for: they are on their way to READY=1, or are being
    stopped. A task at rest is not waited for, as with After= of systemd.
    """
    service = world.context.tasks.get(key[1])
    return [
        name
        for name in (service.predecessors if service else ())
        if (task := world.tasks.get((key[0], name))) is not None and _is_on_its_way(task)
    ]


def unmet(world: World | Draft, key: Key) -> str | None:
    """Return a required task that is not ready and not on its way; None if there is none."""
    service = world.context.tasks.get(key[1])
    for name in service.requires if service else ():
        task = world.tasks.get((key[0], name))
        if task is not None and not is_fulfilled(world, key[0], task) and not _is_on_its_way(task):
            return name
    return None


def is_fulfilled(world: World | Draft, transaction: str, task: Task) -> bool:
    """Return True if a required task is ready, or has been ready in this run of its transaction and has ended
    well. So a task that prepares something once is not started again.
    """
    return task.state is State.ACTIVE or (
        task.sub_state is SubState.EXITED and task.launched_at >= world.transactions[transaction].opened
    )


def awaited_ends(world: World | Draft, key: Key) -> list[str]:
    """Return the tasks that a stop of this one waits for."""
    return [
        name
        for name in world.context.successors.get(key[1], ())
        if (task := world.tasks.get((key[0], name))) is not None
        and task.state is State.DEACTIVATING
        and not (_is_survivor(task) or is_left(world, task.host))
    ]


def wait_text(world: World | Draft, key: Key) -> str:
    """Return what a task waits for, as its status text; empty if it waits for no other task and no host."""
    match world.tasks[key].sub_state:
        case SubState.START_AFTER:
            return f"waits for {', '.join(awaited_starts(world, key))}"
        case SubState.UNPLACED:
            return host_wait_text(world, key)
        case SubState.STOP_AFTER:
            return f"stops after {', '.join(awaited_ends(world, key))}"
        case _:
            return ""


def _is_on_its_way(task: Task) -> bool:
    return not (task.resting or task.state is State.ACTIVE or _is_survivor(task))


def _is_survivor(task: Task) -> bool:
    """Return True for a task that does not end after SIGKILL. Nothing waits for it any longer."""
    return task.deadline is None and task.sub_state in (SubState.STOP_SIGKILL, SubState.FINAL_SIGKILL)
