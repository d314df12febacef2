"""Pulse: the proof for the keeper that libzmq's I/O thread works, given only while another user can hang it.

A client of an ipc endpoint can send a descriptor whose close hangs the thread that receives it (a TCP socket
with SO_LINGER, a file of FUSE). Since Linux 6.16 the kernel refuses them. Before that the device connects to
itself every second while such a client is there: the I/O thread has to accept that, and only then the keeper
is told that the device works.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable

from zmsvc.host.kernel import linux

EVERY_S = 1.0
LIMIT_S = 3.0
"""Seconds without a sign of life after which the keeper replaces the device."""


class Pulse:
    """`say` sends a line to the keeper."""

    def __init__(self, listening: Iterable[socket.socket | None], say: Callable[[str], None]) -> None:
        exposed = [
            each
            for each in listening
            if each is not None and each.family == socket.AF_UNIX and not linux.refuses_descriptors(each)
        ]
        self._listening = exposed[0] if exposed else None
        self._say = say
        self._probe: socket.socket | None = None
        self._next: float | None = None
        self._needed = self._last = False

    @property
    def waiting(self) -> bool:
        """Whether the I/O thread has not answered yet."""
        return self._probe is not None

    def need(self, foreign: int) -> None:
        """Note how many connections there are over which another user can send descriptors."""
        self._needed = bool(foreign) and self._listening is not None
        if self._needed and self._next is None:
            self._say(f"WATCHDOG_USEC={round(LIMIT_S * 1e6)}")
            self._next = time.monotonic()

    def timeout_ms(self) -> int | None:
        if self._next is None or self._probe is not None:
            return None
        return max(0, round((self._next - time.monotonic()) * 1000)) + 1

    def beat(self) -> None:
        """Connect to ourselves when it is time."""
        if (
            self._next is None
            or self._probe is not None
            or time.monotonic() < self._next
            or self._listening is None
        ):
            return
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        probe.setblocking(False)
        self._next = time.monotonic() + EVERY_S
        # One that is made after the last such client has left ends the watch: what that client had sent is
        # closed when it is accepted.
        self._last = not self._needed
        try:
            probe.connect(self._listening.getsockname())
        except OSError:
            # The backlog is full: others connect, and the next try is soon.
            probe.close()
            return
        self._probe = probe

    def accepted(self, fd: int) -> bool:
        """libzmq has accepted a connection; tell whether it was ours."""
        if self._probe is None:
            return False
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
            if connection.family != socket.AF_UNIX or linux.peer_credentials(connection)[0] != os.getpid():
                return False
            self._probe.close()
            self._probe = None
            if self._last and not self._needed:
                self._next = None
                self._say("WATCHDOG_USEC=0")
            else:
                self._say("WATCHDOG=1")
            return True
        return False

    def close(self) -> None:
        if self._probe is not None:
            self._probe.close()
