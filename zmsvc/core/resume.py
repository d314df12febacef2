"""What a new supervisor makes of what it finds, and what a re-read file changes. Both compare what is with what should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zmsvc.core import events as ev
from zmsvc.core import requests
from zmsvc.core.acts import apply
from zmsvc.core.draft import Draft, fresh
from zmsvc.core.events import ContextReloaded, Key, Origin, Requested, SupervisorStarted, Verb
from zmsvc.core.lifecycle import Cause, Sub
from zmsvc.core.model import TaskService
from zmsvc.core.world import Exit, Reason, Task, Waiter

BY_CONTEXT: dict[str, Any] = {"by": "context", "uid": None, "depth": 0, "sources": []}


def resume(draft: Draft, fact: SupervisorStarted) -> None:
    """Adopt what the same keeper still holds; under another keeper nothing is alive and the open transactions begin afresh."""
    if draft.epoch == fact.epoch:
        _adopt(draft, fact)
        draft.emit(ev.Ready())
        return
    draft.epoch = fact.epoch
    draft.stopping = False
    for key in list(draft.tasks):
        _lose(draft, key)
    _begin(draft, fact)


def _adopt(draft: Draft, fact: SupervisorStarted) -> None:
    children = {child.launch: child for child in fact.children}
    for key, task in list(draft.tasks.items()):
        draft.emit(ev.WakeAt(key=key, when=task.deadline))
        if not task.live or task.launch in fact.exits:
            continue
        child = children.get(task.launch)
        if child is not None:
            _adopt_one(draft, key, child)
        elif task.sub is Sub.LAUNCHING:
            # Written down, but the keeper never heard of it: now it does. It forks a launch number once.
            draft.emit(ev.Launch(launch=task.launch, key=key))
        elif task.sub is Sub.FINAL_SIGKILL:
            draft.emit(ev.KillAll(launch=task.launch, key=key))
        elif task.pid is None and task.sub in (Sub.STOP_SIGTERM, Sub.STOP_SIGKILL):
            # It was to be stopped before it was forked, and never was.
            apply(draft, key, Cause.LAUNCH_FAILED, exit=Exit(reason=Reason.REQUESTED, at=draft.now))
        else:
            lost = Exit(reason=Reason.LOST, at=draft.now)
            apply(draft, key, Cause.ENDED_BADLY, exit=lost, status="its process is not there any more")


def _adopt_one(draft: Draft, key: Key, child: ev.Child) -> None:
    task = draft.tasks[key]
    draft.record(key, "adopted", pid=child.pid, launch=task.launch)
    if task.pid is None:
        apply(draft, key, Cause.LAUNCHED, pid=child.pid, start_time=child.start_time)
    elif task.sub is Sub.STOP_SIGTERM:
        name = "SIGABRT" if task.verdict is Reason.WATCHDOG else "SIGTERM"
        draft.emit(ev.Signal(launch=task.launch, key=key, signal=name))
    elif task.sub in (Sub.STOP_SIGKILL, Sub.FINAL_SIGKILL):
        draft.emit(ev.KillAll(launch=task.launch, key=key))
    if child.executed:
        apply(draft, key, Cause.READY)
    _feed(draft, key)


def _feed(draft: Draft, key: Key) -> None:
    """A watchdog that could not be heard while no supervisor was there starts its time again."""
    limit = draft.limits(key).watchdog
    if limit and draft.tasks[key].sub is Sub.RUNNING:
        draft.change(key, deadline=draft.now + limit)


def _lose(draft: Draft, key: Key) -> None:
    """The keeper of this task died, and the task with it."""
    task = draft.tasks[key]
    if task.resting and task.sub is not Sub.FAILED:
        if task.sub is not Sub.WAITING:
            draft.put(key, replace(task, since=draft.now, deadline=None))
        return
    if task.live:
        draft.record(key, "lost", pid=task.pid, launch=task.launch)
        draft.forget_launch(task.launch)
    end = Exit(reason=Reason.LOST, at=draft.now) if task.live else task.exit
    draft.put(key, Task(exit=end, held=task.held, launch=task.launch, restarts=task.restarts))


def _begin(draft: Draft, fact: SupervisorStarted) -> None:
    """Start the open transactions, or a first one; whoever started the context waits for their entry tasks."""
    names = [name for name, transaction in draft.transactions.items() if transaction.open]
    if fact.transaction is not None and fact.transaction not in names:
        names.append(fact.transaction)
    elif not names and fact.autostart and fact.generated:
        names.append(fact.generated)
    keys: list[Key] = []
    for name in names:
        requests.open_transaction(draft, name)
        for key in _gone_from_file(draft, name):
            draft.remove(key)
        keys += [key for key in requests.entries(draft, name) if not draft.tasks[key].held]
    waiter = Waiter(
        request=requests.CONTEXT_START,
        verb=Verb.START,
        transactions=tuple(names),
        keys=tuple(keys),
        remaining=frozenset(keys),
    )
    draft.waiters = (waiter,)
    for key in keys:
        apply(draft, key, Cause.START, cause=BY_CONTEXT, laps=0)


def _gone_from_file(draft: Draft, name: str) -> list[Key]:
    return [key for key in draft.keys_of(name) if key[1] not in draft.context.tasks and not draft.tasks[key].live]


# --- reload


def _same_process(old: TaskService, new: TaskService) -> bool:
    """Whether a change of the file leaves the running process as it is: rules and limits are the supervisor's own business."""
    return _launched_with(old) == _launched_with(new)


