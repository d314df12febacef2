"""The consequences of hosts that join, fall silent or are off for certain, and of the drain of a host.

A launch ends once: by its exit, or by the loss of its host, whichever comes first. Nothing starts elsewhere
because a host is silent.
"""

from __future__ import annotations

from dataclasses import replace

from zmsvc.core import effects as fx
from zmsvc.core import end_of_context, requests, start_barrier
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.draft import Draft
from zmsvc.core.facts import DrainRequested, HostJoined, HostLost, HostSilent, OnHost
from zmsvc.core.hosts import PAST_EPOCHS, Host, HostState
from zmsvc.core.lifecycle import State, SubState, TaskEvent
from zmsvc.core.pending_requests import postpone_reply
from zmsvc.core.resume import adopt_launch, without_process
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import KILL_TIMEOUT, apply, event_of
from zmsvc.core.world import Exit, Reason, Task


def joined(draft: Draft, fact: HostJoined) -> None:
    """Adopt the processes that a host still has. Under another epoch its earlier processes are gone. A
    process that the world does not list is killed, because it may duplicate a task.
    """
    known = draft.hosts.get(fact.host, Host())
    same = known.epoch == fact.epoch
    if not known.is_news(fact.epoch, fact.greeting):
        return
    strangers = _refuse_strangers(draft, fact, same=same)
    past = known.past if same or not known.epoch else (*known.past, known.epoch)[-PAST_EPOCHS:]
    here = Host(
        epoch=fact.epoch,
        greeting=fact.greeting,
        state=HostState.HERE,
        drained=known.drained,
        since=draft.now,
        strangers=strangers,
        past=past,
    )
    draft.put_host(fact.host, here)
    draft.record(("", ""), "host-joined", host=fact.host, epoch=fact.epoch)
    if same:
        _adopt(draft, fact)
    else:
        _lose_all(draft, fact.host, f"the keeper of {fact.host} has ended, and all its processes")


def _refuse_strangers(draft: Draft, fact: HostJoined, *, same: bool) -> frozenset[int]:
    """Kill the processes that the world does not list. Return their launches, without those of auxiliary
    processes, which are no copies of a task. None of these launch IDs is used again.
    """
    held = [*(child.launch for child in fact.children), *fact.exits]
    draft.next_launch = max([draft.next_launch, *(launch + 1 for launch in held)])
    found = set()
    for child in fact.children:
        if same and task_of(draft, fact.host, child.launch) is not None:
            continue
        if not child.auxiliary:
            draft.record(("", ""), "stranger", launch=child.launch, pid=child.pid, host=fact.host)
            found.add(child.launch)
        draft.emit(fx.KillAll(launch=child.launch, key=("", ""), host=fact.host))
    return frozenset(found)


def task_of(draft: Draft, host: str, launch: int) -> Key | None:
    """Return the task of a launch or of an auxiliary process on this host; None if there is none."""
    key = draft.of_launch(launch)
    if key is None and (found := draft.of_auxiliary(launch)) is not None:
        key = found[0]
    return key if key is not None and draft.tasks[key].host == host else None


def _adopt(draft: Draft, fact: HostJoined) -> None:
    children = {child.launch: child for child in fact.children}
    without: list[Key] = []
    for key in _tasks_on(draft, fact.host):
        if adopt_launch(draft, key, children, fact):
            _begin_deadline(draft, key)
        else:
            without.append(key)
    # Last, since the rules of lost tasks may reach any other task.
    for key in without:
        without_process(draft, key)
    start_barrier.resume(draft, fact.host)


def _tasks_on(draft: Draft, host: str) -> list[Key]:
    return [key for key, task in draft.tasks.items() if task.host == host]


def _begin_deadline(draft: Draft, key: Key) -> None:
    """Give an adopted task its whole time again: its deadline may have rested while the host was silent."""
    task, limits = draft.tasks[key], draft.limits(key)
    match task.sub_state:
        case SubState.START | SubState.RELOAD | SubState.RELOAD_SIGNAL | SubState.RELOAD_NOTIFY:
            seconds = limits.start_timeout
        case SubState.RUNNING:
            seconds = limits.watchdog
        case SubState.STOP_SIGTERM | SubState.FINAL_SIGTERM:
            seconds = limits.stop_timeout
        case SubState.STOP_SIGKILL | SubState.FINAL_SIGKILL:
            seconds = KILL_TIMEOUT
        case _:
            seconds = 0.0
    draft.change(key, deadline=draft.now + seconds if seconds else None)


