"""A run of a context on the simulated machine: its start, and events at given times. Processes take the
assumed times to become ready and to end, feed their watchdogs, and run until an event ends them. Pure.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.effects import Effect
from zmsvc.core.errors import UsageError
from zmsvc.core.frozen import frozen
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.model import Context, Rule, TaskDefinition, Trigger, at_home
from zmsvc.core.probing import Health, topic_of
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.restart import fires_for
from zmsvc.core.rule_conditions import lacks
from zmsvc.core.service_options import ServiceType
from zmsvc.core.similar import similar_id
from zmsvc.core.simulated_machine import SimulatedKeeper, SimulatedMachine
from zmsvc.core.task_key import Key
from zmsvc.core.values import quote, timespan
from zmsvc.core.world import Exit, Reason, Task, World

TRANSACTION = "T1"
START_TIME = 0.1
"""Seconds from the fork of a process until it is ready, as assumed."""
STOP_TIME = 0.05
"""Seconds from the stop signal until a process ends, as assumed."""
DURATION = 600.0
"""Seconds that a simulation lasts, unless the user says otherwise."""
SETTLE_TIME = 60.0
"""Seconds after which the next event without a time happens, also if the consequences of the one before have
not settled.
"""
MAX_RECORDS = 200_000
"""The number of events after which a simulation ends, because a ring of rules may turn for ever."""
_SIGNAL = "SIGSEGV"
"""The signal of a failure that names none."""
SUPERVISOR, DEVICE = "supervisor", "device"
_MEMORY = 1 << 50


class EventKind(StrEnum):
    """The events that can happen in a simulation."""

    FAIL = "fail"
    EXIT = "exit"
    UPDATE = "update"
    KILL = "kill"


FAILURES_WHILE_RUNNING = (
    Reason.EXIT_CODE,
    Reason.SIGNAL,
    Reason.OOM_KILL,
    Reason.WATCHDOG,
    Reason.UNHEALTHY,
    Reason.SILENT,
    Reason.MEMORY_LIMIT,
    Reason.LOST,
)
FAILURES_AT_START = (Reason.NOT_READY, Reason.CANNOT_LAUNCH)
"""The failures of the next start of a task."""
FAILURES = (*FAILURES_WHILE_RUNNING, *FAILURES_AT_START)
"""The reasons of a simulated failure."""


@frozen
class Event:
    """One event. `what` is a task, or for `kill` also the supervisor or the device."""

    kind: EventKind
    what: str
    reason: Reason = Reason.EXIT_CODE
    detail: str = ""
    """The exit status or the signal of a failure."""
    at: float | None = None
    """Seconds after the start of the context. None: as soon as no process is about to be ready or to end;
    that does not include the end of a back-off.
    """
    times: int = 1
    """The number of times that it happens, in the matrix."""

    @property
    def text(self) -> str:
        more = ":".join(word for word in (self.reason.value, self.detail) if word)
        shown = f"={more}" if self.kind is EventKind.FAIL and more != Reason.EXIT_CODE.value else ""
        often = f" {self.times} times" if self.times > 1 else ""
        return f"{self.kind.value}({self.what}{shown}){often}"

    @property
    def end(self) -> Exit:
        """The end of the task by this failure."""
        return Exit(
            reason=self.reason,
            code=int(self.detail or 1) if self.reason is Reason.EXIT_CODE else None,
            signal=(self.detail or _SIGNAL) if self.reason is Reason.SIGNAL else None,
        )


@frozen
class TimedRecord:
    """One record of the history of the run. `at` is in seconds after the start of the context."""

    at: float
    record: fx.Record


def event_of(kind: str, text: str, at: float | None = None) -> Event:
    """Return the event of `fail ts_1=watchdog`. Raises UsageError."""
    what, _, words = text.partition("=")
    reason, _, detail = words.partition(":")
    if words and kind != EventKind.FAIL:
        raise UsageError(f"cannot {kind} {text}: only a failure has a reason")
    known = {each.value: each for each in FAILURES}
    if reason and reason not in known:
        raise UsageError(f"cannot fail {what}: {reason} is unknown, expected one of {', '.join(known)}")
    if detail and reason not in (Reason.EXIT_CODE, Reason.SIGNAL):
        raise UsageError(f"cannot fail {what}: {reason} has no detail")
    status = int(detail) if detail.isascii() and detail.isdigit() else 0
    if reason == Reason.EXIT_CODE and detail and not 0 < status < 256:
        raise UsageError(f"cannot fail {what}: {detail} is not an exit status from 1 to 255")
    chosen = known.get(reason, Reason.EXIT_CODE)
    return Event(kind=EventKind(kind), what=what.strip(), reason=chosen, detail=detail, at=at)


def events_of(words: Sequence[tuple[str, str]]) -> list[Event]:
    """Return the events of a script: pairs of a verb and its argument. `at` is the time of those that follow.
    Raises UsageError.
    """
    found: list[Event] = []
    at: float | None = None
    for verb, text in words:
        if verb == "at":
            try:
                at = timespan(text)
            except ValueError as error:
                raise UsageError(f"cannot understand the time {text}: {error}") from None
        else:
            found.append(event_of(verb, text, at))
    return found


def script_of(text: str, name: str) -> list[tuple[str, str]]:
    """Return the words of a script: on each line a verb and its argument, and a comment after #. Raises
    UsageError with the line.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split(maxsplit=1)
        if not words:
            continue
        if len(words) != 2 or words[0] not in ("at", *EventKind):
            expected = ", ".join(("at", *EventKind))
            raise UsageError(
                f"{name}:{number}: {quote(line.strip(), 80)} is unknown, expected one of {expected} "
                f"and its argument"
            )
        found.append((words[0], words[1].strip()))
    return found


