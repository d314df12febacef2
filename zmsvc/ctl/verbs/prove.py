"""The result of `check --prove` as text and JSON. core/proof.py finds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zmsvc.core import proof
from zmsvc.core.model import Context
from zmsvc.core.proof import Violation
from zmsvc.ctl.verbs.simulate import one_host, timeline_as_json, timeline_lines
from zmsvc.host.config.rule_places import places_of

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

CLAIMS = (
    "every task can start, no rules fire each other for ever, and after any single failure each important "
    "task that was active is active again"
)
_NAMED = 10


class ProofReport:
    """The result for one file."""

    def __init__(self, context: Context, file: str, bound: int | None = None) -> None:
        self.file = file
        self.placed = len(context.placed)
        self.assumed = one_host(context)
        self.proof = proof.prove(context, bound)
        self.places = places_of(context, file) if self.proof.violations else None

    @property
    def found(self) -> bool:
        """True if there is a counter-example."""
        return bool(self.proof.violations)

    # --- text

    def lines(self) -> list[str]:
        assumed = [f"{self.file}: assumed: {self.assumed}"] if self.assumed else []
        return [*self._violations(), *assumed, f"{self.file}: {self._result()}"]

    def _violations(self) -> Iterator[str]:
        for each in self.proof.violations:
            yield f"{self._place(each.tasks[0])}: {each.text}"
            if each.events:
                yield f"  counter-example: {', then '.join(each.events)}"
            for name in each.tasks[1:_NAMED]:
                yield f"  {self._place(name)}: {name}"
            for rule in each.rules:
                yield f"  {self._place(rule.task, rule)}: {rule.text}"
            yield from (f"  {line}" for line in (timeline_lines(each.timeline) if each.timeline else ()))
            if each.repeats:
                yield "  ... and so on"
            if each.alike:
                yield f"  the same is true of {_listed(each.alike)}"
            yield f"  way out: {each.advice}"
            yield ""

    def _place(self, task: str, rule: proof.RuleOf | None = None) -> str:
        return self.places.of(task, rule.rule if rule else None) if self.places else self.file

    def _result(self) -> str:
        found = self.proof
        important = f"important: {_listed(found.important)}" if found.important else "no task is important"
        counted = f"{_counted(found.events, 'event')} in {_counted(found.states, 'state')}"
        if found.tasks > found.folded:
            counted += f", {found.tasks - found.folded} of {found.tasks} tasks are like others"
        if found.proven:
            return f"proven: {CLAIMS} ({important}; {counted}; no more states can be reached)"
        unseen = f"; not seen to start: {_listed(found.unseen)}" if found.unseen else ""
        if found.exhausted:
            return f"disproved{unseen} ({important}; {counted})"
        verdict = "disproved" if found.violations else "not proven, and no counter-example found"
        return (
            f"{verdict}: the bound of {found.bound} decisions was reached before {self._missed()}; "
            f"{self._within()}{unseen} ({important}; {counted})"
        )

    def _missed(self) -> str:
        events = self.proof.unfinished
        if not events:
            return "all states were seen"
        return f"the consequences of these events came to an end: {', then '.join(events)}"

    def _within(self) -> str:
        if self.proof.unfinished == ("start",):
            return "no event after the start was tried"
        if self.proof.ends is None:
            return f"each sequence of up to {_counted(self.proof.depth, 'event')} was tried"
        most = f"at most {_counted(self.proof.ends, 'task')}" if self.proof.ends else "no task"
        return f"each sequence of events was tried in which {most} without an <on_exit> ends with status 0"

    # --- JSON

    def as_json(self) -> Json:
        found = self.proof
        return {
            "proven": found.proven,
            "exhausted": found.exhausted,
            "bound": found.bound,
            "decisions": found.decisions,
            "events": found.events,
            "states": found.states,
            "depth": None if found.exhausted else found.depth,
            "ends": None if found.exhausted else found.ends,
            "unfinished": [*found.unfinished],
            "folded": found.tasks - found.folded,
            "placements_left_out": self.placed,
            "important": [*found.important],
            "unseen": [*found.unseen],
            "violations": [self._violation(each) for each in found.violations],
        }

    def _violation(self, each: Violation) -> Json:
        return {
            "claim": each.claim.value,
            "text": each.text,
            "tasks": [{"id": name, "place": self._place(name)} for name in each.tasks],
            "alike": [*each.alike],
            "events": [*each.events],
            "rules": [
                {"task": rule.task, "rule": rule.text, "place": self._place(rule.task, rule)}
                for rule in each.rules
            ],
            "repeats": each.repeats,
            "timeline": timeline_as_json(each.timeline),
            "advice": each.advice,
        }


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return f"{', '.join(names[:_NAMED])}{f' and {more} more' if more > 0 else ''}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
