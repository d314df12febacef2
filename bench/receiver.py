"""The receiver of the reports of all contenders: each task reports when it runs, by a clock that all
processes share.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 120.0
"""Seconds that a report may take with the slowest contender."""
SERVICE = Path(__file__).with_name("service.py")
"""The program that contenders run which execute programs: a Python service that has imported pyzmq."""
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of a task: it ran at `at` (seconds of CLOCK_MONOTONIC). `pid` is its PID as the kernel
    reports it, in the namespace of this process.
    """

    name: str
    pid: int
    at: float


class Receiver:
    """A datagram socket at `path`. A report is `NAME NANOSECONDS`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        # A task may run as another user.
        path.chmod(0o666)
        self.pids: dict[str, int] = {}
        """The process that has reported last, by name."""

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        # If a contender failed or was interrupted, its tasks may still run, even those that have not
        # reported. The command line of each names this socket.
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                arguments = file.read_bytes().split(b"\0")
                if os.fsencode(SERVICE) in arguments and os.fsencode(self.path) in arguments:
                    os.kill(int(file.parent.name), signal.SIGKILL)

    def hear(self, names: Collection[str]) -> dict[str, Report]:
        """Wait until each of these tasks has reported. Reports of other tasks are recorded in `pids`."""
        heard: dict[str, Report] = {}
        until = time.monotonic() + PATIENCE
        wanted = set(names)
        while wanted:
            self._socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                text, ancillary, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            except TimeoutError:
                raise RuntimeError(
                    f"cannot measure: {len(wanted)} tasks did not report, {sorted(wanted)[:3]} among them"
                ) from None
            name, _, at = text.decode().partition(" ")
            pid = int(_CREDENTIALS.unpack(ancillary[0][2])[0])
            self.pids[name] = pid
            if name in wanted:
                wanted.discard(name)
                heard[name] = Report(name=name, pid=pid, at=int(at) / 1e9)
        return heard

    def run_again(self, name: str) -> float:
        """Kill a task with SIGKILL, and wait until it reports again. Return the seconds between the two."""
        killed = self.kill(name)
        return self.hear([name])[name].at - killed

    def runs_instead(self, victim: str, heir: str) -> float:
        """Kill one task, and wait until the other one reports. Return the seconds between the two."""
        killed = self.kill(victim)
        return self.hear([heir])[heir].at - killed

    def kill(self, name: str) -> float:
        """Send SIGKILL, and return the time before it."""
        at = time.monotonic()
        os.kill(self.pids[name], signal.SIGKILL)
        return at


@contextlib.contextmanager
def ends_of(pids: Collection[int]) -> Iterator[Ends]:
    """Yield an Ends for these processes, which need not be children."""
    ends = Ends(pids)
    try:
        yield ends
    finally:
        ends.close()


def end(pid: int) -> None:
    """Send SIGTERM to a process, and wait until it has ended."""
    with ends_of([pid]) as ends:
        os.kill(pid, signal.SIGTERM)
        ends.wait()


class Ends:
    """A wait for the end of the last of some processes."""

    def __init__(self, pids: Collection[int]) -> None:
        self._epoll = select.epoll()
        self._left: set[int] = set()
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            self._left.add(fd)
            self._epoll.register(fd, select.EPOLLIN)

    def wait(self) -> float:
        """Return the time at which the last process had ended."""
        until = time.monotonic() + PATIENCE
        while self._left:
            ready = self._epoll.poll(max(0.0, until - time.monotonic()))
            if not ready:
                raise RuntimeError(f"cannot measure: {len(self._left)} processes did not end")
            for fd, _ in ready:
                self._epoll.unregister(fd)
                self._left.discard(fd)
                os.close(fd)
        return time.monotonic()

    def close(self) -> None:
        for fd in self._left:
            os.close(fd)
        self._epoll.close()