@dataclass
class Run(SimulatedMachine):
    """A context that runs under the virtual clock, with all tasks on one host. Its time begins at 0."""

    timeline: list[TimedRecord] = field(default_factory=list)
    hung: set[int] = field(default_factory=set)
    """The launches that feed their watchdogs no longer."""
    next_failures: dict[str, Reason] = field(default_factory=dict)
    """The tasks whose next start fails, with the reason."""
    notes: list[str] = field(default_factory=list)
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0

    @classmethod
    def of(cls, context: Context) -> Self:
        return cls(world=World(context=at_home(context)))

    # --- the machine

    def turn(self) -> list[Effect]:
        effects = super().turn()
        self.timeline += [
            TimedRecord(at=self.now, record=effect) for effect in effects if isinstance(effect, fx.Record)
        ]
        return effects

    def perform(self, effect: Effect) -> None:
        match effect:
            case fx.Launch(launch=launch, key=key):
                self._launch(launch, key, effect)
            case fx.LaunchAuxiliary(launch=launch, name=name):
                super().perform(effect)
                self._later(START_TIME, lambda: self._auxiliary_done(launch, name))
            case _:
                super().perform(effect)

    def _launch(self, launch: int, key: Key, effect: Effect) -> None:
        failure = self.next_failures.pop(key[1], None)
        if failure is Reason.CANNOT_LAUNCH:
            self.keeper.out.append(ft.LaunchFailed(launch=launch, why="simulated"))
            return
        super().perform(effect)
        if failure is None:
            self._later(START_TIME, lambda: self._become_ready(launch, key))

    def _become_ready(self, launch: int, key: Key) -> None:
        if launch not in self.keeper.alive:
            return
        service = self.world.context.tasks.get(key[1])
        if service is not None and service.service_type is ServiceType.COMMAND:
            self.keeper.alive[launch].executed = True
            self.happen(ft.TaskExecuted(launch=launch))
            if isinstance(service.ready, ReadyLine):
                self.keeper.alive[launch].line_seen = True
                self.happen(ft.ReadyLineSeen(launch=launch))
        if service is None or service.service_type is not ServiceType.COMMAND or service.notify:
            self.happen(ft.TaskReady(launch=launch))
        if service is not None and (topic := topic_of(service.ready)):
            self.happen(ft.TopicHeard(launch=launch, topic=topic))

    def _auxiliary_done(self, launch: int, name: AuxiliaryName) -> None:
        if launch not in self.keeper.alive:
            return
        if name is AuxiliaryName.HEALTH:
            self.happen(ft.HealthReported(launch=launch, health=Health.HEALTHY))
        else:
            self.keeper.end(launch, code=0)
            self.happen()

    def signaled(self, keeper: SimulatedKeeper, launch: int, name: str) -> None:
        def end() -> None:
            if launch in keeper.alive:
                aborted = name == "SIGABRT"
                keeper.end(launch, code=None if aborted else 0, signal=name if aborted else None)
                self.happen()

        self._later(STOP_TIME, end)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._due, (self.now + seconds, self._number, act))

    # --- time

    @property
    def next_time(self) -> float | None:
        """The time of the next thing that happens by itself; None if nothing will."""
        times = [*(self._due[0][:1] if self._due else ()), *self.alarms.values()]
        return min(times, default=None)

    @property
    def too_long(self) -> bool:
        return len(self.timeline) >= MAX_RECORDS

    def advance_once(self) -> None:
        """Let the next thing happen."""
        alarm = min(self.alarms.values(), default=None)
        if self._due and (alarm is None or self._due[0][0] <= alarm):
            self.pass_due()
            return
        key = min((at, key) for key, at in self.alarms.items())[1]
        task = self.world.tasks[key]
        if task.sub_state is SubState.RUNNING and task.deadline == alarm and task.launch not in self.hung:
            self.now = max(self.now, self.alarms[key])
            self.happen(ft.WatchdogFed(launch=task.launch))
        else:
            self.ring()

    def pass_due(self) -> None:
        """Let a process be ready, or end: the next one that is about to."""
        at, _, act = heapq.heappop(self._due)
        self.now = max(self.now, at)
        act()

    def advance(self, until: float) -> None:
        """Let everything happen until a time."""
        while (at := self.next_time) is not None and at <= until and not self.too_long:
            self.advance_once()
        self.now = max(self.now, until)

    def settle(self) -> None:
        """Let time pass until no process is about to be ready or to end. A back-off is not waited for."""
        limit = self.now + SETTLE_TIME
        while self._due and (at := self.next_time) is not None and at <= limit and not self.too_long:
            self.advance_once()

    def advance_while(self, condition: Callable[[], bool], until: float) -> None:
        """Let everything happen while a condition holds, but not beyond a time."""
        while condition() and (at := self.next_time) is not None and at <= until and not self.too_long:
            self.advance_once()

    # --- events

    def start(self) -> None:
        self.begin(TRANSACTION)
        self.settle()

    def task(self, name: str) -> Task:
        return self.world.tasks[TRANSACTION, name]

    def runs(self, name: str) -> bool:
        task = self.world.tasks.get((TRANSACTION, name))
        return task is not None and task.launch in self.keeper.alive

    def is_active(self, name: str) -> bool:
        return self.runs(name) and self.task(name).state is State.ACTIVE

    def restart(self, name: str) -> None:
        """Let an operator restart a task."""
        origin = ft.Origin(by="operator")
        self.happen(ft.Requested(verb=Verb.RESTART, origin=origin, transaction=TRANSACTION, tasks=(name,)))

    def apply(self, event: Event) -> None:
        """Let an event happen now. Raises UsageError if it cannot."""
        if event.kind is EventKind.KILL and event.what in (SUPERVISOR, DEVICE):
            self._kill_process(event.what)
            return
        names = self.world.context.named(event.what)
        if not names:
            place = self.world.context.path or self.world.context.name
            raise UsageError(
                f"cannot {event.kind} {event.what}: no such task in {place}"
                f"{similar_id(event.what, self.world.context.tasks)}"
            )
        for name in names:
            self._happen_to(name, event)

    def way_out(self, event: Event) -> str:
        """Return advice if an event cannot happen yet; otherwise an empty text."""
        waits = any(
            not self.runs(name) and self.task(name).state is State.ACTIVATING
            for name in self.world.context.named(event.what)
        )
        return "; the event does not wait for a back-off: --at names a later time for it" if waits else ""

    def _kill_process(self, what: str) -> None:
        if what == DEVICE:
            self.notes.append(f"{self.now:.3f} s: the keeper replaces the device; that changes no task")
            return
        self.lose_supervisor(self.world)
        self.happen()

    def _happen_to(self, name: str, event: Event) -> None:
        if event.kind is EventKind.FAIL and event.reason in _AT_THE_START:
            self.next_failures[name] = event.reason
            return
        if not self.runs(name):
            state = self.task(name)
            raise UsageError(
                f"cannot {event.kind} {name}: it does not run at {self.now:.3f} s, but is "
                f"{state.state.value} ({state.sub_state.value})"
            )
        launch = self.task(name).launch
        match event.kind:
            case EventKind.EXIT:
                self.keeper.end(launch, code=0)
            case EventKind.KILL:
                self.keeper.end(launch, signal="SIGKILL")
            case EventKind.UPDATE:
                sequence = self.task(name).sequence + 1
                self.happen(ft.TaskUpdated(launch=launch, items={}, sequence=sequence))
            case EventKind.FAIL:
                self._fail(name, launch, event)
        self.happen()

    def _fail(self, name: str, launch: int, event: Event) -> None:
        service = self.world.context.tasks[name]
        if option := lacks(service, event.reason):
            raise UsageError(f"cannot fail {name} by {event.reason.value}: it has no {option}")
        match event.reason:
            case Reason.SIGNAL:
                self.keeper.end(launch, signal=event.detail or _SIGNAL)
            case Reason.OOM_KILL:
                self.keeper.end(launch, signal="SIGKILL", oom=True)
            case Reason.WATCHDOG:
                self.hung.add(launch)
            case Reason.UNHEALTHY:
                for each in self.task(name).auxiliaries:
                    if each.name is AuxiliaryName.HEALTH:
                        self.happen(
                            ft.HealthReported(launch=each.launch, health=Health.UNHEALTHY, text="simulated")
                        )
            case Reason.SILENT:
                self.happen(ft.TopicSilent(launch=launch, topic=service.expect[0].topic))
            case Reason.MEMORY_LIMIT:
                self.happen(ft.MemoryMeasured(launch=launch, used=_MEMORY, machine=_MEMORY))
            case Reason.LOST:
                # The keeper has neither the process nor its end, which a new supervisor notices.
                self.keeper.lose(launch)
                self.lose_supervisor(self.world)
            case _:
                self.keeper.end(launch, code=int(event.detail or 1))


