"""`step` makes all decisions: it takes a world, a fact and the time, and returns the next world and the
effects.

It never raises, for any fact in any world, and reads no clock. The same arguments always give the same
result, so a run can be simulated and replayed.
"""

from __future__ import annotations

from typing import Any, assert_never

from zmsvc.core import (
    auxiliary,
    end_of_context,
    failures,
    health,
    host_facts,
    host_waits,
    memory_limit,
    ordering_waits,
    pending_requests,
    quarantine,
    reload,
    requests,
    resume,
    silent_hosts,
    start_barrier,
    updates,
)
from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.draft import Draft
from zmsvc.core.effects import Effect
from zmsvc.core.errors import CANNOT_EXECUTE
from zmsvc.core.facts import Fact
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.model import Trigger
from zmsvc.core.service_options import ServiceType
from zmsvc.core.task_key import Key
from zmsvc.core.totals import Total
from zmsvc.core.transitions import (
    apply,
    event_of,
    executed,
    fire,
    line_seen,
    reload_command_ended,
    signals_others,
)
from zmsvc.core.world import Auxiliary, Exit, Reason, Task, World


def step(world: World, fact: Fact, now: float) -> tuple[World, tuple[Effect, ...]]:
    """Return the consequences of `fact` at `now` (monotonic seconds)."""
    draft = Draft(world, now)
    _dispatch(draft, fact)
    _settle(draft)
    pending_requests.answer(draft)
    return draft.finish()


def _settle(draft: Draft) -> None:
    """Decide what follows from the consequences of the fact, until nothing more follows."""
    while draft.failed or draft.unsettled or draft.hosts_changed or draft.moved:
        # Failures first: a failure action may stop tasks that another stop has to wait for.
        failures.settle(draft)
        ordering_waits.settle(draft)
        if draft.hosts_changed or draft.moved:
            host_waits.settle(draft)
    ordering_waits.record(draft)
    if draft.started or draft.at_barrier or draft.context is not draft.before.context:
        start_barrier.settle(draft)


def _dispatch(draft: Draft, fact: Fact) -> None:
    match fact:
        case ft.Requested():
            requests.handle(draft, fact)
        case ft.SupervisorStarted():
            resume.resume(draft, fact)
        case ft.ContextReloaded():
            reload.reload(draft, fact)
        case ft.DeadlinePassed():
            _deadline(draft, fact.key)
        case ft.OrdersUnheard():
            draft.record(
                ("", ""),
                "dropped",
                why="no supervisor was there to receive orders of the bus",
                orders=fact.count,
            )
        case ft.OnHost() | ft.HostJoined() | ft.HostSilent() | ft.HostLost() if draft.hands_over:
            pass  # The next supervisor acts on it.
        case ft.OnHost():
            _on_host(draft, fact)
        case ft.HostJoined():
            host_facts.joined(draft, fact)
        case ft.HostSilent():
            host_facts.silent(draft, fact)
        case ft.HostLost():
            host_facts.lost(draft, fact)
        case ft.DrainRequested():
            host_facts.drain(draft, fact)
        case _:
            key = draft.of_launch(fact.launch)
            if key is not None:
                _of_task(draft, key, fact)
            elif (found := draft.of_auxiliary(fact.launch)) is not None:
                _of_auxiliary(draft, *found, fact)
            elif isinstance(fact, ft.TaskExited | ft.LaunchFailed):
                # The end of an unknown launch, or of one whose end was saved before a crash: the keeper may
                # forget it.
                draft.emit(fx.Forget(launch=fact.launch))


def _on_host(draft: Draft, fact: ft.OnHost) -> None:
    """Take a fact of another host about a launch that is there."""
    if not host_facts.is_current(draft, fact):
        return
    if host_facts.task_of(draft, fact.host, fact.fact.launch) is None:
        host_facts.of_unknown_launch(draft, fact)
    else:
        _dispatch(draft, fact.fact)


