"""The promised figures, compared with those of a run. Where the speed of the machine would decide, the figure
is a ratio.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench.everybody import BUSY, MIXED, OURS_UNSHARED, UNIT
from bench.figures.device import BARE, SIZES, SUBSCRIBERS
from bench.figures.sdk import LIBRARIES, PUBLISHING, PYZMQ, SDK, SUBSCRIBED, TASKS
from bench.results import Results

MANY, SOME, FEW = 1000, 100, 10
OURS = "zmsvc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The limits of a connected task with one version of Python: bytes (PSS) with 100 and with 1,000 tasks,
    and page faults of a start.
    """

    some: float
    many: float
    faults: float
    start: float
    """The limit of the time for 1,000 tasks, as times that of forks which connect to a bus."""
    faster: float | None
    """The limit of the time for 1,000 tasks, as a share of the time without the shortcuts `immortal` and
    `fill`.
    """


MEMORY = {
    (3, 11): Memory(some=2.9e6, many=2.9e6, faults=820, start=3, faster=None),
    (3, 13): Memory(some=1.6e6, many=1.5e6, faults=480, start=2.2, faster=0.8),
    (3, 14): Memory(some=2.0e6, many=2.0e6, faults=480, start=2.2, faster=None),
}
"""Debian 12 has 3.11, which has no immortal objects; Debian 13 has 3.13."""
UNKNOWN = Memory(some=3.2e6, many=3.2e6, faults=1000, start=3, faster=None)
"""For another Python: the figures of zmsvc 1.0, which has none of these shortcuts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal: `value` must be at most `limit`. None means that it was not measured."""

    goal: str
    limit: float
    value: float | None
    unit: str = "x"
    remark: str = ""
    explained: str = ""
    """The part of docs/performance.md whose profile shows why the goal is missed."""

    @property
    def word(self) -> str:
        if self.value is None or self.value <= self.limit:
            return "not measured" if self.value is None else "met"
        link = f", [explained](../docs/performance.md#{self.explained})" if self.explained else ""
        return f"**missed**{link}"


def verdicts(results: Results, python: tuple[int, int] = sys.version_info[:2]) -> list[Verdict]:
    """Return every goal. `python` is the version with which the run was made."""

    def median(figure: str, size: int, contender: str = OURS) -> float | None:
        return results.median(figure, contender, size)

    def ratio(figure: str, size: int, other: str) -> float | None:
        return _ratio(median(figure, size), median(figure, size, other))

    device = _device(results)
    worst = f"the device's part: {min(device):.2f} to {max(device):.2f}" if device else ""
    plain = [
        *_fleet(results, python),
        *_managers(results),
        *_memory(results, python),
        *_failures(results),
        *(
            Verdict(
                goal=f"status at {size:,}: share of supervisorctl's",
                limit=1 / 2,
                value=ratio("status", size, "Supervisor"),
            )
            for size in (SOME, MANY)
        ),
        Verdict(
            goal="wake-ups a second of an idle context of 1,000",
            limit=1,
            value=median("idle.wakeups", MANY),
            unit="",
        ),
        Verdict(
            goal="wake-ups a second of its 1,000 tasks", limit=0, value=median("idle.tasks", MANY), unit=""
        ),
        Verdict(
            goal="bare proxy's throughput over the device's, mean, supervisor busy",
            limit=1 / 0.95,
            value=_mean(device),
            remark=worst,
            explained="goals-that-are-missed",
        ),
        Verdict(
            goal="adoption of 1,000 tasks after kill -9 of the supervisor",
            limit=2,
            value=median("adoption", MANY),
            unit="s",
        ),
    ]
    plain += [verdict for library in LIBRARIES for verdict in _messages(results, library)]
    return plain + [
        _linear(figure, name, median)
        for figure, name in (("start", "start"), ("stop", "stop"), ("adoption", "adoption"))
    ]


def _fleet(results: Results, python: tuple[int, int]) -> list[Verdict]:
    """Return the goals of the start and the stop of a whole context."""

    def ratio(figure: str, other: str) -> float | None:
        return _ratio(results.median(figure, OURS, MANY), results.median(figure, other, MANY))

    return [
        Verdict(
            goal="1,000 tasks: share of systemd's time for 1,000 plain services",
            limit=1 / 9,
            value=ratio("start", "systemd"),
            explained="a-start-of-1000-tasks",
        ),
        Verdict(
            goal="1,000 tasks: times forks that connect to a bus",
            limit=MEMORY.get(python, UNKNOWN).start,
            value=ratio("start", "fork + bus"),
            explained="a-start-of-1000-tasks",
        ),
        *(
            Verdict(
                goal=f"1,000 tasks: stop, times {other}'s",
                limit=1,
                value=ratio("stop", other),
                explained="a-stop-of-1000-tasks",
            )
            for other in ("Supervisor", "Circus")
        ),
        Verdict(
            goal="`systemctl start zmsvc@EchoAction`",
            limit=0.35,
            value=results.median("cold", UNIT.name, 1),
            unit="s",
            explained="a-cold-start",
        ),
    ]


