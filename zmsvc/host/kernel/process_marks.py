"""By which marks a process of a context is recognized where there is no control group: its session, its
environment, a resource limit.

A program may begin a session of its own, and write over its environment, as nginx and redis do in order to
show a title in `ps`. So each task has one mark more, which its descendants inherit and ordinary programs
leave alone: the soft limit of RLIMIT_LOCKS. The kernel has not looked at that limit since Linux 2.4.25
(getrlimit(2)), and lets each process lower it.
"""

from __future__ import annotations

import os
import resource
import zlib
from collections.abc import Container

from zmsvc.host.kernel import linux

RLIMIT_LOCKS = 10
"""Of <asm-generic/resource.h>; Python's `resource` has no name for it."""
_LAUNCHES = 31
"""Bits of the launch number; the 32 bits above tell the contexts of a machine apart, and the highest bit
is zero.
"""
_LINE = b"Max file locks"
_LAUNCH = b"ZMSVC_LAUNCH="


def number(mark: bytes, launch: int) -> int:
    """Return the limit of a launch; `mark` is what the environment of each process of the context has."""
    return zlib.crc32(mark) << _LAUNCHES | launch & ((1 << _LAUNCHES) - 1)


def put_on(value: int) -> None:
    """Mark this process, and all that it forks from here on. Where that is forbidden, the other marks have
    to do.
    """
    try:
        resource.setrlimit(RLIMIT_LOCKS, (value, resource.getrlimit(RLIMIT_LOCKS)[1]))
    except (OSError, ValueError):
        pass


def worn(pid: int) -> int | None:
    """Return the soft limit of a process; None when there is none, or it is not ours to know."""
    try:
        return resource.prlimit(pid, RLIMIT_LOCKS)[0]
    except PermissionError:
        # Of another user; root without CAP_SYS_RESOURCE, as in a container, may read it all the same.
        return _read(pid) if os.geteuid() == 0 else None
    except OSError:
        return None


def launch_of(pid: int, mark: bytes) -> int | None:
    """Return the launch of a context that a process is of; None when it is of none."""
    value = worn(pid)
    if value is None or value < 0 or value >> _LAUNCHES != zlib.crc32(mark):
        return None
    return value & ((1 << _LAUNCHES) - 1)


def told_launch(pid: int, mark: bytes) -> int | None:
    """Return the launch of a context that the limit of a process tells, or else its environment."""
    launch = launch_of(pid, mark)
    if launch is not None:
        return launch
    environment = linux.environment_of(pid).split(b"\0")
    number = next((each.removeprefix(_LAUNCH) for each in environment if each.startswith(_LAUNCH)), b"")
    return int(number) if mark in environment and number.isdigit() else None


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


def belonging(sessions: Container[int], mark: bytes, launch: int | None = None) -> list[int]:
    """Return every process of one of these sessions, or with the marks of a context, or of one launch of it.

    Zombies do not count: they are dead.
    """
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and belongs(int(name), sessions, mark, launch)
    ]


def belongs(pid: int, sessions: Container[int], mark: bytes, launch: int | None = None) -> bool:
    """Tell whether `belonging` names this process."""
    fields = linux.stat_fields(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return False
    return int(fields[3]) in sessions or _limited(pid, mark, launch) or _told(pid, mark, launch)


def _limited(pid: int, mark: bytes, launch: int | None) -> bool:
    value = worn(pid)
    if value is None or value < 0:
        return False
    return value >> _LAUNCHES == zlib.crc32(mark) if launch is None else value == number(mark, launch)


def _told(pid: int, mark: bytes, launch: int | None) -> bool:
    environment = b"\0" + linux.environment_of(pid)
    wanted = [mark] if launch is None else [mark, b"ZMSVC_LAUNCH=%d" % launch]
    return all(b"\0" + each + b"\0" in environment for each in wanted)
