"""`make soak`: a context under load for a long time, with tasks killed at random; descriptors, memory and CPU
at start and end.

The exit status is 1 when descriptors or memory of keeper, supervisor or device grew beyond the bounds below,
or an invariant broke.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from context import Context
from crowd import QUICK, SHARED, STEADY, TX, Crowd, populate

WARM_UP = 0.2
"""The share of the time before the first measurement, which is at most a minute: caches fill, and the
allocator finds its size.
"""
MORE_FILES = 4
"""The number of descriptors that a process may have more at the end, for a fork or a client at that
moment.
"""
MORE_MEMORY = 6.0
"""MiB of PSS that a process may have more, by fragmentation. A leak of 250 bytes for each update exceeds this
in ten minutes.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The resources that one process has at one moment, and those that it has used."""

    pid: int
    files: int
    memory: float
    """MiB of PSS."""
    cpu: float
    """Seconds."""


def look(pid: int) -> Look:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().split()
    ticks = os.sysconf("SC_CLK_TCK")
    return Look(
        pid=pid,
        files=len(os.listdir(f"/proc/{pid}/fd")),
        memory=int(rollup[rollup.index("Pss:") + 1]) / 1024,
        cpu=(int(fields[11]) + int(fields[12])) / ticks,
    )


def all_of(context: Context) -> dict[str, Look]:
    status = context.status()
    return {
        name: look(status[f"{name}_pid".replace("supervisor_", "")])
        for name in ("keeper", "supervisor", "device")
    }


def work(crowd: Crowd, chance: random.Random, until: float) -> int:
    """Until this time, kill tasks, start and stop another one by order, and check everything. Return the
    number of rounds.
    """
    rounds = 0
    while time.monotonic() < until:
        crowd.kill(chance.choice((*STEADY, SHARED[0])))
        for verb in ("start", "stop"):
            answer = crowd.context.ask(verb=verb, transaction=TX, tasks=["idler"])
            assert answer["ok"], answer
        rounds += 1
    return rounds


def counts(crowd: Crowd) -> str:
    crowd.follow()
    rows = crowd.rows
    starts, firings = (sum(row.event == event for row in rows) for event in ("launching", "rule"))
    ends = sum(row.event in ("failed", "stopped") for row in rows)
    return f"{starts} starts, {ends} ends, {firings} firings of rules"


def report(before: dict[str, Look], after: dict[str, Look], seconds: float) -> list[str]:
    """Print both measurements. Return the resources that have grown too much."""
    print(f"{'':12}{'descriptors':>16}{'PSS, MiB':>20}{'CPU, % of one':>16}")
    faults = []
    for name, old in before.items():
        new = after[name]
        share = 100 * (new.cpu - old.cpu) / seconds
        print(
            f"{name:12}{old.files:>7} -> {new.files:<5}{old.memory:>9.1f} -> {new.memory:<7.1f}{share:>14.1f}"
        )
        if new.pid != old.pid:
            faults.append(f"{name} is another process: it died")
        if new.files > old.files + MORE_FILES:
            faults.append(f"{name} has {new.files - old.files} more descriptors, {MORE_FILES} are allowed")
        if new.memory > old.memory + MORE_MEMORY:
            faults.append(
                f"{name} has {new.memory - old.memory:.1f} MiB more memory, {MORE_MEMORY} are allowed"
            )
    return faults


def main() -> int:
    seconds = float(sys.argv[1])
    seed = int(os.environ.get("ZMSVC_SEED") or random.randrange(2**32))
    print(f"ZMSVC_SEED={seed}, {seconds:g} s")
    home = Path(tempfile.mkdtemp(prefix="zm"))
    context = Context(home)
    try:
        populate(context)
        context.task("idler", "Steady", entry=False, service=QUICK)
        context.start("--transaction", TX)
        crowd, chance, began = Crowd(context), random.Random(seed), time.monotonic()
        work(crowd, chance, began + min(WARM_UP * seconds, 60.0))
        before, at = all_of(context), time.monotonic()
        print(f"after {at - began:.0f} s: {counts(crowd)}")
        rounds = work(crowd, chance, began + seconds)
        after, spent = all_of(context), time.monotonic() - at
        print(f"after {spent + at - began:.0f} s: {counts(crowd)}; {rounds} rounds of kill, start and stop")
        faults = report(before, after, spent)
        crowd.check_history()
        if context.stop() != 0:
            faults.append("the context did not end with 0")
    finally:
        context.close()
        shutil.rmtree(home, ignore_errors=True)
    for fault in faults:
        print(f"soak: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
