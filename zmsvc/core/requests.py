"""Orders of operators and of the bus: which tasks they concern, why they are refused, and the requests that
wait for their outcome.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from zmsvc.core import auxiliary, end_of_context
from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.cause import NO_CAUSE, LaunchCause
from zmsvc.core.draft import Draft, ensure_task
from zmsvc.core.facts import Requested
from zmsvc.core.history import Detail
from zmsvc.core.lifecycle import LIVE, START_PENDING, State, SubState, TaskEvent
from zmsvc.core.model import TRANSACTION_ID
from zmsvc.core.pending_requests import named, note_stopped_by, postpone_reply
from zmsvc.core.service_options import ServiceType
from zmsvc.core.similar import similar_id
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import apply
from zmsvc.core.world import Task, Transaction

MAX_CLOSED = 64
"""The number of stopped transactions that are kept. Those that were stopped first are dropped, since an
operator may restart one of the latest.
"""


class _OrderRefusedError(Exception):
    """An order is refused and changes nothing. `code` is the exit status of zmsvcctl; `what` is the task at
    fault, if the order names several.
    """

    def __init__(self, code: int, why: str, what: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.why = why
        self.what = what


def handle(draft: Draft, order: Requested) -> None:
    """Carry out an order, or refuse it with a reason, which goes to the client as a reply, and onto the bus
    if the order came from there.
    """
    order = replace(order, tasks=_each(draft, order.tasks))
    try:
        if draft.stopping and order.verb is not Verb.EXIT:
            raise _OrderRefusedError(1, "the context is stopping")
        HANDLERS[order.verb](draft, order)
    except _OrderRefusedError as refused:
        _refuse(draft, order, refused)


def _each(draft: Draft, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tasks that these names mean, each once; an unknown name means itself."""
    named = draft.context.named
    return tuple(dict.fromkeys(task for name in names for task in named(name) or (name,)))


def _refuse(draft: Draft, order: Requested, refused: _OrderRefusedError) -> None:
    what = refused.what or (
        order.tasks[0] if len(order.tasks) == 1 else order.transaction or draft.context.name
    )
    error = f"cannot {order.verb.word} {what}: {refused.why}"
    if order.request is not None:
        draft.emit(fx.Reply(request=order.request, ok=False, code=refused.code, error=error))
    if order.origin.by == "bus":
        for task in order.tasks or (draft.context.id,):
            items = {"reason": "refused", "message": error}
            key = (order.transaction or "", task)
            draft.publish_control(key, "failed", success=False, pid=None, items=items)


def cause_of(order: Requested, task: Task) -> LaunchCause:
    """Return the cause of an ordered start. If rules have asked for a start before, it also has their
    sources.
    """
    pending = task.restart_pending or task.sub_state in START_PENDING
    return replace(task.cause if pending else NO_CAUSE, by=order.origin.by, uid=order.origin.uid)


def _record(draft: Draft, name: str, order: Requested) -> None:
    draft.record(
        (name, ""),
        "requested",
        verb=order.verb.value,
        tasks=list(order.tasks),
        by=order.origin.by,
        uid=order.origin.uid,
    )


def _known(draft: Draft, order: Requested) -> None:
    for task in order.tasks:
        if task not in draft.context.tasks:
            place = draft.context.path or draft.context.name
            # Other managers have the word `all`. A start without a task would open another transaction.
            everything = task == "all" and order.verb is not Verb.START
            hint = " (without a task the order is for all)" if everything else ""
            hint = hint or similar_id(task, draft.context.tasks)
            raise _OrderRefusedError(4, f"no such task in {place}{hint}", task)


def _no_transaction(draft: Draft, name: str) -> _OrderRefusedError:
    return _OrderRefusedError(4, f"no such transaction{similar_id(name, draft.transactions)}")


def _open(draft: Draft) -> list[str]:
    return [name for name, transaction in draft.transactions.items() if transaction.open]


def _make_room(draft: Draft) -> None:
    """Refuse to open more transactions than the context file allows: each has a process for every
    entry task.
    """
    most, opened = draft.context.max_transactions, len(_open(draft))
    if opened >= most:
        raise _OrderRefusedError(
            1, f"{opened} transactions are open, and <max_transactions> of the context file allows {most}"
        )


# --- start


