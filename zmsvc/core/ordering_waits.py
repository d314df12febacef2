"""The waits of tasks for each other. They are decided at the end of a step, when all that the step changes is
known: a start goes on when the tasks before it are ready, a stop when the tasks after it have ended. A task
that requires another one starts it.
"""

from __future__ import annotations

from zmsvc.core.draft import Draft
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.ordering import awaited_ends, awaited_starts, is_fulfilled, unmet
from zmsvc.core.pending_requests import delay_starts
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import PLACE_TIMEOUT, apply, start_for_rule
from zmsvc.core.world import Task


def settle(draft: Draft) -> None:
    """Let each task proceed that no longer waits for anything."""
    if not (draft.context.successors or draft.before.context.successors):
        draft.unsettled.clear()
    while draft.unsettled or draft.wants_required:
        # Start the required tasks first: a task is not started before each task that it requires is ready or
        # being started.
        while draft.wants_required:
            _start_required(draft, draft.wants_required.pop())
        changed, draft.unsettled = draft.unsettled, {}
        for key in changed:
            _answer_those_behind(draft, key)
            for each in (key, *_neighbors(draft, key)):
                _settle_one(draft, each)


def record(draft: Draft) -> None:
    """Record the tasks that have begun to wait in this step."""
    if draft.context.successors:
        for key in draft.entered(SubState.START_AFTER):
            draft.record(key, "start-after", waits_for=awaited_starts(draft, key))
        for key in draft.entered(SubState.STOP_AFTER):
            draft.record(key, "stop-after", waits_for=awaited_ends(draft, key))


def _neighbors(draft: Draft, key: Key) -> list[Key]:
    """Return the tasks that may wait for this one."""
    service = draft.service(key)
    names = (*draft.context.successors.get(key[1], ()), *(service.predecessors if service else ()))
    return [(key[0], name) for name in names]


def _settle_one(draft: Draft, key: Key) -> None:
    task = draft.tasks.get(key)
    if task is None:
        return
    if task.sub_state is SubState.START_AFTER:
        if (missing := unmet(draft, key)) is not None:
            why = _why_unmet(draft.tasks[key[0], missing])
            status = f"not started: it requires {missing}, which {why}"
            apply(draft, key, TaskEvent.DEPENDENCY, status=status)
        elif not awaited_starts(draft, key):
            apply(draft, key, TaskEvent.PROCEED)
    elif task.sub_state is SubState.STOP_AFTER and not awaited_ends(draft, key):
        apply(draft, key, TaskEvent.PROCEED)


def _why_unmet(task: Task) -> str:
    if task.stopped_by_operator:
        return "an operator has stopped"
    if task.sub_state is SubState.FAILED:
        return f"has failed ({task.exit.reason.value})" if task.exit else "has failed"
    return "does not run"


def _start_required(draft: Draft, key: Key) -> None:
    """Start the required tasks of a task that is being started, for the same cause."""
    task, service = draft.tasks[key], draft.service(key)
    if task.sub_state is not SubState.START_AFTER or service is None:
        return
    ordered = task.cause.by in ("operator", "bus")
    for name in service.requires:
        target = (key[0], name)
        required = draft.tasks.get(target)
        if required is None or is_fulfilled(draft, key[0], required):
            continue
        if required.stopped_by_operator and not ordered:
            continue
        if required.state is State.DEACTIVATING:
            apply(draft, target, TaskEvent.START, cause=task.cause, stopped_by_operator=False)
        elif required.resting and task.cause.by_rule:
            start_for_rule(draft, target, task.cause, failing=False)
        elif required.resting or (ordered and required.sub_state is SubState.BACK_OFF):
            apply(
                draft,
                target,
                TaskEvent.START,
                cause=task.cause,
                stopped_by_operator=False,
                quick_starts=0,
                failures=0,
            )


def _answer_those_behind(draft: Draft, key: Key) -> None:
    """Answer the clients that would wait too long for tasks that come after this one."""
    task = draft.tasks.get(key)
    if task is None:
        return
    if task.sub_state is SubState.BACK_OFF:
        # Its first failure is their outcome.
        _delay_starts(draft, key, "which starts again later")
    elif task.sub_state is SubState.UNPLACED and task.deadline is None:
        _delay_starts(draft, key, "which has no host")
    elif task.sub_state is SubState.START_AFTER and draft.context.placed:
        _renew(draft, key)


def _renew(draft: Draft, key: Key) -> None:
    """Renew the time after which the clients get an answer that wait for a task behind one without a host."""
    reached, found = {key}, [key]
    while found:
        for name in awaited_starts(draft, found.pop()):
            before = (key[0], name)
            task = draft.tasks[before]
            if task.sub_state is SubState.UNPLACED and task.deadline is None:
                draft.change(before, deadline=draft.now + PLACE_TIMEOUT)
            elif task.sub_state is SubState.START_AFTER and before not in reached:
                reached.add(before)
                found.append(before)


def _delay_starts(draft: Draft, key: Key, why: str) -> None:
    """Answer the clients that wait for tasks after one whose start is delayed. The tasks go on waiting."""
    reached, found = {key}, [key]
    while found:
        here = found.pop()
        for name in draft.context.successors.get(here[1], ()):
            behind = (key[0], name)
            task = draft.tasks.get(behind)
            if behind not in reached and task is not None and task.sub_state is SubState.START_AFTER:
                reached.add(behind)
                found.append(behind)
                delay_starts(draft, behind, f"waits for {key[1]}, {why}")
