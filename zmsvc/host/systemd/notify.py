"""sd_notify, both ends: what a process tells its supervisor, and how a supervisor reads it. What is meant by
it is decided elsewhere.

The sender is sdnotify's notifier with its traps removed: it connects once and is silent for ever when the
socket is bound anew, it writes latin-1, it swallows every error, and it passes no descriptors. A send that
finds the queue full (the kernel's default is 10 datagrams) waits until the reader has caught up: a result may
be late, it is never lost.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sdnotify import SystemdNotifier

from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.host import directories
from zmsvc.host.kernel import memfd

UPDATE_LIMIT = 1 << 20
"""The most bytes of JSON that one update may have."""

UPDATE_INLINE = 64 << 10
"""Above this an update travels as a sealed memory file instead of inside the datagram."""

DROPPED = "X_ZMSVC_DROPPED"
"""The device's counts of what it refused, for the keeper: `name:count`, with blanks between them."""

_STATUS_LIMIT = 4096
_DATAGRAM_LIMIT = UPDATE_INLINE + 4096
_SO_PEEK_OFF = 42  # asm-generic/socket.h; Python has no name for it
# Room for the credentials and a few descriptors; the kernel drops the rest of them without installing any
# here.
_ANCILLARY = socket.CMSG_SPACE(struct.calcsize("3i")) + socket.CMSG_SPACE(8 * 4)
# The socket that we are connected to is gone: the path was bound anew, or will be.
_STALE = frozenset({errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.ENOENT, errno.EPIPE})

_Ancillary = list[tuple[int, int, bytes]]

log = logging.getLogger(__name__)


