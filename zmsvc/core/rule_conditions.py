"""The conditions of a rule, which its element has as attributes: `when="watchdog exit-code:75"` names the
ends for which it fires, and `after="3 in 1min"` counts events. This module reads them, and finds those that
no event can meet. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from zmsvc.core.model import TRIGGERS_OF_ENDS, EndCondition, Rule, TaskDefinition, Threshold, Trigger
from zmsvc.core.similar import similar
from zmsvc.core.values import NO_LIMIT, WHITE, each_of, quote, timespan
from zmsvc.core.world import Exit, Reason

MOST = 100
"""The highest count of `after`. The state file stores the time of each event that is counted."""
MOST_ENDS = 1000
"""The highest number of ends that a `when` names. There are not as many different ones."""
_STATUS = re.compile(r"0*([1-9][0-9]{0,2})")
_WORD = re.compile(r"[^ \t\r\n]+")
_AFTER = re.compile(r"([0-9]{1,9})[ \t\r\n]+in[ \t\r\n]+([^ \t\r\n].*)", re.DOTALL)
_REASONS = {each.value: each for each in Reason}
_GOOD = (Reason.EXITED, Reason.REQUESTED)
_DETAILED = {Reason.EXIT_CODE: "exit-code[:N]", Reason.SIGNAL: "signal[:NAME]"}
_OPTIONS = {
    Reason.WATCHDOG: "watchdog",
    Reason.UNHEALTHY: "health",
    Reason.SILENT: "expect",
    Reason.MEMORY_LIMIT: "memory_restart",
}
"""The options without which no task fails for a reason."""


def read_ends(trigger: Trigger, text: str, signal_name: Callable[[str], str]) -> tuple[EndCondition, ...]:
    """Return the ends that a `when` names. `signal_name` returns the name by which the keeper reports a
    signal. Raises ValueError.
    """
    if trigger not in TRIGGERS_OF_ENDS:
        raise ValueError(f"has no meaning: {trigger} is not about the end of a task, expected none")
    words = _WORD.findall(text)
    if not words:
        raise ValueError(f"is empty, expected {_expected(trigger)}")
    if len(words) > MOST_ENDS:
        raise ValueError(f"names {len(words)} ends, expected at most {MOST_ENDS}")
    found = each_of(words, lambda word: _end(trigger, word, signal_name))
    return tuple(dict.fromkeys(found))


def _end(trigger: Trigger, text: str, signal_name: Callable[[str], str]) -> EndCondition:
    word, colon, detail = text.partition(":")
    if word not in _REASONS:
        raise ValueError(f"{quote(text)} is unknown, expected {_expected(trigger)}{similar(word, _REASONS)}")
    reason = _REASONS[word]
    if why := _of_another_trigger(trigger, reason):
        raise ValueError(f"{quote(text)} {why}, expected {_expected(trigger)}")
    if not colon:
        return EndCondition(reason=word)
    if reason is Reason.SIGNAL:
        return EndCondition(reason=word, detail=signal_name(detail))
    if reason is not Reason.EXIT_CODE:
        raise ValueError(f"{quote(text)} has a detail, expected {word} alone")
    status = _STATUS.fullmatch(detail)
    if status is None or int(status[1]) > 255:
        raise ValueError(f"{quote(text)} has no exit status of a failure, expected one from 1 to 255")
    return EndCondition(reason=word, detail=int(status[1]))


def _of_another_trigger(trigger: Trigger, reason: Reason) -> str:
    """Return the reason why no event of a trigger has this reason; empty if one may."""
    if trigger is Trigger.ON_EXIT:
        return "" if reason in _GOOD else "is a failure, on which on_fail fires"
    if reason in _GOOD:
        return "is not a failure, and on_exit fires on it"
    return "fires on_any_fail alone" if reason is Reason.START_LIMIT and trigger is Trigger.ON_FAIL else ""


def _expected(trigger: Trigger) -> str:
    reasons = [each for each in Reason if not _of_another_trigger(trigger, each)]
    return f"one of {', '.join(_DETAILED.get(each, each.value) for each in reasons)}"


def read_threshold(text: str) -> Threshold:
    """Return the value of an `after`. Raises ValueError."""
    match = _AFTER.fullmatch(text.strip(WHITE))
    if match is None:
        raise ValueError(f'{quote(text)} is not a count and a time span, expected one such as "3 in 1min"')
    count, within = int(match[1]), timespan(match[2])
    if not 0 < count <= MOST:
        raise ValueError(f"{quote(text)} counts to {count}, expected a count from 1 to {MOST}")
    if not within:
        raise ValueError(f"{quote(text)} has no limit of time, expected a time span such as 1min")
    return Threshold(count=count, within=within)


# --- which ends meet a condition


def meets(when: Sequence[EndCondition], end: Exit | None) -> bool:
    """Return True if an end is one of those that a rule names, or if the rule names none."""
    return not when or (end is not None and any(_is(each, end) for each in when))


def _is(condition: EndCondition, end: Exit) -> bool:
    if condition.reason != end.reason.value:
        return False
    own = end.code if end.reason is Reason.EXIT_CODE else end.signal
    return condition.detail is None or condition.detail == own


def lacks(service: TaskDefinition, reason: Reason) -> str:
    """Return the option without which a task cannot fail for this reason; empty if the task has it or needs
    none.
    """
    there = {
        Reason.WATCHDOG: bool(service.limits.watchdog),
        Reason.UNHEALTHY: service.health is not None,
        Reason.SILENT: bool(service.expect),
        Reason.MEMORY_LIMIT: service.memory_restart != NO_LIMIT,
    }
    return "" if there.get(reason, True) else f"<{_OPTIONS[reason]}>"


def never(rule: Rule, services: Iterable[TaskDefinition]) -> str:
    """Return the reason why a rule can never fire for any of these tasks; empty if it may."""
    first = ""
    for service in services if rule.when else ():
        whys = [_impossible(each, service) for each in rule.when]
        if not all(whys):
            return ""
        first = first or whys[0]
    if first and rule.trigger is Trigger.ON_ANY_FAIL:
        return f"no task can fail by {' or '.join(map(str, rule.when))}"
    return first


def vain(rule: Rule, service: TaskDefinition) -> Iterator[str]:
    """Yield, for each end that a rule names and the task can never have, the reason. Yield nothing if the
    task can have none of them: then the whole rule is a fault.
    """
    whys = [_impossible(each, service) for each in rule.when]
    return iter(()) if all(whys) else filter(None, whys)


def _impossible(condition: EndCondition, service: TaskDefinition) -> str:
    if option := lacks(service, Reason(condition.reason)):
        return f"the task has no {option}, so it never fails by {condition}"
    if condition.detail in service.success_exit_status:
        return f"{condition} is not a failure of the task, by its <success_exit_status>"
    return ""