def _launched_with(service: TaskService) -> TaskService:
    defaults = TaskService(id="", instance="")
    return replace(
        service,
        rules=(),
        source={},
        description="",
        entry=True,
        limits=replace(defaults.limits, watchdog=service.limits.watchdog),
    )


def reload(draft: Draft, fact: ContextReloaded) -> None:
    """Change only what differs: added tasks are there (entry ones start), removed ones stop, changed ones start again."""
    old, new = draft.context, fact.context
    if (old.endpoints, old.id) != (new.endpoints, new.id):
        error = "cannot reload: endpoints or ContextID differ; a restart of the context is needed for that"
        if fact.request is not None:
            draft.emit(ev.Reply(request=fact.request, ok=False, code=1, error=error))
        return
    told: dict[str, Any] = {
        "added": [t for t in new.tasks if t not in old.tasks],
        "removed": [t for t in old.tasks if t not in new.tasks],
        "changed": [t for t in new.tasks if t in old.tasks and not _same_process(old.tasks[t], new.tasks[t])],
    }
    told["unchanged"] = [t for t in new.tasks if t in old.tasks and t not in told["changed"]]
    for name, transaction in draft.transactions.items():
        if transaction.open:
            _reload_one(draft, name, told["removed"], told["changed"])
    draft.context = new
    for name, transaction in draft.transactions.items():
        if transaction.open:
            _add(draft, name, told["added"])
    draft.record(("", ""), "reloaded", **told)
    if fact.request is not None:
        draft.emit(ev.Reply(request=fact.request, ok=True, data=told))


def _reload_one(draft: Draft, name: str, removed: list[str], changed: list[str]) -> None:
    gone = [(name, task) for task in removed if (name, task) in draft.tasks]
    requests.stop_quietly(draft, gone)
    for key in gone:
        if not draft.tasks[key].live:
            draft.remove(key)
    for key in ((name, task) for task in changed if (name, task) in draft.tasks):
        if draft.tasks[key].live:
            draft.change(key, quiet=True)
            apply(draft, key, Cause.RESTART, cause=BY_CONTEXT)


def _add(draft: Draft, name: str, added: list[str]) -> None:
    for task in added:
        fresh(draft, name, task)
        if draft.context.tasks[task].entry:
            requests.handle(draft, Requested(verb=Verb.START, origin=Origin(by="context"), transaction=name, tasks=(task,)))
