"""What processes use of the machine, by psutil: memory, CPU, children, files, connections. Figures only; whose they are is the caller's.

Import it where figures are wanted, never in the keeper or the supervisor's own process: psutil costs 20 ms and 5 MB.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import psutil

MIB = float(1 << 20)

Figures = dict[str, Any]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which of the costly figures are wanted; without them their lists are empty."""

    memory_maps: bool = False
    open_connections: bool = False
    opened_files: bool = False


def options(configuration: Any) -> Options:
    """Options from somebody's configuration, where 1 (a number or a text) means yes; what is no configuration wants nothing."""
    given = configuration if isinstance(configuration, Mapping) else {}
    return Options(**{name: str(given.get(name)).strip().lower() in ("1", "true", "yes", "on") for name in Options.__dataclass_fields__})


def rows(gauge: Gauge, tasks: Iterable[Mapping[str, Any]]) -> list[Figures]:
    """A row of a `monitor` message for each task, which is told by `service_id`, `pid` (or None), `action` and `state`."""
    told = list(tasks)
    gauge.keep(int(task["pid"]) for task in told if task["pid"])
    made = []
    for task in told:
        pid = task["pid"]
        figures = gauge.sample(int(pid)) if pid else None
        made.append(
            {
                "serviceId": task["service_id"],
                "pid": pid if figures else None,
                **(figures or dict(_NOTHING)),
                "action": task["action"],
                "state": task["state"],
                "timestamp": datetime.now(UTC).astimezone().isoformat(timespec="milliseconds"),
            }
        )
    return made


_NOTHING: Mapping[str, Any] = {
    "status": None, "rss": 0.0, "vms": 0.0, "percent": 0.0, "cpu_percent": 0.0, "children": (), "connections": (), "opened_files": (),
    "memory_map": (), "total": 0.0,
}  # fmt: skip
"""The figures of a task that has no process."""


class Gauge:
    """Samples processes, and keeps what the next sample needs: how much CPU a process has used is a difference of two."""

    def __init__(self, wanted: Options) -> None:
        self._wanted = wanted
        self._known: dict[int, psutil.Process] = {}
        self._used: dict[int, tuple[float, float]] = {}
        """CPU seconds of a process, and when (monotonic) it had used them."""

    def keep(self, pids: Iterable[int]) -> None:
        """Forget all processes but these."""
        wanted = set(pids)
        for pid in self._known.keys() - wanted:
            del self._known[pid]
            self._used.pop(pid, None)

    def begin(self, pids: Iterable[int]) -> None:
        """Begin to measure the CPU of these processes, so that their first sample says what they have used since now."""
        for pid in pids:
            try:
                self._cpu(self._process(pid))
            except psutil.Error:
                continue

    def sample(self, pid: int) -> Figures | None:
        """The figures of a process, sizes in MiB; None when it is gone. What may not be seen of another user's is zero or empty.

        `cpu_percent` is that since the last sample, at the first one since the process began; 100 is one processor.
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
        # The number may have come to mean another process meanwhile, whose CPU must not be compared with the first one's.
        if known is None or not known.is_running():
            self._used.pop(pid, None)
            known = self._known[pid] = psutil.Process(pid)
        return known

    def _figures(self, process: psutil.Process) -> Figures:
        memory = process.memory_info()
        rss = memory.rss / MIB
        children = _children(process.pid)
        wanted = self._wanted
        return {
            "status": process.status(),
            "rss": round(rss, 3),
            "vms": round(memory.vms / MIB, 3),
            "percent": round(process.memory_percent(), 3),
            "cpu_percent": self._cpu(process),
            "children": [*children, *_threads(process)],
            "connections": _allowed(lambda: _connections(process)) if wanted.open_connections else [],
            "opened_files": _allowed(lambda: _files(process)) if wanted.opened_files else [],
            "memory_map": _allowed(lambda: _maps(process)) if wanted.memory_maps else [],
            "total": round(rss + sum(child["rss"] for child in children), 3),
        }

    def _cpu(self, process: psutil.Process) -> float:
        times, now = process.cpu_times(), time.monotonic()
        used = times.user + times.system
        before, at = self._used.get(process.pid) or (0.0, now - (time.time() - process.create_time()))
        self._used[process.pid] = (used, now)
        # Times have the grain of a clock tick: over a shorter time they would say nothing.
        return round(100 * max(0.0, used - before) / max(now - at, 0.01), 1)


def _allowed(look: Callable[[], list[Figures]]) -> list[Figures]:
    try:
        return look()
    except psutil.AccessDenied:
        return []


def _children(pid: int) -> list[Figures]:
    """All processes below this one.

    psutil would look at every process of the machine for each of ours; the kernel keeps the list.
    """
    found: list[Figures] = []
    seen: set[int] = set()
    below = _children_of(pid)
    while below:
        child = below.pop()
        if child in seen:
            continue
        seen.add(child)
        try:
            process = psutil.Process(child)
            with process.oneshot():
                entry = {
                    "kind": "process",
                    "pid": child,
                    "name": process.name(),
                    "status": process.status(),
                    "rss": round(process.memory_info().rss / MIB, 3),
                    "threads": process.num_threads(),
                }
        except psutil.Error:
            continue
        found.append(entry)
        below += _children_of(child)
    return found


def _children_of(pid: int) -> list[int]:
    """The children of all threads of a process."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += [int(word) for word in file.read().split()]
        except OSError:
            continue
    return found


def _threads(process: psutil.Process) -> list[Figures]:
    return _allowed(
        lambda: [
            {"kind": "thread", "pid": each.id, "user_time": each.user_time, "system_time": each.system_time} for each in process.threads()
        ]
    )


def _connections(process: psutil.Process) -> list[Figures]:
    # Renamed in psutil 6, where the old name warns; Debian 12 has 5.9.
    look = getattr(process, "net_connections", None) or process.connections
    return [
        {
            "fd": each.fd,
            "family": each.family.name,
            "type": each.type.name,
            "laddr": _address(each.laddr),
            "raddr": _address(each.raddr),
            "status": each.status,
        }
        for each in look(kind="all")
    ]


def _address(address: Any) -> str:
    """`127.0.0.1:5556`, a path, or nothing."""
    if not address:
        return ""
    return str(address) if isinstance(address, str) else f"{address[0]}:{address[1]}"


def _files(process: psutil.Process) -> list[Figures]:
    return [{"path": each.path, "fd": each.fd, "mode": each.mode} for each in process.open_files()]


def _maps(process: psutil.Process) -> list[Figures]:
    return [
        {"path": each.path, "rss": round(each.rss / MIB, 3), "pss": round(each.pss / MIB, 3), "swap": round(each.swap / MIB, 3)}
        for each in process.memory_maps(grouped=True)
    ]