def simulate(context: Context, events: Sequence[Event], duration: float = DURATION) -> Run:
    """Start a context, let the events happen in their order, and return the run at the end of its time.
    Raises UsageError for an event that cannot happen.
    """
    run = Run.of(context)
    run.start()
    for event in events:
        if event.at is None:
            run.settle()
        elif event.at < run.now:
            late = f"it is {run.now:.3f} s already"
            raise UsageError(f"cannot {event.kind} {event.what} at {event.at:g} s: {late}")
        else:
            run.advance(event.at)
        try:
            run.apply(event)
        except UsageError as error:
            raise UsageError(f"{error}{run.way_out(event)}") from None
    run.advance(max(duration, run.now))
    return run


# --- the matrix


@frozen
class Consequence:
    """The consequences of one failure of one task."""

    event: Event
    down: tuple[str, ...]
    """The tasks that were active before and are not at the end."""
    started: dict[str, int]
    """The number of starts since the failure, by task."""
    recovered: float | None
    """Seconds after the failure until all tasks that were active before it were active again; None if they
    never were.
    """
    rings: dict[str, float]
    """The number of starts per minute in the second half of the time, for tasks that are started again and
    again.
    """


def matrix(context: Context, duration: float = DURATION) -> Iterator[Consequence]:
    """Simulate, one at a time, each failure of each task that runs after the start, and each failure that a
    rule names. A failure that an `after` counts is repeated until the rule fires.
    """
    for name, service in context.tasks.items():
        for event in _failures(context, name, service):
            run = Run.of(context)
            run.start()
            if not run.runs(name):
                break
            yield _consequence(run, event, duration)


