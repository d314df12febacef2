"""Peers: who is connected to the subscribers' side of the device, and what they leave unread. It looks when asked, never by the clock."""

from __future__ import annotations

import os
import socket
import struct
from array import array
from dataclasses import dataclass
from fcntl import ioctl
from select import POLLHUP, POLLRDHUP, poll
from termios import TIOCOUTQ


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One subscriber at one moment: `pid 4711` or `address:port`, and how much of what was sent to it is unread (about)."""

    name: str
    unread: int


class Peers:
    """The subscribers' connections, each by a duplicate of its descriptor.

    libzmq closes its own at any moment and the number is reused, so only a duplicate can be asked safely. It also tells, after libzmq
    has closed its own, who ended the connection: the peer, or libzmq because the peer did not answer.
    """

    def __init__(self) -> None:
        self._connections: dict[int, socket.socket] = {}

    def __len__(self) -> int:
        return len(self._connections)

    def accepted(self, fd: int) -> None:
        """libzmq accepted a connection. It may be gone by now; then there is nothing to keep."""
        self.ended(fd)
        try:
            self._connections[fd] = socket.socket(fileno=os.dup(fd))
        except OSError:
            pass

    def ended(self, fd: int) -> Peer | None:
        """libzmq closed a connection: the peer that was let go against its will, or None when it left by itself."""
        connection = self._connections.pop(fd, None)
        if connection is None:
            return None
        with connection:
            return None if _left(connection) else _peer(connection)

    def unread(self) -> list[Peer]:
        """Those who have not read all that was sent to them, the slowest first."""
        peers = [_peer(connection) for connection in self._connections.values()]
        return sorted((peer for peer in peers if peer.unread), key=lambda peer: -peer.unread)

    def close(self) -> None:
        """Drop the duplicates, so that connections end when libzmq ends them."""
        for connection in self._connections.values():
            connection.close()
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
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return Peer(name=f"pid {struct.unpack('3i', credentials)[0]}", unread=unread[0])
        host, port = connection.getpeername()[:2]
        return Peer(name=f"{host}:{port}", unread=unread[0])
    except OSError:
        return Peer(name="unknown", unread=unread[0])
