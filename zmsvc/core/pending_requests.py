"""The requests whose clients wait for an outcome. This module notes each outcome and makes the reply when
nothing is awaited any more. It decides nothing about tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.draft import Draft
from zmsvc.core.facts import Origin, Requested
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.silent_hosts import is_over
from zmsvc.core.task_key import Key
from zmsvc.core.world import PendingRequest, Reason, Task

CONTEXT_START = 0
"""The request number of the start of the context itself: its outcome is READY=1."""
NAMED = 5
"""The number of transactions that an answer names for one failure."""


def postpone_reply(
    draft: Draft,
    order: Requested,
    names: tuple[str, ...],
    keys: list[Key],
    remaining: list[Key],
    *,
    opened: bool = False,
) -> None:
    if order.request is None:
        return
    waiter = PendingRequest(
        request=order.request,
        verb=order.verb,
        transactions=names,
        keys=tuple(keys),
        remaining=frozenset(remaining if order.block else ()),
        ending=frozenset(keys if order.verb in (Verb.STOP, Verb.EXIT) else ()),
        later=_later(draft, keys, restart=order.verb is Verb.RESTART),
        opened=opened,
    )
    draft.pending = (*draft.pending, waiter)


def wait_for_reload(
    draft: Draft,
    request: int,
    *,
    ending: list[Key],
    starting: list[Key],
    block: bool,
    details: Mapping[str, Any],
) -> None:
    """Postpone the reply to a reload until removed tasks have ended, and added or changed ones have started
    or failed.
    """
    unfinished = [key for key in ending if draft.tasks[key].live]
    unfinished += [
        key
        for key in starting
        if draft.tasks[key].restart_pending or draft.tasks[key].state is State.ACTIVATING
    ]
    waiter = PendingRequest(
        request=request,
        verb=Verb.RELOAD,
        transactions=tuple(name for name, transaction in draft.transactions.items() if transaction.open),
        keys=(*ending, *starting),
        remaining=frozenset(unfinished if block else ()),
        ending=frozenset(ending),
        later=_later(draft, starting, restart=False),
        details=details,
    )
    draft.pending = (*draft.pending, waiter)


def _later(draft: Draft, keys: Iterable[Key], *, restart: bool) -> frozenset[Key]:
    return frozenset(
        key
        for key in keys
        if (task := draft.tasks[key]).live and (restart or task.state is State.DEACTIVATING)
    )


# --- outcomes


def complete_starts(draft: Draft, key: Key) -> None:
    """Complete the starts, the restarts and the start of the context that wait for this task."""
    _resolve(draft, key, lambda waiter: _outcome(draft, key, waiter), stops=False)


def _outcome(draft: Draft, key: Key, waiter: PendingRequest) -> str:
    task = draft.tasks[key]
    if waiter.verb is Verb.RELOAD_TASKS and task.sub_state is SubState.EXITED:
        return "ended before it had reloaded"
    if task.sub_state not in (SubState.FAILED, SubState.STOPPED, SubState.WAITING):
        return ""
    by = waiter.stopped_by.get(key) if task.sub_state is SubState.STOPPED else None
    return f"{_ended(task)}{f' by {by}' if by else ''}"


def complete_reloads(draft: Draft, key: Key, failure: str = "") -> None:
    """Complete the reloads that wait for this task, or let them fail with this text."""
    _resolve(draft, key, lambda _: failure, stops=False)


def delay_starts(draft: Draft, key: Key, why: str) -> None:
    """Fail the requests that wait for the start of this task, because its delay is longer than they wait."""
    _resolve(draft, key, lambda _: why, stops=False)


def note_stopped_by(draft: Draft, key: Key, by: str) -> None:
    """Note who has stopped a task. The requests that wait for its start report it."""
    draft.pending = tuple(
        replace(waiter, stopped_by={**waiter.stopped_by, key: by})
        if key in waiter.remaining - waiter.ending
        else waiter
        for waiter in draft.pending
    )


def answer_earlier_starts(draft: Draft, key: Key, ended: Task) -> None:
    """Note that a task has ended and is started again. A request that waited for the earlier start is
    answered now, since otherwise it would wait for as long as clients restart the task. A later request waits
    for the next launch.
    """
    kept = []
    for waiter in draft.pending:
        if key in waiter.later:
            waiter = replace(waiter, later=waiter.later - {key})
        elif key in waiter.remaining - waiter.ending:
            waiter = _with_outcome(waiter, key, _why_again(key, ended, waiter))
        kept.append(waiter)
    draft.pending = tuple(kept)


def _why_again(key: Key, ended: Task, waiter: PendingRequest) -> str:
    if ended.sub_state is SubState.FAILED:
        return _ended(ended)
    by = waiter.stopped_by.get(key)
    if by:
        return f"stopped meanwhile by {by}"
    when = "meanwhile" if waiter.verb is Verb.RELOAD_TASKS else "before it was ready"
    return f"restarted {when} by {_cause_in_words(ended)}"


def complete_stops(draft: Draft, key: Key, *, restart: bool) -> None:
    """Complete the stops of a task that has ended. With `restart` the task is started again at once, so these
    stops fail.
    """
    _resolve(draft, key, lambda _: _overtaken(draft, key) if restart else "", stops=True)


def _overtaken(draft: Draft, key: Key) -> str:
    return f"started again meanwhile by {_cause_in_words(draft.tasks[key])}"


def _cause_in_words(task: Task) -> str:
    """Return the cause of a launch, in words."""
    cause = task.cause
    if cause.by_rule and cause.sources:
        return f"rule {cause.sources[-1].trigger} of {cause.sources[-1].task}"
    return named(Origin(by=cause.by or "context", uid=cause.uid))


def named(origin: Origin) -> str:
    """Return the origin of an order, in words."""
    match origin.by:
        case "operator":
            return "an operator" if origin.uid is None else f"an operator (uid {origin.uid})"
        case "bus":
            return "an order on the bus"
        case "signal":
            return "a signal"
        case other:
            return f"the {other}"


def resolve(draft: Draft, key: Key, failure: str) -> None:
    """Let all requests that wait for the task fail with this text."""
    _resolve(draft, key, lambda _: failure, stops=False)
    _resolve(draft, key, lambda _: failure, stops=True)


def _ended(task: Task) -> str:
    if task.sub_state is SubState.WAITING and task.status:
        return task.status
    if task.sub_state is SubState.STOPPED:
        return "stopped meanwhile"
    end = task.exit
    how = "failed"
    if end is not None:
        detail = end.signal or (f"status {end.code}" if end.code is not None else "")
        how = f"failed ({end.reason.value}{', ' + detail if detail else ''})"
    return f"{how}: {task.status}" if task.status else how


def _resolve(draft: Draft, key: Key, failure: Callable[[PendingRequest], str], *, stops: bool) -> None:
    draft.pending = tuple(
        _with_outcome(waiter, key, failure(waiter))
        if key in waiter.remaining and (key in waiter.ending) == stops
        else waiter
        for waiter in draft.pending
    )


def _with_outcome(waiter: PendingRequest, key: Key, failure: str) -> PendingRequest:
    failures = (*waiter.failures, (key, failure)) if failure else waiter.failures
    return replace(waiter, remaining=waiter.remaining - {key}, failures=failures)


# --- answers


def answer(draft: Draft) -> None:
    """Reply to the completed requests, at the end of a step.

    If an `exit` arrives while the context starts, the context becomes ready before it leaves: systemd takes a
    daemon that leaves without READY=1 for failed, and starts it again. A daemon that leaves because of a
    failure does not become ready, since systemd is to take it for failed.
    """
    over = is_over(draft)
    done = [waiter for waiter in draft.pending if over or not waiter.remaining]
    if done:
        draft.pending = tuple(waiter for waiter in draft.pending if not over and waiter.remaining)
        done = [_with_overtaken(draft, waiter) if waiter.verb is Verb.STOP else waiter for waiter in done]
        draft.emit(
            *(
                fx.Ready(error=_error(waiter)) if waiter.request == CONTEXT_START else _reply(draft, waiter)
                for waiter in done
                if waiter.request != CONTEXT_START or not draft.exit_status
            )
        )
        for key in (key for waiter in done for key in waiter.keys):
            if draft.service(key) is None:
                draft.schedule_removal(key)
    if over and (draft.new_supervisor or not is_over(draft.before)):
        draft.emit(fx.Leave(status=draft.exit_status))


def _with_overtaken(draft: Draft, waiter: PendingRequest) -> PendingRequest:
    """Add a failure for each task that was started again while the stop was waiting for other tasks."""
    running = [
        key
        for key in waiter.keys
        if (task := draft.tasks.get(key)) and task.live and task.state is not State.DEACTIVATING
    ]
    return replace(
        waiter,
        failures=tuple(
            dict.fromkeys([*waiter.failures, *((key, _overtaken(draft, key)) for key in running)])
        ),
    )


def _reply(draft: Draft, waiter: PendingRequest) -> fx.Reply:
    tasks = [(key, draft.tasks.get(key, Task())) for key in waiter.keys]
    shown = [
        {
            "id": key[1],
            "transaction": key[0],
            "state": t.state.value,
            "sub": t.sub_state.value,
            "pid": t.pid,
            "held": t.stopped_by_operator,
        }
        | ({"host": t.host} if t.host else {})
        | ({"killed": t.resting and _killed(t)} if key in waiter.ending else {})
        | ({"reloaded": _reloaded(draft, key)} if waiter.verb is Verb.RELOAD_TASKS else {})
        for key, t in tasks
    ]
    data: dict[str, Any] = {
        "transaction": waiter.transactions[0] if len(waiter.transactions) == 1 else None,
        "transactions": list(waiter.transactions),
        "tasks": shown,
        "unfinished": sorted(key[1] for key in waiter.remaining),
        **waiter.details,
    }
    if waiter.opened:
        running = dict.fromkeys(name for (name, _), task in draft.tasks.items() if task.live)
        data["beside"] = [name for name in running if name not in waiter.transactions]
    if waiter.ending:
        ended = [(key, task) for key, task in tasks if key in waiter.ending]
        shown_of = [(key[1], *ft.leftovers_shown(task.leftovers)) for key, task in ended]
        data["ended"] = [{"task": name, **entry} for name, entries, _ in shown_of for entry in entries]
        if more := sum(number for *_, number in shown_of):
            data["ended_more"] = more
        # Only these tasks have survived this stop. A task that runs again has a later launch, which belongs
        # to another order.
        data["survivors"] = [key[1] for key, task in ended if task.state is State.DEACTIVATING]
    error = _error(waiter)
    return fx.Reply(request=waiter.request, ok=not error, code=1 if error else 0, error=error, data=data)


def _reloaded(draft: Draft, key: Key) -> bool:
    """Return True if a task has reported the end of its reload. Tasks that report none have not."""
    service = draft.service(key)
    task = draft.tasks.get(key)
    reports = service is not None and service.reports_reload
    return reports and task is not None and task.sub_state is SubState.RUNNING


def _killed(task: Task) -> bool:
    """Return True if the main process of a stopped task had to be killed."""
    end = task.exit
    return end is not None and end.reason is Reason.REQUESTED and end.signal == "SIGKILL"


def _error(waiter: PendingRequest) -> str:
    """Return the failures in words, each once: one fault may fail the task in every transaction."""
    several = len(waiter.transactions) > 1
    found: dict[tuple[str, str], list[str]] = {}
    for (transaction, task), why in waiter.failures:
        found.setdefault((task, why), []).append(transaction)
    texts = [f"{task}: {why}{_within(names) if several else ''}" for (task, why), names in found.items()]
    return f"cannot {waiter.verb.word} {'; '.join(texts)}" if texts else ""


def _within(transactions: Sequence[str]) -> str:
    if len(transactions) == 1:
        return f" (in transaction {transactions[0]})"
    shown = ", ".join([*transactions[:NAMED], *(["..."] if len(transactions) > NAMED else [])])
    return f" (in {len(transactions)} transactions: {shown})"
