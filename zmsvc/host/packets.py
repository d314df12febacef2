"""JSON objects with file descriptors over a SOCK_SEQPACKET Unix socket: how keeper and supervisor talk. One packet, one object.

A body that is too large for a packet travels in a sealed memfd beside an empty packet, so no size is refused on the way.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from zmsvc.host import memfd

INLINE = 65536
"""Bytes of JSON that go into the packet itself."""
MAX_FDS = 8


def send(sock: socket.socket, body: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one object. Raises BlockingIOError when a non-blocking socket is full, OSError when nobody is there any more."""
    data = json.dumps(body, separators=(",", ":")).encode()
    if len(data) <= INLINE:
        _send(sock, data, fds)
        return
    memory = memfd.sealed("zmsvc-packet", data)
    try:
        _send(sock, b"\0", [memory, *fds])
    finally:
        os.close(memory)


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next object and its descriptors (the caller closes them); None when the other end is gone.

    Raises BlockingIOError when a non-blocking socket has nothing.
    """
    space = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    try:
        data, ancillary, _flags, _address = sock.recvmsg(INLINE + 1, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    fds = [fd for _level, _kind, raw in ancillary for fd in array.array("i", raw[: len(raw) - len(raw) % 4])]
    if not data:
        return None
    if data == b"\0":
        memory, *fds = fds
        size = os.fstat(memory).st_size
        data = os.pread(memory, size, 0)
        os.close(memory)
    return json.loads(data), fds