def _failures(results: Results) -> list[Verdict]:
    """Return the goals of the time from the failure of a task to the start of another one."""
    restarts = [
        value
        for suite in ("s6", "runit")
        if (value := results.percentile("chain", suite, FEW, 0.5)) is not None
    ]
    best = min(restarts, default=None)
    late = results.percentile("order", OURS, FEW, 0.99)
    places = (
        (OURS, "no cgroups", ""),
        (f"{OURS} (cgroups)", "with cgroups", ""),
        (UNIT.name, "under the unit", "a-lone-start-under-the-unit"),
        (MIXED.name, "in a context of 300", ""),
    )
    return [
        *(
            Verdict(
                goal=f"failure to other task, {where}: share of the better of s6 and runit",
                limit=0.15,
                value=_ratio(results.percentile("chain", name, FEW, 0.5), best),
                explained=explained,
            )
            for name, where, explained in places
        ),
        *(
            Verdict(
                goal=f"kill -9 to running again, {where}: {name}",
                limit=limit,
                value=results.percentile("restart", contender, FEW, share),
                unit="s",
                explained="a-lone-start-under-the-unit" if share == 0.5 else "goals-that-are-missed",
            )
            for contender, where, _ in (*places, (BUSY.name, "beside a busy process", ""))
            for name, share, limit in (("p50", 0.5, 0.002), ("p99", 0.99, 0.015))
        ),
        Verdict(
            goal="failure to the order that starts the other",
            limit=0.004,
            value=results.percentile("order", OURS, FEW, 0.5),
            unit="s",
            remark=f"p99 {late * 1e3:.1f} ms" if late else "",
            explained="a-lone-start-under-the-unit",
        ),
    ]


def _messages(results: Results, library: str) -> list[Verdict]:
    """Return the goals of messages from task to task with a JSON library."""
    rates = [results.median(f"sdk.throughput.{library}", name, 1) for name in (PYZMQ, SDK)]
    delays = [results.median(f"sdk.latency.{library}", name, 1) for name in (SDK, PYZMQ)]
    sizes = [results.median(f"sdk.memory.{library}", name, TASKS) for name in (SUBSCRIBED, PUBLISHING)]
    known = sizes[0] is not None and sizes[1] is not None
    return [
        Verdict(
            goal=f"messages of tasks, 1.5 kB, {library}: bare pyzmq's messages a second over theirs",
            limit=1 / 0.6,
            value=_ratio(*rates),
            remark=f"{rates[1]:,.0f}/s" if rates[1] else "",
        ),
        Verdict(
            goal=f"the same: p50 latency over bare pyzmq's, {library}",
            limit=1.3,
            value=_ratio(*delays),
            remark=f"{delays[0] * 1e6:.0f} us" if delays[0] else "",
        ),
        Verdict(
            goal=f"PSS of a subscribed task above that of a publishing one, {library}",
            limit=0.5e6,
            value=(sizes[0] or 0.0) - (sizes[1] or 0.0) if known else None,
            unit="B",
        ),
    ]


def _managers(results: Results) -> list[Verdict]:
    return [
        Verdict(
            goal=f"PSS of keeper, zygote, spare task, supervisor and device with {size:,} tasks",
            limit=limit,
            value=results.median("memory.own", OURS, size),
            unit="B",
            explained="the-memory-of-a-contexts-processes",
        )
        for size, limit in ((FEW, 35e6), (MANY, 60e6))
    ]


def _memory(results: Results, python: tuple[int, int]) -> list[Verdict]:
    limits, where = MEMORY.get(python, UNKNOWN), "with Python {}.{}".format(*python)
    found = [
        Verdict(
            goal=f"PSS of a connected task, of {size:,}, {where}",
            limit=limit,
            value=results.median("memory", OURS, size),
            unit="B",
            explained="what-is-left",
        )
        for size, limit in ((SOME, limits.some), (MANY, limits.many))
    ]
    faults = results.median("faults", OURS, SOME)
    found.append(
        Verdict(
            goal=f"page faults of a task's start, of {SOME}, {where}",
            limit=limits.faults,
            value=faults,
            unit="",
        )
    )
    if limits.faster is not None:
        share = _ratio(results.median("start", OURS, MANY), results.median("start", OURS_UNSHARED, MANY))
        found.append(
            Verdict(
                goal=f"1,000 tasks: share of the time that unshared memory takes, {where}",
                limit=limits.faster,
                value=share,
            )
        )
    return found


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def _linear(figure: str, name: str, median: Callable[[str, int], float | None]) -> Verdict:
    """Ten times the tasks may take ten times as long, and a quarter more because measurements vary."""
    return Verdict(
        goal=f"{name} of 1,000 over that of 100",
        limit=12.5,
        value=_ratio(median(figure, MANY), median(figure, SOME)),
    )


def _device(results: Results) -> list[float]:
    """Return the ratios of the device's throughput to the bare proxy's, one for each size of message and
    number of subscribers.
    """
    found = (
        _ratio(
            results.median(f"throughput.{size}", OURS, subscribers),
            results.median(f"throughput.{size}", BARE, subscribers),
        )
        for size in SIZES
        for subscribers in SUBSCRIBERS
    )
    return [value for value in found if value is not None]


def _mean(shares: list[float]) -> float | None:
    """Return the geometric mean of the inverses."""
    return math.exp(-sum(map(math.log, shares)) / len(shares)) if shares else None