def start(draft: Draft, order: Requested) -> None:
    _known(draft, order)
    name = _to_start(draft, order)
    opened = name not in draft.transactions or not draft.transactions[name].open
    if opened:
        _make_room(draft)
        open_new_run(draft, name)
    keys = [(name, task) for task in order.tasks] or entries(draft, name)
    postpone_reply(
        draft,
        order,
        (name,),
        keys,
        [key for key in keys if draft.tasks[key].state is not State.ACTIVE],
        opened=opened,
    )
    _record(draft, name, order)
    for key in keys:
        _start_one(draft, key, order)


def _start_one(draft: Draft, key: Key, order: Requested) -> None:
    task = draft.tasks[key]
    changes: dict[str, Any] = {"stopped_by_operator": False}
    if not task.live or task.state is State.DEACTIVATING:
        # As with systemctl: a start by the operator has no delay, and resets the back-off. The start limit
        # stays until reset-failed.
        changes |= {"cause": cause_of(order, task), "quick_starts": 0, "failures": 0}
    apply(draft, key, TaskEvent.START, **changes)


def _to_start(draft: Draft, order: Requested) -> str:
    """Return the transaction of a start: the named one; for tasks without a transaction the only open one;
    otherwise a new one.
    """
    name = order.transaction
    if order.new or name is None:
        opened = _open(draft)
        if order.tasks and len(opened) == 1:
            return opened[0]
        if order.tasks and len(opened) > 1:
            raise _OrderRefusedError(
                2, f"several transactions are open ({', '.join(opened)}): name one with --transaction"
            )
    if name is None or not TRANSACTION_ID.fullmatch(name):
        raise _OrderRefusedError(2, f"{name!r} is not a transaction ID: 1 to 64 of A-Z a-z 0-9 _ . -")
    return name


def open_new_run(draft: Draft, name: str) -> None:
    """Open a new run of a transaction. Tasks that the operator stopped in an earlier run are no
    longer held.
    """
    open_transaction(draft, name)
    for key in draft.keys_of(name):
        if draft.tasks[key].stopped_by_operator:
            draft.change(key, stopped_by_operator=False)


def open_transaction(draft: Draft, name: str) -> None:
    """Open a transaction with a record for every task of the context file, started or not."""
    draft.put_transaction(Transaction(id=name, open=True, opened=draft.now))
    for task_id in draft.context.tasks:
        ensure_task(draft, name, task_id)
    for key in draft.keys_of(name):
        if draft.service(key) is None:
            draft.schedule_removal(key)
    _drop_old(draft)


def _drop_old(draft: Draft) -> None:
    ending = {key[0] for key in draft.launches.values()}
    closed = [t for t in draft.transactions.values() if not t.open and t.id not in ending]
    if len(closed) <= MAX_CLOSED:
        return
    for old in sorted(closed, key=lambda t: (t.closed, t.opened, t.id))[: len(closed) - MAX_CLOSED]:
        _drop(draft, old.id)


def entries(draft: Draft, name: str) -> list[Key]:
    """Return the tasks that are started with the transaction."""
    return [
        (name, service.id)
        for service in draft.context.tasks.values()
        if service.entry and service.id not in draft.disabled
    ]


# --- stop and restart


def _addressed_transactions(draft: Draft, order: Requested) -> list[str]:
    """Return the transactions of a stop or a restart: the named one, otherwise all open ones."""
    if order.transaction is not None:
        if order.transaction not in draft.transactions:
            raise _no_transaction(draft, order.transaction)
        return [order.transaction]
    opened = _open(draft)
    if not opened:
        raise _OrderRefusedError(4, "no transaction is open")
    return opened


def stop(draft: Draft, order: Requested) -> None:
    _known(draft, order)
    names = _addressed_transactions(draft, order)
    keys = [key for name in names for key in _targets(draft, name, order)]
    meant = frozenset(keys)
    if order.tasks:
        keys = _with_requirers(draft, keys)
    postpone_reply(draft, order, tuple(names), keys, [key for key in keys if draft.tasks[key].live])
    for name in names:
        _record(draft, name, order)
        if not order.tasks:
            close(draft, name, named(order.origin))
    for key in keys if order.tasks else ():
        held = key in meant or draft.tasks[key].stopped_by_operator
        draft.change(key, stopped_by_operator=held, rules_suppressed=not order.triggers)
        note_stopped_by(draft, key, named(order.origin))
        apply(draft, key, TaskEvent.STOP)


