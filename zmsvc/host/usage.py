"""Sample the resource usage of processes by psutil: memory, CPU, children, files, connections. The caller
knows to which task a process belongs.

Keys of zmicroservices 1.0 have values of the same form as there, since programs read them. New values have
new keys.

Do not import this module in the keeper or the supervisor's own process: psutil costs 20 ms and 5 MB.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import psutil

from zmsvc.core.frozen import frozen
from zmsvc.host.kernel import processes

MIB = float(1 << 20)

Figures = dict[str, Any]


@frozen
class Options:
    """The expensive figures to include; without them their keys are left out."""

    memory_maps: bool = False
    open_connections: bool = False
    opened_files: bool = False


def options(configuration: Any) -> Options:
    """Return the options that a message or a configuration selects: those with the value 1, true, yes or on.
    Anything but a mapping selects none.
    """
    values = configuration if isinstance(configuration, Mapping) else {}
    return Options(
        **{
            name: str(values.get(name)).strip().lower() in ("1", "true", "yes", "on")
            for name in Options.__dataclass_fields__
        }
    )


def rows(sampler: ProcessSampler, tasks: Iterable[Mapping[str, Any]]) -> list[Figures]:
    """Return a row of a `monitor` message for each task. A task has `service_id` and `pid` (or None); its
    other items are copied to the row.
    """
    listed = list(tasks)
    sampler.keep(int(task["pid"]) for task in listed if task["pid"])
    result = []
    for task in listed:
        pid, began = task["pid"], time.monotonic()
        figures = sampler.sample(int(pid)) if pid else None
        now = time.time()
        result.append(
            {
                "serviceId": task["service_id"],
                "pid": pid if figures else None,
                **(figures or _NOTHING),
                **{name: value for name, value in task.items() if name != "pid"},
                "elapsed": round(time.monotonic() - began, 6),
                "timestamp": round(now, 3),
                "time": datetime.fromtimestamp(now, UTC).astimezone().isoformat(timespec="milliseconds"),
            }
        )
    return result


_SIZES = ("percent", "rss", "vms")
_NOTHING: Mapping[str, Any] = {
    "status": None,
    "rss": 0.0,
    "vms": 0.0,
    "percent": 0.0,
    "cpu_percent": 0.0,
    "children": (),
    "total": dict.fromkeys(_SIZES, 0.0),
}
"""The figures of a task without a process."""


class ProcessSampler:
    """A sampler of processes. It keeps the last CPU times, since CPU usage is a difference of two samples."""

    def __init__(self, wanted: Options) -> None:
        self._wanted = wanted
        self._known: dict[int, psutil.Process] = {}
        self._used: dict[int, tuple[float, float]] = {}
        """For each PID the CPU seconds of the process, and the monotonic time at which they were read."""

    def keep(self, pids: Iterable[int]) -> None:
        """Forget all processes except these."""
        wanted = set(pids)
        for pid in self._known.keys() - wanted:
            del self._known[pid]
            self._used.pop(pid, None)

    def begin(self, pids: Iterable[int]) -> None:
        """Begin to measure the CPU time of these processes, so that their first sample covers the time from
        now on.
        """
        for pid in pids:
            try:
                self._cpu(self._process(pid))
            except psutil.Error:
                continue

    def sample(self, pid: int) -> Figures | None:
        """Return the figures of a process, sizes in MiB; None if it is gone. Figures that we may not read, of
        a process of another user, are zero or empty. `cpu_percent` is the usage since the last sample, or, in
        the first sample, since the start of the process; 100 is one processor.
        """
        try:
            process = self._process(pid)
            with process.oneshot():
                return self._figures(process)
        except psutil.ZombieProcess:
            return {**_NOTHING, "status": psutil.STATUS_ZOMBIE}
        except psutil.NoSuchProcess:
            self._known.pop(pid, None)
            self._used.pop(pid, None)
            return None
        except psutil.AccessDenied:
            return {**_NOTHING, "status": "unknown"}

    def _process(self, pid: int) -> psutil.Process:
        known = self._known.get(pid)
        # The PID may be that of another process by now. Its CPU times must not be compared with those of the
        # earlier one.
        if known is None or not known.is_running():
            self._used.pop(pid, None)
            known = self._known[pid] = psutil.Process(pid)
        return known

    def _figures(self, process: psutil.Process) -> Figures:
        sizes, children, wanted = _sizes(process), _children(process.pid), self._wanted
        figures = {
            "status": process.status(),
            **sizes,
            "cpu_percent": self._cpu(process),
            # All threads of a process share its memory, so only processes are added up.
            "children": [*children, *_threads(process.pid, sizes)],
            "total": {
                name: round(sizes[name] + sum(child[name] for child in children), 3) for name in _SIZES
            },
        }
        if wanted.open_connections:
            figures |= _connections(process)
        if wanted.opened_files:
            figures["opened_files"] = _allowed(lambda: _plain(process.open_files()))
        if wanted.memory_maps:
            figures["memory_map"] = _allowed(lambda: _plain(process.memory_maps(grouped=True)))
        return figures

    def _cpu(self, process: psutil.Process) -> float:
        times, now = process.cpu_times(), time.monotonic()
        used = times.user + times.system
        before, at = self._used.get(process.pid) or (0.0, now - (time.time() - process.create_time()))
        self._used[process.pid] = (used, now)
        # CPU times have the resolution of a clock tick. Over a shorter time the quotient would mean nothing.
        return round(100 * max(0.0, used - before) / max(now - at, 0.01), 1)


def _sizes(process: psutil.Process) -> dict[str, float]:
    memory = process.memory_info()
    return {
        "rss": round(memory.rss / MIB, 3),
        "vms": round(memory.vms / MIB, 3),
        "percent": round(process.memory_percent(), 3),
    }


def _allowed(look: Callable[[], list[Any]]) -> list[Any]:
    try:
        return look()
    except psutil.AccessDenied:
        return []


def _children(pid: int) -> list[Figures]:
    """Return all descendants of a process.

    The kernel has a list of children, while psutil would read every process of the machine for each process
    of a task.
    """
    found: list[Figures] = []
    seen: set[int] = set()
    below = processes.children_of_threads(pid)
    while below:
        child = below.pop()
        if child in seen:
            continue
        seen.add(child)
        try:
            process = psutil.Process(child)
            with process.oneshot():
                entry = {
                    "status": process.status(),
                    "pid": child,
                    "create_time": process.create_time(),
                    **_sizes(process),
                    "kind": "process",
                    "name": process.name(),
                    "threads": process.num_threads(),
                }
        except psutil.Error:
            continue
        found.append(entry)
        below += processes.children_of_threads(child)
    return found


_STATUS = {
    "R": psutil.STATUS_RUNNING,
    "S": psutil.STATUS_SLEEPING,
    "D": psutil.STATUS_DISK_SLEEP,
    "T": psutil.STATUS_STOPPED,
    "t": psutil.STATUS_TRACING_STOP,
    "Z": psutil.STATUS_ZOMBIE,
    "X": psutil.STATUS_DEAD,
    "I": psutil.STATUS_IDLE,
}
"""psutil's words for the letters of proc(5)."""
_TICK = os.sysconf("SC_CLK_TCK")


