"""The states that one part of a context can reach by events that come one at a time. In each settled state,
the real engine on the simulated machine of `scenario.py` takes each event. A state is settled when nothing
more follows from the last event, and no back-off or start limit is running. Pure.

Nothing is judged here; that is the job of `proof.py`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.back_off import GOOD_UPTIME, recent_starts
from zmsvc.core.cause import rule_text
from zmsvc.core.effects import Effect
from zmsvc.core.facts import Fact
from zmsvc.core.frozen import frozen
from zmsvc.core.independent_parts import IndependentPart
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.model import Action, Context, Rule, TaskDefinition, Trigger
from zmsvc.core.restart import fires_for
from zmsvc.core.scenario import (
    FAILURES_AT_START,
    FAILURES_WHILE_RUNNING,
    SUPERVISOR,
    TRANSACTION,
    Event,
    EventKind,
    Run,
    TimedRecord,
    failures_of,
)
from zmsvc.core.service_options import ServiceType
from zmsvc.core.simulated_machine import Process, SimulatedKeeper
from zmsvc.core.task_key import Key
from zmsvc.core.transitions import rules_of_context
from zmsvc.core.world import Reason, World, with_changes

THREADS = "the process of all Thread tasks"
_TURNS = 3
"""Rules form a ring when they have fired each other for so many turns, in addition to those that a start
limit allows.
"""
_MOST_TURNS = 100
_TASKS_AS_A_DECISION = 50
"""The state is copied for each event. A copy of this many tasks costs as much as one decision."""
_FOR_ONE_EVENT = 10
"""The number of decisions, for each task, by which one event may exceed the budget. A start takes fewer, and
so does what follows from most events. So this cuts short only an event that starts tasks again and again.
"""
_FAILED = (Trigger.ON_FAIL, Trigger.ON_ANY_FAIL)


@frozen
class Ring:
    """Rules that fire each other for ever."""

    first: int
    """The first turn of the ring is the part of the timeline from this index up to `second`."""
    second: int


@frozen
class Happening:
    """One event in a settled state. Perhaps the next start of a task fails, too."""

    event: Event | None = None
    """None for the start of the context."""
    start_fails: Event | None = None
    counted: bool = False
    """True if each rule with an `after` has counted so many events before that the next event makes it fire.
    """

    @property
    def text(self) -> str:
        words = [self.event.text if self.event else "start"]
        text = " and ".join([*words, *([self.start_fails.text] if self.start_fails else ())])
        return f"{text}, counted to the end by rules with an after" if self.counted else text

    @property
    def single_failure(self) -> bool:
        return (
            self.event is not None
            and self.start_fails is None
            and self.event.kind in (EventKind.FAIL, EventKind.KILL)
        )


@dataclass(eq=False)
class Settled:
    """A settled state, and the way to it."""

    world: World
    now: float
    timeline: list[TimedRecord]
    """The records since the previous settled state."""
    happening: Happening
    before: Settled | None = None
    depth: int = 0
    """The number of events that led to it."""
    ends: int = 0
    """The number of these events at which a task ended well although it has no rule for that."""

    @property
    def path(self) -> list[Settled]:
        """The states from the start of the context to this one."""
        found: list[Settled] = []
        here: Settled | None = self
        while here is not None:
            found.append(here)
            here = here.before
        return found[::-1]

    def is_active(self, name: str) -> bool:
        return self.world.tasks[TRANSACTION, name].state is State.ACTIVE


@frozen
class Outcome:
    """The consequence of one event: a settled state, or a ring of rules."""

    reached: Settled
    launched: frozenset[str]
    ring: Ring | None = None
    cut_short: bool = False
    """True if the bound was reached while something still followed from the event. Then `reached` is not
    settled.
    """


@dataclass
class Trial(Run):
    """A run that knows when it has settled, and when it never will."""

    launched: set[str] = field(default_factory=set)
    decisions: int = 0
    """The number of steps of the engine."""
    most: float = math.inf
    """The number of steps after which it stops."""
    _turns: dict[Any, list[int]] = field(default_factory=dict)
    """For each combination of sub-states of all tasks: the length of the timeline at each launch that
    happened in this combination.
    """
    _marks: list[int] = field(default_factory=list)
    """The lengths for the combination at the last launch. Only this one can have become a ring by that
    launch, because `_allowed` never falls.
    """

    @classmethod
    def from_world(cls, world: World, now: float, *, counted: bool = False) -> Trial:
        """Return a run that goes on from a settled state. `counted` is as in `Happening`."""
        if counted or any(task.counted for task in world.tasks.values()):
            counts = {key: _counts(world.context, key[1], now) if counted else {} for key in world.tasks}
            tasks = {key: with_changes(task, {"counted": counts[key]}) for key, task in world.tasks.items()}
            world = replace(world, tasks=tasks)
        keeper = SimulatedKeeper()
        for launch, key in world.launches.items():
            keeper.alive[launch] = Process(launch=launch, key=key, executed=True, line_seen=True)
        for launch, key in world.auxiliaries.items():
            of = world.tasks[key].launch
            keeper.alive[launch] = Process(launch=launch, key=key, executed=True, auxiliary_of=of)
        alarms = {key: task.alarm for key, task in world.tasks.items() if task.alarm is not None}
        return cls(world=world, now=now, keeper=keeper, alarms=alarms)

    def decide(self, fact: Fact) -> list[Effect]:
        self.decisions += 1
        return super().decide(fact)

    def turn(self) -> list[Effect]:
        effects = super().turn()
        launches = [effect for effect in effects if isinstance(effect, fx.Launch)]
        if launches:
            self.launched.update(effect.key[1] for effect in launches)
            states = tuple(task.sub_state for task in self.world.tasks.values())
            self._marks = self._turns.setdefault(states, [])
            self._marks.append(len(self.timeline))
        return effects

    @property
    def endless(self) -> Ring | None:
        """The ring in which the run turns; None if it may still settle."""
        marks = self._marks
        if len(marks) > _TURNS and len(marks) > self._allowed:
            return Ring(first=marks[0], second=marks[1])
        return None

    @property
    def _allowed(self) -> int:
        """The number of turns after which a start limit, or a rule that counts, would have ended a ring.
        Later turns take longer, so one that has not acted by then never does.
        """
        tasks = self.world.context.tasks
        bursts = [tasks[name].limits.start_limit_burst for name in self.launched if name in tasks]
        counts = [rule.after.count for rule in _rules(self.world.context) if rule.after]
        return _TURNS + min(max([*bursts, *counts], default=0), _MOST_TURNS)

    def come_to_rest(self) -> Ring | None:
        """Let everything happen that follows without another event, unless it takes more steps than `most`.
        Return the ring if it never ends.
        """
        while (ring := self.endless) is None and not self.cut_short:
            # The alarms of all tasks are looked at only if one may come before a process.
            if self._due and self._due[0][0] <= min(self.alarms.values(), default=math.inf):
                self.pass_due()
                continue
            alarm = self._next_alarm
            if self._due and (alarm is None or self._due[0][0] <= alarm[0]):
                self.pass_due()
            elif alarm is not None:
                self._ring(*alarm)
            else:
                return None
        return ring

    @property
    def cut_short(self) -> bool:
        """True if something would still happen, but the steps are used up."""
        return self.decisions >= self.most and bool(self._due or self._next_alarm)

    @property
    def _next_alarm(self) -> tuple[float, Key] | None:
        return min(((at, key) for key, at in self.alarms.items() if self._matters(key)), default=None)

    def _matters(self, key: Key) -> bool:
        """Return False for the watchdog of a task that feeds it: this may go on for hours of a back-off."""
        task = self.world.tasks[key]
        return task.sub_state is not SubState.RUNNING or task.launch in self.hung

    def _ring(self, at: float, key: Key) -> None:
        self.now = max(self.now, at)
        del self.alarms[key]
        self.happen(ft.DeadlinePassed(key=key))

    def threads_die(self) -> None:
        """Let the process that all Thread tasks share end by a signal."""
        tasks = self.world.context.tasks
        for process in [*self.keeper.alive.values()]:
            if tasks[process.key[1]].service_type is ServiceType.THREAD:
                self.keeper.end(process.launch, signal="SIGSEGV")
        self.happen()

    def supervisor_dies(self) -> None:
        self.lose_supervisor(self.world)
        self.happen()


@dataclass
class Exploration:
    """The settled states of one part, breadth first. `outcomes` tries the events.

    Most tasks run until they fail. If every set of tasks that have ended well made a state, there would be
    too many. So the states in which more tasks have ended well without a rule for that come last.
    """

    part: IndependentPart
    budget: int
    """The number of decisions that the engine may still take. It is the measure of time, because one event
    may lead to many decisions, such as the start of a chain of tasks.
    """
    tried: int = 0
    """The number of events that were tried."""
    states: int = 0
    next: Settled | None = None
    """The first state in which not every event has been tried; None if there is none."""
    unfinished: Settled | None = None
    """The state at which the bound cut an event short; None if there is none."""
    _seen: dict[Any, list[tuple[int, ...]]] = field(default_factory=dict)
    _shared: dict[Any, Any] = field(default_factory=dict)
    _queue: list[tuple[int, int, int, Settled]] = field(default_factory=list)

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what each event leads to, from the start of the context on."""
        yield from self._try(None, Happening())
        while self._queue:
            here = self._queue[0][-1]
            for event in self._events(here):
                if self.budget <= 0:
                    self.next = here
                    return
                yield from self._try(here, Happening(event=event))
            # The states that were found meanwhile sort after this one, so this one is still the first.
            heapq.heappop(self._queue)

    def _try(self, here: Settled | None, happening: Happening) -> Iterator[Outcome]:
        outcome = self._outcome(here, happening)
        yield outcome
        if outcome.cut_short:
            return
        for fails in self._fragile:
            if fails.what in outcome.launched:
                if self.budget <= 0:
                    self.next = here or outcome.reached
                    return
                yield self._outcome(here, replace(happening, start_fails=fails))
        # The counts are not a part of the state, so each event is tried without counted events and with them.
        if self._counts and here is not None and not happening.counted:
            if self.budget <= 0:
                self.next = here
                return
            yield from self._try(here, replace(happening, counted=True))

    def _outcome(self, here: Settled | None, happening: Happening) -> Outcome:
        self.tried += 1
        if here is None:
            run = Trial.of(self.part.context)
        else:
            run = Trial.from_world(here.world, here.now + self._quiet, counted=happening.counted)
        if happening.start_fails is not None:
            run.next_failures[happening.start_fails.what] = happening.start_fails.reason
        run.most = max(self.budget, _FOR_ONE_EVENT * len(self.part.context.tasks))
        _let_happen(run, happening.event)
        ring = run.come_to_rest()
        cut_short = ring is None and run.cut_short
        self.budget -= run.decisions + len(self.part.context.tasks) // _TASKS_AS_A_DECISION
        reached = Settled(
            world=run.world,
            now=run.now,
            timeline=run.timeline,
            happening=happening,
            before=here,
            depth=here.depth + 1 if here else 0,
            ends=(here.ends if here else 0) + self._is_quiet_end(happening.event),
        )
        if cut_short:
            self.next, self.unfinished = here or reached, reached
        elif ring is None and self._is_new(reached):
            self.states += 1
            heapq.heappush(self._queue, (reached.ends, reached.depth, self.states, reached))
        return Outcome(reached=reached, launched=frozenset(run.launched), ring=ring, cut_short=cut_short)

    # --- states

    def _is_new(self, state: Settled) -> bool:
        """Return False for a state that adds nothing to a state that was seen. In the seen state all other
        tasks are the same, and at least as many of the tasks whose rest has no effect on others are active.
        So whatever can happen in the new state can happen in the seen one.
        """
        if state.world.stopping or not state.world.transactions[TRANSACTION].open:
            return False
        traces, active = self._traces(state)
        seen = self._seen.setdefault(traces, [])
        if any(all(a >= b for a, b in zip(other, active, strict=True)) for other in seen):
            return False
        seen.append(active)
        return True

    def _traces(self, state: Settled) -> tuple[Any, tuple[int, ...]]:
        """Return the value by which states are compared, and the number of active tasks in each class whose
        rest has no effect on others. Of tasks that are interchangeable, only the states count, and not which
        task is in which state.
        """
        traces: list[Any] = []
        active: list[int] = []
        for members in self.part.classes:
            inert = members[0] in self._inert
            found = [self._trace(state, name) for name in members]
            if inert:
                active.append(sum(state.is_active(name) for name in members))
                trace: Any = tuple(sorted(count for _, count in found))
            else:
                trace = tuple(sorted(found))
            # States differ in few tasks, and so they share the traces of the others.
            traces.append(self._shared.setdefault(trace, trace))
        return tuple(traces), tuple(active)

    def _trace(self, state: Settled, name: str) -> tuple[str, int]:
        """Return the part of a task on which later decisions depend: its state, and the number of its starts
        that the start limit counts.
        """
        task = state.world.tasks[TRANSACTION, name]
        limits = self.part.context.tasks[name].limits
        counted = len(recent_starts(task, limits, state.now)) if limits.start_limit_burst else 0
        rests = task.sub_state in (SubState.WAITING, SubState.STOPPED)
        return f"{'rests' if rests else task.sub_state.value}{', has failed' * task.has_failed}", counted

    # --- events

    def _events(self, here: Settled) -> Iterator[Event]:
        """Yield the events that can happen in a state: one for all tasks that are in the same state and are
        interchangeable.
        """
        for members in self.part.classes:
            there: dict[Any, str] = {}
            for name in members:
                if here.is_active(name):
                    there.setdefault(self._trace(here, name), name)
            for name in there.values():
                yield from self._of_task[name]
        yield Event(kind=EventKind.KILL, what=SUPERVISOR)
        if sum(here.is_active(name) for name in _threads(self.part.context)) > 1:
            yield Event(kind=EventKind.KILL, what=THREADS)

    def _is_quiet_end(self, event: Event | None) -> bool:
        if event is None or event.kind is not EventKind.EXIT:
            return False
        return not any(rule.trigger is Trigger.ON_EXIT for rule in self.part.context.tasks[event.what].rules)

    def __post_init__(self) -> None:
        context = self.part.context
        self._inert = _inert(context)
        self._of_task: Mapping[str, list[Event]] = {
            name: [*_distinct_failures(context, service)[0], *_others(service, inert=name in self._inert)]
            for name, service in context.tasks.items()
        }
        self._fragile = [
            each for service in context.tasks.values() for each in _distinct_failures(context, service)[1]
        ]
        self._counts = any(rule.after for rule in _rules(context))
        self._quiet = _quiet_time(context)


