"""JSON objects over a SOCK_SEQPACKET Unix socket: how keeper, supervisor and shared processes talk. One packet, one object.

A body that is too large for a packet travels in a sealed memfd beside an empty packet, so no size is refused on the way.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from zmsvc.host import memfd

INLINE = 65536
"""Bytes of JSON that go into the packet itself."""

_FD = array.array("i").itemsize


def send(sock: socket.socket, body: Mapping[str, Any]) -> None:
    """Send one object. Raises BlockingIOError when a non-blocking socket is full, OSError when nobody is there any more."""
    data = json.dumps(body, separators=(",", ":")).encode()
    if len(data) <= INLINE:
        sock.sendmsg([data], [], socket.MSG_NOSIGNAL)
        return
    memory = memfd.sealed("zmsvc-packet", data)
    try:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))
        sock.sendmsg([b"\0"], [rights], socket.MSG_NOSIGNAL)
    finally:
        os.close(memory)


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """The next object; None when the other end is gone. Raises BlockingIOError when a non-blocking socket has nothing."""
    try:
        data, ancillary, _flags, _address = sock.recvmsg(INLINE + 1, socket.CMSG_SPACE(_FD), socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not data:
        return None
    if data == b"\0":
        (memory,) = array.array("i", ancillary[0][2])
        try:
            data = os.pread(memory, os.fstat(memory).st_size, 0)
        finally:
            os.close(memory)
    body: dict[str, Any] = json.loads(data)
    return body
