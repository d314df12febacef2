"""Unix sockets: the process at the other end, and the descriptors that it may send."""

from __future__ import annotations

import socket
import struct

# From asm-generic/socket.h.
SO_PEERGROUPS = 59
SO_PASSRIGHTS = 83


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the process at the other end of a Unix stream."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", data)
    return pid, uid, gid


def peer_groups(sock: socket.socket) -> frozenset[int]:
    """Return all groups of the process at the other end of a Unix stream; only its primary group if it has
    more than 256.
    """
    primary = peer_credentials(sock)[2]
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        return frozenset({primary})
    return frozenset({primary, *struct.unpack(f"{len(data) // 4}I", data)})


def refuse_descriptors(sock: socket.socket) -> bool:
    """Make the kernel refuse descriptors that clients send over this Unix socket and the connections accepted
    from it.

    Return False if the kernel cannot (before Linux 6.16), or if ZMSVC_DISABLE has `passrights`.
    """
    # Imported here, because zmsvcctl imports this module, and ctypes costs start-up time.
    from zmsvc.host.python.interpreter import Switch, disabled

    if Switch.PASSRIGHTS in disabled():
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


def refuses_descriptors(sock: socket.socket) -> bool:
    """Return True if the kernel refuses descriptors that clients send over this socket."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0
    except OSError:
        return False