def _let_happen(run: Trial, event: Event | None) -> None:
    if event is None:
        run.begin(TRANSACTION)
    elif event.what == THREADS:
        run.threads_die()
    elif event.kind is EventKind.KILL:
        run.supervisor_dies()
    else:
        run.apply(event)


def _threads(context: Context) -> list[str]:
    return [service.id for service in context.tasks.values() if service.service_type is ServiceType.THREAD]


def _quiet_time(context: Context) -> float:
    """Return the seconds between two events. After this time no earlier failure or start counts any more."""
    times = [
        each
        for service in context.tasks.values()
        for each in (service.limits.restart_max_delay, service.limits.start_limit_interval)
        if each < float("inf")
    ]
    return 2 * max(GOOD_UPTIME, *times) + 1


def _inert(context: Context) -> frozenset[str]:
    """Return the tasks that affect no other task when they do not run: no rule fires when they start, when a
    rule stops them, or when they fail together with another Thread task.
    """
    together = _threads(context)
    together = together if len(together) > 1 else []
    stopped = {
        rule.call
        for service in context.tasks.values()
        for rule in service.rules
        if rule.action is not Action.START and (rule.call != service.id or rule.trigger in _AT_WORK)
    }
    stopped |= {name for rule in context.on_any_fail for name in context.named(rule.call)}
    return frozenset(
        name
        for name, service in context.tasks.items()
        if not (name in together and _fails_with_effects(context, service))
        and {rule.trigger for rule in service.rules}
        <= {Trigger.ON_FAIL, Trigger.ON_UPDATE, *(() if name in stopped else (Trigger.ON_EXIT,))}
    )


