"""Prove to the keeper that the I/O thread of libzmq works. This is needed only while another user can hang
it.

A client of an ipc endpoint can send a descriptor whose close hangs the receiving thread (a TCP socket with
SO_LINGER, a file of FUSE). Since Linux 6.16 the kernel can refuse descriptors. On older kernels the device
connects to itself every second while such a client is connected. The I/O thread has to accept that
connection; then the device sends WATCHDOG=1 to the keeper.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable

from zmsvc.host.kernel import unix_sockets

EVERY_S = 1.0
LIMIT_S = 3.0
"""Seconds without WATCHDOG=1 after which the keeper replaces the device."""


class LivenessProbe:
    """A periodic connection to ourselves. `notify` sends a line to the keeper."""

    def __init__(self, listening: Iterable[socket.socket | None], notify: Callable[[str], object]) -> None:
        exposed = [
            each
            for each in listening
            if each is not None
            and each.family == socket.AF_UNIX
            and not unix_sockets.refuses_descriptors(each)
        ]
        self._listening = exposed[0] if exposed else None
        self._notify = notify
        self._probe: socket.socket | None = None
        self._next: float | None = None
        self._needed = self._last = False

    @property
    def waiting(self) -> bool:
        """True while the I/O thread has not accepted the last probe."""
        return self._probe is not None

    def require(self, foreign: int) -> None:
        """Start probing if there are connections over which another user can send descriptors."""
        self._needed = bool(foreign) and self._listening is not None
        if self._needed and self._next is None:
            self._notify(f"WATCHDOG_USEC={round(LIMIT_S * 1e6)}")
            self._next = time.monotonic()

    def timeout_ms(self) -> int | None:
        if self._next is None or self._probe is not None:
            return None
        return max(0, round((self._next - time.monotonic()) * 1000)) + 1

    def connect_if_due(self) -> None:
        """Connect to ourselves if a probe is due."""
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
        # When the last such client has left, one more probe follows. When the I/O thread accepts that, it has
        # closed all descriptors that the client had sent.
        self._last = not self._needed
        try:
            probe.connect(self._listening.getsockname())
        except OSError:
            # The backlog is full: other clients are connecting. The next attempt is soon.
            probe.close()
            return
        self._probe = probe

    def accepted(self, fd: int) -> bool:
        """Handle a connection that libzmq has accepted; return True if it is a probe of ours."""
        if self._probe is None:
            return False
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
            if (
                connection.family != socket.AF_UNIX
                or unix_sockets.peer_credentials(connection)[0] != os.getpid()
            ):
                return False
            self._probe.close()
            self._probe = None
            if self._last and not self._needed:
                self._next = None
                self._notify("WATCHDOG_USEC=0")
            else:
                self._notify("WATCHDOG=1")
            return True
        return False

    def close(self) -> None:
        if self._probe is not None:
            self._probe.close()
