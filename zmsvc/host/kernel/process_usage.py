"""The CPU time and the memory of a process, from one file of /proc. No psutil, so that the supervisor can
read them: psutil costs 20 ms and 5 MB.
"""

from __future__ import annotations

import os

from zmsvc.core.frozen import frozen
from zmsvc.host.kernel import processes

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@frozen
class ProcessUsage:
    """The CPU time and the memory of one process."""

    cpu_seconds: float
    """CPU seconds since its start, and those of the children that it has waited for."""
    memory_bytes: int
    """Resident memory, which counts shared memory in full."""
    threads: int


def of_process(pid: int, start_time: int) -> ProcessUsage | None:
    """Return the usage of the process with this PID and start time, in clock ticks since boot. None if it has
    ended, also if another process has its PID now, or if /proc hides it. One call takes 0.02 ms.
    """
    try:
        fields = processes.stat_fields(pid)
    except OSError:
        return None  # Without a free descriptor, the task is shown without its usage.
    if fields is None or int(fields[19]) != start_time:
        return None
    used, size, threads = sum(map(int, fields[11:15])), int(fields[21]), int(fields[17])
    return ProcessUsage(cpu_seconds=used / _TICK, memory_bytes=size * _PAGE, threads=threads)