def _threads(pid: int, sizes: Mapping[str, float]) -> list[Figures]:
    """Return the threads of a process, with the memory of the process.

    psutil would open three files for each thread; /proc/PID/task/TID/stat has all values.
    """
    found: list[Figures] = []
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    booted = psutil.boot_time()
    for name in names:
        try:
            with open(f"/proc/{pid}/task/{name}/stat", "rb") as file:
                # A program's name may have blanks and brackets. The fields from the third on follow its last
                # bracket.
                words = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        found.append(
            {
                "status": _STATUS.get(words[0].decode(), "unknown"),
                "pid": int(name),
                "create_time": round(booted + int(words[19]) / _TICK, 2),
                **sizes,
                "kind": "thread",
                "user_time": int(words[11]) / _TICK,
                "system_time": int(words[12]) / _TICK,
            }
        )
    return found


def _plain(items: Iterable[Any]) -> list[list[Figures]]:
    """Return tuples of psutil in the form of zmicroservices 1.0: each is a list of objects with one key and
    the value of psutil.
    """
    return [[{name: getattr(item, name)} for name in item._fields] for item in items]


def _connections(process: psutil.Process) -> Figures:
    # Renamed in psutil 6, where the old name warns; Debian 12 has 5.9.
    look = getattr(process, "net_connections", None) or process.connections
    found = _allowed(lambda: list(look(kind="all")))
    internet = [each for each in found if each.family in (socket.AF_INET, socket.AF_INET6)]
    unix = [each for each in found if each.family == socket.AF_UNIX]
    return {
        "connections": _plain(internet),
        "unix_connections": [
            {"fd": each.fd, "type": each.type.name, "path": str(each.laddr or "")} for each in unix
        ],
    }