def _of_task(draft: Draft, key: Key, fact: ft.TaskFact) -> None:
    match fact:
        case ft.TaskLaunched():
            # The keeper repeats this report if it is ordered to launch the same number again.
            if draft.tasks[key].pid is None:
                apply(draft, key, TaskEvent.LAUNCHED, pid=fact.pid, start_time=fact.start_time)
        case ft.LaunchFailed():
            end = Exit(reason=draft.tasks[key].stop_reason or Reason.CANNOT_LAUNCH, at=draft.now)
            apply(draft, key, TaskEvent.LAUNCH_FAILED, exit=end, status=fact.why)
        case ft.TaskExecuted():
            executed(draft, key)
        case ft.TaskDeclared():
            start_barrier.take_declaration(draft, key, fact)
        case ft.ReadyLineSeen():
            line_seen(draft, key)
        case ft.TaskReady():
            start_barrier.note_ready(draft, key)
            service = draft.service(key)
            waits = draft.tasks[key].sub_state is SubState.START
            # A task with `<ready>` is ready when its probe or a line of its output says so.
            if not (waits and service is not None and service.ready):
                apply(draft, key, TaskEvent.READY)
        case ft.TaskReloading():
            _reloading(draft, key, fact)
        case ft.TaskUpdated():
            _updated(draft, key, fact)
        case ft.TaskSaid():
            draft.change(key, status=fact.status)
        case ft.MessagesMissed():
            draft.change(key, missed=fact.count)
        case ft.MessagePoisoned():
            quarantine.take_report(draft, key, fact)
        case ft.WatchdogFed():
            if draft.tasks[key].sub_state is SubState.RUNNING and (limit := draft.limits(key).watchdog):
                draft.change(key, deadline=draft.now + limit)
        case ft.TopicHeard():
            health.heard(draft, key, fact)
        case ft.TopicSilent():
            health.silent(draft, key, fact)
        case ft.HealthReported():
            pass  # Only the probe process of a task reports its health.
        case ft.MemoryMeasured():
            memory_limit.take_measurement(draft, key, fact)
        case ft.TimeoutExtended():
            _extended(draft, key, fact.seconds)
        case ft.MainNamed() | ft.MainChanged():
            _main_process(draft, key, fact)
        case ft.TaskExited():
            _exited(draft, key, fact)
        case ft.TaskGone():
            _gone(draft, key, fact)
        case _:
            assert_never(fact)


def _of_auxiliary(draft: Draft, key: Key, which: Auxiliary, fact: ft.TaskFact) -> None:
    """Take a fact about an auxiliary process, which cannot notify for its task."""
    if isinstance(fact, ft.TaskExited | ft.LaunchFailed):
        auxiliary.forget(draft, key, which)
        match which.name:
            case AuxiliaryName.READY | AuxiliaryName.HEALTH:
                health.ended(draft, key, which, fact)
            case AuxiliaryName.RELOAD:
                reload_command_ended(draft, key, _why_not_reloaded(fact))
            case _:
                assert_never(which.name)
    elif isinstance(fact, ft.HealthReported) and which.name is AuxiliaryName.HEALTH:
        health.take_report(draft, key, fact)


def _why_not_reloaded(end: auxiliary.End) -> str:
    """Return the reason why a reload_command has failed; empty if it has ended with status 0."""
    if end.why:
        return f"its reload_command cannot be executed: {end.why}"
    if isinstance(end, ft.TaskExited) and end.signal is None and not end.code:
        return ""
    how = "" if isinstance(end, ft.LaunchFailed) else end.signal or f"status {end.code}"
    return f"its reload_command has failed ({how})"


def _deadline(draft: Draft, key: Key) -> None:
    """Let a deadline pass. If it has moved meanwhile, or belonged to an earlier state, nothing happens."""
    task = draft.tasks.get(key)
    if task is None or task.alarm is None:
        return
    if task.alarm > draft.now:
        # The alarm came too early and is used up: set it again.
        draft.emit(fx.WakeAt(key=key, when=task.alarm))
        return
    if task.probe_at is not None and task.probe_at <= draft.now:
        health.probe_again(draft, key)
    if task.deadline is not None and task.deadline <= draft.now:
        if silent_hosts.is_silent(draft, task):
            end_of_context.rest_deadline(draft, key)
        else:
            apply(draft, key, TaskEvent.DEADLINE)


def _reloading(draft: Draft, key: Key, fact: ft.TaskReloading) -> None:
    """Note that a task reloads. As with systemd, a RELOADING=1 from before the signal does not answer it."""
    task, service = draft.tasks[key], draft.service(key)
    earlier = fact.at is not None and fact.at < task.reload_at
    asked = task.sub_state is SubState.RELOAD_SIGNAL
    if (asked or (service is not None and service.notify_reload)) and not earlier:
        apply(draft, key, TaskEvent.RELOADING)


_EXTENDED = frozenset(
    {SubState.START, SubState.RELOAD, SubState.RELOAD_SIGNAL, SubState.RELOAD_NOTIFY, SubState.STOP_SIGTERM}
)
"""The sub-states in which a task may ask for more time."""