def _targets(draft: Draft, name: str, order: Requested) -> list[Key]:
    for task in order.tasks:
        if (name, task) not in draft.tasks:
            # The context file got the task after this transaction was stopped.
            raise _OrderRefusedError(4, f"no such task in transaction {name}", task)
    return [(name, task) for task in order.tasks] if order.tasks else draft.keys_of(name)


def _with_requirers(draft: Draft, keys: list[Key]) -> list[Key]:
    """Return the tasks and, as with Requires= of systemd, those that run and require one of them."""
    found = dict.fromkeys(keys)
    todo = list(keys)
    while todo:
        name, task_id = todo.pop()
        for each in draft.context.requirers.get(task_id, ()):
            key = (name, each)
            if key not in found and key in draft.tasks and not draft.tasks[key].resting:
                found[key] = None
                todo.append(key)
    return list(found)


def close(draft: Draft, name: str, by: str) -> None:
    """Stop a whole transaction. From now on its rules do not fire."""
    transaction = draft.transactions[name]
    # A second stop renews the time of the stop, which decides how long the transaction is kept.
    draft.put_transaction(Transaction(id=name, open=False, opened=transaction.opened, closed=draft.now))
    stop_quietly(draft, draft.keys_of(name), by)


def stop_quietly(draft: Draft, keys: list[Key], by: str) -> None:
    for key in keys:
        task = draft.tasks[key]
        if not task.resting:
            draft.change(key, rules_suppressed=True, restart_pending=False)
            note_stopped_by(draft, key, by)
            apply(draft, key, TaskEvent.STOP)


def stop_all(draft: Draft, keys: list[Key], by: str) -> None:
    """Stop these tasks, because the context ends. It waits for silent hosts for a while, unless it hands
    their tasks over.
    """
    stop_quietly(draft, keys, by)
    if not draft.hands_over:
        end_of_context.limit_wait(draft)


def restart(draft: Draft, order: Requested) -> None:
    _known(draft, order)
    names = _addressed_transactions(draft, order)
    if order.transaction is not None and not draft.transactions[order.transaction].open:
        # As with systemctl: the restart of a stopped transaction starts it.
        _make_room(draft)
        open_new_run(draft, order.transaction)
    keys = [
        key
        for name in names
        for key in (
            _with_requirers(draft, _targets(draft, name, order)) if order.tasks else _restarted(draft, name)
        )
    ]
    postpone_reply(draft, order, tuple(names), keys, keys)
    for name in names:
        _record(draft, name, order)
    for key in keys:
        quiet = not order.tasks or not order.triggers
        task = draft.change(
            key, stopped_by_operator=False, quick_starts=0, failures=0, rules_suppressed=quiet
        )
        apply(draft, key, TaskEvent.RESTART, cause=cause_of(order, task))
    if not order.tasks:
        again = set(keys)
        stop_quietly(
            draft,
            [key for name in names for key in draft.keys_of(name) if key not in again],
            named(order.origin),
        )


def _restarted(draft: Draft, name: str) -> list[Key]:
    """Return the tasks that will run after the restart of a transaction: its entry tasks, except those that
    an operator has stopped.
    """
    return [key for key in entries(draft, name) if not draft.tasks[key].stopped_by_operator]


def leave(draft: Draft, order: Requested) -> None:
    """Stop all tasks and end the daemon. The transactions stay open, and the next start resumes them. With
    `home` the tasks on other hosts run on for it.
    """
    at_home = (order.home and not draft.stopping) or draft.hands_over
    keys = [key for key, task in draft.tasks.items() if not (at_home and task.host)]
    postpone_reply(
        draft, order, tuple(draft.transactions), keys, [key for key in keys if draft.tasks[key].live]
    )
    if not draft.stopping:
        draft.record(("", ""), "requested", verb="exit", by=order.origin.by, uid=order.origin.uid)
        draft.stopping = True
        if at_home:
            end_of_context.hand_over(draft)
        stop_all(draft, keys, named(order.origin))
    elif order.now:
        draft.record(("", ""), "requested", verb="kill", by=order.origin.by, uid=order.origin.uid)
        for key in keys:
            if draft.tasks[key].sub_state is SubState.STOP_AFTER:
                apply(draft, key, TaskEvent.PROCEED)
            if draft.tasks[key].sub_state in (SubState.STOP_SIGTERM, SubState.FINAL_SIGTERM):
                # The operator has given the order again, with `now`: kill the tasks at once, without the rest
                # of their stop timeouts.
                apply(draft, key, TaskEvent.DEADLINE)


