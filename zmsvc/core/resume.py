"""The first step of a new supervisor: compare the world of the state file with the processes that the keeper
has, and start what has no process and should have one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from zmsvc.core import auxiliary, end_of_context, requests, start_barrier
from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.carried import Carried
from zmsvc.core.cause import BY_CONTEXT
from zmsvc.core.draft import Draft, ensure_task
from zmsvc.core.facts import HostJoined, SupervisorStarted
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.pending_requests import CONTEXT_START
from zmsvc.core.task_key import Key
from zmsvc.core.totals import Total
from zmsvc.core.transitions import (
    PLACE_TIMEOUT,
    apply,
    ask_to_stop,
    executed,
    kill_others,
    line_seen,
    terminate_others,
)
from zmsvc.core.world import Exit, PendingRequest, Reason, Stage, Task, World

GENERATION_BITS = 32
"""The launch IDs of generation N begin at N << 32. No supervisor lives for so many launches."""


def resume(draft: Draft, fact: SupervisorStarted) -> None:
    """Adopt the processes that the same keeper still has. Under another keeper no process is alive, and the
    open transactions are started again.
    """
    draft.new_supervisor = True
    draft.keeper_signals_others = fact.keeper_signals_others
    # If the state of a predecessor is lost, it may have used launch IDs of its own generation.
    draft.next_launch = max(draft.next_launch, fact.generation << GENERATION_BITS)
    draft.note_silence()
    draft.settle_all()
    _refuse_strangers(draft, fact)
    if draft.keeper_id == fact.keeper_id:
        _adopt(draft, fact)
        return
    draft.keeper_id = fact.keeper_id
    draft.stopping, draft.exit_status, draft.hands_over = False, 0, False
    draft.starts = {}
    for key in list(draft.tasks):
        if draft.tasks[key].host:
            _keep(draft, key)
        else:
            _settle_dead(draft, key)
    if fact.carried is not None:
        _take_carried(draft, fact.carried)
    _begin(draft, fact)


def transactions_to_resume(world: World, keeper_id: str, carried: Carried | None) -> list[str]:
    """Return the open transactions of an earlier run that this keeper's first supervisor starts again."""
    if world.keeper_id == keeper_id:
        return []
    if carried is not None:
        return list(carried.open)
    return [name for name, transaction in world.transactions.items() if transaction.open]


def _refuse_strangers(draft: Draft, fact: SupervisorStarted) -> None:
    """Kill processes that the state file does not list, because such a process may duplicate a task. The file
    may lack a process after a failed write or a reset.

    The launch IDs of these processes are never used again.
    """
    held = [*(child.launch for child in fact.children), *fact.exits]
    draft.next_launch = max([draft.next_launch, *(launch + 1 for launch in held)])
    for child in fact.children:
        if draft.keeper_id == fact.keeper_id and _is_known(draft, child):
            continue
        # An auxiliary process without an entry may also be one that the keeper has just killed, because its
        # task has ended. The operator need not know of it.
        if not child.auxiliary:
            draft.record(("", ""), "stranger", launch=child.launch, pid=child.pid)
        draft.emit(fx.KillAll(launch=child.launch, key=("", "")))


def _is_known(draft: Draft, child: ft.Child) -> bool:
    return draft.of_launch(child.launch) is not None or draft.of_auxiliary(child.launch) is not None


def _adopt(draft: Draft, fact: SupervisorStarted) -> None:
    children = {child.launch: child for child in fact.children}
    for name, transaction in draft.transactions.items():
        draft.mark_changed(name)
        for task_id in draft.context.tasks if transaction.open else ():
            ensure_task(draft, name, task_id)
    without: list[Key] = []
    for key, task in list(draft.tasks.items()):
        if draft.service(key) is None:
            draft.schedule_removal(key)
        if task.sub_state is SubState.UNPLACED:
            draft.change(key, deadline=draft.now + PLACE_TIMEOUT)
        elif task.alarm is not None:
            draft.emit(fx.WakeAt(key=key, when=task.alarm))
        # Another host reports its tasks when it joins.
        if task.live and not task.host and not adopt_launch(draft, key, children, fact):
            without.append(key)
    # Last, since the rules of lost tasks may reach any other task.
    for key in without:
        without_process(draft, key)
    start_barrier.resume(draft)
    _wait_for_entries(draft)
    if draft.stopping:
        end_of_context.limit_wait(draft)


