"""The memory of processes, from /proc and from the files of a control group. No ctypes, because zmsvcctl
imports this module, too.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path


def proportional(pid: int) -> int | None:
    """Return the PSS in bytes; None if the process has ended, or belongs to another user."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        return None
    return None


def resident(pid: int) -> int | None:
    """Return the RSS in bytes, which counts shared memory in full; None if the process has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def of_processes(pids: Iterable[int], enough: int) -> int:
    """Return the bytes that these processes use together.

    The PSS takes the kernel ten times as long as the RSS, which is never lower. So the PSS is read only if
    the RSS is above `enough`.
    """
    found = {pid: size for pid in pids if (size := resident(pid)) is not None}
    if sum(found.values()) <= enough:
        return sum(found.values())
    return sum(size if (exact := proportional(pid)) is None else exact for pid, size in found.items())


def of_cgroup(directory: Path) -> int | None:
    """Return the bytes that a cgroup uses without its page cache, which the kernel takes back when it needs
    memory. None without the memory controller.
    """
    try:
        used = int((directory / "memory.current").read_text())
        lines = (directory / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    stat = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    # `file` is the page cache with the shared memory (tmpfs) in it, which cannot be dropped.
    return max(0, used - stat.get("file", 0) + stat.get("shmem", 0))


def own_memory() -> int:
    """Return the resident bytes of this process that it shares with no file or other process."""
    with open("/proc/self/statm", "rb") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * resource.getpagesize()