def reset_failed(draft: Draft, order: Requested) -> None:
    _known(draft, order)
    keys = [key for name in _addressed_transactions(draft, order) for key in _targets(draft, name, order)]
    done = [key[1] for key in keys if apply(draft, key, TaskEvent.RESET)]
    if order.request is not None:
        draft.emit(fx.Reply(request=order.request, ok=True, data={"tasks": done}))


def enable(draft: Draft, order: Requested) -> None:
    """Let tasks that were disabled start with their transaction again, if their `<state>` says so."""
    _named(order)
    for task in order.tasks:
        if task not in draft.disabled:
            _known(draft, replace(order, tasks=(task,)))
            if not draft.context.tasks[task].entry:
                why = "its <state> is not of the type on_start, so that rules and orders alone start it"
                raise _OrderRefusedError(1, why, task)
    _set_disabled(draft, order, draft.disabled.difference(order.tasks))


def disable(draft: Draft, order: Requested) -> None:
    """Keep tasks from starting with a transaction. Those that run go on, and rules and orders may start them.
    This holds in all transactions until an operator enables the tasks.
    """
    _named(order)
    _known(draft, order)
    _set_disabled(draft, order, draft.disabled.union(order.tasks))


def _named(order: Requested) -> None:
    if not order.tasks:
        raise _OrderRefusedError(2, "expected at least one task")


def _set_disabled(draft: Draft, order: Requested, disabled: frozenset[str]) -> None:
    changed = disabled ^ draft.disabled
    draft.disabled = disabled
    live = {key[1] for key, task in draft.tasks.items() if task.live and key[1] in order.tasks}
    shown = [
        {"id": task, "disabled": task in disabled, "changed": task in changed, "live": task in live}
        for task in order.tasks
    ]
    for task in order.tasks:
        if task in changed:
            by: Detail = {"by": order.origin.by, "uid": order.origin.uid}
            if task in disabled:
                draft.record(("", task), "disabled", **by)
            else:
                draft.record(("", task), "enabled", **by)
    if order.request is not None:
        draft.emit(fx.Reply(request=order.request, ok=True, data={"tasks": shown}))


_SIGNALED = LIVE - {SubState.LAUNCHING, SubState.FINAL_SIGTERM, SubState.FINAL_SIGKILL}
"""The sub-states in which a task has a main process that the keeper has reported."""


def signal(draft: Draft, order: Requested) -> None:
    """Send a signal to each named task, in each of the transactions in which it runs. If a task runs in none
    of them, refuse the order.
    """
    _known(draft, order)
    if not order.tasks or not order.signal:
        raise _OrderRefusedError(2, "expected a signal and at least one task")
    keys = [key for name in _addressed_transactions(draft, order) for key in _targets(draft, name, order)]
    running = [key for key in keys if draft.tasks[key].sub_state in _SIGNALED and draft.tasks[key].pid]
    for name in order.tasks:
        shared = _shares_process(draft, [key for key in running if key[1] == name])
        if shared or draft.context.tasks[name].service_type is ServiceType.THREAD:
            raise _OrderRefusedError(
                1, "it shares its process with other tasks, which would get it too", name
            )
        if not any(key[1] == name for key in running):
            raise _OrderRefusedError(1, "it does not run", name)
    sent = []
    for key in running:
        task = draft.tasks[key]
        draft.record(
            key,
            "signaled",
            signal=order.signal,
            all=order.all,
            pid=task.pid,
            by=order.origin.by,
            uid=order.origin.uid,
        )
        draft.emit(
            fx.SendSignal(launch=task.launch, key=key, signal=order.signal, all=order.all, host=task.host)
        )
        sent.append({"id": key[1], "transaction": key[0], "pid": task.pid})
    if order.request is not None:
        data = {"signal": order.signal, "all": order.all, "tasks": sent}
        draft.emit(fx.Reply(request=order.request, ok=True, data=data))


