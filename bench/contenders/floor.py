"""The floor: a Python process that has imported everything, forks and waits. It has no state, no bus and no
guarantees, so it is the lower bound for every service manager that starts processes. `connected` adds what
every task on a bus needs: a ZMQ context, and a socket that is connected to a bare proxy.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import zmq

from bench.fleet import Command, Fleet, running
from bench.receiver import Receiver


class Floor:
    def __init__(self, *, connected: bool) -> None:
        self.name = "fork + bus" if connected else "fork"
        self._connected = connected

    def missing(self) -> str:
        return ""

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[FloorSession]:
        publish_endpoint = f"ipc://{home}/pub"
        with Receiver(home / "receiver") as receiver, contextlib.ExitStack() as stack:
            if self._connected:
                proxy = [sys.executable, "-m", "bench.proxy", publish_endpoint, f"ipc://{home}/sub"]
                stack.enter_context(running(proxy, home / "proxy.log"))
            ours, its = socket.socketpair()
            stack.enter_context(ours)
            argv = [
                sys.executable,
                "-m",
                "bench.contenders.floor",
                str(its.fileno()),
                str(receiver.path),
                publish_endpoint if self._connected else "-",
            ]
            argv += [f"{fleet.size}", f"{fleet.pairs}"]
            process = stack.enter_context(running(argv, home / "floor.log", pass_fds=[its.fileno()]))
            its.close()
            assert ours.recv(1) == b"w", "the floor is not warm"
            yield FloorSession(fleet, receiver, ours, process.pid)


class FloorSession:
    """Each order is one letter on a socket."""

    tells = False

    def __init__(self, fleet: Fleet, receiver: Receiver, line: socket.socket, pid: int) -> None:
        self.fleet = fleet
        self.receiver = receiver
        self._line = line
        self._pid = pid

    def order_start(self) -> None:
        self._line.send(b"+")

    def started(self) -> None: ...

    def order_stop(self) -> None:
        self._line.send(b"-")

    def stopped(self) -> None: ...

    def status(self) -> Command:
        return Command(argv=[sys.executable, "-S", "-E", "-c", "pass"])

    def managers(self) -> dict[str, list[int]]:
        return {"parent": [self._pid]}

    def revive(self, victim: str, heir: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.receiver.pids[heir], signal.SIGTERM)
        self.receiver.hear([victim])


# --- the process that forks


class Parent:
    """The process that forks the tasks, waits for their ends, and forks each killed task again."""

    def __init__(self, receiver: str, bus: str, fleet: Fleet) -> None:
        self._receiver, self._bus, self._fleet = receiver, bus, fleet
        self._names: dict[int, str] = {}
        # The end of a victim starts its heir. The end of the heir starts the victim again, for the next
        # round.
        pairs = list(zip(fleet.victims, fleet.heirs, strict=True))
        self._next = (
            {name: name for name in fleet.workers} | dict(pairs) | {heir: victim for victim, heir in pairs}
        )
        self._stopping = False

    def run(self, line: socket.socket) -> None:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(line, select.POLLIN)
        poll.register(reader, select.POLLIN)
        gc.collect()
        gc.freeze()
        line.send(b"w")
        while True:
            for fd, _ in poll.poll():
                if fd == reader:
                    os.read(reader, 65536)
                    self._reap()
                elif not self._obey(line.recv(1)):
                    return

    def _obey(self, letter: bytes) -> bool:
        if letter == b"+":
            for name in self._fleet.entry:
                self._fork(name)
        else:
            self._stopping = True
            for pid in self._names:
                os.kill(pid, signal.SIGTERM)
        return bool(letter)

    def _reap(self) -> None:
        while self._names:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            name = self._names.pop(pid)
            if not self._stopping:
                self._fork(self._next[name])

    def _fork(self, name: str) -> None:
        pid = os.fork()
        if pid:
            self._names[pid] = name
            return
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        if self._bus != "-":
            publisher = zmq.Context().socket(zmq.XPUB)
            publisher.connect(self._bus)
            publisher.recv()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(b"%s %d" % (name.encode(), time.monotonic_ns()), self._receiver)
        while True:
            signal.pause()


def main() -> None:
    line, receiver, bus, size, pairs = sys.argv[1:]
    Parent(receiver, bus, Fleet(size=int(size), pairs=int(pairs))).run(socket.socket(fileno=int(line)))


if __name__ == "__main__":
    main()
