"""Count events for the rules that have an `after`, and decide at which event a rule fires. Pure.

The record of the task has the times of the counted events, by the text of the rule. So they are saved
together with the event, and a crash of the supervisor neither loses nor repeats one. When a reload removes a
rule, its count is dropped at the next event; when a reload changes a rule, it counts from zero. Under another
keeper all rules count from zero, because the times of another boot have no meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zmsvc.core.cause import rule_text
from zmsvc.core.draft import Draft
from zmsvc.core.model import Rule
from zmsvc.core.task_key import Key
from zmsvc.core.world import Task


def counted(task: Task, rule: Rule, now: float) -> tuple[float, ...]:
    """Return the times of the events that a rule still counts."""
    times = task.counted.get(rule_text(rule), ())
    return tuple(at for at in times if rule.after is not None and at > now - rule.after.within)


def due(draft: Draft, key: Key, rules: Sequence[Rule], known: Iterable[Rule]) -> list[Rule]:
    """Count an event of a task for these rules, and return the rules that fire at it. A rule that fires
    counts from zero again. `known` has all rules of the task.
    """
    task = draft.tasks.get(key)
    if task is None or not any(rule.after for rule in rules):
        return list(rules)
    kept = {rule_text(rule): rule for rule in known if rule.after is not None}
    counts = {name: times for name, times in task.counted.items() if name in kept}
    # The file may have the same rule twice. Both fire at the same event, which counts once.
    reached: dict[str, bool] = {}
    for rule in rules:
        name = rule_text(rule)
        if rule.after is None or name in reached:
            continue
        times = (*counted(task, rule, draft.now), draft.now)
        reached[name] = len(times) >= rule.after.count
        counts[name] = () if reached[name] else times
    draft.change(key, counted={name: times for name, times in counts.items() if times})
    return [rule for rule in rules if reached.get(rule_text(rule), True)]
