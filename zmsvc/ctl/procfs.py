"""Memory and age of processes. zmsvcctl itself reads them, so the supervisor does not have this work.

host/kernel/linux.py reads /proc, too, but its ctypes costs start-up time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from zmsvc.core.amounts import size
from zmsvc.host.kernel import process_memory

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
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as file:
            return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