def _fails_with_effects(context: Context, service: TaskDefinition) -> bool:
    """Return True if a rule about another task fires when this one fails."""
    own = [rule for rule in service.rules if rule.trigger is Trigger.ON_FAIL and rule.call != service.id]
    return bool(own or context.on_any_fail)


_AT_WORK = (Trigger.ON_START, Trigger.ON_UPDATE, Trigger.ON_RECOVER)


def _rules(context: Context) -> Iterator[Rule]:
    for service in context.tasks.values():
        yield from service.rules
    yield from context.on_any_fail


def _counts(context: Context, name: str, now: float) -> dict[str, tuple[float, ...]]:
    """Return the counts with which the next event of a task is the last one that its rules need."""
    service = context.tasks.get(name)
    rules = [*(service.rules if service else ()), *rules_of_context(context)]
    return {
        rule_text(rule): (now,) * (rule.after.count - 1)
        for rule in rules
        if rule.after and rule.after.count > 1
    }


def _others(service: TaskDefinition, *, inert: bool) -> list[Event]:
    triggers = {rule.trigger for rule in service.rules}
    kinds = []
    if not inert or Trigger.ON_EXIT in triggers:
        kinds.append(EventKind.EXIT)
    if Trigger.ON_UPDATE in triggers:
        kinds.append(EventKind.UPDATE)
    return [Event(kind=kind, what=service.id) for kind in kinds]


def _distinct_failures(context: Context, service: TaskDefinition) -> tuple[list[Event], list[Event]]:
    """Return the failures of a task while it runs, and those at its start. Of failures for which the same
    rules fire, one is returned.
    """
    rules = [rule for rule in (*service.rules, *context.on_any_fail) if rule.trigger in _FAILED]
    found: dict[Any, Event] = {}

    def new(reasons: tuple[Reason, ...]) -> list[Event]:
        chosen = []
        for event in failures_of(service, rules, reasons):
            fired = tuple(fires_for(rule, event.end) for rule in rules)
            if fired not in found:
                found[fired] = event
                chosen.append(event)
        return chosen

    running = new(FAILURES_WHILE_RUNNING)
    return running, new(FAILURES_AT_START)
