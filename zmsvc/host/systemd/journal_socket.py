"""Encode entries for journald, and send them for a process that may wait only briefly."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import struct
from collections.abc import Mapping
from typing import Any

SOCKET = "/run/systemd/journal/socket"
PATIENCE = 2.0
"""The most seconds that one entry waits for journald."""
_ROOM = 8 << 20
_FIELD = re.compile(r"[A-Z0-9][A-Z0-9_]{0,63}")
_GONE = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)


def encode(fields: Mapping[str, Any]) -> bytes:
    """Encode an entry by https://systemd.io/JOURNAL_NATIVE_PROTOCOL: a value that contains a line break has
    its length before it.
    """
    out = bytearray()
    for key, value in fields.items():
        name = key if _FIELD.fullmatch(key) else re.sub("[^A-Z0-9_]", "_", key.upper()).lstrip("_")[:64]
        if value is None or not name:
            continue
        data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        if b"\n" in data:
            out += b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data)
        else:
            out += b"%b=%b\n" % (name.encode(), data)
    return bytes(out)


class JournalSocket:
    """A connection to journald, which is made again when journald has a new socket."""

    def __init__(self, path: str = SOCKET, patience: float = PATIENCE) -> None:
        self._path, self._patience = path, patience
        self._socket: socket.socket | None = None

    def send(self, entry: bytes, *, wait: bool) -> str:
        """Send an entry. Return the reason if journald has not taken it; with `wait`, after PATIENCE."""
        try:
            self._send(entry, wait)
        except OSError as error:
            return f"cannot write to the journal: {os.strerror(error.errno or 0)}"
        return ""

    def close(self) -> None:
        """Close the connection; the next entry makes another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, entry: bytes, wait: bool) -> None:
        known = self._socket is not None
        sock = self._connected()
        try:
            sock.send(entry)
        except BlockingIOError:
            if not wait or not _writable(sock, self._patience):
                raise
            sock.send(entry)
        except OSError as error:
            self.close()
            if not known or error.errno not in _GONE:
                raise
            self._send(entry, wait)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            sock = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
                sock.connect(self._path)
            except OSError:
                sock.close()
                raise
            self._socket = sock
        return self._socket


def _writable(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))
