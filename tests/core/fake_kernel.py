"""A simulated kernel for the real keeper and the real supervisor: processes, their ends, and a clock that
stands still.

Channels, pipes and datagrams are real, and never block. One seed decides which process runs next, in which
order a selector returns events, and which calls fail. So a seed repeats a run.
"""

from __future__ import annotations

import errno
import os
import random
import selectors
import signal
import socket
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zmsvc.host.systemd import datagrams

FIRST_PID = 5_000_000
"""Higher than any PID of a real kernel, so that no real process is hit."""
SENDER = "X_SIM_PID"


LAUNCH_MARK = b"ZMSVC_LAUNCH="


def launch_mark(launch: int) -> bytes:
    """Return the mark of all processes of a launch."""
    return LAUNCH_MARK + b"%d" % launch


class Crash(SystemExit):
    """The running process is killed at this point. An event loop does not catch this exception."""


@dataclass(slots=True)
class End:
    """The end of a child, as os.waitid returns it."""

    si_pid: int
    si_code: int
    si_status: int


@dataclass(eq=False)
class Process:
    """A process. `act` takes the next step of the process, and returns False if there was none."""

    pid: int
    parent: int
    kind: str
    start_time: int
    session: int
    marks: frozenset[bytes] = frozenset()
    deaf: bool = False
    """True if the process ignores stop signals."""
    executed: bool = False
    stopped: bool = False
    end: End | None = None
    fds: list[int] = field(default_factory=list)
    socks: list[socket.socket] = field(default_factory=list)
    act: Callable[[], bool] = lambda: False
    signals: list[int] = field(default_factory=list)
    dies_with_parent: bool = True
    gone: Callable[[], None] = lambda: None
    """Called when the process has ended."""

    @property
    def alive(self) -> bool:
        return self.end is None


class Shuffled(selectors.DefaultSelector):
    """Returns at once the events that are ready, in an order that the seed decides."""

    def __init__(self, kernel: Kernel, *, faulty: bool) -> None:
        super().__init__()
        self._kernel, self._faulty = kernel, faulty

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = sorted(super().select(0), key=lambda each: each[0].fd)
        self._kernel.random.shuffle(found)
        return found

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._faulty:
            self._kernel.may_fail("register", errno.ENOSPC)
        return super().register(fileobj, events, data)


class Kernel:
    """The machine."""

    def __init__(self, seed: int, notify_path: Path, keeper_path: Path) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.processes: dict[int, Process] = {}
        self.counts: Counter[str] = Counter()
        """The number of times that each point was reached."""
        self.faults = 0.0
        """The probability that a call fails."""
        self.crashes = 0.0
        """The probability that the keeper dies in a call."""
        self.keeper = self.fork(0, "keeper").pid
        self.execute: dict[str, Callable[[Process, Mapping[str, str], list[str]], None]] = {}
        """Functions that play a process, by the module that it executes."""
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._paths = {"tasks": str(notify_path), "keeper": str(keeper_path)}
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.lines: list[socket.socket] = []
        """Both ends of each channel. The owner of an end may have died in the call that made it."""

    def close(self) -> None:
        self._sender.close()
        for end in self.lines:
            end.close()
        for process in self.processes.values():
            self._close_fds(process)

    # --- chance

    def chance(self, likelihood: float) -> bool:
        return self.random.random() < likelihood

    def may_fail(self, what: str, *numbers: int) -> None:
        # Rare calls fail more often.
        if self.faults and self.chance(self.faults * (10 if what == "signal" else 1)):
            self.counts[f"{what} fails"] += 1
            number = self.random.choice(numbers)
            raise OSError(number, os.strerror(number))

    def may_crash(self) -> None:
        if self.crashes and self.chance(self.crashes):
            raise Crash

    # --- time

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._number += 1
        self.timers.append((self.now + seconds, self._number, call))
        self.timers.sort(key=lambda each: each[:2])

    def ring(self) -> bool:
        if not self.timers or self.timers[0][0] > self.now:
            return False
        self.timers.pop(0)[2]()
        return True

    # --- processes

    def fork(
        self, parent: int, kind: str, marks: frozenset[bytes] = frozenset(), session: int | None = None
    ) -> Process:
        pid = FIRST_PID + len(self.processes)
        made = Process(
            pid, parent, kind, start_time=pid, session=pid if session is None else session, marks=marks
        )
        self.processes[pid] = made
        return made

    def exit(self, process: Process, *, status: int | None = None, number: int | None = None) -> None:
        """End the process: it is a zombie from here on, or is reaped at once if its parent is not a keeper."""
        if not process.alive:
            return
        killed = number is not None
        process.end = End(
            process.pid, os.CLD_KILLED if killed else os.CLD_EXITED, (number if killed else status) or 0
        )
        self._close_fds(process)
        process.gone()
        for child in self.processes.values():
            if child.parent == process.pid:
                child.parent = self.keeper
                if child.dies_with_parent:
                    self.exit(child, number=signal.SIGKILL)
        parent = self.processes.get(process.parent)
        if process.parent != self.keeper and (parent is None or parent.kind != "keeper"):
            process.parent = 0

    def keeper_dies(self) -> None:
        """Let the keeper die, and with it the processes that asked for that. The others become children of
        the next one.
        """
        old = self.processes[self.keeper]
        self.keeper = self.fork(0, "keeper").pid
        self.exit(old, number=signal.SIGKILL)
        for process in self.processes.values():
            if process.parent == old.pid or not process.alive:
                process.parent = self.keeper if process.alive else 0

    @staticmethod
    def _close_fds(process: Process) -> None:
        for fd in process.fds:
            os.close(fd)
        for sock in process.socks:
            sock.close()
        process.fds.clear()
        process.socks.clear()

    def living(self, *kinds: str) -> list[Process]:
        return [process for process in self.processes.values() if process.alive and process.kind in kinds]

    def kill(self, pid: int, number: int) -> None:
        process = self.processes[pid]
        if not process.alive:
            return
        process.signals.append(number)
        if number == signal.SIGKILL:
            self.exit(process, number=number)
        elif number == signal.SIGSTOP:
            process.stopped = True
        elif number == signal.SIGCONT:
            process.stopped = False
        elif number == signal.SIGABRT or (number == signal.SIGTERM and not process.deaf):
            # It takes its time.
            self.later(self.random.choice([0.0, 0.01, 0.3]), lambda: self._ends(process, number))

    def _ends(self, process: Process, number: int) -> None:
        if process.stopped:
            self.later(0.1, lambda: self._ends(process, number))
        elif number == signal.SIGTERM and process.kind != "child":
            self.exit(process, status=0)
        else:
            self.exit(process, number=number)

    # --- what they say

    def say(self, whom: str, pid: int, *lines: str) -> None:
        """Send a notification. If the queue is full, send it later."""
        text = "\n".join([*lines, f"{SENDER}={pid}"]).encode()
        try:
            self._sender.sendto(text, self._paths[whom])
        except OSError:
            self.later(0.05, lambda: self.say(whom, pid, *lines) if self.processes[pid].alive else None)

    @staticmethod
    def sender(datagram: datagrams.Datagram | None) -> datagrams.Datagram | None:
        """Return the datagram with the PID of the simulated sender."""
        if datagram is None:
            return None
        lines = [line for line in datagram.lines if line[0] != SENDER]
        return replace(datagram, pid=int(dict(datagram.lines)[SENDER]), lines=lines)


