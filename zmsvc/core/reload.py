"""A reload: compare the context that runs with the context file that was read again, and change only what
differs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zmsvc.core import effects as fx
from zmsvc.core import replicas, requests
from zmsvc.core.access import Verb
from zmsvc.core.cause import BY_CONTEXT
from zmsvc.core.draft import Draft, ensure_task
from zmsvc.core.facts import ContextReloaded, Origin, Requested
from zmsvc.core.frozen import frozen
from zmsvc.core.history import Detail
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.pending_requests import wait_for_reload
from zmsvc.core.service_options import without_in_place
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import apply
from zmsvc.core.world import Task, World, definition_to_keep

_SETTINGS = ("log_name", "bus_access", "max_transactions", "record", "hosts", "on_any_fail")
"""The settings of the context itself that a reload can change."""


@frozen
class _Difference:
    """The IDs of tasks in both files, grouped by the action of a reload."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    """The tasks whose process the reload changes. They are restarted."""
    unchanged: list[str]
    in_place: list[str]
    """Tasks that take the change without a restart."""
    context: list[str]
    """Names of settings of the context itself."""

    def as_json(self) -> Detail:
        return {
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "in_place": self.in_place,
            "context": self.context,
        }


def _difference(old: Context, new: Context) -> _Difference:
    both = [task for task in new.tasks if task in old.tasks]
    unchanged = [task for task in both if old.tasks[task] == new.tasks[task]]
    changed = [task for task in both if not _same_process(old.tasks[task], new.tasks[task])]
    settled = {*unchanged, *changed}
    return _Difference(
        added=[task for task in new.tasks if task not in old.tasks],
        removed=[task for task in old.tasks if task not in new.tasks],
        changed=changed,
        unchanged=unchanged,
        in_place=[task for task in both if task not in settled],
        context=[name for name in _SETTINGS if getattr(old, name) != getattr(new, name)],
    )


def _same_process(old: TaskDefinition, new: TaskDefinition) -> bool:
    """Return True if the running process of a task may stay, because only settings that the supervisor
    applies differ.
    """
    return _launched_with(old) == _launched_with(new)


def _launched_with(service: TaskDefinition) -> TaskDefinition:
    kind = service.service_type
    return replace(
        without_in_place(service, kind),
        rules=(),
        source={},
        description="",
        entry=True,
        limits=without_in_place(service.limits, kind),
    )


def reload(draft: Draft, fact: ContextReloaded) -> None:
    """Change only what differs: added entry tasks start, removed tasks stop, changed tasks restart, those in
    back-off at once.
    """
    old, new = draft.context, fact.context
    if refusal := _refusal(draft, new):
        _refuse(draft, fact, refusal)
        return
    difference, names = _difference(old, new), _open(draft)
    for name in names:
        _change(draft, name, difference)
    draft.context = new
    draft.settle_all()
    draft.hosts_changed = bool(old.placed or new.placed)
    _remember(draft, old)
    _disable_as_others(draft, difference.added)
    for name in names:
        _start_at_once(draft, _present(draft, [name], difference.changed))
        _add(draft, name, difference.added)
    draft.record(("", ""), "reloaded", **difference.as_json())
    if fact.request is not None:
        _wait(draft, fact.request, names, difference, block=fact.block)


def _refusal(draft: Draft, new: Context) -> str:
    """Return the reason why a reload with this file is refused; empty if it is not."""
    old = draft.context
    if (old.endpoints, old.id) != (new.endpoints, new.id):
        return "endpoints or ContextID differ; a restart of the context is needed for that"
    if (old.listed.endpoint, old.listed.bind) != (new.listed.endpoint, new.listed.bind):
        return "the endpoint or the bind of <hosts> differs; a restart of the context is needed for that"
    return "the context is stopping" if draft.stopping else ""


def _open(draft: Draft) -> list[str]:
    return [name for name, transaction in draft.transactions.items() if transaction.open]


def plan(world: World, new: Context, now: float) -> tuple[str, dict[str, Any]]:
    """Return the reason for a refusal, or the steps and differences of a reload with this file. For this, the
    reload itself runs on a draft that is then dropped. So the steps cannot differ from those of a real
    reload.
    """
    draft = Draft(world, now)
    if refusal := _refusal(draft, new):
        return refusal, {}
    difference, names = _difference(world.context, new), _open(draft)
    still_failed = _still_failed(draft, names, difference)
    reload(draft, ContextReloaded(context=new))
    steps = [
        (action, key)
        for name in names
        for action, tasks in (("stop", difference.removed), ("restart", difference.changed))
        for key in _present(draft, [name], tasks)
        if _changes_course(world.tasks.get(key), draft.tasks[key])
    ]
    started = [key for key in _present(draft, names, difference.added) if draft.tasks[key].live]
    steps += [("start", key) for key in started if not _still_runs(world, key)]
    shown = [{"action": action, "transaction": key[0], "task": key[1]} for action, key in steps]
    return "", {**difference.as_json(), "steps": shown, "still_failed": still_failed}


def _changes_course(before: Task | None, after: Task) -> bool:
    """Return True if the order for a task has taken effect."""
    return before is None or (before.sub_state, before.restart_pending) != (
        after.sub_state,
        after.restart_pending,
    )


def _still_runs(world: World, key: Key) -> bool:
    """Return True if the task still runs, because an earlier reload has removed it and this one adds it
    again.
    """
    return key in world.tasks and world.tasks[key].live


def _wait(draft: Draft, request: int, names: list[str], difference: _Difference, *, block: bool) -> None:
    """Answer the request when removed tasks have ended, and added and changed ones have started or failed."""
    wait_for_reload(
        draft,
        request,
        ending=_present(draft, names, difference.removed),
        starting=_present(draft, names, [*difference.added, *difference.changed]),
        block=block,
        details={**difference.as_json(), "still_failed": _still_failed(draft, names, difference)},
    )


def _present(draft: Draft, names: list[str], tasks: list[str]) -> list[Key]:
    return [key for name in names for task in tasks if (key := (name, task)) in draft.tasks]


def _still_failed(draft: Draft, names: list[str], difference: _Difference) -> list[dict[str, str]]:
    """Return the failed tasks that the new file may have mended. The operator starts them, as after systemctl
    daemon-reload.
    """
    keys = _present(draft, names, [*difference.changed, *difference.in_place])
    return [
        {"transaction": key[0], "task": key[1]}
        for key in keys
        if draft.tasks[key].sub_state is SubState.FAILED
    ]


def _refuse(draft: Draft, fact: ContextReloaded, why: str) -> None:
    if fact.request is not None:
        draft.emit(fx.Reply(request=fact.request, ok=False, code=1, error=f"cannot reload: {why}"))


def _change(draft: Draft, name: str, difference: _Difference) -> None:
    requests.stop_quietly(draft, _present(draft, [name], difference.removed), "a reload")
    for key in _present(draft, [name], difference.changed):
        # A task that is already stopping needs no order: if it starts again, it does so with the new file.
        task = draft.tasks[key]
        if task.state is State.ACTIVE or task.sub_state in (SubState.LAUNCHING, SubState.START):
            draft.change(key, rules_suppressed=True)
            apply(draft, key, TaskEvent.RESTART, cause=BY_CONTEXT)


def _start_at_once(draft: Draft, keys: list[Key]) -> None:
    """Start the tasks that wait for a back-off: their failures were those of the old definition."""
    for key in keys:
        if draft.tasks[key].sub_state is SubState.BACK_OFF:
            apply(draft, key, TaskEvent.START, cause=BY_CONTEXT, quick_starts=0, failures=0)


def _remember(draft: Draft, old: Context) -> None:
    """Keep the old definition of each removed task until the record of the task is removed, even if the
    supervisor crashes meanwhile.
    """
    for key, task in list(draft.tasks.items()):
        if draft.service(key) is None:
            draft.schedule_removal(key)
            if key[1] in old.tasks:
                draft.change(key, last_definition=definition_to_keep(old.tasks[key[1]]))
        elif task.last_definition is not None:
            draft.change(key, last_definition=None)


def _starts(draft: Draft, name: str, task: str, added: list[str]) -> bool:
    """Return True if an added task starts. One that joins the replicas of a task starts if one of them runs,
    and not if an operator has stopped all of them.
    """
    others = [
        draft.tasks[name, each] for each in _older_replicas(draft, task, added) if (name, each) in draft.tasks
    ]
    held = bool(others) and all(each.stopped_by_operator for each in others)
    entry = draft.context.tasks[task].entry and task not in draft.disabled
    return any(each.live for each in others) or (entry and not held)


def _older_replicas(draft: Draft, task: str, added: list[str]) -> list[str]:
    """Return the replicas of the same task that were there before the reload."""
    return [each for each in draft.context.named(replicas.base(task)) if each not in added]


def _disable_as_others(draft: Draft, added: list[str]) -> None:
    """Disable each added replica of a task whose other replicas are all disabled."""
    for task in added:
        others = _older_replicas(draft, task, added)
        if others and draft.disabled.issuperset(others):
            draft.disabled = draft.disabled | {task}


def _add(draft: Draft, name: str, added: list[str]) -> None:
    for task in added:
        starts = _starts(draft, name, task, added)
        ensure_task(draft, name, task)
        if starts:
            requests.handle(
                draft,
                Requested(verb=Verb.START, origin=Origin(by="context"), transaction=name, tasks=(task,)),
            )