def silent(draft: Draft, fact: HostSilent) -> None:
    """Note that nothing is heard from a host. Its tasks are as they are: their deadlines do nothing until the
    host has joined again or is lost.
    """
    known = draft.hosts.get(fact.host, Host())
    if known.state is HostState.HERE and (known.epoch, known.greeting) == (fact.epoch, fact.greeting):
        draft.put_host(fact.host, replace(known, state=HostState.SILENT, since=draft.now))
        draft.record(("", ""), "host-silent", host=fact.host)
        if draft.stopping:
            end_of_context.limit_wait(draft, fact.host)


def lost(draft: Draft, fact: HostLost) -> None:
    """End each launch on a host that is off for certain."""
    known = draft.hosts.get(fact.host, Host())
    if known.epoch != fact.epoch or known.state is HostState.OFF:
        return
    off = replace(known, state=HostState.OFF, since=draft.now, strangers=frozenset())
    draft.put_host(fact.host, off)
    draft.record(("", ""), "host-lost", host=fact.host)
    _lose_all(draft, fact.host, f"its host {fact.host} is off")


def _lose_all(draft: Draft, host: str, why: str) -> None:
    """End each launch on a host, as it is at this moment: rules of one may stop or restart others."""
    found = {key: draft.tasks[key] for key in _tasks_on(draft, host)}
    for key, task in found.items():
        _lose(draft, key, task, why)


def _lose(draft: Draft, key: Key, task: Task, why: str) -> None:
    if task.sub_state in (SubState.FINAL_SIGTERM, SubState.FINAL_SIGKILL) and task.exit is not None:
        # Its main process has ended before, and that end is known.
        apply(draft, key, event_of(task.exit.reason))
        return
    # The end that an order or a limit has asked for has come. Any other end is not known.
    end = Exit(reason=task.stop_reason or Reason.LOST, at=draft.now)
    event = event_of(end.reason) if task.pid is not None else TaskEvent.LAUNCH_FAILED
    text = {} if end.reason is Reason.REQUESTED else {"status": why}
    apply(draft, key, event, exit=end, **text)


def is_current(draft: Draft, fact: OnHost) -> bool:
    """Return True if a fact comes from the present epoch of its host."""
    known = draft.hosts.get(fact.host)
    return known is not None and known.epoch == fact.epoch and known.state is not HostState.OFF


def of_unknown_launch(draft: Draft, fact: OnHost) -> None:
    """Take a fact about a launch that is over or unknown: the keeper may forget its end. A process that was
    refused may be gone now.
    """
    told = fact.fact
    if isinstance(told, ft.TaskExited | ft.LaunchFailed):
        draft.emit(fx.Forget(launch=told.launch, host=fact.host))
    known = draft.hosts[fact.host]
    gone = isinstance(told, ft.TaskGone | ft.LaunchFailed) or (
        isinstance(told, ft.TaskExited) and not told.others_left
    )
    if gone and told.launch in known.strangers:
        draft.put_host(fact.host, replace(known, strangers=known.strangers - {told.launch}))


# --- drain


def drain(draft: Draft, fact: DrainRequested) -> None:
    """Restart all tasks of a host on others, and keep tasks away from it. Tasks for which there is no other
    host wait for one. `undrain` only lets tasks run there again.
    """
    word = "drain" if fact.drained else "undrain"
    why, code = "", 0
    if fact.host not in draft.hosts and fact.host not in draft.context.hosts:
        why, code = "no such host in this context", 4
    elif draft.stopping:
        why, code = "the context is stopping", 1
    if why:
        if fact.request is not None:
            error = f"cannot {word} {fact.host}: {why}"
            draft.emit(fx.Reply(request=fact.request, ok=False, code=code, error=error))
        return
    draft.record(
        ("", ""),
        "drained" if fact.drained else "undrained",
        host=fact.host,
        by=fact.origin.by,
        uid=fact.origin.uid,
    )
    draft.put_host(fact.host, replace(draft.hosts.get(fact.host, Host()), drained=fact.drained))
    keys = [key for key in _tasks_on(draft, fact.host) if fact.drained and _runs(draft.tasks[key])]
    order = ft.Requested(verb=Verb.RESTART, origin=fact.origin, request=fact.request, block=fact.block)
    postpone_reply(draft, order, tuple(dict.fromkeys(key[0] for key in keys)), keys, keys)
    for key in keys:
        task = draft.change(key, rules_suppressed=True)
        apply(draft, key, TaskEvent.RESTART, cause=requests.cause_of(order, task))


def _runs(task: Task) -> bool:
    return task.state is State.ACTIVE or task.sub_state in (SubState.LAUNCHING, SubState.START)
