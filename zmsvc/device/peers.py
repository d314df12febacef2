"""Peers: who is connected to one side of the device, and what they leave unread. It looks when asked,
never by the clock.
"""

from __future__ import annotations

import contextlib
import os
import socket
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from fcntl import ioctl
from select import POLLHUP, POLLIN, POLLOUT, POLLRDHUP, poll
from termios import TIOCOUTQ

from zmsvc.device.admission import Admission, Owner, ours
from zmsvc.host.kernel import linux
from zmsvc.host.systemd.notify import ReservedDescriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One peer at one moment: `pid 4711` or `address:port`, and how much of what was sent to it is unread
    (about).
    """

    name: str
    unread: int


@dataclass(slots=True, kw_only=True, eq=False)
class PeerConnection:
    """One connection, by a duplicate of its descriptor."""

    socket: socket.socket
    owner: Owner
    heard: int = 0
    """Looks, since memory or subscriptions became too many, at which it had sent what libzmq had not read
    yet.
    """
    behind: int = 0
    """Looks in a row at which it had not read what was sent to it, and had no room for more."""

    @property
    def foreign_unix(self) -> bool:
        """Whether another user can send descriptors over it."""
        return self.socket.family == socket.AF_UNIX and not ours(self.owner)

    def cut(self) -> None:
        """End it. libzmq finds that out and frees what is queued for it, or half received from it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def peer(self) -> Peer:
        return _peer(self.socket)


class Peers:
    """The connections of one side, each by a duplicate of its descriptor.

    libzmq closes its own at any moment and the number is reused, so only a duplicate can be asked safely. It
    also tells, after libzmq has closed its own, who ended the connection: the peer, or libzmq because the
    peer did not answer.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._connections: dict[int, PeerConnection] = {}
        self._poll = poll()
        self._spare = ReservedDescriptor()
        self.foreign_unix = 0
        """Connections over which another user can send descriptors."""

    def __len__(self) -> int:
        return len(self._connections)

    def all(self) -> Iterable[PeerConnection]:
        return self._connections.values()

    def accepted(self, fd: int) -> bool:
        """libzmq accepted a connection. It may be gone by now; then there is nothing to keep. False: it
        was one too many.
        """
        self.ended(fd)
        connection = self._duplicate(fd)
        if connection is None:
            return True
        try:
            owner = self._admission.owner(connection)
        except OSError:
            connection.close()
            return True
        made = PeerConnection(socket=connection, owner=owner)
        if not self._spare.held or not self._admission.enter(owner):
            made.cut()
            connection.close()
            self._spare.renew()
            return False
        self._connections[fd] = made
        self._poll.register(connection, POLLIN | POLLOUT)
        self.foreign_unix += made.foreign_unix
        return True

    def _duplicate(self, fd: int) -> socket.socket | None:
        for _ in range(2):
            with contextlib.suppress(OSError):
                return socket.socket(fileno=os.dup(fd))
            # No descriptor is left, perhaps: then the spare one has to do, for as long as it takes to end
            # this connection.
            if not self._spare.give_up():
                break
        self._spare.renew()
        return None

    def ended(self, fd: int) -> Peer | None:
        """libzmq closed a connection: the peer that was let go against its will, or None when it left by
        itself.
        """
        gone = self._connections.pop(fd, None)
        if gone is None:
            return None
        self._poll.unregister(gone.socket)
        self._admission.leave(gone.owner)
        self.foreign_unix -= gone.foreign_unix
        with gone.socket as connection:
            return None if _left(connection) else _peer(connection)

    def look(self) -> None:
        """Note of each whether it has sent what is not read yet, and whether it does not read."""
        found = dict(self._poll.poll(0))
        for each in self._connections.values():
            ready = found.get(each.socket.fileno(), 0)
            each.heard += bool(ready & POLLIN)
            each.behind = 0 if ready & (POLLOUT | POLLHUP) else each.behind + 1

    def forget_looks(self) -> None:
        for each in self._connections.values():
            each.heard = each.behind = 0

    def unread(self) -> list[Peer]:
        """Those who have not read all that was sent to them, the slowest first."""
        peers = [each.peer() for each in self._connections.values()]
        return sorted((peer for peer in peers if peer.unread), key=lambda peer: -peer.unread)

    def close(self) -> None:
        """Drop the duplicates, so that connections end when libzmq ends them."""
        for each in self._connections.values():
            each.socket.close()
        self._connections.clear()


def _left(connection: socket.socket) -> bool:
    watched = poll()
    watched.register(connection, POLLRDHUP | POLLHUP)
    return bool(watched.poll(0))


def _peer(connection: socket.socket) -> Peer:
    unread = array("i", [0])
    try:
        ioctl(connection.fileno(), TIOCOUTQ, unread)
        if connection.family == socket.AF_UNIX:
            return Peer(name=f"pid {linux.peer_credentials(connection)[0]}", unread=unread[0])
        host, port = connection.getpeername()[:2]
        return Peer(name=f"{host}:{port}", unread=unread[0])
    except OSError:
        return Peer(name="unknown", unread=unread[0])