def _extended(draft: Draft, key: Key, seconds: float) -> None:
    task = draft.tasks[key]
    if task.deadline is not None and task.sub_state in _EXTENDED:
        draft.change(key, deadline=max(task.deadline, draft.now + seconds))


def _main_process(draft: Draft, key: Key, fact: ft.MainNamed | ft.MainChanged) -> None:
    task = draft.tasks[key]
    if task.pid is None or task.pid == fact.pid:
        return
    if isinstance(fact, ft.MainNamed):
        if task.state is State.ACTIVE or task.sub_state in (SubState.START, SubState.STOP_AFTER):
            draft.emit(
                fx.SetMain(launch=fact.launch, pid=fact.pid, start_time=fact.start_time, host=task.host)
            )
        return
    draft.record(key, "main-process", pid=fact.pid, before=task.pid, launch=fact.launch)
    draft.change(key, pid=fact.pid, start_time=fact.start_time)
    draft.mark_changed(key[0])


# --- updates


def _updated(draft: Draft, key: Key, fact: ft.TaskUpdated) -> None:
    task = draft.tasks[key]
    if fact.sequence and fact.sequence <= task.sequence:
        return
    judged = updates.judge(task.tokens, draft.now - task.tokens_at if task.tokens_at else None, fact.items)
    changes: dict[str, Any] = {
        "sequence": max(fact.sequence, task.sequence),
        "tokens": judged.tokens,
        "tokens_at": draft.now,
    }
    if judged.refusal:
        # The history gets the first update of a launch that came too fast; further ones are only counted.
        if not judged.too_fast or not task.dropped:
            draft.record(key, "dropped", why=judged.refusal, before=task.dropped)
        draft.change(key, dropped=task.dropped + 1, **changes)
        return
    task = draft.change(key, update=dict(fact.items), action="updated", **changes)
    draft.publish_control(key, "updated", success=True, pid=task.pid, items=fact.items)
    if not task.rules_suppressed:
        fire(
            draft,
            key,
            Trigger.ON_UPDATE,
            requested=task.stopped_by_operator or task.stop_reason is Reason.REQUESTED,
        )


# --- ends


def _exited(draft: Draft, key: Key, fact: ft.TaskExited) -> None:
    task = draft.tasks[key]
    if task.sub_state in (SubState.FINAL_SIGTERM, SubState.FINAL_SIGKILL):
        return
    if fact.cpu > 0:
        draft.count(Total.CPU, key[1], amount=fact.cpu)
    end = Exit(code=fact.code, signal=fact.signal, reason=_reason(draft, key, task, fact), at=draft.now)
    changes: dict[str, Any] = {"status": fact.why} if fact.why else {}
    if not fact.others_left:
        apply(draft, key, event_of(end.reason), exit=end, **changes)
    elif signals_others(draft, key):
        limit = draft.limits(key).stop_timeout
        left = (
            task.deadline if task.sub_state is SubState.STOP_SIGTERM else draft.now + limit if limit else None
        )
        apply(draft, key, TaskEvent.LEFT_BEHIND, exit=end, deadline=left, **changes)
    else:
        apply(draft, key, TaskEvent.LEFT_TO_KILL, exit=end, **changes)


def _gone(draft: Draft, key: Key, fact: ft.TaskGone) -> None:
    """Note that no process of the launch is left. That ends the launch only if its main process has ended
    before.
    """
    task = draft.tasks[key]
    if task.sub_state not in (SubState.FINAL_SIGTERM, SubState.FINAL_SIGKILL) or task.exit is None:
        return
    apply(draft, key, event_of(task.exit.reason), leftovers=fact.leftovers)


def _reason(draft: Draft, key: Key, task: Task, fact: ft.TaskExited) -> Reason:
    if task.stop_reason is not None:
        return task.stop_reason
    if fact.oom:
        return Reason.OOM_KILL
    if fact.why:
        return Reason.CANNOT_LAUNCH
    if fact.code == CANNOT_EXECUTE and task.sub_state in (SubState.LAUNCHING, SubState.START):
        return Reason.CANNOT_LAUNCH
    service = draft.service(key)
    clean = () if service is None else service.success_exit_status
    if fact.signal is not None and fact.signal not in clean:
        return Reason.SIGNAL
    if fact.code and fact.code not in clean:
        return Reason.EXIT_CODE
    ready = task.state is State.ACTIVE or (
        service is not None
        and service.service_type is ServiceType.COMMAND
        and not (service.notify or service.ready)
    )
    return Reason.EXITED if ready else Reason.NOT_READY
