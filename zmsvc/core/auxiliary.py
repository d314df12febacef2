"""The auxiliary processes of tasks: the orders, and what follows from their ends. Pure.

An auxiliary process runs beside the main process of a task and does not count as a process of the task. It
has a launch ID of its own, and the keeper kills it when the main process ends. The keeper repeats its end, as
that of a task, until the end is in the state file.
"""

from __future__ import annotations

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.draft import Draft
from zmsvc.core.task_key import Key
from zmsvc.core.world import Auxiliary, Task

End = ft.TaskExited | ft.LaunchFailed
"""The end of an auxiliary process, or the failure to fork it."""


def find(task: Task, name: AuxiliaryName) -> Auxiliary | None:
    """Return the auxiliary process of a task with this name, if there is one."""
    return next((each for each in task.auxiliaries if each.name is name), None)


def start(draft: Draft, key: Key, name: AuxiliaryName, *command: str) -> None:
    """Order an auxiliary process of a task, unless the task has one of this name or has no process. It
    executes `command` in the environment of the task, with the main PID as MAINPID.
    """
    task = draft.tasks[key]
    if task.pid is not None and find(task, name) is None:
        _order(draft, key, draft.new_auxiliary(key, name, command))


def _order(draft: Draft, key: Key, which: Auxiliary) -> None:
    task = draft.tasks[key]
    draft.emit(
        fx.LaunchAuxiliary(
            launch=which.launch,
            of=task.launch,
            key=key,
            name=which.name,
            command=which.command,
            host=task.host,
        )
    )


def kill(draft: Draft, key: Key, name: AuxiliaryName) -> None:
    """Kill the auxiliary process of a task with this name, if there is one. Its end is still reported."""
    found = find(draft.tasks[key], name)
    if found is not None:
        draft.emit(fx.KillAll(launch=found.launch, key=key, host=draft.tasks[key].host))


def forget(draft: Draft, key: Key, which: Auxiliary) -> None:
    """Note that an auxiliary process has ended or was not forked."""
    draft.forget_auxiliaries(key, {which.launch})
    draft.emit(fx.Forget(launch=which.launch, host=draft.tasks[key].host))


def adopt(draft: Draft, key: Key, fact: ft.SupervisorStarted | ft.HostJoined) -> None:
    """Repeat the orders of the previous supervisor, which may not have reached the keeper. The keeper forks a
    launch ID once, and an auxiliary process only while the main process runs.
    """
    known = {child.launch for child in fact.children} | fact.exits
    for each in draft.tasks[key].auxiliaries:
        if each.launch not in known:
            _order(draft, key, each)
