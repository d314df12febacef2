"""The acts of the lifecycle table: one function for each, which changes the draft of a world.

Only `apply` changes the state of a task: it looks up the event in the table, moves the task to the next
state, and calls the act.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from zmsvc.core import auxiliary, foreground, rule_counts, start_barrier
from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.back_off import failures_after, over_limit, recent_starts, start_by_rule
from zmsvc.core.cause import (
    MAX_SOURCES,
    CauseSource,
    LaunchCause,
    SourceExit,
    by_rule,
    rule_text,
    size_of,
    summary,
)
from zmsvc.core.draft import Draft
from zmsvc.core.history import Detail
from zmsvc.core.host_choice import host_for, host_wait_text, waits_for_undrain
from zmsvc.core.lifecycle import START_PENDING, STATE_OF, TABLE, Act, State, SubState, TaskEvent
from zmsvc.core.model import TRIGGERS_OF_ENDS, Action, Context, Rule, TaskDefinition, Trigger
from zmsvc.core.pending_requests import (
    answer_earlier_starts,
    complete_reloads,
    complete_starts,
    complete_stops,
    note_stopped_by,
    resolve,
)
from zmsvc.core.probing import Health, probe_of, topic_of
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.restart import fires_for
from zmsvc.core.service_options import KillMode, ServiceType
from zmsvc.core.silent_hosts import stop_deadline
from zmsvc.core.task_key import Key
from zmsvc.core.totals import Total
from zmsvc.core.world import Exit, Reason, Task, status_at, with_changes

_LATER = {TaskEvent.STOP: TaskEvent.STOP_LATER, TaskEvent.RESTART: TaskEvent.RESTART_LATER}
KILL_TIMEOUT = 10.0
"""Seconds after SIGKILL before a process that is still there is reported as a survivor."""
PLACE_TIMEOUT = 15.0
"""Seconds without a host after which the clients that wait for a start get an answer. A host that can be
reached joins within 2 s, and a cluster takes 4 to 12 s to be certain that a host is off.
"""


def apply(draft: Draft, key: Key, event: TaskEvent, /, **changes: Any) -> bool:
    """Apply an event to a task, with `changes` to its fields. Return False if the table has no transition for
    it.
    """
    task = draft.tasks[key]
    event = _in_order(draft, key, event)
    transition = TABLE[task.sub_state].get(event)
    if transition is None:
        return False
    if transition.to is not task.sub_state:
        changes.setdefault("deadline", None)
    if STATE_OF[transition.to] is not task.state:
        changes.setdefault("probe_at", None)
    draft.put(key, with_changes(task, {**changes, "sub_state": transition.to}))
    _ACTS[transition.act](draft, key, event)
    return True


def _in_order(draft: Draft, key: Key, event: TaskEvent) -> TaskEvent:
    """Return the event that replaces a start or a stop of a task that has `<after>` or `<requires>`, or has
    no host. At the end of the step core.ordering_waits decides whether it has to wait.
    """
    transition = TABLE[draft.tasks[key].sub_state].get(event)
    if transition is None:
        return event
    if transition.act is Act.LAUNCH:
        service = draft.service(key)
        if service is None:
            return event
        if service.predecessors and event is not TaskEvent.PROCEED:
            return TaskEvent.START_LATER
        placed = service.placement is None or host_for(draft, key) is not None
        return event if placed else TaskEvent.NO_HOST
    if event is TaskEvent.PROCEED:
        return event
    if transition.act is Act.TERMINATE and draft.context.successors.get(key[1]):
        return _LATER.get(event, event)
    return event


def _after(draft: Draft, seconds: float) -> float | None:
    """Return the deadline after so many seconds, or None for 0."""
    return draft.now + seconds if seconds else None


# --- starting


def launch(draft: Draft, key: Key, _event: TaskEvent) -> None:
    old = draft.tasks[key]
    number = draft.new_launch(key)
    host = host_for(draft, key) if draft.context.placed else ""
    assert host is not None, "a task without a host is not launched"
    task = draft.change(
        key,
        launch=number,
        host=host,
        pid=None,
        start_time=0,
        launched_at=draft.now,
        restarts=old.restarts + (1 if _after_failure(old) else 0),
        status="",
        rules_suppressed=False,
        firings=0,
        update=None,
        sequence=0,
        missed=0,
        poisoned=0,
        poison_tokens_at=0.0,
        tokens_at=0.0,
        leftovers=(),
        probe_ends=0,
    )
    detail: Detail = {"launch": number, "cause": summary(task.cause), **_where(host)}
    draft.record(key, "launching", **detail)
    if host:
        draft.move(key, host, 1)
    draft.count(Total.LAUNCHES, key[1], task.cause.by)
    if task.restarts != old.restarts:
        draft.count(Total.RESTARTS, key[1])
    draft.publish_process(key, "start")
    draft.started[key] = None
    draft.emit(fx.Launch(launch=number, key=key, host=host))


def _where(host: str) -> Detail:
    """Return the host of a launch as a detail of an event; nothing at home."""
    return {"host": host} if host else {}


def _after_failure(old: Task) -> bool:
    """Return True if a rule starts this task after its own failure. Only such starts count as restarts: the
    number is to show crash loops.
    """
    return (
        old.cause.by_rule
        and old.exit is not None
        and old.exit.reason not in (Reason.EXITED, Reason.REQUESTED)
    )


def process_started(draft: Draft, key: Key, _event: TaskEvent) -> None:
    # The timeout begins now and not with the order: in a start of a thousand tasks, a launch may wait for
    # seconds.
    draft.change(key, deadline=_after(draft, draft.limits(key).start_timeout))
    service = draft.service(key)
    # The task is ready when the output process has found the line, or the watcher process the message.
    if (
        service is not None
        and probe_of(service.ready) is not None
        and service.service_type is ServiceType.COMMAND
    ):
        auxiliary.start(draft, key, AuxiliaryName.READY)


def be_ready(draft: Draft, key: Key, _event: TaskEvent) -> None:
    recovers = draft.tasks[key].has_failed
    task = draft.change(
        key, action="started", has_failed=False, deadline=_after(draft, draft.limits(key).watchdog)
    )
    draft.publish_control(key, "started", success=True, pid=task.pid, items={})
    detail: Detail = {"pid": task.pid, "launch": task.launch, **_where(task.host)}
    draft.record(key, "started", **detail)
    _watch(draft, key)
    start_barrier.program_ready(draft, key)
    complete_starts(draft, key)
    # A rule of on_start may already stop this task.
    source = draft.tasks[key]
    fire(draft, key, Trigger.ON_START)
    if recovers:
        fire(draft, key, Trigger.ON_RECOVER, source=source)


def _watch(draft: Draft, key: Key) -> None:
    """Start the process that watches the health of a task that is ready."""
    service = draft.service(key)
    if service is not None and service.health is not None:
        draft.change(key, health=Health.STARTING)
        auxiliary.start(draft, key, AuxiliaryName.HEALTH)


def executed(draft: Draft, key: Key) -> None:
    """Note that the program of a Command runs. It is ready then, unless its `<notify>` says that it sends
    READY=1 itself, or its `<ready>` says what it waits for.
    """
    service = draft.service(key)
    if service is None or not (service.notify or service.ready):
        apply(draft, key, TaskEvent.READY)
    elif topic_of(service.ready):
        # Its first message may be an answer to a message of a task that would wait for this one.
        start_barrier.program_ready(draft, key)


def line_seen(draft: Draft, key: Key) -> None:
    """Note that a Command has written a line in which the pattern of its `<ready>` occurs."""
    service = draft.service(key)
    if service is not None and isinstance(service.ready, ReadyLine):
        apply(draft, key, TaskEvent.READY)


def await_back_off(draft: Draft, key: Key, _event: TaskEvent) -> None:
    task = draft.tasks[key]
    draft.change(key, status=status_at(task, draft.now))
    delay = round((task.deadline or draft.now) - draft.now, 3)
    draft.record(key, "back-off", delay=delay, failures=task.failures, quick_starts=task.quick_starts)


def await_start(draft: Draft, key: Key, _event: TaskEvent) -> None:
    draft.change(key, status="")
    draft.wants_required.append(key)
    draft.started[key] = None


def await_host(draft: Draft, key: Key, event: TaskEvent) -> None:
    """Let a task wait for a host. A new order renews the time after which its client gets an answer. If only
    an order can give it a host, the client gets the answer at once.
    """
    draft.change(key, deadline=draft.now + PLACE_TIMEOUT, status="")
    if event is TaskEvent.NO_HOST:
        draft.record(key, "unplaced", message=host_wait_text(draft, key))
        # Tasks that are started with this one do not wait for it before their first steps.
        start_barrier.withdraw(draft, key)
    if waits_for_undrain(draft, key):
        report_unplaced(draft, key, event)


def report_unplaced(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Answer the clients that wait for a task without a host. The task goes on waiting."""
    draft.change(key, deadline=None)
    resolve(draft, key, host_wait_text(draft, key))


