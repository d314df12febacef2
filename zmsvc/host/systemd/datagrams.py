"""Receive sd_notify datagrams, with the process that has sent each. Other modules interpret them."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from dataclasses import field, replace
from pathlib import Path

from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.core.frozen import frozen
from zmsvc.host import directories
from zmsvc.host.kernel import memfd
from zmsvc.host.systemd.notify import IN_FILE, POISON, UPDATE, UPDATE_INLINE, UPDATE_LIMIT

_DATAGRAM_LIMIT = UPDATE_INLINE + 4096
_SO_PEEK_OFF = 42  # asm-generic/socket.h; Python has no name for it
# Room for the credentials and a few descriptors. The kernel drops further descriptors without installing
# them.
_ANCILLARY = socket.CMSG_SPACE(struct.calcsize("3i")) + socket.CMSG_SPACE(8 * 4)
MAX_DESCRIPTORS = 253
"""The most descriptors in one datagram: SCM_MAX_FD of the kernel."""
_RESULT = frozenset({UPDATE, UPDATE + IN_FILE})
_IN_FILES = frozenset({UPDATE + IN_FILE, POISON + IN_FILE})
_Ancillary = list[tuple[int, int, bytes]]


@frozen
class Datagram:
    """One datagram. `pid` and `uid` are from the kernel; the sender controls everything else.

    `fds` has descriptors that belong to the reader: only that of a text, which `texts_of` closes.
    """

    pid: int
    uid: int
    lines: list[tuple[str, str]]
    fds: list[int]
    others: list[int] = field(default_factory=list)
    """Further descriptors that belong to the reader. To close one may take as long as the sender likes."""
    incomplete: bool = False
    """True if descriptors are missing: the kernel could not install them, or the reader takes none."""

    def size(self) -> int:
        """Return the characters of all values plus the bytes of the file of a text. Call it before `texts_of`
        closes that file.
        """
        return sum(len(value) for _, value in self.lines) + sum(os.fstat(fd).st_size for fd in self.fds)


def bind(path: Path, mode: int, owner: int = -1) -> socket.socket:
    """Return a non-blocking notify socket at `path`; a file there is replaced. `owner` is a user ID, -1 for
    this process's.

    Raises ZmsvcError with the reason.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Set these before the bind, so that no process can send without credentials, or while the mode is
        # wider than `mode`.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        os.fchmod(sock.fileno(), mode)
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        directories.chmod_socket(path, mode)
        if owner >= 0:
            os.chown(path, owner, -1, follow_symlinks=False)
    except OSError as error:
        sock.close()
        raise ZmsvcError(f"cannot listen at {path}: {error.strerror or error}") from error
    return sock


def peek_from_start(sock: socket.socket) -> None:
    """Make each `receive(peek=True)` return the next datagram of the queue, and leave it there for
    `discard`.
    """
    sock.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)


def discard(sock: socket.socket, count: int) -> None:
    """Remove `count` datagrams from the queue that were only peeked at before."""
    for _ in range(count):
        sock.recv(1)


class ReservedDescriptor:
    """One reserved descriptor, so that an SCM_RIGHTS descriptor can be received even at the process's
    limit.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self.renew()

    @property
    def held(self) -> bool:
        """True while the descriptor is reserved."""
        return self._fd is not None

    def renew(self) -> None:
        """Reserve a descriptor again, if one is free."""
        if self._fd is None:
            with contextlib.suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give_up(self) -> bool:
        """Free the reserved descriptor; return False if it is free already."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        return fd is not None


def receive(
    sock: socket.socket,
    *,
    peek: bool = False,
    spare: ReservedDescriptor | None = None,
    keep_others: bool = False,
) -> Datagram | None:
    """Read one datagram from a socket of `bind`; None if none waits. With `peek` it stays in the queue.

    The readable lines of an oversized or malformed datagram are kept. Unexpected descriptors are closed, or
    are in `others` with `keep_others`. The descriptor of BARRIER=1 is one of them: its sender waits for the
    close. If too many descriptors are open to receive that of an update, `spare` is given up and the datagram
    is read again. The caller can renew `spare` when it has read the update.
    """
    flags_in = socket.MSG_CMSG_CLOEXEC | (socket.MSG_PEEK if peek else 0)
    room = _ANCILLARY + (MAX_DESCRIPTORS * array.array("i").itemsize if keep_others else 0)
    try:
        data, ancillary, flags, _ = sock.recvmsg(_DATAGRAM_LIMIT, room, flags_in)
    except BlockingIOError:
        return None
    if peek and spare is not None and _lacks_descriptor(data, ancillary, flags) and spare.give_up():
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_PEEK_OFF, sock.getsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF) - len(data)
        )
        data, ancillary, flags, _ = sock.recvmsg(_DATAGRAM_LIMIT, room, flags_in)
    return _datagram(sock, data, ancillary, flags, peek=peek, keep_others=keep_others)


