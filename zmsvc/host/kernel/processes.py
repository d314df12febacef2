"""Processes as /proc shows them. Neither ctypes nor signal, because zmsvcctl imports this module, too."""

from __future__ import annotations

import os
from pathlib import Path

# From linux/sched.h.
PF_FORKNOEXEC = 0x40
_ATTEMPTS = 8
_STAT_LIMIT = 4096
"""The most bytes that are read of /proc/PID/stat: 50 numbers and a name of 16 characters take fewer."""


def boot_id() -> str:
    """Return the ID of this boot. PIDs, start times and monotonic times of another boot are meaningless."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return the time at which a process started, in clock ticks since boot; None if it is gone. This time,
    the PID and the ID of the boot together identify a process.
    """
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def stat_fields(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from `state` (field 3) on; None if the process is gone."""
    try:
        # A file object would make five more system calls.
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _STAT_LIMIT).rpartition(b")")[2].split()
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return None


def user_of(pid: int) -> int | None:
    """Return the effective user ID of a process; None if it is gone. The owner of its /proc directory is not
    reliable: it may be root.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next((int(line.split()[2]) for line in file if line.startswith(b"Uid:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def descends(pid: int, ancestor: int) -> bool:
    """Return True if `ancestor`, which is a subreaper, is an ancestor of a process, or if that cannot be
    found out.
    """
    for _ in range(_ATTEMPTS):
        at = pid
        while at and at != ancestor:
            fields = stat_fields(at)
            if fields is None:
                break  # This ancestor has just ended, and its children have another parent now.
            at = int(fields[1])
        else:
            return at == ancestor
    return True


def has_executed(pid: int) -> bool:
    """Return True if a process or zombie has executed a program since its fork; False if it is gone."""
    fields = stat_fields(pid)
    # PF_FORKNOEXEC in `flags` of proc(5): an exec clears it when it can no longer fail, and nothing sets it
    # again.
    return fields is not None and not int(fields[6]) & PF_FORKNOEXEC


def process_name(pid: int) -> str:
    """Return the name that `ps -o comm` shows; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def environment_of(pid: int) -> bytes:
    """Return a process's initial environment, NUL between entries; empty if it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def children_of(pid: int) -> list[int]:
    """Return the children of a single-threaded process, zombies included."""
    return [int(word) for word in _children(pid).split()]


def children_of_threads(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for thread in threads for word in _children(pid, thread).split()]


def number_of_children() -> int:
    """Return the number of children of this single-threaded process, zombies included. This is faster than
    listing them.
    """
    return _children(os.getpid()).count(b" ")


def _children(pid: int, thread: int | str = 0) -> bytes:
    """Return the PIDs of a thread's children, with a space after each. Thread 0 is the main thread."""
    try:
        with open(f"/proc/{pid}/task/{thread or pid}/children", "rb") as file:
            return file.read()
    except OSError:
        return b""


def most_tasks() -> int:
    """Return the number of processes and threads that this machine may have."""
    return min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max"))