def dependency_failed(draft: Draft, key: Key, _event: TaskEvent) -> None:
    draft.record(key, "dependency", message=draft.tasks[key].status)
    start_barrier.withdraw(draft, key)
    complete_starts(draft, key)


def start_limit_hit(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Report the start limit once. The starts go on counting, since otherwise the next firing would begin a
    new burst.
    """
    limits, end = draft.limits(key), draft.tasks[key].exit
    text = f"started {limits.start_limit_burst} times by rules within {limits.start_limit_interval:g} s"
    if end is None or end.reason is not Reason.START_LIMIT:
        end = (
            replace(end, reason=Reason.START_LIMIT) if end else Exit(reason=Reason.START_LIMIT, at=draft.now)
        )
        draft.change(key, action="failed", status=text, exit=end, has_failed=_remembers_failures(draft, key))
        items: Detail = {"reason": Reason.START_LIMIT.value, "message": text}
        draft.publish_control(key, "failed", success=False, pid=None, items=items)
        draft.record_failure(key, **items)
    complete_starts(draft, key)


def reset_failed(draft: Draft, key: Key, _event: TaskEvent) -> None:
    draft.change(key, failures=0, quick_starts=0, starts=(), counted={}, status="")
    draft.record(key, "reset-failed")


# --- reloading


def send_reload(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Send its reload signal to a task that reports the end of its reload. The limit is that of a start."""
    task, service = draft.tasks[key], draft.service(key)
    if service is not None and (name := service.signal_to_reload):
        draft.emit(fx.SendSignal(launch=task.launch, key=key, signal=name, all=False, host=task.host))
    draft.change(key, reload_at=draft.now, deadline=_after(draft, draft.limits(key).start_timeout))


def await_reloaded(draft: Draft, key: Key, _event: TaskEvent) -> None:
    draft.change(key, deadline=_after(draft, draft.limits(key).start_timeout))


def be_reloaded(draft: Draft, key: Key, event: TaskEvent) -> None:
    end_reload(draft, key, event)
    _report_reload(draft, key)


def run_reload(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Execute the reload_command of a task. It has as long as for a start."""
    service = draft.service(key)
    if service is not None:
        auxiliary.start(draft, key, AuxiliaryName.RELOAD, *service.reload_command)
    draft.change(key, deadline=_after(draft, draft.limits(key).start_timeout))


def end_reload(draft: Draft, key: Key, _event: TaskEvent) -> None:
    draft.change(key, reload_at=0.0, deadline=_after(draft, draft.limits(key).watchdog))


def reload_command_ended(draft: Draft, key: Key, why: str) -> None:
    """Take the end of a reload_command; `why` is the reason why it has failed, or empty."""
    if apply(draft, key, TaskEvent.RELOAD_ENDED):
        _report_reload(draft, key, why)


def reload_timed_out(draft: Draft, key: Key, event: TaskEvent) -> None:
    """Report a reload that takes too long. As with systemd, the task goes on, and a reload_command is
    killed.
    """
    runs = auxiliary.find(draft.tasks[key], AuxiliaryName.RELOAD) is not None
    what = "its reload_command has not ended" if runs else "has not reported the end of its reload"
    auxiliary.kill(draft, key, AuxiliaryName.RELOAD)
    end_reload(draft, key, event)
    _report_reload(draft, key, f"{what} within {draft.limits(key).start_timeout:g} s")


def _report_reload(draft: Draft, key: Key, why: str = "") -> None:
    pid = draft.tasks[key].pid
    if why:
        draft.record(key, "reload-failed", pid=pid, message=why)
    else:
        draft.record(key, "reload-finished", pid=pid)
    complete_reloads(draft, key, why)


# --- stopping


def await_stop(draft: Draft, key: Key, event: TaskEvent) -> None:
    task = draft.tasks[key]
    draft.change(
        key,
        stop_reason=task.stop_reason or Reason.REQUESTED,
        restart_pending=event is TaskEvent.RESTART_LATER,
    )


def note_process(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Note the PID and nothing else: the task was ordered to stop before it was forked, and its stop waits
    for other tasks.
    """
    draft.mark_changed(key[0])


def terminate(draft: Draft, key: Key, event: TaskEvent) -> None:
    task = draft.tasks[key]
    changes: dict[str, Any] = {"stop_reason": task.stop_reason or Reason.REQUESTED}
    if event is TaskEvent.RESTART:
        changes["restart_pending"] = True
    if event is not TaskEvent.LAUNCHED:
        draft.publish_process(key, "stop")
        draft.record(key, "stopping", reason=changes["stop_reason"].value, pid=task.pid)
    # The task was ordered to stop before it was forked. Its whole stop timeout begins now, however long the
    # fork took.
    draft.change(key, deadline=stop_deadline(draft, key), **changes)
    ask_to_stop(draft, key)


def ask_to_stop(draft: Draft, key: Key) -> None:
    """Send the stop signal to the main process, or to all processes of a Command if its kill mode says so."""
    service = draft.service(key)
    name = stop_signal(service)
    all_of_it = (
        service is not None and service.service_type is ServiceType.COMMAND and signals_others(draft, key)
    )
    _signal(draft, key, name, others=name if all_of_it else "")


def stop_signal(service: TaskDefinition | None) -> str:
    """Return the stop signal of a task. The keeper stops a Thread in another way, since it shares its
    process.
    """
    return (
        service.stop_signal
        if service is not None and service.service_type is not ServiceType.THREAD
        else "SIGTERM"
    )


def signals_others(draft: Draft, key: Key) -> bool:
    """Return True if the other processes of a task get a stop signal before they are killed."""
    service = draft.service(key)
    # Only this host may have a keeper of an earlier release that cannot do this.
    can = draft.keeper_signals_others or bool(draft.tasks[key].host)
    return can and (service is None or service.kill_mode is KillMode.CONTROL_GROUP)


def _signal(draft: Draft, key: Key, name: str, others: str = "") -> None:
    task = draft.tasks[key]
    if task.pid is not None:
        draft.emit(fx.Terminate(launch=task.launch, key=key, signal=name, others=others, host=task.host))


def start_timed_out(draft: Draft, key: Key, event: TaskEvent) -> None:
    draft.change(key, stop_reason=Reason.NOT_READY, status=draft.tasks[key].status or "not ready in time")
    terminate(draft, key, event)


def watchdog_missed(draft: Draft, key: Key, _event: TaskEvent) -> None:
    draft.change(
        key,
        stop_reason=Reason.WATCHDOG,
        status="missed its watchdog",
        deadline=_after(draft, draft.limits(key).stop_timeout),
    )
    draft.record(key, "stopping", reason=Reason.WATCHDOG.value, pid=draft.tasks[key].pid)
    _signal(draft, key, "SIGABRT")


def unhealthy(draft: Draft, key: Key, event: TaskEvent) -> None:
    draft.change(key, stop_reason=Reason.UNHEALTHY)
    terminate(draft, key, event)


def silent(draft: Draft, key: Key, event: TaskEvent) -> None:
    draft.change(key, stop_reason=Reason.SILENT)
    terminate(draft, key, event)


def memory_exceeded(draft: Draft, key: Key, event: TaskEvent) -> None:
    draft.change(key, stop_reason=Reason.MEMORY_LIMIT)
    terminate(draft, key, event)


def kill(draft: Draft, key: Key, _event: TaskEvent) -> None:
    task = draft.change(key, deadline=draft.now + KILL_TIMEOUT)
    if task.pid is not None:
        service = draft.service(key)
        python = service is not None and service.service_type is not ServiceType.COMMAND
        draft.emit(fx.KillAll(launch=task.launch, key=key, stacks=python, host=task.host))
        draft.record(key, "killing", pid=task.pid)


def terminate_others(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Send the stop signal to the other processes after the end of the main one. The rest of the stop timeout
    is theirs.
    """
    task, service = draft.tasks[key], draft.service(key)
    command = service is not None and service.service_type is ServiceType.COMMAND
    others = stop_signal(service) if command else "SIGTERM"
    draft.emit(fx.Terminate(launch=task.launch, key=key, signal="", others=others, host=task.host))


def kill_others(draft: Draft, key: Key, _event: TaskEvent) -> None:
    task = draft.change(key, deadline=draft.now + KILL_TIMEOUT)
    draft.emit(fx.KillAll(launch=task.launch, key=key, host=task.host))


def report_survivor(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Report a process that is stuck in the kernel despite SIGKILL. Waiting clients get a reply; the task
    waits for the end.
    """
    task = draft.change(
        key, deadline=None, status="cannot be killed: a process of it does not end after SIGKILL"
    )
    draft.record(key, "survivor", pid=task.pid)
    resolve(draft, key, task.status)


def restart_after_stop(draft: Draft, key: Key, event: TaskEvent) -> None:
    draft.change(key, restart_pending=True)
    _kill_survivor_again(draft, key, event)


def cancel_restart(draft: Draft, key: Key, event: TaskEvent) -> None:
    draft.change(key, restart_pending=False)
    _kill_survivor_again(draft, key, event)


def _kill_survivor_again(draft: Draft, key: Key, event: TaskEvent) -> None:
    """Kill a survivor again, because the client of a new order waits for an outcome, too."""
    task = draft.tasks[key]
    if task.deadline is None and task.sub_state in (SubState.STOP_SIGKILL, SubState.FINAL_SIGKILL):
        kill_others(draft, key, event)


def cancel_start(draft: Draft, key: Key, _event: TaskEvent) -> None:
    draft.change(key, status="")
    draft.record(key, "stopped", reason=Reason.REQUESTED.value)
    start_barrier.withdraw(draft, key)
    complete_starts(draft, key)


# --- the end of a process


def event_of(reason: Reason) -> TaskEvent:
    """Return the event of an end with this reason."""
    if reason is Reason.EXITED:
        return TaskEvent.ENDED_WELL
    return TaskEvent.ENDED_AS_ASKED if reason is Reason.REQUESTED else TaskEvent.ENDED_BADLY


def finish(draft: Draft, key: Key, _event: TaskEvent) -> None:
    """Complete the end of a task and all its processes: report it, fire its rules, and start the task again
    if that is pending.
    """
    task = draft.tasks[key]
    end = task.exit
    assert end is not None, "an end is written down before it is settled"
    bad = task.sub_state is SubState.FAILED
    limits, pid, host = draft.limits(key), task.pid, task.host
    restart = task.restart_pending and draft.service(key) is not None
    task = draft.change(
        key,
        pid=None,
        host="",
        start_time=0,
        action="failed" if bad else "stopped",
        stop_reason=None,
        restart_pending=False,
        reload_at=0.0,
        health=None,
        health_text="",
        failures=failures_after(task, limits, draft.now) if bad else 0,
        has_failed=_remembers_failures(draft, key) if bad else task.has_failed,
    )
    if text := _background(draft, key, task):
        task = draft.change(key, status=text)
    items: Detail = {"reason": end.reason.value, "exit_code": end.code, "signal": end.signal}
    if task.status and (bad or text):
        items["message"] = task.status
    draft.publish_control(key, task.action, success=not bad, pid=pid, items=items)
    detail: Detail = {"pid": pid, "launch": task.launch, **items, **_where(host)}
    if task.leftovers:
        detail["ended"], more = ft.leftovers_shown(task.leftovers)
        if more:
            detail["ended_more"] = more
    if bad:
        draft.record_failure(key, **detail)
    else:
        draft.record(key, task.action, **detail)
    draft.emit(fx.Forget(launch=task.launch, host=host))
    draft.forget_launch(task.launch)
    if host:
        draft.move(key, host, -1)
    # The keeper has killed them. Their ends are those of unknown launches.
    draft.forget_auxiliaries(key, {each.launch for each in task.auxiliaries})
    start_barrier.withdraw(draft, key)
    _after_the_end(draft, key, Trigger.ON_FAIL if bad else Trigger.ON_EXIT, restart=restart)


def _remembers_failures(draft: Draft, key: Key) -> bool:
    """Return True if a task has rules for on_recover. The record of any other task has no mark of a failure,
    so that a supervisor of an earlier release can read it.
    """
    service = draft.service(key)
    return service is not None and any(rule.trigger is Trigger.ON_RECOVER for rule in service.rules)


def _background(draft: Draft, key: Key, task: Task) -> str:
    """Return a message about processes that a Command left in the background when it ended by itself. That is
    a mistake: a Command has to stay in the foreground.
    """
    service = draft.described(key)
    command = service is not None and service.service_type is ServiceType.COMMAND
    # A main process that a signal has ended may have had its children in the foreground.
    by_itself = task.exit is not None and task.exit.reason in (Reason.EXITED, Reason.EXIT_CODE)
    if not (command and task.leftovers and by_itself and task.exit and task.exit.signal is None):
        return ""
    first, number = task.leftovers[0], len(task.leftovers) - 1
    more = f" and {number} more" if number else ""
    program = foreground.known(first.name)
    advice = foreground.advice_for(program) if program else "a Command has to stay in the foreground"
    return f"ended with {first.name} (PID {first.pid}){more}, which it had left in the background: {advice}"


def _after_the_end(draft: Draft, key: Key, trigger: Trigger, *, restart: bool) -> None:
    task = draft.tasks[key]
    requested = task.exit is not None and task.exit.reason is Reason.REQUESTED
    complete_stops(draft, key, restart=restart)
    if not restart:
        complete_starts(draft, key)
    if not task.rules_suppressed:
        fire(draft, key, trigger, requested=requested or task.stopped_by_operator or restart)
    if restart:
        _start_again(draft, key)
        answer_earlier_starts(draft, key, task)
    if draft.service(key) is None:
        draft.schedule_removal(key)


def _start_again(draft: Draft, key: Key) -> None:
    """Start a task that a restart has stopped: at once if an order did so, with delays if a rule did, since
    rules can form a ring.
    """
    cause = draft.tasks[key].cause
    if cause.by_rule:
        start_for_rule(draft, key, cause, failing=False)
    else:
        apply(draft, key, TaskEvent.START)


# --- rules


def rules_for(
    service: TaskDefinition,
    trigger: Trigger,
    *,
    requested: bool,
    end: Exit | None = None,
    of_context: Iterable[Rule] = (),
) -> list[Rule]:
    """Return the rules of a task that are about `trigger` and this end. A task that was asked to
    stop does not start itself again. Nor does `on_any_fail` of the context start the task that has failed.
    """
    requested = requested or trigger is Trigger.ON_ANY_FAIL
    return [
        rule
        for rule in (*service.rules, *of_context)
        if rule.trigger is trigger
        and fires_for(rule, end)
        and not (requested and rule.call == service.id and rule.action is not Action.STOP)
    ]


def rules_of_context(context: Context) -> list[Rule]:
    """Return the rules that each task has beside its own, one for each replica of the called task."""
    return [replace(rule, call=call) for rule in context.on_any_fail for call in context.named(rule.call)]


def rules_of_tasks(context: Context) -> Iterator[tuple[str, Rule]]:
    """Yield each rule that may fire with the task that fires it: the rules of the context once for each
    task.
    """
    of_context = rules_of_context(context)
    for service in context.tasks.values():
        yield from ((service.id, rule) for rule in service.rules)
        for rule in of_context:
            if rule.call != service.id or rule.action is Action.STOP:
                yield service.id, rule


def fire(
    draft: Draft, key: Key, trigger: Trigger, *, requested: bool = False, source: Task | None = None
) -> None:
    """Fire the rules of a task if its transaction is open. Each changes the world in this same step. `source`
    is the record of the task at the transition that fires them; without it, the present record.
    """
    service, transaction = draft.service(key), draft.transactions.get(key[0])
    if service is None or draft.stopping or transaction is None or not transaction.open:
        return
    # Keep the record of the transition that fired the rules: the first rule may already start this task
    # again.
    source = source or draft.tasks[key]
    of_context = rules_of_context(draft.context)
    found = rules_for(service, trigger, requested=requested, end=source.exit, of_context=of_context)
    for rule in rule_counts.due(draft, key, found, (*service.rules, *of_context)):
        if (key[0], rule.call) in draft.tasks:
            _fire_one(draft, key, source, rule)


def _fire_one(draft: Draft, key: Key, source: Task, rule: Rule) -> None:
    target = (key[0], rule.call)
    task = draft.tasks[target]
    about: Detail = {"rule": rule_text(rule), "source": key[1], "launch": source.launch}
    if rule.action is Action.STOP:
        note_stopped_by(draft, target, f"rule {rule.trigger.value} of {key[1]}")
        apply(draft, target, TaskEvent.STOP)
        if draft.tasks[target] != task:
            draft.record(target, "rule", **about)
            draft.count(Total.FIRINGS, key[1], rule_text(rule))
        return
    if rule.action is Action.START and _runs(draft, task) and not task.stopped_by_operator:
        return
    refused = _refusal(draft, target, task)
    _record_firing(draft, target, about, refused=refused)
    if not refused:
        draft.count(Total.FIRINGS, key[1], rule_text(rule))
    if task.stopped_by_operator:
        return
    cause = _cause(key[1], source, task, rule)
    if task.resting:
        start_for_rule(draft, target, cause, failing=target == key and rule.trigger is Trigger.ON_FAIL)
    elif task.sub_state in (SubState.BACK_OFF, SubState.START_AFTER, SubState.UNPLACED) or (
        task.sub_state is SubState.LAUNCHING and not _runs(draft, task)
    ):
        # A start is already pending, and one start answers all firings. A rule cannot shorten its delay.
        draft.change(target, cause=cause)
    else:
        if task.sub_state is SubState.LAUNCHING:
            # The ordered start is over, and the rule is the cause of the next one. Otherwise a rule that
            # keeps firing would never be slowed down.
            cause = replace(cause, by="rule", uid=None)
        # A task that is stopping is started again afterwards, whether the rule says `start` or `restart`.
        apply(draft, target, TaskEvent.RESTART, cause=cause)


def _runs(draft: Draft, task: Task) -> bool:
    """Return True if no cause can be added to the launch any more. All facts of one turn have the same time,
    and effects are performed after the last one. So a cause can be added to a launch that was ordered at
    `now`.
    """
    return (
        task.state is State.ACTIVE
        or task.sub_state is SubState.START
        or (task.sub_state is SubState.LAUNCHING and task.launched_at < draft.now)
    )


def _refusal(draft: Draft, target: Key, task: Task) -> str:
    """Return the reason why a firing starts nothing; empty if it does."""
    if task.stopped_by_operator:
        return "stopped by the operator"
    limits = draft.limits(target)
    return (
        "start limit" if task.resting and over_limit(recent_starts(task, limits, draft.now), limits) else ""
    )


def _record_firing(draft: Draft, target: Key, about: Detail, *, refused: str) -> None:
    """Record each of the first MAX_SOURCES firings, then only those whose number is a power of two: updates
    can fire rules 1,000 times a second.
    """
    number = draft.tasks[target].firings + 1
    draft.change(target, firings=number)
    if number > MAX_SOURCES and number & (number - 1):
        return
    detail: Detail = {**about, "firings": number} if number > MAX_SOURCES else about
    if refused:
        detail = {**detail, "why": refused}
    draft.record(target, "rule-refused" if refused else "rule", **detail)


def _cause(source_id: str, source: Task, task: Task, rule: Rule) -> LaunchCause:
    pending = task.restart_pending or task.sub_state in START_PENDING
    return by_rule(task.cause, _source(source_id, source, rule), source.cause.depth + 1, join=pending)


def _source(task_id: str, source: Task, rule: Rule) -> CauseSource:
    end, shows_exit = source.exit, rule.trigger in TRIGGERS_OF_ENDS
    return CauseSource(
        task=task_id,
        trigger=rule.trigger.value,
        rule=rule_text(rule),
        launch=source.launch,
        exit=SourceExit(code=end.code, signal=end.signal, reason=end.reason.value)
        if end is not None and shows_exit
        else None,
        update=source.update,
        update_bytes=size_of(source.update),
    )


def start_for_rule(draft: Draft, key: Key, cause: LaunchCause, *, failing: bool) -> None:
    task, limits, now = draft.tasks[key], draft.limits(key), draft.now
    starts = recent_starts(task, limits, now)
    if over_limit(starts, limits):
        apply(draft, key, TaskEvent.LIMIT)
        return
    quick_starts, at = start_by_rule(task, limits, now, failing=failing, launch=draft.next_launch)
    starts = (*starts, now) if limits.start_limit_burst else ()
    if at > now:
        apply(draft, key, TaskEvent.DELAY, cause=cause, quick_starts=quick_starts, starts=starts, deadline=at)
    else:
        apply(draft, key, TaskEvent.START, cause=cause, quick_starts=quick_starts, starts=starts)


_ACTS: dict[Act, Callable[[Draft, Key, TaskEvent], None]] = {
    Act.LAUNCH: launch,
    Act.AWAIT_BACK_OFF: await_back_off,
    Act.START_LIMIT_HIT: start_limit_hit,
    Act.RESET_FAILED: reset_failed,
    Act.PROCESS_STARTED: process_started,
    Act.BE_READY: be_ready,
    Act.SEND_RELOAD: send_reload,
    Act.AWAIT_RELOADED: await_reloaded,
    Act.BE_RELOADED: be_reloaded,
    Act.RUN_RELOAD: run_reload,
    Act.END_RELOAD: end_reload,
    Act.RELOAD_TIMED_OUT: reload_timed_out,
    Act.TERMINATE: terminate,
    Act.START_TIMED_OUT: start_timed_out,
    Act.WATCHDOG_MISSED: watchdog_missed,
    Act.UNHEALTHY: unhealthy,
    Act.SILENT: silent,
    Act.MEMORY_EXCEEDED: memory_exceeded,
    Act.KILL: kill,
    Act.TERMINATE_OTHERS: terminate_others,
    Act.KILL_OTHERS: kill_others,
    Act.RESTART_AFTER_STOP: restart_after_stop,
    Act.CANCEL_RESTART: cancel_restart,
    Act.CANCEL_START: cancel_start,
    Act.AWAIT_START: await_start,
    Act.AWAIT_HOST: await_host,
    Act.REPORT_UNPLACED: report_unplaced,
    Act.DEPENDENCY_FAILED: dependency_failed,
    Act.AWAIT_STOP: await_stop,
    Act.NOTE_PROCESS: note_process,
    Act.FINISH: finish,
    Act.REPORT_SURVIVOR: report_survivor,
}
