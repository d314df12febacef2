"""Run the cells of a plan round by round, so that contenders alternate, within a limit of time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from bench.plan import Cell
from bench.results import Results

_MEMORY = "/dev/shm"


def run(cells: Sequence[Cell], rounds: int, budget: float) -> Results:
    """Run every cell once in each round, as long as the time that it took last is still left. A cell that
    cannot be measured is left out, with its reason.
    """
    results = Results()
    began = time.monotonic()
    took: dict[str, float] = {}
    able = [cell for cell in cells if not _noted(cell, results)]
    for number in range(rounds):
        for cell in able:
            left = budget - (time.monotonic() - began)
            if took.get(cell.name, 0.0) > left or left <= 0:
                continue
            started = time.monotonic()
            with _at_most(left):
                _one(cell, results)
            took[cell.name] = time.monotonic() - started
            _say(
                f"round {number + 1}: {cell.name}, {took[cell.name]:.1f} s; {time.monotonic() - began:.0f} "
                f"of {budget:.0f} s"
            )
    for cell in able:
        if cell.name not in took:
            results.missing[cell.name] = "the time was up"
    return results


def _noted(cell: Cell, results: Results) -> bool:
    why = cell.missing()
    if why:
        results.missing[cell.name] = why
        _say(f"{cell.name} is left out: {why}")
    return bool(why)


def _one(cell: Cell, results: Results) -> None:
    # The directory is in memory, as /run is, where an installation has its sockets and PID files. The machine
    # of systemd is in memory as a whole. The path is short, because that of a Unix socket may have 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="zmb", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None))
    try:
        cell.run(results, home)
    except (OSError, RuntimeError, AssertionError, ValueError) as error:
        # If one contender fails, the others are still measured, and the report has the reason.
        results.missing[cell.name] = f"it failed in at least one round: {error}"
        _say(f"{cell.name} failed: {error!r}")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Interrupt a cell that takes longer: a contender hangs, or it is the first round on a slow machine,
    whose duration is not known yet.
    """

    def late(_signal: int, _frame: FrameType | None) -> None:
        raise RuntimeError("the time was up")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(1.0, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