def adopt_launch(
    draft: Draft, key: Key, children: Mapping[int, ft.Child], fact: SupervisorStarted | HostJoined
) -> bool:
    """Adopt the process of a live task. Return False if its keeper has neither a process nor an end of this
    launch.
    """
    task = draft.tasks[key]
    if task.launch in children:
        _adopt_one(draft, key, children[task.launch])
        auxiliary.adopt(draft, key, fact)
    elif task.sub_state in (SubState.FINAL_SIGTERM, SubState.FINAL_SIGKILL):
        # The keeper repeats `exited` for this launch but not `gone`. Only the same order as before makes it
        # send `gone` again.
        _end_rest_again(draft, key)
    else:
        return task.launch in fact.exits
    return True


def without_process(draft: Draft, key: Key) -> None:
    """Decide about a launch for which the keeper reports neither a process nor an end."""
    task = draft.tasks[key]
    if task.sub_state is SubState.LAUNCHING:
        # The launch was saved, but the order did not reach the keeper: repeat it. The keeper forks a launch
        # ID only once. With `launched_at=now`, rules that fire in this turn can add their causes to this
        # launch.
        draft.change(key, launched_at=draft.now)
        draft.emit(fx.Launch(launch=task.launch, key=key, host=task.host))
    elif task.pid is None:
        # An order stopped the task before its fork, and the fork never happened.
        apply(
            draft,
            key,
            TaskEvent.LAUNCH_FAILED,
            exit=Exit(reason=task.stop_reason or Reason.REQUESTED, at=draft.now),
        )
    else:
        lost_exit = Exit(reason=Reason.LOST, at=draft.now)
        apply(draft, key, TaskEvent.ENDED_BADLY, exit=lost_exit, status="its process is not there any more")


def _wait_for_entries(draft: Draft) -> None:
    """Wait again for the entry tasks of a start of the context that the predecessor did not complete."""
    keys = [key for key, task in draft.tasks.items() if _starting(task) and task.cause.by == BY_CONTEXT.by]
    _start_waits(draft, tuple(dict.fromkeys(key[0] for key in keys)), keys)


def _starting(task: Task) -> bool:
    return task.sub_state in (SubState.START_AFTER, SubState.UNPLACED) or (
        task.state is State.ACTIVATING and task.live
    )


def _start_waits(draft: Draft, names: tuple[str, ...], keys: list[Key]) -> None:
    """Add the pending request that completes the start of the context when these tasks have started or
    failed.
    """
    waiter = PendingRequest(
        request=CONTEXT_START,
        verb=Verb.START,
        transactions=names,
        keys=tuple(keys),
        # Only a task on another host may be ready already.
        remaining=frozenset(key for key in keys if draft.tasks[key].state is not State.ACTIVE),
    )
    draft.pending = (waiter,)


def _adopt_one(draft: Draft, key: Key, child: ft.Child) -> None:
    task = draft.tasks[key]
    draft.record(key, "adopted", pid=child.pid, launch=task.launch)
    if task.pid is None:
        apply(draft, key, TaskEvent.LAUNCHED, pid=child.pid, start_time=child.start_time)
    elif task.pid != child.pid:
        # The task named another main process while no supervisor was there.
        draft.change(key, pid=child.pid, start_time=child.start_time)
    if task.pid is None:
        pass
    elif task.sub_state is SubState.STOP_SIGTERM:
        _ask_again(draft, key)
    elif task.sub_state is SubState.RELOAD_SIGNAL:
        # The predecessor may not have sent the signal.
        apply(draft, key, TaskEvent.RELOAD)
    elif task.sub_state in (SubState.STOP_SIGKILL, SubState.FINAL_SIGTERM, SubState.FINAL_SIGKILL):
        _end_rest_again(draft, key)
    if child.executed:
        executed(draft, key)
    if child.line_seen:
        line_seen(draft, key)
    _feed(draft, key)


def _ask_again(draft: Draft, key: Key) -> None:
    """Repeat the stop signal, which the predecessor may not have sent, and begin the stop timeout again."""
    task, limit = draft.tasks[key], draft.limits(key).stop_timeout
    if task.deadline is not None:
        draft.change(key, deadline=max(task.deadline, draft.now + limit))
    if task.stop_reason is Reason.WATCHDOG:
        draft.emit(fx.Terminate(launch=task.launch, key=key, signal="SIGABRT", host=task.host))
    else:
        ask_to_stop(draft, key)


def _end_rest_again(draft: Draft, key: Key) -> None:
    """Repeat the last order for the remaining processes, because it may not have reached the keeper. The
    keeper signals no process twice.
    """
    if draft.tasks[key].sub_state is not SubState.FINAL_SIGTERM:
        kill_others(draft, key, TaskEvent.DEADLINE)
    elif draft.keeper_signals_others or draft.tasks[key].host:
        terminate_others(draft, key, TaskEvent.LEFT_BEHIND)
    else:
        apply(draft, key, TaskEvent.DEADLINE)