def reload_tasks(draft: Draft, order: Requested) -> None:
    """Send each named task its reload signal, or execute its reload_command, in each of the transactions in
    which it is active. The reply waits for commands, and for tasks that report the end of their reload.
    """
    _known(draft, order)
    _named(order)
    keys = [key for name in _addressed_transactions(draft, order) for key in _targets(draft, name, order)]
    active = [key for key in keys if draft.tasks[key].state is State.ACTIVE]
    for name in order.tasks:
        service = draft.context.tasks[name]
        if not (service.signal_to_reload or service.reload_command):
            why = "it has neither <reload_signal> nor <reload_command>"
            raise _OrderRefusedError(1, f"{why} ({_ctl(draft)} restart {name})", name)
        if not any(key[1] == name for key in active):
            raise _OrderRefusedError(1, "it is not active", name)
        if _shares_process(draft, [key for key in active if key[1] == name]):
            raise _OrderRefusedError(
                1, "it shares its process with other tasks, which would get the signal", name
            )
        if any(auxiliary.find(draft.tasks[key], AuxiliaryName.RELOAD) for key in active if key[1] == name):
            raise _OrderRefusedError(1, "the reload_command of an earlier order has not ended", name)
    reporting = [key for key in active if draft.context.tasks[key[1]].reports_reload]
    names = tuple(dict.fromkeys(key[0] for key in active))
    postpone_reply(draft, order, names, active, reporting)
    for key in active:
        _reload_one(draft, key, order.origin)


def _reload_one(draft: Draft, key: Key, origin: ft.Origin) -> None:
    task, service = draft.tasks[key], draft.context.tasks[key[1]]
    name = service.signal_to_reload
    how: Detail = {"command": list(service.reload_command)} if service.reload_command else {"signal": name}
    detail: Detail = {**how, "pid": task.pid, "by": origin.by, "uid": origin.uid}
    draft.record(key, "reloading", **detail)
    if service.reload_command:
        apply(draft, key, TaskEvent.RUN_RELOAD)
    elif service.reports_reload:
        apply(draft, key, TaskEvent.RELOAD)
    else:
        draft.emit(fx.SendSignal(launch=task.launch, key=key, signal=name, all=False, host=task.host))


def _shares_process(draft: Draft, keys: list[Key]) -> bool:
    """Return True if one of these tasks runs in a process with others. After a reload its definition may be
    of another type than the process that still runs.
    """
    pids = Counter((task.host, task.pid) for task in draft.tasks.values() if task.live)
    return any(pids[draft.tasks[key].host, draft.tasks[key].pid] > 1 for key in keys)


def _ctl(draft: Draft) -> str:
    return f"zmsvcctl -c {draft.context.name}"


def forget(draft: Draft, order: Requested) -> None:
    """Drop a stopped transaction, or all of them: `status` no longer shows it, and it cannot be started
    again. The history stays. Refuse it while an order about the transaction awaits its end: the answer names
    the transaction.
    """
    ending = {key[0] for key in draft.launches.values()}
    awaited = {name for waiter in draft.pending for name in waiter.transactions}
    if order.transaction is None:
        kept = ending | awaited
        names = [name for name, each in draft.transactions.items() if not each.open and name not in kept]
    elif order.transaction not in draft.transactions:
        raise _no_transaction(draft, order.transaction)
    elif draft.transactions[order.transaction].open:
        raise _OrderRefusedError(1, "it is open, and only a stopped transaction can be forgotten")
    elif order.transaction in ending:
        raise _OrderRefusedError(1, "it is still being stopped")
    elif order.transaction in awaited:
        raise _OrderRefusedError(1, "an order about it has not been carried out yet")
    else:
        names = [order.transaction]
    for name in names:
        draft.record((name, ""), "forgotten", by=order.origin.by, uid=order.origin.uid)
        _drop(draft, name)
    if order.request is not None:
        draft.emit(fx.Reply(request=order.request, ok=True, data={"transactions": names}))


def _drop(draft: Draft, name: str) -> None:
    for key in draft.keys_of(name):
        draft.remove(key)
    draft.drop_transaction(name)


HANDLERS = {
    Verb.ENABLE: enable,
    Verb.DISABLE: disable,
    Verb.FORGET: forget,
    Verb.SIGNAL: signal,
    Verb.RELOAD_TASKS: reload_tasks,
    Verb.START: start,
    Verb.STOP: stop,
    Verb.RESTART: restart,
    Verb.EXIT: leave,
    Verb.RESET_FAILED: reset_failed,
}  # A reload is a fact of its own: reload.reload
