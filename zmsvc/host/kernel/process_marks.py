"""Identify the processes of a context without a cgroup, by three marks: their session, their environment, and
a resource limit.

A program may start its own session, and may overwrite its environment, as nginx and redis do to show a title
in `ps`. So each task has a third mark, which its descendants inherit and ordinary programs do not change: the
soft limit of RLIMIT_LOCKS. The kernel has ignored that limit since Linux 2.4.25 (getrlimit(2)), and permits
each process to lower it.
"""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Container

from zmsvc.host.kernel import processes

RLIMIT_LOCKS = 10
"""From <asm-generic/resource.h>; Python's `resource` has no name for it."""
_LAUNCHES = 31
"""Bits of the launch ID. The 32 bits above these distinguish the contexts of a machine; the highest bit is
0.
"""
_LINE = b"Max file locks"
_LAUNCH = b"ZMSVC_LAUNCH="


def limit_value(context_mark: bytes, launch: int) -> int:
    """Return the limit of a launch. `context_mark` is the variable in the environment of every process of the
    context.
    """
    return _context_number(context_mark) << _LAUNCHES | launch & ((1 << _LAUNCHES) - 1)


@functools.lru_cache(maxsize=8)
def _context_number(context_mark: bytes) -> int:
    """Return the number of a context in its limits."""
    # The zygote does not need zlib, and each library that it has loaded makes its forks slower.
    import zlib

    return zlib.crc32(context_mark)


def set_limit(value: int) -> None:
    """Mark this process and all its later forks. If that is forbidden, only the other marks remain."""
    try:
        resource.setrlimit(RLIMIT_LOCKS, (value, resource.getrlimit(RLIMIT_LOCKS)[1]))
    except (OSError, ValueError):
        pass


def limit_of(pid: int) -> int | None:
    """Return the soft limit of a process; None if there is no such process, or we may not read its limit."""
    try:
        return resource.prlimit(pid, RLIMIT_LOCKS)[0]
    except PermissionError:
        # This is a process of another user. Root without CAP_SYS_RESOURCE, as in a container, can read the
        # limit in /proc.
        return _read(pid) if os.geteuid() == 0 else None
    except OSError:
        return None


def launch_of(pid: int, context_mark: bytes) -> int | None:
    """Return the launch to which a process of the context belongs, by the limit of the process. None for any
    other process.
    """
    value = limit_of(pid)
    if value is None or value < 0 or value >> _LAUNCHES != _context_number(context_mark):
        return None
    return value & ((1 << _LAUNCHES) - 1)


def launch_by_any_mark(pid: int, context_mark: bytes) -> int | None:
    """Return the launch to which a process of the context belongs, by the limit of the process or else by its
    environment. None for any other process.
    """
    launch = launch_of(pid, context_mark)
    if launch is not None:
        return launch
    environment = processes.environment_of(pid).split(b"\0")
    number = next((each.removeprefix(_LAUNCH) for each in environment if each.startswith(_LAUNCH)), b"")
    return int(number) if context_mark in environment and number.isdigit() else None


def _read(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            for line in file:
                if line.startswith(_LINE):
                    soft = line.removeprefix(_LINE).split()[0]
                    return int(soft) if soft.isdigit() else None
    except OSError:
        return None
    return None


def belonging(sessions: Container[int], context_mark: bytes, launch: int | None = None) -> list[int]:
    """Return every process of one of these sessions, and every process with the marks of a context, or of one
    of its launches.

    Zombies are left out.
    """
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and belongs(int(name), sessions, context_mark, launch)
    ]


def belongs(pid: int, sessions: Container[int], context_mark: bytes, launch: int | None = None) -> bool:
    """Return True if `belonging` returns this process."""
    fields = processes.stat_fields(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return False
    return (
        int(fields[3]) in sessions
        or _has_limit(pid, context_mark, launch)
        or _has_variables(pid, context_mark, launch)
    )


def _has_limit(pid: int, context_mark: bytes, launch: int | None) -> bool:
    value = limit_of(pid)
    if value is None or value < 0:
        return False
    return (
        value >> _LAUNCHES == _context_number(context_mark)
        if launch is None
        else value == limit_value(context_mark, launch)
    )


def _has_variables(pid: int, context_mark: bytes, launch: int | None) -> bool:
    environment = b"\0" + processes.environment_of(pid)
    wanted = [context_mark] if launch is None else [context_mark, b"ZMSVC_LAUNCH=%d" % launch]
    return all(b"\0" + each + b"\0" in environment for each in wanted)
