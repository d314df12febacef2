"""The claims of `check --prove` about a context, and the counter-examples: every task can start, no rules
fire each other for ever, and after any single failure the important tasks are active again. Pure.

`exploration.py` finds the states; here they are judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from zmsvc.core.cause import rule_text
from zmsvc.core.exploration import Exploration, Outcome, Ring, Settled
from zmsvc.core.frozen import frozen
from zmsvc.core.independent_parts import IndependentPart, parts_of
from zmsvc.core.model import Action, Context, Rule
from zmsvc.core.scenario import TRANSACTION, Event, EventKind, TimedRecord
from zmsvc.core.service_options import FailureAction
from zmsvc.core.world import World

MAX_DECISIONS = 10_000
"""The bound: the number of decisions of the engine after which no further event is tried."""
_FOR_EACH_TASK = 20
"""The number of decisions by which each task raises the bound."""
MAX_VIOLATIONS = 20
_NAMED = 5
"""The number of tasks that a text names."""
_STARTING = (Action.START, Action.RESTART)
MAY_STAY_DOWN = "<important>no</important> in its <service> says that it may stay down"


class Claim(StrEnum):
    """A claim that does not hold."""

    CAN_START = "can-start"
    NO_RING = "no-ring"
    ACTIVE_AGAIN = "active-again"


@frozen
class RuleOf:
    """A rule and the task whose rule it is; for a rule of the context `task` is empty."""

    task: str
    rule: Rule

    @property
    def text(self) -> str:
        """The rule with its task: `ts_1 on_exit:start:ts_2`."""
        return f"{self.task} {rule_text(self.rule)}".strip()


@frozen
class Violation:
    """A claim that does not hold, with its counter-example."""

    claim: Claim
    text: str
    tasks: tuple[str, ...]
    """The tasks that it is about: the one that fails or never starts comes first."""
    events: tuple[str, ...]
    """The events of the counter-example, one after the other."""
    advice: str
    rules: tuple[RuleOf, ...] = ()
    """The rules that fired, or that would have to fire for the claim to hold."""
    timeline: tuple[TimedRecord, ...] = ()
    repeats: bool = False
    """True if the end of the timeline repeats for ever."""
    alike: tuple[str, ...] = ()
    """The tasks that are like the first one, so that the same is true of them."""


@frozen
class Proof:
    """The result for a context."""

    important: tuple[str, ...]
    violations: tuple[Violation, ...]
    tasks: int
    folded: int
    """The number of tasks that were tried; each of the others is like one of them."""
    states: int
    """The number of settled states that were found."""
    events: int
    """The number of events that were tried."""
    decisions: int
    """The number of decisions that the engine took for these events. Copies of large states count as
    decisions, too.
    """
    bound: int
    """The number of decisions after which no further event is tried."""
    exhausted: bool
    """True if each event was tried in each state that can be reached. False if the bound was reached before.
    """
    depth: int = 0
    """If the bound was reached: each sequence of up to this many events was tried."""
    ends: int | None = None
    """If the bound was reached: each sequence of events was tried in which at most this many tasks end well
    although they have no rule for that. None if not even the sequences without such an end were all tried.
    """
    unfinished: tuple[str, ...] = ()
    """If the bound was reached while something still followed from an event: the events up to this one."""
    unseen: tuple[str, ...] = ()
    """The tasks that did not start, but may be able to: the bound was reached, or rules form a ring, during
    which no event is tried.
    """

    @property
    def proven(self) -> bool:
        return self.exhausted and not self.violations


def important_of(context: Context) -> tuple[str, ...]:
    """Return the tasks that have to be active again after a failure: those with `<important>yes</important>`;
    if no task has it, those that start with their transaction and do not have `<important>no</important>`.
    """
    named = tuple(task.id for task in context.tasks.values() if task.important)
    return named or tuple(task.id for task in context.tasks.values() if task.entry and task.important is None)


def prove(context: Context, bound: int | None = None) -> Proof:
    """Try all events in all states of a context, up to a bound."""
    important = important_of(context)
    parts = sorted(parts_of(context, important), key=lambda part: len(part.context.tasks))
    bound = MAX_DECISIONS + _FOR_EACH_TASK * len(context.tasks) if bound is None else bound
    left, explored, judges = bound, [], []
    for part in parts:
        judge, exploration = _Judge(part, important), Exploration(part, left)
        for outcome in exploration.outcomes():
            judge.judge(outcome)
        left = exploration.budget
        explored.append(exploration)
        judges.append(judge)
    open_states = [each.next for each in explored if each.next is not None]
    ends = min((each.ends for each in open_states), default=0)
    violations = [each for judge, of in zip(judges, explored, strict=True) for each in judge.found(of)]
    return Proof(
        important=important,
        violations=tuple(violations[:MAX_VIOLATIONS]),
        tasks=len(context.tasks),
        folded=sum(len(part.classes) for part in parts),
        states=sum(each.states for each in explored),
        events=sum(each.tried for each in explored),
        decisions=bound - left,
        bound=bound,
        exhausted=not open_states,
        depth=min((each.depth for each in open_states), default=0),
        ends=ends - 1 if ends else None,
        unfinished=next((_events(each.unfinished) for each in explored if each.unfinished is not None), ()),
        unseen=tuple(
            name
            for judge, of in zip(judges, explored, strict=True)
            if not judge.followed(of)
            for name in judge.not_started()
        ),
    )


@dataclass
class _Judge:
    """The claims about one part."""

    part: IndependentPart
    important: tuple[str, ...]
    _started: set[str] = field(default_factory=set)
    _violations: dict[object, Violation] = field(default_factory=dict)
    _start: Settled | None = None

    def judge(self, outcome: Outcome) -> None:
        """Judge what one event has led to."""
        reached = outcome.reached
        self._start = self._start or reached
        self._started |= {each.record.task for each in reached.timeline if each.record.event == "started"}
        if outcome.cut_short:
            return
        if outcome.ring is not None:
            self._judge_ring(reached, outcome.ring)
        elif reached.happening.single_failure and reached.before is not None:
            self._judge_failure(reached, reached.before)

    def found(self, exploration: Exploration) -> Iterator[Violation]:
        """Yield the violations when all events have been tried."""
        yield from self._violations.values()
        if self.followed(exploration):
            reported: set[str] = set()
            for name in self.not_started():
                if name not in reported:
                    alike = self.part.like(name)
                    reported.update(alike)
                    yield self._never_starts(name, alike)

    def followed(self, exploration: Exploration) -> bool:
        """Return True if all that may happen was tried. Events during a ring are not."""
        rings = any(each.claim is Claim.NO_RING for each in self._violations.values())
        return exploration.next is None and not rings

    def not_started(self) -> list[str]:
        """Return the tasks of which no state was found in which they, or a task like them, were ready."""
        return [
            name
            for members in self.part.classes
            for name in members
            if not self._started.intersection(members)
        ]

    # --- the violations

    def _judge_ring(self, reached: Settled, ring: Ring) -> None:
        turn = reached.timeline[ring.first : ring.second]
        rules = self._rules(turn)
        known = Claim.NO_RING, frozenset(rules)
        if known in self._violations:
            return
        tasks = tuple(dict.fromkeys(each.record.task for each in turn if each.record.event == "launching"))
        limit = tasks[0] if tasks else ""
        self._violations[known] = Violation(
            claim=Claim.NO_RING,
            text=f"rules fire each other for ever and start {_listed(tasks)} again and again",
            tasks=tasks,
            events=_events(reached),
            rules=rules,
            timeline=_timeline(replace(reached, timeline=reached.timeline[: ring.second])),
            repeats=True,
            advice=f"remove one of these rules, or let it call another task; a <start_limit_burst> of "
            f"{limit} ends the ring after so many starts",
        )

    def _judge_failure(self, reached: Settled, before: Settled) -> None:
        event = reached.happening.event
        assert event is not None
        closed = _is_closed(reached.world)
        lost = (
            self.important
            if closed
            else tuple(
                name
                for name in self.important
                if name in self.part.context.tasks and before.is_active(name) and not reached.is_active(name)
            )
        )
        known = Claim.ACTIVE_AGAIN, event.what, lost
        if not lost or known in self._violations:
            return
        failed = (event.what,) if event.kind is EventKind.FAIL else ()
        self._violations[known] = Violation(
            claim=Claim.ACTIVE_AGAIN,
            text=f"after {reached.happening.text} {_named(lost)} not active again{_states(reached, lost)}",
            tasks=tuple(dict.fromkeys((*failed, *lost))),
            events=_events(reached),
            rules=self._rules(reached.timeline),
            timeline=_timeline(reached),
            advice=self._advice(event, lost, closed=closed),
            alike=self.part.like(event.what) if failed else (),
        )

    def _advice(self, event: Event, lost: tuple[str, ...], *, closed: bool) -> str:
        # The end of the process of all Thread tasks is a failure of each.
        failed = event.what if event.kind is EventKind.FAIL else lost[0]
        service = self.part.context.tasks.get(failed)
        if closed and service is not None and service.failure_action is not FailureAction.NONE:
            return (
                f"<failure_action> {service.failure_action} of {failed} acts, since no rule starts it again: "
                f"give it <restart>on-failure</restart>, or a rule <on_fail> that restarts it"
            )
        if failed in lost:
            return (
                f"give {failed} <restart>on-failure</restart>, or a rule <on_fail> that restarts it; "
                f"{MAY_STAY_DOWN}"
            )
        return f"let a rule start {lost[0]} again, or remove the one that stops it; {MAY_STAY_DOWN}"

    def _never_starts(self, name: str, alike: tuple[str, ...]) -> Violation:
        callers = tuple(
            RuleOf(task=service.id, rule=rule)
            for service in self.part.context.tasks.values()
            for rule in service.rules
            if rule.call == name and rule.action in _STARTING and service.id != name
        )
        why = "none of the rules that start it can ever fire" if callers else "no rule starts it"
        return Violation(
            claim=Claim.CAN_START,
            text=f"{name} can never start: it waits for a rule, and {why}",
            tasks=(name,),
            events=(),
            rules=callers,
            timeline=tuple(self._start.timeline) if self._start else (),
            advice='let its <state> have the type "on_start", or let a task that runs start it by a rule',
            alike=alike,
        )

    def _rules(self, timeline: Iterable[TimedRecord]) -> tuple[RuleOf, ...]:
        """Return the rules that fired, in the order of their first firing."""
        found: dict[RuleOf, None] = {}
        for each in timeline:
            if each.record.event in ("rule", "rule-refused"):
                text, source = each.record.detail["rule"], each.record.detail["source"]
                found |= dict.fromkeys(self._named_rules(str(source), str(text)))
        return tuple(found)

    def _named_rules(self, source: str, text: str) -> Iterator[RuleOf]:
        context = self.part.context
        service = context.tasks.get(source)
        for rule in service.rules if service else ():
            if rule_text(rule) == text:
                yield RuleOf(task=source, rule=rule)
        for rule in context.on_any_fail:
            for call in context.named(rule.call):
                if rule_text(replace(rule, call=call)) == text:
                    yield RuleOf(task="", rule=rule)


def _is_closed(world: World) -> bool:
    return world.stopping or not world.transactions[TRANSACTION].open


def _listed(tasks: tuple[str, ...]) -> str:
    more = len(tasks) - _NAMED
    return f"{', '.join(tasks[:_NAMED])}{f' and {more} more' if more > 0 else ''}"


def _named(tasks: tuple[str, ...]) -> str:
    return f"{_listed(tasks)} {'is' if len(tasks) == 1 else 'are'}"


def _states(reached: Settled, tasks: tuple[str, ...]) -> str:
    if len(tasks) > 1:
        return ""
    task = reached.world.tasks.get((TRANSACTION, tasks[0]))
    return f", but {task.state.value} ({task.sub_state.value})" if task else ""


def _events(reached: Settled) -> tuple[str, ...]:
    return tuple(each.happening.text for each in reached.path)


def _timeline(reached: Settled) -> tuple[TimedRecord, ...]:
    return tuple(record for each in reached.path for record in each.timeline)