class KeeperPort:
    """A `KeeperMachine` on the simulated kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def now(self) -> float:
        return self._kernel.now

    def selector(self) -> selectors.BaseSelector:
        return Shuffled(self._kernel, faulty=True)

    def channel(self) -> tuple[socket.socket, socket.socket]:
        self._kernel.may_crash()
        self._kernel.may_fail("line", errno.EMFILE)
        ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._kernel.lines += ends
        return ends

    def pipe(self) -> tuple[int, int]:
        self._kernel.may_crash()
        self._kernel.may_fail("pipe", errno.EMFILE, errno.ENFILE)
        return os.pipe2(os.O_CLOEXEC)

    def spawn(self, module: str, arguments: list[str], environment: Mapping[str, str], fds: list[int]) -> int:
        self._kernel.may_crash()
        self._kernel.may_fail("spawn", errno.EAGAIN, errno.ENOMEM)
        process = self._kernel.fork(self._kernel.keeper, module.rpartition(".")[2])
        process.executed = True
        # In the new process, which has its own table, the descriptors have the same numbers.
        copies = {fd: os.dup(fd) for fd in fds}
        process.fds = list(copies.values())
        here = {
            name: str(copies.get(int(value), value)) if name.endswith("_FD") else value
            for name, value in environment.items()
        }
        words = [str(copies.get(int(word), word)) if word.isdecimal() else word for word in arguments]
        self._kernel.execute[module](process, here, words)
        return process.pid

    def release_spares(self) -> None:
        """Do nothing: no process of this machine is a spare one."""

    def close_elsewhere(self, sockets: Collection[socket.socket]) -> int | None:
        self._kernel.may_fail("close_elsewhere", errno.EAGAIN)
        for sock in sockets:
            sock.close()
        return None

    def ended_child(self) -> End | None:
        self._kernel.may_crash()
        zombies = [
            p.end
            for p in self._kernel.processes.values()
            if p.end is not None and p.parent == self._kernel.keeper
        ]
        return self._kernel.random.choice(zombies) if zombies else None

    def reap(self, pid: int) -> float:
        self._kernel.may_crash()
        self._kernel.processes[pid].parent = 0
        return 0.0

    def _there(self, pid: int) -> Process | None:
        process = self._kernel.processes.get(pid)
        return process if process is not None and (process.alive or process.parent != 0) else None

    def executed(self, pid: int) -> bool:
        process = self._there(pid)
        return process is not None and process.executed

    def start_time(self, pid: int) -> int | None:
        self._kernel.may_fail("start_time", errno.EMFILE)
        process = self._there(pid)
        return process.start_time if process else None

    def name(self, pid: int) -> str:
        process = self._there(pid)
        return process.kind if process else ""

    def signal(self, pid: int, started: int, number: int) -> bool:
        self._kernel.may_crash()
        self._kernel.may_fail("signal", errno.EPERM, errno.EMFILE)
        return self.signal_child(pid, number)

    def signal_child(self, pid: int, number: int) -> bool:
        if self._there(pid) is None:
            return False
        self._kernel.kill(pid, number)
        return True

    def kill_each(self, pids: Iterable[int]) -> None:
        for pid in [*pids]:
            self.signal_child(pid, signal.SIGKILL)

    def watch_end(self, pid: int) -> int:
        """Return a descriptor that is readable when the process has ended, as a pidfd is."""
        self._kernel.may_fail("watch_end", errno.EMFILE)
        reading, writing = os.pipe2(os.O_CLOEXEC)
        process = self._there(pid)
        if process is not None and process.alive:
            process.fds.append(writing)
        else:
            os.close(writing)
        return reading

    def belonging(
        self, sessions: Container[int], context_mark: bytes, launch: int | None = None
    ) -> list[int]:
        self._kernel.may_crash()
        self._kernel.may_fail("belonging", errno.EMFILE)
        return [pid for pid in self._kernel.processes if self.marked(pid, sessions, context_mark, launch)]

    def marked(
        self, pid: int, sessions: Container[int], context_mark: bytes, launch: int | None = None
    ) -> bool:
        process = self._kernel.processes[pid]
        wanted = {context_mark} if launch is None else {context_mark, launch_mark(launch)}
        return process.alive and (process.session in sessions or process.marks >= wanted)

    def launch_of(self, pid: int, context_mark: bytes) -> int | None:
        raise NotImplementedError

    def cgroup_of(self, pid: int) -> str:
        raise NotImplementedError

    def user(self, pid: int) -> int | None:
        raise NotImplementedError

    def children(self, pid: int | None = None) -> list[int]:
        parent = self._kernel.keeper if pid is None else pid
        return [process.pid for process in self._kernel.processes.values() if process.parent == parent]

    def number_of_children(self) -> int:
        return len(self.children())

    def make_cgroup(self, cgroup: Path) -> None:
        raise NotImplementedError

    def cgroup_controllers(self, cgroup: Path) -> list[str]:
        raise NotImplementedError

    def enable_controller(self, cgroup: Path, name: str) -> None:
        raise NotImplementedError

    def write_cgroup(self, cgroup: Path, file: str, text: str) -> None:
        raise NotImplementedError

    def memory_size(self) -> int:
        raise NotImplementedError

    def most_tasks(self) -> int:
        raise NotImplementedError

    def open_cgroup(self, cgroup: Path) -> int:
        raise NotImplementedError

    def move_to_cgroup(self, pid: int, cgroup: Path) -> None:
        raise NotImplementedError

    def cgroup_populated(self, cgroup: Path) -> bool:
        raise NotImplementedError

    def cgroup_processes(self, cgroup: Path, without: str = "") -> list[int]:
        raise NotImplementedError

    def kill_cgroup(self, cgroup: Path) -> None:
        raise NotImplementedError

    def remove_cgroup(self, cgroup: Path) -> None:
        raise NotImplementedError

    def receive(self, sock: socket.socket) -> datagrams.Datagram | None:
        self._kernel.may_crash()
        self._kernel.may_fail("said", errno.ENOBUFS)
        return self._kernel.sender(datagrams.receive(sock))


class SupervisorPort:
    """The machine of the supervisor (`zmsvc.keeper_client.machine.Outside`) on the simulated kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._keeper = KeeperPort(kernel)

    def receive(
        self,
        sock: socket.socket,
        *,
        peek: bool = False,
        spare: datagrams.ReservedDescriptor | None = None,
        keep_others: bool = False,
    ) -> datagrams.Datagram | None:
        return self._kernel.sender(datagrams.receive(sock, peek=peek, spare=spare, keep_others=keep_others))

    def launch_of(self, pid: int, context_mark: bytes) -> int | None:
        process = self._kernel.processes.get(pid)
        if process is None or not process.alive or context_mark not in process.marks:
            return None
        found = [mark for mark in process.marks if mark.startswith(LAUNCH_MARK)]
        return int(found[0][len(LAUNCH_MARK) :]) if found else None

    def start_time(self, pid: int) -> int | None:
        return self._keeper.start_time(pid)

    def wait(self, sock: socket.socket, milliseconds: int) -> bool:
        """Return True if there is something to read. This does not wait, because no other process runs
        meanwhile.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            return bool(selector.select(0))

    def belonging(
        self, sessions: Container[int], context_mark: bytes, launch: int | None = None
    ) -> list[int]:
        return [
            pid for pid in self._kernel.processes if self._keeper.marked(pid, sessions, context_mark, launch)
        ]

    def kill_each(self, pids: Iterable[int]) -> None:
        self._keeper.kill_each(pids)
