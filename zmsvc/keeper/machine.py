"""The keeper's port to the machine: clock, selector, lines, children, processes and control groups. It
decides nothing.

The keeper asks for all of these here, so a test can run the real keeper on a kernel of its own with a virtual
clock. Descriptors are the kernel's in either case.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from zmsvc.host.kernel import linux, process_marks
from zmsvc.host.systemd import notify
from zmsvc.keeper.execution import execute

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ChildEnd(Protocol):
    """ExitStatus a child ended, as os.waitid tells."""

    @property
    def si_pid(self) -> int: ...
    @property
    def si_code(self) -> int: ...
    @property
    def si_status(self) -> int: ...


class KeeperMachine(Protocol):
    """What the keeper asks of the machine. Every call may raise OSError, except `now`, `name` and
    `kill_each`.
    """

    def now(self) -> float:
        """Return monotonic seconds."""

    def selector(self) -> selectors.BaseSelector:
        """Return a new selector."""

    def line(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new SOCK_SEQPACKET connection that do not block."""

    def pipe(self) -> tuple[int, int]:
        """Return the reading and the writing end of a new pipe, both close-on-exec."""

    def spawn(self, module: str, arguments: list[str], environment: Mapping[str, str], fds: list[int]) -> int:
        """Execute a module of ours as a child; return its PID."""

    def ended(self) -> ChildEnd | None:
        """Return a child that has ended and was not reaped yet; None when there is none."""

    def reap(self, pid: int) -> None:
        """Let go of a child that `ended` has told."""

    def executed(self, pid: int) -> bool:
        """Tell whether this process, which was not reaped, has executed a program since it was forked."""

    def start_time(self, pid: int) -> int | None:
        """Return when a process started; None when there is none."""

    def watch_end(self, pid: int) -> int:
        """Return a descriptor that becomes readable when a process has ended."""

    def name(self, pid: int) -> str:
        """Return what `ps` calls a process."""

    def signal(self, pid: int, started: int, number: int) -> bool:
        """Signal exactly this process; False when it is gone."""

    def signal_child(self, pid: int, number: int) -> bool:
        """Signal a child that was not reaped."""

    def kill_each(self, pids: Iterable[int]) -> None:
        """SIGKILL each of these processes, as far as that is possible."""

    def belonging(self, sessions: Container[int], mark: bytes, launch: int | None = None) -> list[int]:
        """Return every descendant of the keeper in one of these sessions, or with the marks of a context,
        or of one launch of it.
        """

    def marked(self, pid: int, sessions: Container[int], mark: bytes, launch: int | None = None) -> bool:
        """Tell whether `belonging` would name this process."""

    def launch_of(self, pid: int, mark: bytes) -> int | None:
        """Return the launch of a context that the marks of a process tell; None when they tell none."""

    def group(self, pid: int) -> str:
        """Return the control group of a process, from the root of the hierarchy; empty where there is
        none, and for a zombie.
        """

    def user(self, pid: int) -> int | None:
        """Return the effective user ID of a process; None when it is gone."""

    def children(self, pid: int | None = None) -> list[int]:
        """Return the children of a process, zombies included; of the keeper when none is named."""

    def number_of_children(self) -> int:
        """Return how many children the keeper has, zombies included."""

    def open_group(self, cgroup: Path) -> int:
        """Return a descriptor of a control group, which is made where it is missing."""

    def group_of(self, pid: int, cgroup: Path) -> None:
        """Move a process into a control group, which is made where it is missing."""

    def populated(self, cgroup: Path) -> bool:
        """Tell whether a process is in a control group."""

    def processes(self, cgroup: Path) -> list[int]:
        """Return the processes in a control group and below it."""

    def kill_group(self, cgroup: Path) -> None:
        """SIGKILL everything in a control group."""

    def remove_group(self, cgroup: Path) -> None:
        """Remove a control group, where it is empty."""

    def said(self, sock: socket.socket) -> notify.Datagram | None:
        """Return the next notification on a socket."""


class Machine:
    """The machine that this process runs on."""

    now = staticmethod(time.monotonic)
    start_time = staticmethod(linux.start_time)
    name = staticmethod(linux.process_name)
    signal = staticmethod(linux.send_signal)
    kill_each = staticmethod(linux.kill_each)
    marked = staticmethod(process_marks.belongs)
    launch_of = staticmethod(process_marks.told_launch)
    group = staticmethod(linux.cgroup_of)
    user = staticmethod(linux.user_of)
    number_of_children = staticmethod(linux.number_of_children)
    executed = staticmethod(linux.has_executed)
    open_group = staticmethod(linux.cgroup_descriptor)
    populated = staticmethod(linux.cgroup_populated)
    processes = staticmethod(linux.cgroup_processes)
    kill_group = staticmethod(linux.kill_cgroup)
    remove_group = staticmethod(linux.remove_cgroup)
    spawn = staticmethod(execute)
    watch_end = staticmethod(os.pidfd_open)
    said = staticmethod(notify.receive)

    @staticmethod
    def selector() -> selectors.BaseSelector:
        return selectors.DefaultSelector()

    @staticmethod
    def line() -> tuple[socket.socket, socket.socket]:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)

    @staticmethod
    def pipe() -> tuple[int, int]:
        return os.pipe2(os.O_CLOEXEC)

    @staticmethod
    def ended() -> ChildEnd | None:
        # It is reaped later: until then its PID is its own, and /proc tells whether it has executed a
        # program.
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None

    @staticmethod
    def reap(pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)

    def signal_child(self, pid: int, number: int) -> bool:
        try:
            started = self.start_time(pid)
            return started is not None and self.signal(pid, started, number)
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
        # Without a descriptor to be had the number alone has to do. A child keeps it until it is reaped, and
        # this thread reaps.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    @staticmethod
    def belonging(sessions: Container[int], mark: bytes, launch: int | None = None) -> list[int]:
        # Any user of the machine can put on marks; what tasks have left is the keeper's, which is a
        # subreaper.
        return [
            pid for pid in process_marks.belonging(sessions, mark, launch) if linux.descends(pid, os.getpid())
        ]

    @staticmethod
    def children(pid: int | None = None) -> list[int]:
        return linux.children_of(os.getpid()) if pid is None else linux.children_of_threads(pid)

    @staticmethod
    def group_of(pid: int, cgroup: Path) -> None:
        cgroup.mkdir(parents=True, exist_ok=True)
        (cgroup / "cgroup.procs").write_text(str(pid))
