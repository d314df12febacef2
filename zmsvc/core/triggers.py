"""What a transition of one task asks of others: which rules fire, when a start by rule may happen, and what
the started task is told.

Pure arithmetic over one task; the engine applies the answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmsvc.core.model import Action, Limits, Rule, TaskService, Trigger
from zmsvc.core.world import Task

GOOD_UPTIME = 10.0
"""Seconds of running after which earlier failures are forgiven (or the back-off's own cap, where that is
longer).
"""
FLOOR = 0.1
"""Seconds: the least delay of a second quick start in a row, also where `restart_delay` is 0: nothing
spins.
"""
JITTER = 0.1
"""Up to this share is added to a delay, so that tasks that failed together do not start together
(Supervisor#1640).
"""
MAX_SOURCES = 64
"""Causes that one launch is told at most; the last ones are kept."""


def rules_for(service: TaskService, trigger: Trigger, *, requested: bool) -> list[Rule]:
    """The rules of a task that fire on `trigger`. A task that was asked to stop does not start itself
    again.
    """
    return [
        rule
        for rule in service.rules
        if rule.trigger is trigger
        and not (requested and rule.call == service.id and rule.action is not Action.STOP)
    ]


def failures_after(task: Task, limits: Limits, now: float) -> int:
    """How many failures in a row there are, counting one that happens now."""
    good = now - task.launched_at >= max(GOOD_UPTIME, limits.restart_max_delay)
    return 1 if good else task.failures + 1


def _doubled(limits: Limits, times: int) -> float:
    base = limits.restart_delay or (FLOOR if times else 0.0)
    return float(min(base * 2.0 ** min(times, 64), max(limits.restart_max_delay, limits.restart_delay)))


def back_off(task: Task, limits: Limits, launch: int) -> float:
    """Seconds to wait before a failed task is started again by its own rule; doubled with each failure in
    a row.
    """
    delay = _doubled(limits, max(task.failures - 1, 0))
    # A multiplicative hash of the launch number: spread like chance, yet the same when the decision is
    # replayed.
    share = (launch * 2654435761 % 2**32) / 2**32
    return delay * (1.0 + JITTER * share)


def next_quick_start(task: Task, limits: Limits, now: float) -> tuple[int, float]:
    """For a start by rule: the new count of quick starts in a row, and when the start may happen.

    A ring of rules is legal; one that turns faster than `restart_delay` is slowed by doubling, up to
    `restart_max_delay`.
    """
    if not task.launch:
        return 0, now
    floor = limits.restart_delay or FLOOR
    if now - task.launched_at >= max(2 * _spacing(task.quick_starts, limits), floor):
        return 0, now
    quick_starts = task.quick_starts + 1
    return quick_starts, max(now, task.launched_at + _spacing(quick_starts, limits))


def _spacing(quick_starts: int, limits: Limits) -> float:
    """Seconds from one launch to the next after that many quick ones."""
    floor = limits.restart_delay or FLOOR
    return (
        float(min(floor * 2.0 ** min(quick_starts - 1, 64), max(limits.restart_max_delay, floor)))
        if quick_starts
        else 0.0
    )


def start_by_rule(task: Task, limits: Limits, now: float, *, failing: bool, launch: int) -> tuple[int, float]:
    """The new count of quick starts, and when the start may happen; `failing`: its own rule answers its
    failure.

    Both brakes count. A task that fails and ends well by turns would else set each of them back with the
    other.
    """
    laps, at = next_quick_start(task, limits, now)
    return laps, max(at, now + back_off(task, limits, launch)) if failing else at


def recent_starts(task: Task, limits: Limits, now: float) -> tuple[float, ...]:
    """The starts by rule that the start limit still counts."""
    return tuple(at for at in task.starts if at > now - limits.start_limit_interval)


def over_limit(starts: tuple[float, ...], limits: Limits) -> bool:
    return 0 < limits.start_limit_burst <= len(starts)


def source(task_id: str, task: Task, rule: Rule) -> dict[str, Any]:
    """One cause of a launch: the task whose transition fired a rule, its last exit and its last update."""
    end = task.exit
    told = {"code": end.code, "signal": end.signal, "reason": end.reason.value} if end else None
    return {
        "task": task_id,
        "trigger": rule.trigger.value,
        "rule": f"{rule.trigger.value}:{rule.action.value}:{rule.call}",
        "launch": task.launch,
        "exit": told if rule.trigger in (Trigger.ON_EXIT, Trigger.ON_FAIL) else None,
        "update": dict(task.update) if task.update is not None else None,
    }


def cause_by_rule(
    before: Mapping[str, Any], new: Mapping[str, Any], depth: int, *, join: bool
) -> dict[str, Any]:
    """The cause that a task is told when a rule starts it; `join` adds to whoever had asked for this start
    before the rule did.
    """
    if not join:
        return {"by": "rule", "uid": None, "depth": depth, "sources": [new]}
    sources = [*before.get("sources", []), new][-MAX_SOURCES:]
    return {
        "by": before.get("by", "rule"),
        "uid": before.get("uid"),
        "depth": max(depth, before.get("depth", 0)),
        "sources": sources,
    }
