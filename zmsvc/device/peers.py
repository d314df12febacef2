"""Track the connections of one side of the device, and the data that their peers have not read. This module
checks only when called, never by a timer.
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

from zmsvc.core.frozen import frozen
from zmsvc.device.admission import Admission, Owner, ours
from zmsvc.host.kernel import unix_sockets
from zmsvc.host.systemd.datagrams import ReservedDescriptor


@frozen
class Peer:
    """A peer at one moment: `pid 4711` or `address:port`, and the approximate number of bytes that it has not
    read.
    """

    name: str
    unread: int


@dataclass(slots=True, kw_only=True, eq=False)
class PeerConnection:
    """One connection, with a duplicate of its descriptor."""

    socket: socket.socket
    inode: int
    """The number of the socket. It is that of libzmq's descriptor as well."""
    owner: Owner
    sending: int = 0
    """The number of checks, since a limit was exceeded, in which libzmq had not yet read all data of the
    peer.
    """
    not_reading: int = 0
    """The number of checks in a row in which the peer had unread data and no room for more."""

    @property
    def foreign_unix(self) -> bool:
        """True if another user can send descriptors over this connection."""
        return self.socket.family == socket.AF_UNIX and not ours(self.owner)

    def cut(self) -> None:
        """Shut the connection down. libzmq notices, and frees the peer's queue and incomplete messages."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def peer(self) -> Peer:
        return _peer(self.socket)


class Peers:
    """The connections of one side, each by a duplicate of its descriptor.

    libzmq may close its own descriptor at any moment, and its number is used again, so only a duplicate is
    safe to use. When libzmq has closed its descriptor, the duplicate also tells which side ended the
    connection: the peer, or libzmq because the peer did not answer.

    `inodes` are the sockets of all sides that are tracked.
    """

    def __init__(self, admission: Admission, inodes: set[int]) -> None:
        self._admission, self._inodes = admission, inodes
        self._connections: dict[int, PeerConnection] = {}
        self._poll = poll()
        self._spare = ReservedDescriptor()
        self.foreign_unix = 0
        """Number of connections over which another user can send descriptors."""

    def __len__(self) -> int:
        return len(self._connections)

    def all(self) -> Iterable[PeerConnection]:
        return self._connections.values()

    def accepted(self, fd: int) -> bool:
        """Track a connection that libzmq has accepted, if it is still open. Return False if it exceeds the
        limits and was shut down.
        """
        self.ended(fd)
        connection = self._duplicate(fd)
        if connection is None:
            return True
        inode = os.fstat(connection.fileno()).st_ino
        if inode in self._inodes:
            # That connection has ended, and its number is now that of a duplicate of ours.
            connection.close()
            return True
        try:
            owner = self._admission.owner(connection)
        except OSError:
            connection.close()
            return True
        peer = PeerConnection(socket=connection, inode=inode, owner=owner)
        if not self._spare.held or not self._admission.enter(owner):
            peer.cut()
            connection.close()
            self._spare.renew()
            return False
        self._connections[fd] = peer
        self._inodes.add(inode)
        self._poll.register(connection, POLLIN | POLLOUT)
        self.foreign_unix += peer.foreign_unix
        return True

    def _duplicate(self, fd: int) -> socket.socket | None:
        for _ in range(2):
            with contextlib.suppress(OSError):
                return socket.socket(fileno=os.dup(fd))
            # If no descriptor is left, use the reserved one, until this connection is shut down.
            if not self._spare.give_up():
                break
        self._spare.renew()
        return None

    def ended(self, fd: int, *, reused: bool = False) -> Peer | None:
        """Forget a connection that libzmq has closed. Return the peer if libzmq disconnected it, None if the
        peer left by itself. `reused` is True if another connection has got the same number since: then the
        duplicate may be of that one.
        """
        gone = self._connections.pop(fd, None)
        if gone is None:
            return None
        self._poll.unregister(gone.socket)
        self._inodes.discard(gone.inode)
        self._admission.leave(gone.owner)
        self.foreign_unix -= gone.foreign_unix
        with gone.socket as connection:
            if _left(connection) or (reused and _has(fd, gone.inode)):
                return None
            return _peer(connection)

    def look(self) -> None:
        """Check each connection: count unread data of the peer, and a peer that does not read."""
        found = dict(self._poll.poll(0))
        for each in self._connections.values():
            ready = found.get(each.socket.fileno(), 0)
            each.sending += bool(ready & POLLIN)
            each.not_reading = 0 if ready & (POLLOUT | POLLHUP) else each.not_reading + 1

    def reset_counters(self) -> None:
        for each in self._connections.values():
            each.sending = each.not_reading = 0

    def unread(self) -> list[Peer]:
        """Return the peers with unread data, the slowest first."""
        peers = [each.peer() for each in self._connections.values()]
        return sorted((peer for peer in peers if peer.unread), key=lambda peer: -peer.unread)

    def close(self) -> None:
        """Close the duplicates, so that a connection ends when libzmq closes its descriptor."""
        for each in self._connections.values():
            each.socket.close()
            self._inodes.discard(each.inode)
        self._connections.clear()


def _left(connection: socket.socket) -> bool:
    watched = poll()
    watched.register(connection, POLLRDHUP | POLLHUP)
    return bool(watched.poll(0))


def _has(fd: int, inode: int) -> bool:
    """Return True if a descriptor of this process is open, and is this socket."""
    try:
        return os.fstat(fd).st_ino == inode
    except OSError:
        return False


def _peer(connection: socket.socket) -> Peer:
    unread = array("i", [0])
    try:
        ioctl(connection.fileno(), TIOCOUTQ, unread)
        if connection.family == socket.AF_UNIX:
            return Peer(name=f"pid {unix_sockets.peer_credentials(connection)[0]}", unread=unread[0])
        host, port = connection.getpeername()[:2]
        return Peer(name=f"{host}:{port}", unread=unread[0])
    except OSError:
        return Peer(name="unknown", unread=unread[0])
