"""The keeper's record of one launch, and the exit statuses of reaped processes. The process table launches
and kills.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

from zmsvc.core.frozen import frozen
from zmsvc.host.kernel import signals
from zmsvc.keeper.machine import ChildEnd
from zmsvc.keeper.shared_process import SharedProcess
from zmsvc.protocol.supervision import Exited, Leftover


@frozen
class ExitStatus:
    """The way a process ended: by exit code or by signal."""

    code: int | None = None
    signal: str | None = None
    core: bool = False


@dataclass(slots=True, kw_only=True)
class OtherProcess:
    """A process of a launch, other than its main one, that the keeper has signaled."""

    name: str
    start_time: int
    stop_signal: str = ""
    """The signal that asked the process to end."""
    killed: bool = False

    def ended(self, pid: int, status: ExitStatus | None = None) -> Leftover:
        """Return the report about this process. `status` is None if another process has reaped it."""
        status = status or ExitStatus()
        return Leftover(
            pid=pid,
            name=self.name,
            code=status.code,
            signal=status.signal,
            core=status.core,
            asked=self.stop_signal,
            killed=self.killed,
        )


@dataclass(slots=True, kw_only=True)
class LaunchRecord:
    """One launch, from its fork until the supervisor has acknowledged its end."""

    launch: int
    task: str
    """Transaction and ID of the task, for messages."""
    pid: int
    start_time: int
    cgroup: Path | None
    pid_file: str | None
    program: bool = False
    """True if the launch executes a program (a Command)."""
    exec_pipe: int | None = None
    """The pipe that a Command's program closes on exec."""
    executed: bool = False
    line_seen: bool = False
    """True if the task has written the line by which it is ready."""
    exec_error: str | None = None
    """The reason if the program was not executed; an empty text if only the exit status says it. None if the
    program was executed, or may still be.
    """
    uid: int | None = None
    """User ID of the task, if it is not the daemon's own."""
    previous_main: tuple[int, int] | None = None
    """PID and start time of the earlier main process, after the task has named another one."""
    cpu: float = 0.0
    """The CPU seconds of the main process, and of the one before it, that have ended."""
    end: Exited | None = None
    """The end of the main process. The keeper repeats this report to every new supervisor until one
    acknowledges it.
    """
    others: dict[int, OtherProcess] = field(default_factory=dict)
    """The signaled processes of the launch other than the main one, by PID."""
    leftovers: list[Leftover] = field(default_factory=list)
    gone_expected: bool = False
    """True if the supervisor expects `Gone` when no process of the launch is left."""
    killing: bool = False
    stop_signal: str = ""
    """The stop signal of the other processes."""
    shared_process: SharedProcess | None = None
    """The process that runs this task, if several tasks share it."""
    member_id: str = ""
    """The ID of the task, by which a shared process names it in notifications."""
    auxiliary_of: int = 0
    """The launch ID of the task, if this is the launch of an auxiliary process of it."""
    auxiliaries: list[LaunchRecord] = field(default_factory=list)
    """The auxiliary processes of this launch, except those whose own end the supervisor has acknowledged."""
    member_status: int | None = None
    """The exit status of the task, if it was the last one in its shared process. Its end is reported when
    that process has ended.
    """


def exit_status_of(info: ChildEnd) -> ExitStatus:
    """Return the exit status of a child."""
    if info.si_code == os.CLD_EXITED:
        return ExitStatus(code=info.si_status)
    return ExitStatus(signal=signals.reported_name(info.si_status), core=info.si_code == os.CLD_DUMPED)


def describe(status: ExitStatus) -> str:
    """Return an exit status in words."""
    return f"status {status.code}" if status.signal is None else status.signal


def killed_by_sigkill(info: ChildEnd) -> bool:
    """Return True if the child ended by SIGKILL."""
    return info.si_code != os.CLD_EXITED and bool(info.si_status == signal.SIGKILL)


def unlink(path: str) -> None:
    """Remove a file if it exists."""
    try:
        os.unlink(path)
    except OSError:
        return