def _failures(context: Context, name: str, service: TaskDefinition) -> Iterator[Event]:
    """Yield the failures of a task whose consequences may differ."""
    rules = [rule for rule in (*service.rules, *context.on_any_fail) if rule.trigger in _ON_A_FAILURE]
    named = {each.reason for rule in rules for each in rule.when}
    reasons = dict.fromkeys((*_IN_MATRIX, *(each for each in FAILURES if each.value in named)))
    for event in failures_of(service, rules, reasons):
        counts = {rule.after.count for rule in rules if rule.after and fires_for(rule, event.end)}
        yield from (replace(event, what=name, times=times) for times in sorted({1, *counts}))


def failures_of(service: TaskDefinition, rules: Sequence[Rule], reasons: Iterable[Reason]) -> Iterator[Event]:
    """Yield the failures of a task for these reasons, and those with an exit status or a signal that the
    rules name.
    """
    named = [each for rule in rules for each in rule.when if each.detail is not None]
    for reason in reasons:
        details = [str(each.detail) for each in named if each.reason == reason.value]
        for detail in () if lacks(service, reason) else dict.fromkeys(("", *details)):
            yield Event(kind=EventKind.FAIL, what=service.id, reason=reason, detail=detail)


def _consequence(run: Run, event: Event, duration: float) -> Consequence:
    before = _active(run)
    begin, mark = run.now, len(run.timeline)
    failed, recovered = False, None
    end = begin + duration
    _repeat(run, event, end)
    while (at := run.next_time) is not None and at <= end and not run.too_long:
        failed = failed or not before <= _active(run)
        if failed and recovered is None and before <= _active(run):
            recovered = run.now - begin
        run.advance_once()
    whole = before <= _active(run)
    launches = [each for each in run.timeline[mark:] if each.record.event == "launching"]
    started = Counter(each.record.task for each in launches)
    half = (run.now + begin) / 2 if run.too_long else begin + duration / 2
    late = Counter(each.record.task for each in launches if each.at > half)
    minutes = max((run.now if run.too_long else end) - half, 1e-9) / 60
    return Consequence(
        event=event,
        down=tuple(sorted(before - _active(run))),
        started=dict(started),
        recovered=(recovered if recovered is not None else run.now - begin) if whole else None,
        rings={task: round(count / minutes, 2) for task, count in late.items() if count >= RING},
    )


