"""Send and receive packets over a SOCK_SEQPACKET Unix socket, as the processes of a context do. A packet is
one JSON object, or bytes for a fork. A body that is too large for a packet is sent as a sealed memfd with a
packet of one byte, so its size has no limit. The messages in the packets are in zmsvc.protocol.
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
"""The limit in bytes of JSON in the packet itself."""
MAX_FDS = 40
"""The number of descriptors that may come with one object."""

Message = TypeVar("Message")
Message_co = TypeVar("Message_co", covariant=True)


class Decoder(Protocol[Message_co]):
    """A decoder of objects into messages: one of the codecs in zmsvc.protocol."""

    def decode(self, body: Mapping[str, Any], /) -> Message_co: ...


_ANCILLARY = socket.CMSG_SPACE((MAX_FDS + 1) * array.array("i").itemsize)
_NONE: Mapping[str, int] = MappingProxyType({})
_dumps = json.JSONEncoder(separators=(",", ":")).encode


def send(sock: socket.socket, body: Mapping[str, Any], fds: Mapping[str, int] = _NONE) -> None:
    """Send one object and named descriptors, which stay open here.

    Raises BlockingIOError if a non-blocking socket is full, OSError if the peer is gone.
    """
    send_data(sock, _dumps({**body, "fds": [*fds]} if fds else body).encode(), fds)


def send_data(sock: socket.socket, data: bytes, fds: Mapping[str, int]) -> None:
    """Send bytes and descriptors to a peer that reads them by `PendingPackets`. Raises as `send` does."""
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


T = TypeVar("T")


def _received(call: Callable[[], T]) -> T | None:
    """Return the result of the receiving `call`; None if the peer is gone.

    If the peer closed its end with unread data, the kernel first reports ECONNRESET once, and then delivers
    what the peer had sent.
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
    """Return the next packet's bytes; b"" if the peer is gone. Raises BlockingIOError if a non-blocking
    socket has no packet.
    """
    return _received(lambda: sock.recv(size)) or b""


Received = tuple[dict[str, Any], dict[str, int]]
"""An object, and the named descriptors beside it."""


def receive(sock: socket.socket) -> Received | None:
    """Return the next object; None if the peer is gone.

    Raises BlockingIOError if a non-blocking socket has no packet, ProtocolError for a packet that is not a
    JSON object.
    """
    packet = _received(lambda: sock.recvmsg(INLINE + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC))
    if packet is None:
        return None
    data, ancillary, _flags, _address = packet
    if not data:
        return None
    fds = _fds(ancillary)
    try:
        body = json.loads(_content(data, fds))
        return body, dict(zip(body.pop("fds", ()), fds, strict=True))
    except (ValueError, AttributeError, IndexError) as error:
        for fd in fds:
            os.close(fd)
        raise ProtocolError(f"cannot read packet: {error}") from error


def receive_message(sock: socket.socket, codec: Decoder[Message]) -> Message | None:
    """Return the next message; None if the peer is gone. Descriptors beside it are closed. Raises as
    `receive` does.
    """
    received = receive(sock)
    if received is None:
        return None
    for fd in received[1].values():
        os.close(fd)
    return codec.decode(received[0])


def _fds(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [*array.array("i", ancillary[0][2])] if ancillary else []


def _content(data: bytes, fds: list[int]) -> bytes:
    """Return the content of a packet. The content of a large one is in a memory file, the last one of `fds`;
    read and close that.
    """
    if data != b"\0":
        return data
    memory = fds.pop()
    try:
        return os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)


class PendingPackets:
    """Packets of `send_data` on a blocking socket. This process takes them one by one, and a fork of it reads
    the content.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = [bytearray(INLINE + 1)]
        self._size = 0
        self.fds: list[int] = []
        """The descriptors beside the last packet. The caller of `take` owns them."""

    def take(self) -> bool:
        """Wait for the next packet. Return False if the peer is gone."""
        try:
            self._size, ancillary, _, _ = self._sock.recvmsg_into(
                self._buffer, _ANCILLARY, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return False
        self.fds = _fds(ancillary)
        return self._size > 0

    def data(self) -> bytes:
        """Return the content of the last packet. Afterwards `fds` has only the descriptors that the sender
        named.
        """
        return _content(bytes(self._buffer[0][: self._size]), self.fds)
