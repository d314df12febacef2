"""Expectations of a context: what has to hold within a time after an event, as lines like
`after fail(ts_100): active(ts_101) and not failed(ts_102) within 5s`. Each is tried on a simulated run of its
own, and its event happens when all entry tasks are active. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zmsvc.core.errors import UsageError
from zmsvc.core.frozen import frozen
from zmsvc.core.lifecycle import State
from zmsvc.core.model import Context
from zmsvc.core.scenario import DEVICE, SUPERVISOR, Event, EventKind, Run, TimedRecord, event_of
from zmsvc.core.similar import similar_id
from zmsvc.core.values import quote, timespan

GRAMMAR = "after fail|exit|update|kill(ID): [not] active|inactive|failed(ID) [and ...] within SPAN"
_LINE = re.compile(r"after\s+(\w+)\s*\(([^()]*)\)\s*:\s*(.*?)\s+within\s+(.+)")
_CONDITION = re.compile(r"(not\s+)?(active|inactive|failed)\s*\(([^()]*)\)")
_STATES = {"active": State.ACTIVE, "inactive": State.INACTIVE, "failed": State.FAILED}


@frozen
class Condition:
    """The state that a task, or each replica of it, has or does not have."""

    task: str
    state: State
    negated: bool = False

    def holds(self, run: Run) -> bool:
        found = [run.task(name).state is self.state for name in run.world.context.named(self.task)]
        return all(each is not self.negated for each in found)


@frozen
class Expectation:
    """All conditions hold at one moment, at most `within` seconds after the event."""

    text: str
    event: Event
    conditions: tuple[Condition, ...]
    within: float


@frozen
class Result:
    """The result of one expectation. `after` has the seconds after which it held; None if it did not."""

    expectation: Expectation
    after: float | None
    why: str = ""
    """The states that the tasks in the conditions had at the end of the time."""
    timeline: tuple[TimedRecord, ...] = ()
    """All events since the event of the expectation."""
    begin: float = 0.0
    """The time of the event."""


def parse(text: str, context: Context) -> Expectation:
    """Return the expectation of one line. Raises UsageError."""
    line = " ".join(text.split())
    match = _LINE.fullmatch(line)
    if match is None or match[1] not in [each.value for each in EventKind]:
        raise UsageError(f"cannot understand the expectation {quote(line, 200)}, expected {GRAMMAR}")
    event = event_of(match[1], match[2])
    process = event.kind is EventKind.KILL and event.what in (SUPERVISOR, DEVICE)
    if not process:
        _known(event.what, context, line)
    conditions = []
    for word in re.split(r"\s+and\s+", match[3]):
        found = _CONDITION.fullmatch(word.strip())
        if found is None:
            raise UsageError(f"cannot understand {quote(word, 80)} in {quote(line, 200)}, expected {GRAMMAR}")
        name = found[3].strip()
        _known(name, context, line)
        conditions.append(Condition(task=name, state=_STATES[found[2]], negated=bool(found[1])))
    try:
        within = timespan(match[4])
    except ValueError as error:
        raise UsageError(f"cannot understand the time in {quote(line, 200)}: {error}") from None
    if not within:
        raise UsageError(f"cannot understand the time in {quote(line, 200)}: expected a limited time span")
    return Expectation(text=line, event=event, conditions=tuple(conditions), within=within)


def lines_of(text: str) -> list[tuple[int, str]]:
    """Return the expectations of a file with their line numbers. Each is on a line of its own; a comment
    begins with #.
    """
    found = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in found if line]


def check(context: Context, expected: Sequence[Expectation]) -> list[Result]:
    return [_try(context, each) for each in expected]


def _try(context: Context, expectation: Expectation) -> Result:
    run = Run.of(context)
    run.start()
    entries = [task.id for task in context.tasks.values() if task.entry]
    late = [name for name in entries if run.task(name).state is not State.ACTIVE]
    if late:
        why = f"before the event, not all entry tasks are active: {_states(run, late)}"
        return Result(expectation=expectation, after=None, why=why, timeline=tuple(run.timeline))
    begin, mark = run.now, len(run.timeline)
    run.apply(expectation.event)
    end = begin + expectation.within
    while True:
        if all(each.holds(run) for each in expectation.conditions):
            return Result(expectation=expectation, after=round(run.now - begin, 3), begin=begin)
        if (at := run.next_time) is None or at > end or run.too_long:
            break
        run.advance_once()
    named = [name for each in expectation.conditions for name in context.named(each.task)]
    return Result(
        expectation=expectation,
        after=None,
        why=f"within {expectation.within:g} s: {_states(run, list(dict.fromkeys(named)))}",
        timeline=tuple(run.timeline[mark:]),
        begin=begin,
    )


def _known(name: str, context: Context, line: str) -> None:
    if not context.named(name):
        place = context.path or context.name
        hint = similar_id(name, context.tasks)
        raise UsageError(f"cannot understand {quote(line, 200)}: no such task in {place}: {name}{hint}")


def _states(run: Run, names: Sequence[str]) -> str:
    shown = ((name, run.task(name)) for name in names)
    return ", ".join(f"{name} is {task.state.value} ({task.sub_state.value})" for name, task in shown)