def _repeat(run: Run, event: Event, end: float) -> None:
    """Let a failure happen as often as its event says, each time to the next launch, all before this time."""
    name, last = event.what, 0
    for number in range(event.times):
        if event.reason in _AT_THE_START:
            run.apply(event)
            if not number:
                run.restart(name)
            run.advance_while(lambda: name in run.next_failures, end)
            continue
        # A function of the loop reads the present value.
        run.advance_while(lambda: run.task(name).launch == last or not run.is_active(name), end)  # noqa: B023
        if run.task(name).launch == last or not run.is_active(name):
            return
        last = run.task(name).launch
        run.apply(event)


_AT_THE_START = (Reason.NOT_READY, Reason.CANNOT_LAUNCH)
"""The reasons of failures that happen at a start."""
_ON_A_FAILURE = (Trigger.ON_FAIL, Trigger.ON_ANY_FAIL)
_IN_MATRIX = (
    Reason.EXIT_CODE,
    Reason.SIGNAL,
    Reason.WATCHDOG,
    Reason.UNHEALTHY,
    Reason.SILENT,
    Reason.MEMORY_LIMIT,
)
RING = 3
"""With this number of starts in the second half of the time, a task counts as part of a ring."""


def _active(run: Run) -> set[str]:
    return {key[1] for key, task in run.world.tasks.items() if task.state is State.ACTIVE}
