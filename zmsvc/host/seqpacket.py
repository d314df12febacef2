"""Packets over a SOCK_SEQPACKET Unix socket: how the processes of a context talk. One packet is one JSON
object, or bytes for a fork.

A body that is too large for a packet travels in a sealed memfd beside a packet of one byte, so no size is
refused on the way. The messages that the packets carry are in zmsvc.protocol.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from zmsvc.core.errors import ProtocolError
from zmsvc.host.kernel import memfd

INLINE = 65536
"""Bytes of JSON that go into the packet itself."""
MAX_FDS = 8
"""Descriptors that can go with one object."""

Message = TypeVar("Message")
Message_co = TypeVar("Message_co", covariant=True)


class Decoder(Protocol[Message_co]):
    """Make messages of objects: one of the codecs in zmsvc.protocol."""

    def decode(self, body: Mapping[str, Any], /) -> Message_co: ...


_ANCILLARY = socket.CMSG_SPACE((MAX_FDS + 1) * array.array("i").itemsize)
_NONE: Mapping[str, int] = MappingProxyType({})
_dumps = json.JSONEncoder(separators=(",", ":")).encode


def send(sock: socket.socket, body: Mapping[str, Any], fds: Mapping[str, int] = _NONE) -> None:
    """Send one object, and descriptors by name, which stay open here.

    Raises BlockingIOError when a non-blocking socket is full, OSError when nobody is there any more.
    """
    send_data(sock, _dumps({**body, "fds": [*fds]} if fds else body).encode(), fds)


def send_data(sock: socket.socket, data: bytes, fds: Mapping[str, int]) -> None:
    """Send bytes and descriptors, which an `PendingPackets` at the other end takes. Raises as `send` does."""
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


Got = TypeVar("Got")


def _received(call: Callable[[], Got]) -> Got | None:
    """Return what `call` receives; None when the other end is gone.

    When that had not read everything, the kernel says so first (ECONNRESET), once, and only then gives what
    it had sent before.
    """
    for _ in range(2):
        try:
            return call()
        except ConnectionResetError:
            continue
        except ConnectionError:
            break
    return None


def receive_data(sock: socket.socket, size: int) -> bytes:
    """Return the next packet's bytes; none when the other end is gone. Raises BlockingIOError when a
    non-blocking socket has nothing.
    """
    return _received(lambda: sock.recv(size)) or b""


Received = tuple[dict[str, Any], dict[str, int]]
"""An object, and the descriptors that came beside it by name."""


def receive(sock: socket.socket) -> Received | None:
    """Return the next object; None when the other end is gone.

    Raises BlockingIOError when a non-blocking socket has nothing, ProtocolError for a packet that is no JSON
    object.
    """
    got = _received(lambda: sock.recvmsg(INLINE + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC))
    if got is None:
        return None
    data, ancillary, _flags, _address = got
    if not data:
        return None
    came = _fds(ancillary)
    try:
        body = json.loads(_whole(data, came))
        return body, dict(zip(body.pop("fds", ()), came, strict=True))
    except (ValueError, AttributeError, IndexError) as error:
        for fd in came:
            os.close(fd)
        raise ProtocolError(f"cannot read packet: {error}") from error


def receive_message(sock: socket.socket, codec: Decoder[Message]) -> Message | None:
    """Return the next message; None when the other end is gone. Descriptors that came beside it are
    closed. Raises as `receive` does.
    """
    got = receive(sock)
    if got is None:
        return None
    for fd in got[1].values():
        os.close(fd)
    return codec.decode(got[0])


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


class PendingPackets:
    """Packets of `send_data` on a blocking socket, taken one by one for a fork of this process to look
    into.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = [bytearray(INLINE + 1)]
        self._size = 0
        self.fds: list[int] = []
        """What came with the last one; they belong to whoever has taken it."""

    def take(self) -> bool:
        """Wait for the next one. False when the other end is gone."""
        try:
            self._size, ancillary, _, _ = self._sock.recvmsg_into(
                self._buffer, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return False
        self.fds = _fds(ancillary)
        return self._size > 0

    def data(self) -> bytes:
        """Return the content of the last one. `fds` are then the descriptors that its sender named."""
        return _whole(bytes(self._buffer[0][: self._size]), self.fds)
