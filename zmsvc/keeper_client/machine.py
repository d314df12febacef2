"""The calls to the machine that the supervisor needs in addition to its event loop: it reads /proc and
sockets, and kills processes after the death of the keeper. A test puts a simulated kernel in its place, and
runs the supervisor on an event loop with a virtual clock.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Container, Iterable
from typing import Protocol

from zmsvc.host.kernel import pidfds, process_marks, processes
from zmsvc.host.systemd import datagrams


class Outside(Protocol):
    """The machine as the supervisor uses it."""

    def receive(
        self,
        sock: socket.socket,
        *,
        peek: bool = False,
        spare: datagrams.ReservedDescriptor | None = None,
        keep_others: bool = False,
    ) -> datagrams.Datagram | None:
        """Return the next notification on a socket."""

    def wait(self, sock: socket.socket, milliseconds: int) -> bool:
        """Wait until the socket is readable. Return False after the limit."""

    def launch_of(self, pid: int, context_mark: bytes) -> int | None:
        """Return the launch that a process of the context belongs to; None for other processes."""

    def start_time(self, pid: int) -> int | None:
        """Return the start time of a process; None if there is no such process."""

    def belonging(
        self, sessions: Container[int], context_mark: bytes, launch: int | None = None
    ) -> list[int]:
        """Return the processes of these sessions, and those that carry the mark of this context or of one of
        its launches, in the environment or in a resource limit.
        """

    def kill_each(self, pids: Iterable[int]) -> None:
        """SIGKILL each of these processes."""


class LocalMachine:
    """The machine that this process runs on."""

    receive = staticmethod(datagrams.receive)
    launch_of = staticmethod(process_marks.launch_of)
    start_time = staticmethod(processes.start_time)
    belonging = staticmethod(process_marks.belonging)
    kill_each = staticmethod(pidfds.kill_each)

    @staticmethod
    def wait(sock: socket.socket, milliseconds: int) -> bool:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(milliseconds))
