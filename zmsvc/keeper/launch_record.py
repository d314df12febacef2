"""One launch that the keeper holds, and how a process that was reaped has ended. Who launches and kills is
brood's business.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from zmsvc.keeper.machine import ChildEnd
from zmsvc.keeper.shared_process import SharedProcess
from zmsvc.protocol.supervision import Exited, LeftOver


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """ExitStatus a process ended: by exit code or by signal."""

    code: int | None = None
    signal: str | None = None
    core: bool = False


@dataclass(slots=True, kw_only=True)
class OtherProcess:
    """A process of a launch beside its main one, which was asked to end, or killed."""

    name: str
    start_time: int
    asked: str = ""
    """The signal that asked it to end."""
    killed: bool = False

    def ended(self, pid: int, how: ExitStatus | None = None) -> LeftOver:
        """Return what is told of it; without `how` another process has reaped it."""
        how = how or ExitStatus()
        return LeftOver(
            pid=pid,
            name=self.name,
            code=how.code,
            signal=how.signal,
            core=how.core,
            asked=self.asked,
            killed=self.killed,
        )


@dataclass(slots=True, kw_only=True)
class LaunchRecord:
    """One launch, from its fork until its end was acknowledged."""

    launch: int
    pid: int
    start_time: int
    cgroup: Path | None
    pid_file: str | None
    program: bool = False
    """It executes a program."""
    executing: int | None = None
    """The pipe that closes when a Command's program has taken the launcher's place."""
    executed: bool = False
    why: str | None = None
    """Why the program was not executed, empty where its own last status says so; None when it was, or may
    yet be.
    """
    uid: int | None = None
    """Of the user, where that is not the daemon's own."""
    former: tuple[int, int] | None = None
    """PID and start time of the main process before this one, when the task has named another."""
    end: Exited | None = None
    """ExitStatus the main process ended: told again to every new supervisor until one acknowledges it."""
    rest: dict[int, OtherProcess] = field(default_factory=dict)
    """Its other processes that were asked to end or killed, by PID."""
    ended: list[LeftOver] = field(default_factory=list)
    awaited: bool = False
    """The supervisor is to be told when nothing of it is left."""
    killing: bool = False
    asking: str = ""
    """The signal that asks the others to end."""
    host: SharedProcess | None = None
    """The process, when it is shared with other tasks."""
    tag: str = ""
    """The task's id, by which a shared process says whom it speaks for."""
    status: int | None = None
    """ExitStatus it ended, when it was the last in a shared process: its end is told when that process is
    gone.
    """


def how_of(info: ChildEnd) -> ExitStatus:
    """Return how a child ended."""
    if info.si_code == os.CLD_EXITED:
        return ExitStatus(code=info.si_status)
    return ExitStatus(signal=signal_name(info.si_status), core=info.si_code == os.CLD_DUMPED)


def words(how: ExitStatus) -> str:
    """Return how a process ended, in words."""
    return f"status {how.code}" if how.signal is None else how.signal


def killed(info: ChildEnd) -> bool:
    """Whether it ended by SIGKILL."""
    return info.si_code != os.CLD_EXITED and bool(info.si_status == signal.SIGKILL)


def signal_name(number: int) -> str:
    """Return the name of a signal."""
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
