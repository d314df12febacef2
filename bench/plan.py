"""The contents of a run: cells, each of which starts one contender and takes some figures. There is a short
and a long plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.contenders.zmsvc import Zmsvc, ZmsvcSession
from bench.contenders.zmsvc_unit import installed
from bench.everybody import MIXED, OURS_UNSHARED, UNIT, everybody
from bench.figures import adoption, bus, cold, device, failure, idle, memory, sdk, start, status, stop
from bench.fleet import Contender, Fleet
from bench.results import Results


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The amount of measurements."""

    sizes: tuple[int, ...]
    rounds: int
    budget: float
    """Seconds for the whole run."""
    failures: float
    """Seconds that the samples of one kind of failure may take in one cell."""
    idle: float
    messages: int
    """MiB that a device forwards in one measurement."""
    suites_up_to: int
    """The largest fleet of s6 and runit. Each of their tasks starts a Python interpreter, as with all
    contenders but zmsvc and the floors.
    """


SHORT = Scale(sizes=(10, 100, 1000), rounds=5, budget=570, failures=4, idle=4, messages=40, suites_up_to=100)
LONG = Scale(
    sizes=(10, 100, 300, 1000), rounds=9, budget=5400, failures=20, idle=30, messages=200, suites_up_to=1000
)

FEW_TASKS = 10
PAIRS = 10
MOST_SAMPLES = 150
STATUSES = 5
COLD_STARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One part of each round."""

    name: str
    missing: Callable[[], str]
    run: Callable[[Results, Path], None]
    """Takes the measurements, in an empty directory."""


def cells(scale: Scale) -> list[Cell]:
    # The largest fleets come first: they have one sample in each round, and get the time that is left after
    # the first round.
    largest_first = sorted(scale.sizes, reverse=True)
    made = [
        _of(contender, size, scale)
        for size in largest_first
        for contender in everybody()
        if _suits(contender, size, scale)
    ]
    made.append(Cell(name="a cold start", missing=UNIT.missing, run=_cold))
    ours = Zmsvc()
    made.append(
        Cell(
            name="the bus",
            missing=ours.missing,
            run=lambda results, home: _bus(ours, max(scale.sizes), results, home),
        )
    )
    made.append(
        Cell(
            name="the device",
            missing=ours.missing,
            run=lambda results, home: device.run(ours, scale.messages, results, home),
        )
    )
    made += [_sdk(library) for library in sdk.LIBRARIES]
    return made


def _sdk(library: str) -> Cell:
    return Cell(
        name=f"messages with {library}",
        missing=lambda: sdk.missing(library),
        run=lambda results, home: sdk.run(library, results, home),
    )


def _suits(contender: Contender, size: int, scale: Scale) -> bool:
    bounded = {"s6": scale.suites_up_to, "runit": scale.suites_up_to}
    few = dict.fromkeys(("zmsvc (cgroups)", MIXED.name, UNIT.name), FEW_TASKS)
    largest = (bounded | few).get(contender.name, max(scale.sizes))
    # With few tasks no figure is taken that depends on shared memory.
    least = FEW_TASKS + 1 if contender.name == OURS_UNSHARED else 0
    return least <= size <= largest


def _of(contender: Contender, size: int, scale: Scale) -> Cell:
    return Cell(
        name=f"{contender.name} with {size}",
        missing=contender.missing,
        run=lambda results, home: fleet(contender, size, scale, results, home),
    )


def fleet(contender: Contender, size: int, scale: Scale, results: Results, home: Path) -> None:
    """Start one fleet of this size, and take all its figures."""
    few = size == FEW_TASKS
    name = contender.name
    with contender.open(Fleet(size=size, pairs=PAIRS if few else 0), home) as session:
        results.add_all(name, size, start.measure(session))
        results.add_all(name, size, memory.measure(session))
        if few:
            results.add("restart", name, size, failure.restart(session, scale.failures, MOST_SAMPLES))
            results.add("chain", name, size, failure.chain(session, scale.failures, MOST_SAMPLES))
            if isinstance(session, ZmsvcSession):
                results.add("order", name, size, failure.order(session, scale.failures, MOST_SAMPLES))
        else:
            results.add("status", name, size, status.measure(session, STATUSES))
        if size == max(scale.sizes):
            results.add_all(name, size, idle.measure(session, scale.idle))
        if isinstance(session, ZmsvcSession) and not few:
            results.add_all(name, size, adoption.measure(session))
        results.add_all(name, size, stop.measure(session))


def _cold(results: Results, _home: Path) -> None:
    with installed() as machine:
        for figure, values in cold.measure(machine, COLD_STARTS).items():
            results.add(figure, UNIT.name, 1, values)


def _bus(ours: Zmsvc, size: int, results: Results, home: Path) -> None:
    with ours.open(Fleet(size=size), home) as session:
        results.add_all(ours.name, size, bus.measure(session))