def _lacks_descriptor(data: bytes, ancillary: _Ancillary, flags: int) -> bool:
    """Return True if the kernel could not install the descriptor of an update."""
    return (
        bool(flags & socket.MSG_CTRUNC)
        and any(b"%s=" % key.encode() in data for key in _IN_FILES)
        and all(kind != socket.SCM_RIGHTS for _, kind, _ in ancillary)
    )


def _datagram(
    sock: socket.socket, data: bytes, ancillary: _Ancillary, flags: int, *, peek: bool, keep_others: bool
) -> Datagram:
    pid, uid, fds = 0, -1, array.array("i")
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(payload) == struct.calcsize("3i"):
            pid, uid, _ = struct.unpack("3i", payload)
        elif kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    lines = _lines(data, cut=bool(flags & socket.MSG_TRUNC))
    # Peek to the end of the datagram. Otherwise the next peek would return the rest as another datagram, and
    # `discard` would remove one too many.
    while peek and flags & socket.MSG_TRUNC:
        _, _, flags, _ = sock.recvmsg(_DATAGRAM_LIMIT, 0, socket.MSG_PEEK)
    keep = 1 if any(key in _IN_FILES for key, _ in lines) else 0
    others = fds[keep:].tolist()
    incomplete = bool(flags & socket.MSG_CTRUNC or (others and not keep_others))
    while others and not keep_others:
        os.close(others.pop())
    return Datagram(
        pid=pid, uid=uid, lines=lines, fds=fds[:keep].tolist(), others=others, incomplete=incomplete
    )


def _lines(data: bytes, *, cut: bool) -> list[tuple[str, str]]:
    raw = data.split(b"\n")
    if cut:
        raw.pop()  # a part of a value may look like a complete one
    pairs = (line.decode("utf-8", "replace").partition("=") for line in raw)
    return [(key, value) for key, separator, value in pairs if separator and key]


def only_reports_a_result(datagram: Datagram) -> bool:
    """Return True if a datagram has a result without a number, and nothing else. The results of a task that
    has a loop of its own are numbered, and a number from another process would hide one of these.
    """
    keys = {key for key, _ in datagram.lines}
    return bool(keys & _RESULT) and keys <= _RESULT | {"BARRIER"}


def texts_of(datagram: Datagram) -> tuple[str | None, str | None]:
    """Return the JSON text of the result in a datagram, or None, and that of the report about a message.
    Closes the datagram's descriptor.

    Raises ProtocolError if no file was passed, or a file that is not a sealed memory file of at most
    UPDATE_LIMIT bytes.
    """
    key, text = _text_of(datagram)
    return (text, None) if key == UPDATE else (None, text)


def inlined(datagram: Datagram) -> Datagram:
    """Return a datagram that contains its text in place of a descriptor. If the text cannot be read, the
    datagram stays as it is, and its reader fails.
    """
    try:
        key, text = _text_of(datagram)
    except (ProtocolError, OSError):
        return datagram
    if text is None:
        return datagram
    lines = [line for line in datagram.lines if line[0] not in (key, key + IN_FILE)]
    return replace(datagram, lines=[*lines, (key, text)], fds=[])


def _text_of(datagram: Datagram) -> tuple[str, str | None]:
    """Return the first text that may come as a file, with its key."""
    try:
        for key, value in datagram.lines:
            if key in (UPDATE, POISON):
                return key, value
            if key in _IN_FILES:
                if not datagram.fds:
                    # No descriptor was sent, or the kernel could not install it because too many are open.
                    raise ProtocolError("cannot read an update: no file came with it")
                text = memfd.read(datagram.fds[0], UPDATE_LIMIT).decode("utf-8", "replace")
                return key.removesuffix(IN_FILE), text
        return "", None
    finally:
        while datagram.fds:
            os.close(datagram.fds.pop())
