"""JSON objects over a SOCK_SEQPACKET Unix socket: how keeper, supervisor and shared processes talk. One packet, one object.

A body that is too large for a packet travels in a sealed memfd beside an empty packet, so no size is refused on the way.

Between a process and its own fork, which cannot be of different versions, objects are in the interpreter's own form (marshal): it is
read without a line of Python, which a process that has just been forked would pay for with copied pages.
"""

from __future__ import annotations

import array
import json
import marshal
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
_dumps = json.JSONEncoder(separators=(",", ":")).encode


def send(sock: socket.socket, body: Mapping[str, Any], fds: Mapping[str, int] = _NONE) -> None:
    """Send one object, and descriptors by name, which stay open here.

    Raises BlockingIOError when a non-blocking socket is full, OSError when nobody is there any more.
    """
    _send_data(sock, _dumps({**body, "fds": [*fds]} if fds else body).encode(), fds)


def send_to_fork(sock: socket.socket, body: Mapping[str, Any], fds: Mapping[str, int] = _NONE) -> None:
    """The same, for a fork of this process, which has an `Unread` at the other end."""
    _send_data(sock, marshal.dumps((dict(body), list(fds))), fds)


def _send_data(sock: socket.socket, data: bytes, fds: Mapping[str, int]) -> None:
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
    if not data:
        return None
    came = _fds(ancillary)
    body: dict[str, Any] = json.loads(_whole(data, came))
    body["fds"] = dict(zip(body.get("fds", ()), came, strict=True))
    return body


def _fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [*array.array("i", ancillary[0][2])] if ancillary else []


def _whole(data: bytes, came: list[int]) -> bytes:
    """What stands for a packet's content. The memory file of a large one is closed."""
    if data != b"\0":
        return data
    memory = came.pop()
    try:
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)


class Unread:
    """Packets of `send_to_fork` on a blocking socket, taken one by one for a fork of this process to look into."""

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

    def body(self) -> tuple[dict[str, Any], dict[str, int]]:
        """What is in the last one: the object, and the descriptors by name."""
        body, names = marshal.loads(_whole(bytes(self._buffer[0][: self._size]), self.fds))
        return body, dict(zip(names, self.fds, strict=True))
