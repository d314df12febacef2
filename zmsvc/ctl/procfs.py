"""Memory and age of processes. zmsvcctl itself reads them, so the supervisor does not have this work."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from zmsvc.core.amounts import size
from zmsvc.host.kernel import process_memory, processes

EXACT = 64
"""For up to this number of processes zmsvcctl reads the PSS, which takes the kernel 0.2 ms each. For more it
reads the RSS, which takes 0.02 ms. Tasks are forks of one process and share most of their resident memory.
"""


def memory(pids: Iterable[int]) -> dict[int, str]:
    """Return the memory of each existing process as text; `rss` marks figures that count shared memory in
    full.
    """
    wanted = list(pids)
    exact = len(wanted) <= EXACT
    found: dict[int, str] = {}
    for pid in wanted:
        if exact and (amount := process_memory.proportional(pid)) is not None:
            found[pid] = size(amount)
        elif (amount := process_memory.resident(pid)) is not None:
            found[pid] = f"{size(amount)} rss"
    return found


def age(pid: int | None) -> float | None:
    """Return the seconds since the process started; None if it has ended."""
    with contextlib.suppress(OSError):
        ticks = None if pid is None else processes.start_time(pid)
        if ticks is not None:
            with open("/proc/uptime", "rb") as file:
                return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    return None
