"""Send and receive sd_notify datagrams: a process reports to its supervisor, and the supervisor reads the
report. Other modules interpret it.

The sender is the notifier of sdnotify without its traps. sdnotify connects once, and sends nothing any more
after another process has bound the socket; it writes latin-1; it drops every error; it passes no descriptors.
If the queue is full (10 datagrams by default), `notify` waits for the reader. So a message may be late, but
is not lost.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import logging
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path

from sdnotify import SystemdNotifier

from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.core.frozen import frozen
from zmsvc.host import directories
from zmsvc.host.kernel import memfd

UPDATE_LIMIT = 1 << 20
"""The most bytes of JSON in one update."""

UPDATE_INLINE = 64 << 10
"""The most bytes of JSON inside the datagram; a larger update travels as a sealed memory file."""

DROPPED = "X_ZMSVC_DROPPED"
"""The key of the device's counters of refused and closed connections, for the keeper: `name:count`, separated
by blanks."""

HEALTH = "X_ZMSVC_HEALTH"
"""The key by which a probe process reports the health of its task (`core.probing.Health`)."""

_UPDATE, _POISON = "X_ZMSVC_UPDATE", "X_ZMSVC_POISON"
"""The keys of the texts that travel as a sealed memory file if they are large: the result of a task, and its
report about a message that it could not handle.
"""
_FILE = "_FD"
"""The end of such a key if the text is in a file, whose descriptor comes with the datagram."""
_IN_FILES = frozenset({_UPDATE + _FILE, _POISON + _FILE})
TOPICS = "X_ZMSVC_TOPICS"
"""The key by which a task declares the topics that it hears, as a JSON list, before it is ready."""
PUBLISHES = "X_ZMSVC_PUBLISHES"
"""The key of the topics that it publishes. Without it, it may publish any."""
_DECLARED_LIMIT = 16384
"""The most characters of a declaration."""

HEARD, SILENT = "X_ZMSVC_HEARD", "X_ZMSVC_SILENT"
"""The keys of a topic: that of the `<ready>` of a task in Python, on which it has published its first
message; one on which a task was silent for longer than its `<expect>` allows.
"""

STATUS_LIMIT = 4096
"""The most characters of a status text. A program that sends a longer one itself has it cut by the reader."""
_DATAGRAM_LIMIT = UPDATE_INLINE + 4096
_SO_PEEK_OFF = 42  # asm-generic/socket.h; Python has no name for it
# Room for the credentials and a few descriptors. The kernel drops further descriptors without installing
# them.
_ANCILLARY = socket.CMSG_SPACE(struct.calcsize("3i")) + socket.CMSG_SPACE(8 * 4)
MAX_DESCRIPTORS = 253
"""The most descriptors in one datagram: SCM_MAX_FD of the kernel."""
# Errors of a socket whose other end is gone. Another process has bound the path, or will.
_STALE = frozenset({errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.ENOENT, errno.EPIPE})

_RESULT = frozenset({"X_ZMSVC_UPDATE", "X_ZMSVC_UPDATE_FD"})

_Ancillary = list[tuple[int, int, bytes]]

log = logging.getLogger(__name__)


class Notifier(SystemdNotifier):  # type: ignore[misc]  # sdnotify has no types
    """A notifier of the supervisor or systemd. Threads may share it.

    `path` is a socket's path or an `@abstract` name, by default $NOTIFY_SOCKET; without one every call does
    nothing. `task` adds `X_ZMSVC_TASK` to every datagram, for tasks that share a process. If there is no
    receiver, that is logged once, and only `update` raises an exception: a task goes on without its other
    reports.
    """

    def __init__(self, path: str | None = None, task: str | None = None) -> None:
        self.debug = True  # makes sdnotify raise its errors
        self._address = socket_address(path or os.environ.get("NOTIFY_SOCKET", ""))
        self._prefix = f"X_ZMSVC_TASK={task}\n" if task else ""
        self._unreachable = False
        self.socket = None
        if self._address:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                self.socket.connect(self._address)
            except OSError:
                pass  # `notify` connects again.

    def fileno(self) -> int:
        """Return the socket's descriptor, or -1 without a socket."""
        return self.socket.fileno() if self.socket else -1

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        if self.socket:
            self.socket.close()
            self.socket = None

    def never_wait(self) -> None:
        """From now on lose a datagram if the receiver has no room for it."""
        if self.socket is not None:
            self.socket.setblocking(False)

    def notify(self, *lines: str, fds: Sequence[int] = ()) -> bool:
        """Send the lines (`KEY=value`) and the descriptors as one datagram. Return False if they are lost, or
        there is no receiver.
        """
        try:
            return self.offer("\n".join(lines), fds)
        except BlockingIOError:
            return False

    def offer(self, text: str, fds: Sequence[int] = ()) -> bool:
        """Send the lines and the descriptors as one datagram. Return False if there is no receiver. After
        `never_wait` it raises BlockingIOError if the receiver has no room.
        """
        if self.socket is None:
            return False
        text = self._prefix + text
        try:
            try:
                self._send(text, fds)
            except OSError as error:
                if error.errno not in _STALE:
                    raise
                self.socket.connect(self._address)
                self._send(text, fds)
        except BlockingIOError:
            raise
        except OSError as error:
            if not self._unreachable:
                self._unreachable = True
                log.warning(
                    "Cannot notify %s: %s; notifications are lost until it can be reached",
                    self._address.replace("\0", "@"),
                    error.strerror,
                )
            return False
        self._unreachable = False
        return True

    def _send(self, text: str, fds: Sequence[int]) -> None:
        assert self.socket is not None
        data = text.encode("utf-8", "replace")
        if fds:
            self.socket.sendmsg([data], _rights(fds))
        else:
            # sdnotify encodes as latin-1. This restores exactly the bytes that were decoded as latin-1.
            super().notify(data.decode("latin-1"))

    def ready(self) -> None:
        """Report that the start is complete."""
        self.notify("READY=1")

    def status(self, text: str) -> None:
        """Report one line for the operator; line breaks become spaces and a long text is cut."""
        self.notify(status_line(text))

    def missed(self, count: int) -> None:
        """Report how many messages of the bus this process has missed so far."""
        self.notify(f"X_ZMSVC_MISSED={count}")

    def declare(self, topics: Sequence[str], publishes: Sequence[str] | None) -> None:
        """Declare what this process hears and publishes. A declaration that is too long is not sent, as if
        nothing were known.
        """
        lines = [f"{TOPICS}={json.dumps(topics)}"]
        if publishes is not None:
            lines.append(f"{PUBLISHES}={json.dumps(publishes)}")
        if sum(map(len, lines)) <= _DECLARED_LIMIT:
            self.notify(*lines)

    def heard(self, topic: str) -> None:
        """Report the first message on the topic that makes this task ready."""
        self.notify(f"{HEARD}={topic}")

    def silent(self, topic: str) -> None:
        """Report that this task has published nothing on an expected topic for too long."""
        self.notify(f"{SILENT}={topic}")

    def watchdog(self) -> None:
        """Report that this process still works."""
        self.notify("WATCHDOG=1")

    def stopping(self) -> None:
        """Report that the end has begun."""
        self.notify("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """Request this much time, from now, for the start or stop that is in progress."""
        self.notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def reloading(self) -> None:
        """Report that the configuration is being reloaded; `ready()` reports the end."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def update(self, json_text: str, sequence: int = 0, *, barrier: int | None = None) -> bool:
        """Send a result, a JSON object of at most UPDATE_LIMIT bytes. Return False if the queue is full.

        `sequence` numbers the results of one process from 1. By it a new supervisor recognizes results that
        its predecessor has handled; a result without a number is handled twice if the supervisor dies between
        the two. `barrier` is a descriptor whose copies are all closed when the supervisor has saved what
        follows from the result. Raises ValueError with both numbers for more bytes, and OSError if the result
        cannot be sent, so no result is lost without notice.
        """
        size = len(json_text) if json_text.isascii() else len(json_text.encode())
        if size > UPDATE_LIMIT:
            raise ValueError(f"cannot update: {size} bytes of JSON, at most {UPDATE_LIMIT} are allowed")
        number = f"X_ZMSVC_SEQ={sequence}\n" if sequence else ""
        after, fds = ("", []) if barrier is None else ("\nBARRIER=1", [barrier])
        return self._offer_text(_UPDATE, json_text, size, before=number, after=after, fds=fds)

    def poison(self, json_text: str) -> bool:
        """Report a message that this process cannot handle (`core.poison.as_json`). Return False if the queue
        is full. Raises OSError.
        """
        return self._offer_text(_POISON, json_text, len(json_text.encode()))

    def _offer_text(
        self, key: str, text: str, size: int, *, before: str = "", after: str = "", fds: Sequence[int] = ()
    ) -> bool:
        if size <= UPDATE_INLINE:
            return self._offer(f"{before}{key}={text}{after}", fds)
        fd = memfd.sealed("zmsvc-update", text.encode())
        try:
            return self._offer(f"{before}{key}{_FILE}=1{after}", [fd, *fds])
        finally:
            os.close(fd)

    def _offer(self, text: str, fds: Sequence[int] = ()) -> bool:
        """Send one datagram if there is room; return False otherwise. Raises OSError."""
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
    """Return the `STATUS=` line for any text."""
    return "STATUS=" + " ".join(text[:STATUS_LIMIT].split())


def socket_address(path: str) -> str:
    """Return a socket's path as the kernel takes it: `@` stands for the NUL of an abstract name."""
    return "\0" + path[1:] if path.startswith("@") else path


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
    return (text, None) if key == _UPDATE else (None, text)


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
    lines = [line for line in datagram.lines if line[0] not in (key, key + _FILE)]
    return replace(datagram, lines=[*lines, (key, text)], fds=[])


def _text_of(datagram: Datagram) -> tuple[str, str | None]:
    """Return the first text that may come as a file, with its key."""
    try:
        for key, value in datagram.lines:
            if key in (_UPDATE, _POISON):
                return key, value
            if key in _IN_FILES:
                if not datagram.fds:
                    # No descriptor was sent, or the kernel could not install it because too many are open.
                    raise ProtocolError("cannot read an update: no file came with it")
                text = memfd.read(datagram.fds[0], UPDATE_LIMIT).decode("utf-8", "replace")
                return key.removesuffix(_FILE), text
        return "", None
    finally:
        while datagram.fds:
            os.close(datagram.fds.pop())