def _feed(draft: Draft, key: Key) -> None:
    """Begin the watchdog timeout again: there was no supervisor to receive WATCHDOG=1."""
    limit = draft.limits(key).watchdog
    if limit and draft.tasks[key].sub_state is SubState.RUNNING:
        draft.change(key, deadline=draft.now + limit)


def _keep(draft: Draft, key: Key) -> None:
    """Keep a task that lives on another host, whatever has happened to this one. The times in its row may be
    those of another boot, and it gets a new deadline when the host joins.
    """
    task, now = draft.tasks[key], draft.now
    draft.change(
        key,
        since=min(task.since, now),
        launched_at=min(task.launched_at, now),
        deadline=None,
        probe_at=None if task.probe_at is None else now,
        exit=replace(task.exit, at=min(task.exit.at, now)) if task.exit else None,
        starts=(),
        counted={},
        reload_at=0.0,
        tokens_at=0.0,
        poison_tokens_at=0.0,
        # It is not known which of the tasks that started with it are still awaited, so it waits for none of
        # them.
        barrier=replace(task.barrier, stage=Stage.PASSED) if task.barrier else None,
    )


def _settle_dead(draft: Draft, key: Key) -> None:
    """Record the end of a task whose keeper has died. The times in its row may be those of an earlier boot,
    and then mean nothing.
    """
    task = draft.tasks[key]
    end = replace(task.exit, at=min(task.exit.at, draft.now)) if task.exit else None
    if task.live:
        draft.record(key, "lost", pid=task.pid, launch=task.launch)
        draft.count(Total.FAILURES, key[1], Reason.LOST.value)
        draft.forget_launch(task.launch)
        draft.forget_auxiliaries(key, {each.launch for each in task.auxiliaries})
        end = Exit(reason=Reason.LOST, at=draft.now)
    since = draft.now if task.live else min(task.since, draft.now)
    kept = Task(
        exit=end,
        stopped_by_operator=task.stopped_by_operator,
        launch=task.launch,
        restarts=task.restarts,
        has_failed=task.has_failed,
        since=since,
    )
    if task.resting and task.sub_state is not SubState.FAILED:
        kept = replace(
            kept,
            sub_state=task.sub_state,
            action=task.action,
            status=task.status,
            cause=task.cause,
            update=task.update,
        )
    draft.put(key, kept)
    if draft.service(key) is None:
        draft.schedule_removal(key)


def _take_carried(draft: Draft, carried: Carried) -> None:
    """Replace the decisions of an earlier run on this host by those of the host that ran the context last.
    The history and the totals of this host stay.
    """
    for name, transaction in draft.transactions.items():
        if transaction.open and name not in carried.open:
            draft.record((name, ""), "closed", host=carried.host)
            requests.close(draft, name, BY_CONTEXT.by)
    held = frozenset(carried.held)
    for name in carried.open:
        # The file may have tasks that this host does not know yet, and that are held.
        _open(draft, name)
        draft.record((name, ""), "carried", host=carried.host)
        for key in draft.keys_of(name):
            if draft.tasks[key].stopped_by_operator is not (key in held):
                draft.change(key, stopped_by_operator=key in held)
    draft.disabled = frozenset(carried.disabled)


def _open(draft: Draft, name: str) -> None:
    """Open a transaction, or have an open one include every task of the context file."""
    if name in draft.transactions and draft.transactions[name].open:
        requests.open_transaction(draft, name)
    else:
        requests.open_new_run(draft, name)


def _begin(draft: Draft, fact: SupervisorStarted) -> None:
    """Start the open transactions, or a first one. The start of the context waits for their entry tasks.

    A context that comes from another host begins with what was open there, even if that is nothing.
    """
    names = [name for name, transaction in draft.transactions.items() if transaction.open]
    if fact.transaction is not None and fact.transaction not in names:
        names.append(fact.transaction)
    elif not names and fact.autostart and fact.generated and fact.carried is None:
        names.append(fact.generated)
    keys: list[Key] = []
    for name in names:
        _open(draft, name)
        keys += [key for key in requests.entries(draft, name) if not draft.tasks[key].stopped_by_operator]
    _start_waits(draft, tuple(names), keys)
    for key in keys:
        apply(draft, key, TaskEvent.START, cause=BY_CONTEXT, quick_starts=0)
