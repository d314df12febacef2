"""Admission control: find the owner of each connection of the device, and limit the connections of each user
or host.

Each connection takes descriptors, even without a handshake. A device without free descriptors can accept no
client, and its poll returns a waiting connection again and again. So the device closes new connections before
that happens, first those of users and hosts that have many.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections import Counter
from ipaddress import ip_address

from zmsvc.core.errors import ZmsvcError
from zmsvc.host.kernel import unix_sockets
from zmsvc.host.kernel.sockdiag import SockDiag

Owner = int | str
"""A user ID of this machine, or the address of another machine."""

_OTHERWISE = 64
"""Descriptors that the device needs besides those of connections, with a reserve."""
_EACH = 3
"""Descriptors of a connection: that of libzmq, our duplicate, and for a moment that of the ZAP handler."""
_RESERVED = 64
"""Connections reserved for root and the device's own user."""


def places() -> int:
    """Return the number of connections that this process's current limit of descriptors permits."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, (soft - _OTHERWISE) // _EACH)


class Admission:
    """A counter of the connections of both sides. `tcp` is True if some of them are tcp connections."""

    def __init__(self, limit: int, *, tcp: bool) -> None:
        self._limit = limit
        self._reserved = min(_RESERVED, limit // 4)
        self._held: Counter[Owner] = Counter()
        self._total = 0
        self._barred: dict[Owner, float] = {}
        self._kernel = _kernel() if tcp else None

    def owner(self, connection: socket.socket) -> Owner:
        """Return the owner of a connection. Raises OSError if it is closed."""
        if connection.family == socket.AF_UNIX:
            return unix_sockets.peer_credentials(connection)[1]
        host: str = connection.getpeername()[0].partition("%")[0]
        if self._kernel is not None and ip_address(host).is_loopback:
            with contextlib.suppress(OSError):
                uid = self._kernel.peer(connection)
                return host if uid is None else uid
        return host

    def enter(self, owner: Owner) -> bool:
        """Count a connection; return False if this owner may not have another one."""
        if not ours(owner):
            if self._barred.get(owner, 0.0) > time.monotonic():
                return False
            # One other user may have half of all connections, and all other users together cannot use the
            # reserved ones.
            if self._held[owner] >= self._limit // 2 or self._total >= self._limit - self._reserved:
                return False
        elif self._total >= self._limit:
            return False
        self._held[owner] += 1
        self._total += 1
        return True

    def leave(self, owner: Owner) -> None:
        self._total -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]

    def bar(self, owner: Owner, until: float) -> None:
        """Refuse new connections of a user or host until this monotonic time."""
        self._barred = {each: at for each, at in self._barred.items() if at > time.monotonic()} | {
            owner: until
        }

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()


def ours(owner: Owner) -> bool:
    """Return True for root and the device's own user."""
    return owner in (0, os.geteuid())


def _kernel() -> SockDiag | None:
    try:
        return SockDiag()
    except ZmsvcError:
        return None  # The owner is not known, so all such users of this machine count as one.
