"""A task that writes ten times a second where it runs. So two copies at a time are seen, and how long none ran."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cluster_bench import Bench, BenchError, wait_until

SAME, OTHER = "the same host", "another host"
AGAIN, SILENT = "from the fault", "from the last beat"
"""The two figures. The command of an orderly move thinks for a while before the context stops, so its limit is for the
silence.
"""
AFTER = 1.0
"""Seconds for which the beats after a fault are watched for a second copy."""


@dataclass(frozen=True, slots=True)
class Beat:
    at: float
    host: int
    pid: str
    transaction: str


@dataclass(slots=True)
class Measured:
    """The figures of one kind of fault, in seconds, one of each run."""

    where: str
    limit: float
    judged: str
    """The figure that the limit is for."""
    silent: list[float] = field(default_factory=list)
    """From the last beat to the next."""
    again: list[float] = field(default_factory=list)
    """From the fault to the next beat."""
    overlap: list[float] = field(default_factory=list)

    @property
    def figures(self) -> list[float]:
        return self.again if self.judged == AGAIN else self.silent


class Beats:
    """A context with a task that writes down ten times a second where it runs, and what is known of it. `file` is the
    name of the file in the directory that all hosts share.
    """

    def __init__(self, bench: Bench, file: str) -> None:
        self.bench = bench
        self._file = bench.share / file
        self.table: dict[str, Measured] = {}

    def prepare(self) -> None:
        self._file.touch()
        self._file.chmod(0o666)

    def beats(self, since: float = 0.0) -> list[Beat]:
        found = []
        for line in self._file.read_text().splitlines():
            words = line.split()
            if len(words) == 4 and float(words[0]) >= since:
                found.append(Beat(float(words[0]), int(words[1][1:]), words[2], words[3]))
        return found

    def last(self) -> Beat:
        wait_until("a beat", lambda: self.beats(time.time() - 0.5))
        return self.beats(time.time() - 2)[-1]

    @contextmanager
    def breaking(
        self, what: str, where: str, limit: float, judged: str = AGAIN, before: Beat | None = None
    ) -> Iterator[int]:
        """Measure a fault, which the body makes on the host whose number it gets. The context must run again in
        the same transaction, and never twice at a time. `before` is its last beat if it does not run now.
        `judged` says which figure the limit is for.
        """
        before = before or self.last()
        began = time.time()
        yield before.host
        wait_until(f"another run after: {what}", lambda: self._others(before, began), 60)
        time.sleep(AFTER)
        self._judge(what, self.table.setdefault(what, Measured(where, limit, judged)), before, began)

    def _others(self, before: Beat, since: float) -> list[Beat]:
        return [each for each in self.beats(since) if (each.host, each.pid) != (before.host, before.pid)]

    def _judge(self, what: str, measured: Measured, before: Beat, began: float) -> None:
        old = [each for each in self.beats() if (each.host, each.pid) == (before.host, before.pid)]
        new = self._others(before, began)
        if {each.transaction for each in new} != {before.transaction}:
            raise BenchError(f"{what}: another transaction than {before.transaction}: {new[:3]}")
        if (new[0].host == before.host) is not (measured.where == SAME):
            raise BenchError(f"{what}: it runs again on h{new[0].host}, expected on {measured.where}")
        runs = {(each.host, each.pid) for each in new}
        if len(runs) != 1:
            raise BenchError(f"{what}: it was started more than once: {runs}")
        overlap = max(0.0, old[-1].at - new[0].at)
        measured.silent.append(new[0].at - old[-1].at)
        measured.again.append(new[0].at - began)
        measured.overlap.append(overlap)
        print(
            f"{what:32} runs again after {new[0].at - began:5.2f} s, silent for {new[0].at - old[-1].at:5.2f} s, "
            f"overlap {overlap:.2f} s, on h{new[0].host}",
            flush=True,
        )
        if overlap:
            raise BenchError(f"{what}: two copies for {overlap:.2f} s")


def _figures(found: list[float]) -> str:
    return f"{statistics.median(found):.1f} s, at most {max(found):.1f} s"


def print_table(table: dict[str, Measured], runs: int) -> int:
    late = [what for what, each in table.items() if statistics.median(each.figures) > each.limit]
    if runs > 1:
        print(
            "\n| fault | runs again within | on | median, highest | silent | overlap |\n|---|---|---|---|---|---|"
        )
        for what, each in table.items():
            print(
                f"| {what} | {each.limit} s {each.judged} | {each.where} | {_figures(each.again)} "
                f"| {_figures(each.silent)} | {max(each.overlap):.2f} s |"
            )
    for what in late:
        print(f"cluster: later than the goal of {table[what].limit} s: {what}", file=sys.stderr)
    return 0