class Notifier(SystemdNotifier):  # type: ignore[misc]  # sdnotify has no types
    """Tells the supervisor (or systemd) how this process is. May be shared by threads.

    `path` is a socket's path or an `@abstract` name, by default $NOTIFY_SOCKET; without one every call does
    nothing. `task` marks every datagram with `X_ZMSVC_TASK`, for tasks that share a process. A receiver that
    is not there is logged once, not raised: what a task does is worth more than telling about it.
    """

    def __init__(self, path: str | None = None, task: str | None = None) -> None:
        self.debug = True  # sdnotify raises then, and only then, what went wrong
        self._address = _address(path or os.environ.get("NOTIFY_SOCKET", ""))
        self._prefix = f"X_ZMSVC_TASK={task}\n" if task else ""
        self._unreachable = False
        self.socket = None
        if self._address:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                self.socket.connect(self._address)
            except OSError:
                pass  # It is tried again with what is to be told.

    def fileno(self) -> int:
        """The socket's descriptor, or -1 when there is nobody to tell."""
        return self.socket.fileno() if self.socket else -1

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        if self.socket:
            self.socket.close()
            self.socket = None

    def notify(self, *lines: str, fds: Sequence[int] = ()) -> None:
        """Send the lines (`KEY=value`) as one datagram, with descriptors if there are any."""
        if self.socket is None:
            return
        text = self._prefix + "\n".join(lines)
        try:
            try:
                self._send(text, fds)
            except OSError as error:
                if error.errno not in _STALE:
                    raise
                self.socket.connect(self._address)
                self._send(text, fds)
        except OSError as error:
            if not self._unreachable:
                self._unreachable = True
                log.warning("Cannot notify %s: %s", self._address.replace("\0", "@"), error.strerror)
        else:
            self._unreachable = False

    def _send(self, text: str, fds: Sequence[int]) -> None:
        assert self.socket is not None
        data = text.encode("utf-8", "replace")
        if fds:
            self.socket.sendmsg([data], _rights(fds))
        else:
            # sdnotify encodes as latin-1, which gives back exactly the bytes that were decoded as latin-1.
            super().notify(data.decode("latin-1"))

    def ready(self) -> None:
        """The start is complete."""
        self.notify("READY=1")

    def status(self, text: str) -> None:
        """One line for people; line breaks become spaces and a long text is cut."""
        self.notify(status_line(text))

    def watchdog(self) -> None:
        """Still alive."""
        self.notify("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun."""
        self.notify("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Ask for this much more time, from now, for the start or the stop that is under way."""
        self.notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready()` ends it."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def update(self, json_text: str, sequence: int) -> bool:
        """Report a result, a JSON object of at most UPDATE_LIMIT bytes; False when the queue is full.

        `sequence` counts the results of one process from 1: a supervisor that takes over knows by it which it
        has had already. Raises ValueError with the figures for more bytes, and OSError when it cannot be
        told: a result is not lost in silence.
        """
        number = f"X_ZMSVC_SEQ={sequence}"
        size = len(json_text) if json_text.isascii() else len(json_text.encode())
        if size > UPDATE_LIMIT:
            raise ValueError(f"cannot update: {size} bytes of JSON, at most {UPDATE_LIMIT} are allowed")
        if size <= UPDATE_INLINE:
            return self._offer(f"{number}\nX_ZMSVC_UPDATE={json_text}")
        fd = memfd.sealed("zmsvc-update", json_text.encode())
        try:
            return self._offer(f"{number}\nX_ZMSVC_UPDATE_FD=1", [fd])
        finally:
            os.close(fd)

    def _offer(self, text: str, fds: Sequence[int] = ()) -> bool:
        """Send one datagram if there is room for it. Raises OSError."""
        if self.socket is None:
            return True
        data, ancillary = (self._prefix + text).encode("utf-8", "replace"), _rights(fds)
        for attempt in (1, 2):
            try:
                self.socket.sendmsg([data], ancillary, socket.MSG_DONTWAIT)
                return True
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno not in _STALE or attempt == 2:
                    raise
                self.socket.connect(self._address)
        return False


def _rights(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def status_line(text: str) -> str:
    """The `STATUS=` line of a text from anywhere."""
    return "STATUS=" + " ".join(text[:_STATUS_LIMIT].split())


def _address(path: str) -> str:
    return "\0" + path[1:] if path.startswith("@") else path


@dataclass(frozen=True, slots=True, kw_only=True)
class Datagram:
    """What one process said. `pid` and `uid` come from the kernel; everything else may be a lie.

    `fds` are descriptors that the reader now owns: only those that belong to an update, and that `update_of`
    takes.
    """

    pid: int
    uid: int
    lines: list[tuple[str, str]]
    fds: list[int]

    def size(self) -> int:
        """Characters in it, and bytes of the file that came along, before `update_of` has taken that."""
        return sum(len(value) for _, value in self.lines) + sum(os.fstat(fd).st_size for fd in self.fds)


def bind(path: Path, mode: int, owner: int = -1) -> socket.socket:
    """A non-blocking notify socket at `path`, which is replaced when it exists. `owner` is a user ID, -1 for
    this process's.

    Raises ZmsvcError with the reason.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # Before the bind, so that nobody can send without credentials or while the mode is wider than asked
        # for.
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
    """From now on each `receive(peek=True)` sees the next datagram of the queue, and leaves it there for
    `discard`.
    """
    sock.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)


def discard(sock: socket.socket, count: int) -> None:
    """Take this many datagrams, which were peeked at, off the queue."""
    for _ in range(count):
        sock.recv(1)


class ReservedDescriptor:
    """A descriptor that is held only to be given up: its number is free for one that comes when no other
    number is.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self.renew()

    @property
    def held(self) -> bool:
        return self._fd is not None

    def renew(self) -> None:
        """Have it again, as soon as there is one."""
        if self._fd is None:
            with contextlib.suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give_up(self) -> bool:
        """Make room for one; False when that has been done already."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        return fd is not None


def receive(
    sock: socket.socket, *, peek: bool = False, spare: ReservedDescriptor | None = None
) -> Datagram | None:
    """Read one datagram from a socket of `bind`; None when there is none. With `peek` it stays in the queue.

    Of an oversized or malformed one we keep what could be read. Descriptors that nobody expects are closed,
    among them the one of BARRIER=1, whose sender waits for exactly that. For one that cannot be had because
    too many are open `spare` is given up; it can be renewed when the update of the datagram has been read.
    """
    flags_in = socket.MSG_CMSG_CLOEXEC | (socket.MSG_PEEK if peek else 0)
    try:
        data, ancillary, flags, _ = sock.recvmsg(_DATAGRAM_LIMIT, _ANCILLARY, flags_in)
    except BlockingIOError:
        return None
    if peek and spare is not None and _lacks_descriptor(data, ancillary, flags) and spare.give_up():
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_PEEK_OFF, sock.getsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF) - len(data)
        )
        data, ancillary, flags, _ = sock.recvmsg(_DATAGRAM_LIMIT, _ANCILLARY, flags_in)
    return _datagram(sock, data, ancillary, flags, peek=peek)


def _lacks_descriptor(data: bytes, ancillary: _Ancillary, flags: int) -> bool:
    """Whether an update came whose file the kernel could not give to us."""
    return (
        bool(flags & socket.MSG_CTRUNC)
        and b"X_ZMSVC_UPDATE_FD=" in data
        and all(kind != socket.SCM_RIGHTS for _, kind, _ in ancillary)
    )


def _datagram(sock: socket.socket, data: bytes, ancillary: _Ancillary, flags: int, *, peek: bool) -> Datagram:
    pid, uid, fds = 0, -1, array.array("i")
    for level, kind, payload in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(payload) == struct.calcsize("3i"):
            pid, uid, _ = struct.unpack("3i", payload)
        elif kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    lines = _lines(data, cut=bool(flags & socket.MSG_TRUNC))
    # The next peek would see the rest of this one as a datagram of its own, and `discard` would then take one
    # too many.
    while peek and flags & socket.MSG_TRUNC:
        _, _, flags, _ = sock.recvmsg(_DATAGRAM_LIMIT, 0, socket.MSG_PEEK)
    keep = 1 if any(key == "X_ZMSVC_UPDATE_FD" for key, _ in lines) else 0
    for fd in fds[keep:]:
        os.close(fd)
    return Datagram(pid=pid, uid=uid, lines=lines, fds=fds[:keep].tolist())


def _lines(data: bytes, *, cut: bool) -> list[tuple[str, str]]:
    raw = data.split(b"\n")
    if cut:
        raw.pop()  # half a value may look like a whole one
    pairs = (line.decode("utf-8", "replace").partition("=") for line in raw)
    return [(key, value) for key, separator, value in pairs if separator and key]


def update_of(datagram: Datagram) -> str | None:
    """The JSON text of the result that a datagram reports, or None. Closes the descriptor that came with it.

    Raises ProtocolError when no file was passed, or one that is not a sealed memory file of at most
    UPDATE_LIMIT bytes.
    """
    try:
        for key, value in datagram.lines:
            if key == "X_ZMSVC_UPDATE":
                return value
            if key == "X_ZMSVC_UPDATE_FD":
                if not datagram.fds:
                    # Or the kernel could not give it to us, because too many are open.
                    raise ProtocolError("cannot read an update: no file came with it")
                return memfd.read(datagram.fds[0], UPDATE_LIMIT).decode("utf-8", "replace")
        return None
    finally:
        while datagram.fds:
            os.close(datagram.fds.pop())
