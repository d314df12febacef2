"""Calculate when a rule may start a task: the back-off after failures, the delay of quick starts, and the
start limit.

Pure: each function has the record of one task. transitions.py applies the results.
"""

from __future__ import annotations

from zmsvc.core.service_options import Limits
from zmsvc.core.world import Task

GOOD_UPTIME = 10.0
"""Seconds. When a task has run for this time, or for `restart_max_delay` where that is longer, its failures
no longer count.
"""
FLOOR = 0.1
"""Seconds that replace a `restart_delay` of 0: for each quick start, and from the second failure in a row on.
So a ring of rules cannot spin.
"""
JITTER = 0.1
"""The most that is added to a delay, as a share of it. It differs between tasks, so tasks that failed
together do not start together (Supervisor#1640).
"""


def failures_after(task: Task, limits: Limits, now: float) -> int:
    """Return the number of failures in a row, including the one that happens now."""
    good = now - task.launched_at >= max(GOOD_UPTIME, limits.restart_max_delay)
    return 1 if good else task.failures + 1


def _doubled(limits: Limits, times: int) -> float:
    base = limits.restart_delay or (FLOOR if times else 0.0)
    return float(min(base * 2.0 ** min(times, 64), max(limits.restart_max_delay, limits.restart_delay)))


def back_off(task: Task, limits: Limits, launch: int) -> float:
    """Return the seconds until a failed task is started again by its own rule. Each failure in a row doubles
    the delay.
    """
    delay = _doubled(limits, max(task.failures - 1, 0))
    # A multiplicative hash of the launch ID spreads like a random number, and is the same when the
    # decision is replayed.
    share = (launch * 2654435761 % 2**32) / 2**32
    return delay * (1.0 + JITTER * share)


def next_quick_start(task: Task, limits: Limits, now: float) -> tuple[int, float]:
    """Return the new number of quick starts in a row, and the time at which a rule may start the task.

    A ring of rules is legal. If it turns faster than `restart_delay`, each turn doubles the time to the next
    start, up to `restart_max_delay`.
    """
    if not task.launch:
        return 0, now
    floor = limits.restart_delay or FLOOR
    if now - task.launched_at >= max(2 * _spacing(task.quick_starts, limits), floor):
        return 0, now
    quick_starts = task.quick_starts + 1
    return quick_starts, max(now, task.launched_at + _spacing(quick_starts, limits))


def _spacing(quick_starts: int, limits: Limits) -> float:
    """Return the least time from one launch to the next, in seconds, after this number of quick starts in a
    row.
    """
    if not quick_starts:
        return 0.0
    floor = limits.restart_delay or FLOOR
    return float(min(floor * 2.0 ** min(quick_starts - 1, 64), max(limits.restart_max_delay, floor)))


def start_by_rule(task: Task, limits: Limits, now: float, *, failing: bool, launch: int) -> tuple[int, float]:
    """Return the new number of quick starts and the time of the start. `failing` is True if the task has
    failed and its own rule starts it again.

    The later one of both times counts: a task that fails and ends well in turn would otherwise be delayed by
    neither.
    """
    quick_starts, at = next_quick_start(task, limits, now)
    return quick_starts, max(at, now + back_off(task, limits, launch)) if failing else at


def least_times(limits: Limits, most: int) -> list[float]:
    """Return the shortest times in seconds from the first to the last of several failures, if the task's own
    rule starts it again after each: at index 0 for one failure, at index 1 for two, up to `most`.
    """
    good = max(GOOD_UPTIME, limits.restart_max_delay)
    delays = [_doubled(limits, failures) for failures in range(most)]
    least = [0.0]  # By the number of failures in a row.
    found = [0.0]
    for _ in range(most - 1):
        again = [time + delay for time, delay in zip(least, delays, strict=False)]
        least = [min(again) + good, *again]
        found.append(min(least))
    return found


def recent_starts(task: Task, limits: Limits, now: float) -> tuple[float, ...]:
    """Return the starts by rule that the start limit still counts."""
    return tuple(at for at in task.starts if at > now - limits.start_limit_interval)


def over_limit(starts: tuple[float, ...], limits: Limits) -> bool:
    return 0 < limits.start_limit_burst <= len(starts)
