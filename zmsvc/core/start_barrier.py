"""The barrier between READY and the first step of a Python task. Among tasks that are started together, a
task goes on when each task that hears what it publishes is ready, or has failed. So no first message is lost.
READY itself waits for nothing, so tasks cannot block each other.

The barrier awaits each task that is not ready yet. Until such a task declares its topics, it may hear
anything. A Command does not wait itself. It is awaited if its `<subscribe>` says that its program hears
something.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, replace

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core import topics
from zmsvc.core.draft import Draft
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.service_options import ServiceType
from zmsvc.core.task_key import Key
from zmsvc.core.world import AwaitedCounts, Barrier, Stage, Task


def begin(draft: Draft) -> None:
    """Give a common barrier to the Python tasks of a transaction that this step has started, if there are
    several.
    """
    started, draft.started = draft.started, {}
    if len(started) < 2:
        return
    together: dict[str, list[Key]] = {}
    for key in started:
        if _may_join(draft, key):
            together.setdefault(key[0], []).append(key)
    for keys in together.values():
        if len(keys) > 1 and not all(_is_command(draft, key) for key in keys):
            number = 1 + max((each.barrier.start for each in draft.tasks.values() if each.barrier), default=0)
            for key in keys:
                _put(draft, key, Barrier(start=number, topics=_heard_by_command(draft, key)))


def _may_join(draft: Draft, key: Key) -> bool:
    task = draft.tasks.get(key)
    return (
        task is not None
        and task.sub_state in (SubState.START_AFTER, SubState.LAUNCHING)
        and task.barrier is None
        and draft.service(key) is not None
        and _heard_by_command(draft, key) != ()
    )


def _is_command(draft: Draft, key: Key) -> bool:
    service = draft.service(key)
    return service is not None and service.service_type is ServiceType.COMMAND


def _heard_by_command(draft: Draft, key: Key) -> tuple[str, ...] | None:
    """Return the topics that the program of a Command hears; None for a task in Python, which declares its
    topics itself.
    """
    service = draft.service(key)
    return topics.subscribed(service.configuration) if service and _is_command(draft, key) else None


def take_declaration(draft: Draft, key: Key, fact: ft.TaskDeclared) -> None:
    """Note what a task hears and publishes."""
    barrier = draft.tasks[key].barrier
    if barrier is not None and barrier.stage is Stage.AWAITED:
        _put(draft, key, replace(barrier, topics=fact.topics, publishes=fact.publishes))


def note_ready(draft: Draft, key: Key) -> None:
    """Note that a task has sent READY=1: it hears its topics, and waits before its first step."""
    barrier = draft.tasks[key].barrier
    if barrier is not None and barrier.stage is Stage.AWAITED and not _is_command(draft, key):
        _put(draft, key, replace(barrier, stage=Stage.WAITING))
        draft.at_barrier[barrier.start].append(key)


def program_ready(draft: Draft, key: Key) -> None:
    """Note that a Command is ready, or that its program runs and only a message will make it ready: it is
    awaited no longer.
    """
    if _is_command(draft, key):
        withdraw(draft, key)


def withdraw(draft: Draft, key: Key) -> None:
    """Note that a task does not start, or has ended."""
    if draft.tasks[key].barrier is not None:
        _put(draft, key, None)


def _put(draft: Draft, key: Key, barrier: Barrier | None) -> None:
    old = draft.tasks[key].barrier
    draft.change(key, barrier=barrier)
    known = barrier or old
    assert known is not None
    draft.at_barrier.setdefault(known.start, [])
    starts = dict(draft.starts)
    counts = starts.pop(known.start, AwaitedCounts())
    for each, sign in ((old, -1), (barrier, 1)):
        if each is not None and each.is_awaited:
            counts = counts.plus(each, sign)
    draft.starts = {**starts, known.start: counts} if counts.tasks else starts


def settle(draft: Draft) -> None:
    """Let the tasks go on whose barrier has passed in this step."""
    begin(draft)
    other_file = draft.context is not draft.before.context
    for number in draft.starts if other_file else ():
        draft.at_barrier.setdefault(number, [])
    changed, draft.at_barrier = draft.at_barrier, {}
    passed: dict[str, list[int]] = {}
    for number, came in changed.items():
        awaited = draft.starts.get(number, AwaitedCounts())
        before = draft.before.starts.get(number, AwaitedCounts())
        heard = heard_early = _Heard(awaited.topics.keys(), awaited.unknown > 0, not awaited.tasks)
        if draft.context.successors:
            heard_early = _heard_early(_awaited(draft, number))
        elif awaited.unknown:
            continue
        # The tasks that waited before this step are concerned only if other tasks are awaited now.
        members: list[Key] = came
        if other_file or (draft.context.successors and before != awaited):
            members = [key for key, task in draft.tasks.items() if _is_at(number, task.barrier)]
        elif before != awaited:
            members = [*came, *_released(draft, number, before, awaited)]
        for key in _let_pass(draft, members, heard, heard_early):
            passed.setdefault(draft.tasks[key].host, []).append(draft.tasks[key].launch)
    for host, launches in passed.items():
        draft.emit(fx.OpenBarrier(launches=tuple(launches), host=host))


def _released(draft: Draft, number: int, before: AwaitedCounts, now: AwaitedCounts) -> list[Key]:
    """Return the tasks of a start that may go on because a topic is awaited no longer. Each READY of a start
    of 1,000 tasks comes here, so no other task is looked at closely.
    """
    everything = before.unknown > 0 or not now.tasks
    ended = before.topics.keys() - now.topics.keys()
    if not everything and not ended:
        return []
    return [
        key
        for key, task in draft.tasks.items()
        if (barrier := task.barrier) is not None
        and barrier.start == number
        and (everything or (barrier.publishes is not None and not ended.isdisjoint(barrier.publishes)))
    ]


def _is_at(number: int, barrier: Barrier | None) -> bool:
    return barrier is not None and barrier.start == number


def _awaited(draft: Draft, number: int) -> list[Task]:
    return [
        task
        for task in draft.tasks.values()
        if task.barrier is not None and task.barrier.start == number and task.barrier.is_awaited
    ]


@dataclass(frozen=True, slots=True)
class _Heard:
    """The topics that awaited tasks may hear. `published in heard` is True if one of them is among the
    published ones.
    """

    topics: Set[str]
    anything: bool
    """True if the topics of some are unknown."""
    nothing: bool
    """True if there are no such tasks."""

    def __contains__(self, published: tuple[str, ...] | None) -> bool:
        if self.nothing or published is None:
            return not self.nothing
        return self.anything or not self.topics.isdisjoint(published)


def _heard_early(awaited: Iterable[Task]) -> _Heard:
    """Return the topics that those awaited tasks may hear that wait for no other task before they start."""
    early = [each.barrier for each in awaited if each.sub_state is not SubState.START_AFTER]
    topics = [each.topics for each in early if each is not None]
    known = frozenset(topic for each in topics for topic in each or ())
    return _Heard(topics=known, anything=None in topics, nothing=not topics)


def _let_pass(draft: Draft, keys: Iterable[Key], heard: _Heard, heard_early: _Heard) -> list[Key]:
    """Let those tasks go on that need not wait any longer, and return them.

    A task with `<ready>` may become ready only by its first step. So it waits only for tasks that do not wait
    themselves for others before they start: these may have it in their `<after>`.
    """
    passed: list[Key] = []
    for key in keys:
        task, service = draft.tasks[key], draft.service(key)
        barrier = task.barrier
        if barrier is None or barrier.stage is not Stage.WAITING:
            continue
        if barrier.publishes not in (heard_early if service is not None and service.ready else heard):
            draft.change(key, barrier=replace(barrier, stage=Stage.PASSED))
            passed.append(key)
    return passed


def resume(draft: Draft, host: str = "") -> None:
    """Repeat the order to open barriers to the keeper of a host, because the previous supervisor may have
    died before it sent it. A supervisor of an earlier zmsvc does not note READY=1 here.
    """
    for key, task in [*draft.tasks.items()]:
        if task.host != host:
            continue
        service = draft.service(key)
        if task.state is State.ACTIVE:
            program_ready(draft, key)
        if task.state is State.ACTIVE and not (service and service.ready):
            note_ready(draft, key)
    passed = [
        task.launch
        for task in draft.tasks.values()
        if task.host == host and task.live and task.barrier is not None and task.barrier.stage is Stage.PASSED
    ]
    if passed:
        draft.emit(fx.OpenBarrier(launches=tuple(passed), host=host))
