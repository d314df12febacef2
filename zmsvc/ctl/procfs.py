"""Memory and age of processes, read by zmsvcctl itself, to keep this work from the supervisor.

host/kernel/linux.py reads /proc, too, but its ctypes costs start-up time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

EXACT = 64
"""Up to this number of processes zmsvcctl reads the PSS, which takes the kernel 0.2 ms each; for more only
the RSS, at 0.02 ms. Tasks are forks of one process and share most of their resident memory.
"""


def memory(pids: Iterable[int]) -> dict[int, str]:
    """Return the memory of each existing process as text; `rss` marks figures that count shared memory in
    full.
    """
    wanted = list(pids)
    exact = len(wanted) <= EXACT
    found: dict[int, str] = {}
    for pid in wanted:
        if exact and (amount := _proportional(pid)) is not None:
            found[pid] = size(amount)
        elif (amount := _resident(pid)) is not None:
            found[pid] = f"{size(amount)} rss"
    return found


def _proportional(pid: int) -> int | None:
    """Return the PSS in bytes; None if the process has ended, or belongs to another user."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        return None
    return None


def _resident(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def age(pid: int | None) -> float | None:
    """Return the seconds since the process started; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open("/proc/uptime", "rb") as file:
            return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def size(amount: int) -> str:
    """Format bytes as systemd shows memory."""
    if amount < 1024:
        return f"{amount}B"
    value, unit = amount / 1024, "K"
    for larger in ("M", "G", "T"):
        if value < 1023.95:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}{unit}"
