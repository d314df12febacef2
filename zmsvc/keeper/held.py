"""One launch that the keeper holds, and how a process that was reaped has ended. Who launches and kills is brood's business."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zmsvc.keeper.shared import Host
from zmsvc.protocol.supervision import Exited, LeftOver


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How a process ended: by exit code or by signal."""

    code: int | None = None
    signal: str | None = None
    core: bool = False


@dataclass(slots=True, kw_only=True)
class Held:
    """One launch, from its fork until its end was acknowledged."""

    launch: int
    pid: int
    start_time: int
    cgroup: Path | None
    pid_file: str | None
    executing: int | None = None
    """The pipe that closes when a Command's program has taken the launcher's place."""
    executed: bool = False
    uid: int | None = None
    """Of the user, where that is not the daemon's own."""
    end: Exited | None = None
    """How the main process ended: told again to every new supervisor until one acknowledges it."""
    rest: dict[int, str] = field(default_factory=dict)
    """Processes that were killed with it or after it, by PID."""
    ended: list[LeftOver] = field(default_factory=list)
    killing: bool = False
    host: Host | None = None
    """The process, when it is shared with other tasks."""
    tag: str = ""
    """The task's id, by which a shared process says whom it speaks for."""
    status: int | None = None
    """How it ended, when it was the last in a shared process: its end is told when that process is gone."""


def how_of(info: Any) -> How:
    """Return how a reaped child ended (`info` as of os.waitid)."""
    if info.si_code == os.CLD_EXITED:
        return How(code=info.si_status)
    return How(signal=_signal_name(info.si_status), core=info.si_code == os.CLD_DUMPED)


def killed(info: Any) -> bool:
    """Whether it ended by SIGKILL."""
    return info.si_code != os.CLD_EXITED and bool(info.si_status == signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def unlink(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except OSError:
        return


def remove_cgroup(directory: Path) -> None:
    """With the sub-directories that the task made, which are empty by now. A process that came late keeps it."""
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return
