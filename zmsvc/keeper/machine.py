"""All calls of the keeper to the machine: clock, selector, channels, children, processes and control groups.
Nothing is decided here.

Since the keeper makes these calls through this interface alone, a test can run the real keeper on a simulated
kernel with a virtual clock. Descriptors are real there, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import time
from collections.abc import Collection, Container, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from zmsvc.host.kernel import cgroups, pidfds, process_marks, processes
from zmsvc.host.systemd import datagrams
from zmsvc.keeper.execution import execute
from zmsvc.keeper.spares import Spare

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ChildEnd(Protocol):
    """The end of a child, as os.waitid returns it."""

    @property
    def si_pid(self) -> int: ...
    @property
    def si_code(self) -> int: ...
    @property
    def si_status(self) -> int: ...


class KeeperMachine(Protocol):
    """The keeper's interface to the machine. Every call may raise OSError, except `now`, `name` and
    `kill_each`.
    """

    def now(self) -> float:
        """Return monotonic seconds."""

    def selector(self) -> selectors.BaseSelector:
        """Return a new selector."""

    def channel(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new non-blocking SOCK_SEQPACKET connection."""

    def pipe(self) -> tuple[int, int]:
        """Return the reading and the writing end of a new pipe, both close-on-exec."""

    def spawn(self, module: str, arguments: list[str], environment: Mapping[str, str], fds: list[int]) -> int:
        """Run a zmsvc module in a child; return its PID."""

    def release_spares(self) -> None:
        """End the spare processes that were not used."""

    def close_elsewhere(self, sockets: Collection[socket.socket]) -> int | None:
        """Close sockets here, and let a child, which then ends by itself, be the last process that has them.
        Return its PID.
        """

    def ended_child(self) -> ChildEnd | None:
        """Return a child that has ended and has not been reaped, or None."""

    def reap(self, pid: int) -> float:
        """Reap a child that `ended_child` has returned. Return the CPU seconds that it and the children that
        it has waited for have used.
        """

    def executed(self, pid: int) -> bool:
        """Return True if this process, which has not been reaped, has executed a program since its fork."""

    def start_time(self, pid: int) -> int | None:
        """Return the start time of a process, or None if it does not exist."""

    def watch_end(self, pid: int) -> int:
        """Return a descriptor that becomes readable when a process ends."""

    def name(self, pid: int) -> str:
        """Return the name that `ps` shows for a process."""

    def signal(self, pid: int, started: int, number: int) -> bool:
        """Signal exactly this process; return False if it is gone."""

    def signal_child(self, pid: int, number: int) -> bool:
        """Signal a child that is not reaped yet."""

    def kill_each(self, pids: Iterable[int]) -> None:
        """Send SIGKILL to each of these processes that may be signaled."""

    def belonging(
        self, sessions: Container[int], context_mark: bytes, launch: int | None = None
    ) -> list[int]:
        """Return the descendants of the keeper that are in one of these sessions or carry the marks of a
        context, or of one of its launches.
        """

    def marked(
        self, pid: int, sessions: Container[int], context_mark: bytes, launch: int | None = None
    ) -> bool:
        """Return True if `belonging` would return this process."""

    def launch_of(self, pid: int, context_mark: bytes) -> int | None:
        """Return the launch of a context that the marks of a process name, or None."""

    def cgroup_of(self, pid: int) -> str:
        """Return the path of a process's control group from the root of the hierarchy. It is empty if there
        is none, and for a zombie.
        """

    def user(self, pid: int) -> int | None:
        """Return the effective user ID of a process, or None if it is gone."""

    def children(self, pid: int | None = None) -> list[int]:
        """Return the children of a process (by default of the keeper), zombies included."""

    def number_of_children(self) -> int:
        """Return the number of the keeper's children, zombies included."""

    def make_cgroup(self, cgroup: Path) -> None:
        """Create a control group if necessary."""

    def cgroup_controllers(self, cgroup: Path) -> list[str]:
        """Return the controllers that a control group may pass on."""

    def enable_controller(self, cgroup: Path, name: str) -> None:
        """Enable a controller for the groups below a control group."""

    def write_cgroup(self, cgroup: Path, file: str, text: str) -> None:
        """Write a file of a control group."""

    def memory_size(self) -> int:
        """Return the bytes of memory of the machine."""

    def most_tasks(self) -> int:
        """Return the number of processes and threads that the machine may have."""

    def open_cgroup(self, cgroup: Path) -> int:
        """Return a descriptor of a control group; create the group if necessary."""

    def move_to_cgroup(self, pid: int, cgroup: Path) -> None:
        """Move a process into a control group; create the group if necessary."""

    def cgroup_populated(self, cgroup: Path) -> bool:
        """Return True if a control group contains a process."""

    def cgroup_processes(self, cgroup: Path, without: str = "") -> list[int]:
        """Return the processes in a control group and in the groups below it, without the groups directly
        below it whose names begin with `without`.
        """

    def kill_cgroup(self, cgroup: Path) -> None:
        """Send SIGKILL to every process in a control group."""

    def remove_cgroup(self, cgroup: Path) -> None:
        """Remove a control group if it is empty."""

    def receive(self, sock: socket.socket) -> datagrams.Datagram | None:
        """Return the next notification on a socket, or None."""


