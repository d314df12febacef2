"""JSON objects over a SOCK_SEQPACKET Unix socket: how keeper, supervisor and shared processes talk. One packet, one object.

A body that is too large for a packet travels in a sealed memfd beside an empty packet, so no size is refused on the way.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from zmsvc.host import memfd

INLINE = 65536
"""Bytes of JSON that go into the packet itself."""
MAX_FDS = 8
"""Descriptors that can go with one object."""

_ANCILLARY = socket.CMSG_SPACE((MAX_FDS + 1) * array.array("i").itemsize)
_NONE: Mapping[str, int] = MappingProxyType({})


def send(sock: socket.socket, body: Mapping[str, Any], fds: Mapping[str, int] = _NONE) -> None:
    """Send one object, and descriptors by name, which stay open here.

    Raises BlockingIOError when a non-blocking socket is full, OSError when nobody is there any more.
    """
    data = json.dumps({**body, "fds": [*fds]} if fds else body, separators=(",", ":")).encode()
    if len(data) <= INLINE:
        _send(sock, data, [*fds.values()])
        return
    memory = memfd.sealed("zmsvc-packet", data)
    try:
        _send(sock, b"\0", [*fds.values(), memory])
    finally:
        os.close(memory)


def _send(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> dict[str, Any] | None:
    """The next object; None when the other end is gone. `fds` in it maps the names of the descriptors that came along to their numbers.

    Raises BlockingIOError when a non-blocking socket has nothing.
    """
    try:
        data, ancillary, _flags, _address = sock.recvmsg(INLINE + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    return body_of(data, _fds(ancillary)) if data else None


def _fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [*array.array("i", ancillary[0][2])] if ancillary else []


def body_of(data: bytes, came: list[int]) -> dict[str, Any]:
    """What is in a packet. The memory file of a large one is closed."""
    if data == b"\0":
        memory = came.pop()
        try:
            data = os.pread(memory, os.fstat(memory).st_size, 0)
        finally:
            os.close(memory)
    body: dict[str, Any] = json.loads(data)
    body["fds"] = dict(zip(body.get("fds", ()), came, strict=True))
    return body


class Unread:
    """Packets of a blocking socket, taken one by one for a fork of this process to look into. Here as little as can be is done."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = [bytearray(INLINE + 1)]
        self._size = 0
        self.fds: list[int] = []
        """What came with the last one; they belong to whoever has taken it."""

    def take(self) -> bool:
        """Wait for the next one. False when the other end is gone."""
        try:
            self._size, ancillary, _, _ = self._sock.recvmsg_into(self._buffer, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        self.fds = _fds(ancillary)
        return self._size > 0

    def body(self) -> dict[str, Any]:
        """What is in the last one, as of `receive`."""
        return body_of(bytes(self._buffer[0][: self._size]), self.fds)
