"""The options `restart` and `memory_restart` are short for rules of a task about itself. This module makes
those rules, decides for which ends they fire, and finds rules of the file that contradict `restart`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zmsvc.core.model import Action, Only, Rule, Trigger
from zmsvc.core.rule_conditions import meets
from zmsvc.core.service_options import Restart
from zmsvc.core.values import quote
from zmsvc.core.world import Exit, Reason

_TRIGGERS = {
    Restart.NO: (),
    Restart.ON_FAILURE: (Trigger.ON_FAIL,),
    Restart.ON_ABNORMAL: (Trigger.ON_FAIL,),
    Restart.ON_WATCHDOG: (Trigger.ON_FAIL,),
    Restart.ALWAYS: (Trigger.ON_FAIL, Trigger.ON_EXIT),
}
_ENDS = (Trigger.ON_FAIL, Trigger.ON_EXIT)
_PARTIAL = {Restart.ON_ABNORMAL: Only.ABNORMAL, Restart.ON_WATCHDOG: Only.WATCHDOG}
_STARTING = (Action.START, Action.RESTART)
_NORMAL = frozenset({Reason.EXITED, Reason.REQUESTED, Reason.EXIT_CODE, Reason.CANNOT_LAUNCH})
"""The reasons that `on-abnormal` leaves out. systemd sees a program that it cannot execute as an exit status.
"""


def rules_of(
    restart: Restart | None, task: str, written: Sequence[Rule], *, limited: bool = False
) -> tuple[Rule, ...]:
    """Return the rules that the options stand for, except those that the file has as well. `limited` is True
    if the task has a `memory_restart`. If the file has a rule with a condition for the same end, the rule of
    the option stays: it is for the other ends.
    """
    starting = [
        rule for rule in written if rule.call == task and rule.action in _STARTING and rule.after is None
    ]
    there = {rule.trigger for rule in starting if not rule.when}
    found = [
        Rule(
            trigger=trigger,
            action=Action.RESTART,
            call=task,
            only=None if restart is None else _PARTIAL.get(restart),
        )
        for trigger in (() if restart is None else _TRIGGERS[restart])
        if trigger not in there
    ]
    end = Exit(reason=Reason.MEMORY_LIMIT)
    covered = any(rule.trigger is Trigger.ON_FAIL and fires_for(rule, end) for rule in (*starting, *found))
    if limited and not covered:
        found.append(Rule(trigger=Trigger.ON_FAIL, action=Action.RESTART, call=task, only=Only.MEMORY_LIMIT))
    return tuple(found)


def contradictions(restart: Restart | None, task: str, written: Sequence[Rule]) -> Iterator[tuple[int, str]]:
    """Yield the index and the fault of each rule of the file that contradicts the option of its task."""
    for index, rule in enumerate(written):
        if restart is None or rule.call != task or rule.trigger not in (_TRIGGERS[restart] or _ENDS):
            continue
        starts = rule.action in _STARTING
        adds = restart in _PARTIAL and not rule.when
        if starts == (restart is Restart.NO) or (starts and adds):
            yield (
                index,
                f"{rule.trigger} has the action {rule.action} for {quote(task)} itself, which contradicts "
                f"its <restart> {restart}, expected one of them",
            )


def fires_for(rule: Rule, end: Exit | None) -> bool:
    """Return True if a rule fires for this end. An end of None stands for a trigger that is not an end."""
    reason = end.reason if end is not None else None
    match rule.only:
        case Only.ABNORMAL:
            return reason not in _NORMAL
        case Only.WATCHDOG:
            return reason is Reason.WATCHDOG
        case Only.MEMORY_LIMIT:
            return reason is Reason.MEMORY_LIMIT
        case _:
            return meets(rule.when, end)