class Machine:
    """The machine that this process runs on. `spares` are processes that wait to run a module."""

    def __init__(self, spares: Mapping[str, Spare] = MappingProxyType({})) -> None:
        self._spares = dict(spares)

    now = staticmethod(time.monotonic)
    start_time = staticmethod(processes.start_time)
    name = staticmethod(processes.process_name)
    signal = staticmethod(pidfds.send_signal)
    kill_each = staticmethod(pidfds.kill_each)
    marked = staticmethod(process_marks.belongs)
    launch_of = staticmethod(process_marks.launch_by_any_mark)
    cgroup_of = staticmethod(cgroups.of_process)
    user = staticmethod(processes.user_of)
    number_of_children = staticmethod(processes.number_of_children)
    executed = staticmethod(processes.has_executed)
    cgroup_controllers = staticmethod(cgroups.controllers)
    enable_controller = staticmethod(cgroups.enable_controller)
    write_cgroup = staticmethod(cgroups.write)
    memory_size = staticmethod(cgroups.memory_size)
    most_tasks = staticmethod(processes.most_tasks)
    open_cgroup = staticmethod(cgroups.descriptor)
    cgroup_populated = staticmethod(cgroups.is_populated)
    cgroup_processes = staticmethod(cgroups.processes_in)
    kill_cgroup = staticmethod(cgroups.kill)
    remove_cgroup = staticmethod(cgroups.remove)
    watch_end = staticmethod(os.pidfd_open)
    receive = staticmethod(datagrams.receive)

    @staticmethod
    def selector() -> selectors.BaseSelector:
        return selectors.DefaultSelector()

    @staticmethod
    def channel() -> tuple[socket.socket, socket.socket]:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)

    @staticmethod
    def pipe() -> tuple[int, int]:
        return os.pipe2(os.O_CLOEXEC)

    def spawn(self, module: str, arguments: list[str], environment: Mapping[str, str], fds: list[int]) -> int:
        if (spare := self._spares.pop(module, None)) is not None:
            # If the spare process was killed, or the order is too large for a packet, an interpreter is
            # executed instead.
            with contextlib.suppress(OSError):
                spare.order(arguments, {**os.environ, **environment}, fds)
                return spare.pid
        return execute(module, arguments, environment, fds)

    def release_spares(self) -> None:
        while self._spares:
            self._spares.popitem()[1].channel.close()

    @staticmethod
    def close_elsewhere(sockets: Collection[socket.socket]) -> int | None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if pid == 0:
            # The child waits until the keeper has closed its own copies. When a process ends, the kernel
            # closes its descriptors without the wait of SO_LINGER.
            try:
                os.close(writer)
                os.read(reader, 1)
            finally:
                os._exit(0)
        os.close(reader)
        for sock in sockets:
            sock.close()
        os.close(writer)
        return pid

    @staticmethod
    def ended_child() -> ChildEnd | None:
        # Do not reap the child yet: until then its PID is not reused, and /proc shows if it has executed a
        # program.
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return None

    @staticmethod
    def reap(pid: int) -> float:
        with contextlib.suppress(ChildProcessError):
            used = os.wait4(pid, os.WNOHANG)[2]
            return float(used.ru_utime + used.ru_stime)
        return 0.0

    def signal_child(self, pid: int, number: int) -> bool:
        try:
            started = self.start_time(pid)
            return started is not None and self.signal(pid, started, number)
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
        # Without a free descriptor, signal by PID. The PID of a child is not reused before the child has been
        # reaped, and only this thread reaps.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            return True
        return False

    @staticmethod
    def belonging(sessions: Container[int], context_mark: bytes, launch: int | None = None) -> list[int]:
        # Look only at descendants, since any user of the machine can forge marks. A process that a task has
        # left is a descendant of the keeper, which is a subreaper.
        return [
            pid
            for pid in process_marks.belonging(sessions, context_mark, launch)
            if processes.descends(pid, os.getpid())
        ]

    @staticmethod
    def children(pid: int | None = None) -> list[int]:
        return processes.children_of(os.getpid()) if pid is None else processes.children_of_threads(pid)

    @staticmethod
    def make_cgroup(cgroup: Path) -> None:
        cgroup.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def move_to_cgroup(pid: int, cgroup: Path) -> None:
        cgroup.mkdir(parents=True, exist_ok=True)
        (cgroup / "cgroup.procs").write_text(str(pid))
