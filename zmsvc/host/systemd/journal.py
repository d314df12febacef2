"""Log with fields to journald, by its native protocol, or as lines to stderr, to a file, or to the process
that reads the pipe of a task. Callers decide what is logged. A call of a logger never raises, and nothing
grows without limit: a long message is cut, a long line is split, and if journald does not read for a few
seconds, the entry goes to stderr.
"""

from __future__ import annotations

import array
import errno
import logging
import os
import select
import socket
import struct
import time
import traceback
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from zmsvc.core import logline, printable
from zmsvc.host.kernel import memfd
from zmsvc.host.log_file import LogFile, offer, stamp
from zmsvc.host.systemd import journal_socket, record_fields

SOCKET = journal_socket.SOCKET
STREAM = "/run/systemd/journal/stdout"

MESSAGE_ID: Mapping[str, str] = MappingProxyType(
    {
        "started": "3b158317ffc34036979dec15661307e9",
        "stopped": "00994d55c883414db6880c8c5fae3f5e",
        "failed": "4aaf60a693754baeb4aea6750d3a6b39",
        "failure-action": "63790af957a24e3c8dbd9e02da356463",
        "start-after": "1007819f89d44c04bbd31a6854a77af5",
        "stop-after": "99d38aef1b55489286a3336b08f78dca",
        "dependency": "edde5dc9fb5f4a0ab1f018a809d4c418",
        "unplaced": "8d0f4c62b1e94b7ea35c7d20f96b1e48",
        "host-joined": "6550e677653c439b8c8a8466a345f1f8",
        "host-silent": "5a6f14291f2949c099ae28591f1dba8a",
        "host-lost": "982855fcb57a4023bd910c31f1280dc1",
        "host-given-up": "1e8acaee8eef43c19e4367e0164a5b54",
        "launching": "56fd76c7913e441da70228a2c553aab7",
        "rule": "123153efd34c4476a20bc8f18a32126e",
        "adopted": "7e155ff54a214de8bcf9925d60f949f3",
        "back-off": "c56475d3ae124b54b42294f65742bdc2",
        "stopping": "c6bf4b6308ff4a0fb45a681e7e197fff",
        "killing": "31c77cd970e54b0db0e07047897195f0",
        "survivor": "2425ff1df2a74ab19637cef8c9a131b8",
        "lost": "f383487a64a54678a5f976aae9ac0968",
        "stranger": "b0563571042743aeb4ed4c80f07e05d2",
        "main-process": "548aacd21ea9428c8dafdf62045f740a",
        "signaled": "e746b3d380da400180b4c19ba65e8162",
        "reloading": "0f6c1d3b8a5e4b0d9c27f1e4a6b3d815",
        "reload-finished": "a9d2f4178c6b4e53b1e07c95d83fa264",
        "reload-failed": "5b8e7a30d1f94c62a4d59e03c7b6f128",
        "reset-failed": "63c9d2d680e24c65bfc5105c26f57863",
        "rule-refused": "d91032d0d892455d9648973898caa486",
        "enabled": "d1a8e56b7d0c4c32a41f8c6f3e2b9a57",
        "disabled": "6e94b0f2c73d4f0e9b5a18d4c6f7e203",
        "unhealthy": "668a3fa679c64532a530e8f3b8761352",
        "healthy": "702d4f4e7ee74777a277e03cfd9b5257",
        "probe-ended": "62e50002dfe34015a4bc4d87416b4e83",
        "quarantined": "5e0f3c8a91d24b7cbb6a20f7d84ce1b3",
        "supervisor": "b4c211f05854438a8adc5dc1bea1c44a",
        "device": "912aa82da6b640949c067747d060aef5",
        "context": "7bfe8268251e41be8a65d332c5cfe59b",
        "dropped": "84330c4f0a704d129e5c4a7e8ae21cd8",
    }
)
"""The MESSAGE_ID of every lifecycle event; `zmsvc.catalog` explains each of them."""

_MESSAGE_LIMIT = 1 << 20
_SEND_SECONDS = 5
_DIGITS = frozenset("01234567")
_DEBUG = 7
_PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

# The fields of the thread, or asyncio task, that logs: tasks that share a process need them. It is global
# because a context variable has to be.
_here: ContextVar[Mapping[str, str]] = ContextVar("zmsvc.journal", default=MappingProxyType({}))


def scope(fields: Mapping[str, str]) -> None:
    """Add these fields to every later record of this thread."""
    _here.set(fields)


class Sink(logging.Handler):
    """A handler that writes records as lines. The attribute `journal` of a record (a dict, set by `extra=`)
    adds fields or replaces ours.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[str, str] = {}
        self._file: LogFile | None = None
        self.fds: tuple[int, ...] = ()
        """Descriptors to write to, besides that of the file. They must stay open."""
        self._terminals: frozenset[int] = frozenset()
        """The descriptors in `fds` that are terminals."""

    def open(
        self, identifier: str, fields: Mapping[str, str], fds: Iterable[int], file: LogFile | None = None
    ) -> None:
        """Write to these descriptors and this file, which the sink owns from now on. The earlier ones are
        closed.
        """
        self._shut()
        self._file = file
        self._fields = {"SYSLOG_IDENTIFIER": identifier, **fields}
        self.fds = tuple(fds)
        self._terminals = frozenset(fd for fd in self.fds if os.isatty(fd))

    def reopen(self) -> None:
        """Reopen the file, if there is one: the next record goes to the file that the path names now. Raises
        OSError.
        """
        if self._file is not None:
            self._file.reopen()

    def emit(self, record: logging.LogRecord) -> None:
        # The broad excepts keep the promise of this module: a log call never raises.
        try:
            text = self.format(record)
        except Exception as error:
            text = f"{record.msg!r} (cannot format it: {error})"
        try:
            extra = getattr(record, "journal", {})
            self._write(record, _cut(text), {**self._fields, **_here.get(), **extra})
        except Exception:
            return

    def close(self) -> None:
        self._shut()
        super().close()

    def _shut(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = ()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, record: logging.LogRecord, text: str, fields: Mapping[str, Any]) -> None:
        data = _line(record, text, fields)
        if self._file is not None:
            self._file.write(data)
        for fd in self.fds:
            try:
                shown = (
                    printable.lines(data.decode("utf-8", "replace")).encode()
                    if fd in self._terminals
                    else data
                )
                if self._file is None:
                    os.write(fd, shown)
                else:
                    # The file has everything. If a supervisor waited for the reader, its watchdog would kill
                    # it.
                    offer(fd, shown)
            except OSError:
                continue  # an error of one target must not silence the others


class _Piped(Sink):
    """A sink that writes encoded records to the task's pipe. The output process, which reads it, adds the
    task.
    """

    def _write(self, record: logging.LogRecord, text: str, fields: Mapping[str, Any]) -> None:
        number, whose = _priority_of(record, fields), str(fields.get("ZMSVC_TASK") or "")
        data = logline.encode_record(
            number, str(fields["SYSLOG_IDENTIFIER"]), whose, record_fields.added(text, record)
        )
        for fd in self.fds:
            _write_all(fd, data)


class _Native(Sink):
    """A sink that sends journald's native datagrams to `path`: one entry each, with any fields."""

    _socket: socket.socket | None = None

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._path = path

    def open(
        self, identifier: str, fields: Mapping[str, str], fds: Iterable[int], file: LogFile | None = None
    ) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        super().open(identifier, fields, [sock.fileno()])
        self._socket = sock

    def _shut(self) -> None:
        if self._socket is not None:
            self._socket.detach()
        super()._shut()

    def _write(self, record: logging.LogRecord, text: str, fields: Mapping[str, Any]) -> None:
        entry: dict[str, Any] = {
            "MESSAGE": text,
            "PRIORITY": _priority(record.levelno),
            "LOGGER": record.name,
        }
        if record.pathname:
            entry |= {"CODE_FILE": record.pathname, "CODE_LINE": record.lineno, "CODE_FUNC": record.funcName}
        if record.exc_info and record.exc_info[0] is not None:
            entry["EXCEPTION"] = _cut("".join(traceback.format_exception(*record.exc_info)))
        try:
            self._send(journal_socket.encode(record_fields.fields(record) | entry | dict(fields)))
        except OSError:
            os.write(2, _line(record, text, fields))

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            fd = memfd.sealed("zmsvc-journal", data)
            try:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
                self._socket.sendmsg([b""], rights, 0, self._path)
            finally:
                os.close(fd)


def _cut(text: str) -> str:
    return text if len(text) <= _MESSAGE_LIMIT else f"{text[:_MESSAGE_LIMIT]} [{len(text)} characters, cut]"


def _priority(level: int) -> int:
    return next((priority for floor, priority in _PRIORITY if level >= floor), 7)


def level_of(priority: int | None) -> int:
    """Return the lowest level of `logging` whose records have this priority of syslog(3) or a more severe
    one. None means info.
    """
    if priority is None:
        return logging.INFO
    if priority >= _DEBUG:
        return logging.DEBUG
    return next((floor for floor, number in reversed(_PRIORITY) if number <= priority), logging.CRITICAL + 1)


def _write_all(fd: int, data: bytes) -> None:
    """Write to a pipe whose reader may be slow. The pipe may be non-blocking, because a program that
    inherited it has made it so for all its users.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            select.select((), (fd,), ())


def _priority_of(record: logging.LogRecord, fields: Mapping[str, Any]) -> int:
    priority = fields.get("PRIORITY")
    return int(priority) if priority in _DIGITS else _priority(record.levelno)


def _line(record: logging.LogRecord, text: str, fields: Mapping[str, Any]) -> bytes:
    """Return the record as a line of the log file."""
    whose = logline.about(*(str(fields.get(key) or "") for key in ("ZMSVC_TRANSACTION", "ZMSVC_TASK")))
    begin = logline.start(fields["SYSLOG_IDENTIFIER"], os.getpid(), whose)
    head = f"{stamp(record.created)} {begin}{logline.NAMES[_priority_of(record, fields)]}: "
    return (head + logline.body(record_fields.added(text, record))).encode("utf-8", "surrogateescape")


def configure(
    *,
    identifier: str,
    fields: Mapping[str, str],
    target: str,
    level: int = logging.INFO,
    pipe: int | None = None,
    journald: str = SOCKET,
) -> Sink:
    """Send all log records to `target`, and nowhere else: `journal`, `stderr`, `/path` or `/path+stderr`.

    `pipe`, a descriptor of a task's output, replaces every target but the journal; the sink owns it from now
    on. `journald` is the path of journald's socket; if there is none, `journal` means stderr. If the file
    cannot be opened, the records go to stderr, and the first one reports the error. Call this again after a
    fork that gives the process another identity. Returns the sink, for a `LineWriter`.
    """
    problem: OSError | None = None
    kind: type[Sink] = (
        _Piped if pipe is not None else _Native if target == "journal" and os.path.exists(journald) else Sink
    )
    fds: list[int] = [] if pipe is None else [pipe]
    file = None
    if kind is Sink:
        fds, file, problem = _line_targets(target)
    root = logging.getLogger()
    # Use the handler from before the fork again: adding one would clear the cache of every logger.
    if [type(each) for each in root.handlers] != [kind]:
        for old in root.handlers[:]:
            root.removeHandler(old)
            old.close()
        root.addHandler(_Native(journald) if kind is _Native else kind())
    sink = root.handlers[0]
    assert isinstance(sink, Sink)
    sink.open(identifier, fields, fds, file)
    if root.level != level:
        root.setLevel(level)
    if problem:
        root.warning("Cannot log to %s, logging to stderr: %s", problem.filename, problem.strerror)
    return sink


def reopen() -> None:
    """Reopen the log file of this process, if it has one. A failure is logged to the old file, which stays
    open.
    """
    for sink in logging.getLogger().handlers:
        try:
            if isinstance(sink, Sink):
                sink.reopen()
        except OSError as error:
            logging.getLogger().warning(
                "Cannot reopen %s, writing to the old file: %s", error.filename, error.strerror
            )


def _line_targets(target: str) -> tuple[list[int], LogFile | None, OSError | None]:
    path = target.removesuffix("+stderr")
    if not path.startswith("/"):
        return [_stderr()], None, None
    try:
        return [_stderr()] if path != target else [], LogFile(path), None
    except OSError as error:
        return [_stderr()], None, error


_SEEN_S = 1.0
"""The most seconds that the start of a program waits for journald, which may hang."""
_EMPTY = b"\n" * 1024


def _stderr() -> int:
    """Return a duplicate of the current stderr: daemonizing replaces descriptor 2."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _send_and_wait(sock: socket.socket, head: bytes) -> None:
    """Send the head of a stream and empty lines, and wait until journald has looked up the sender, which it
    does at the first line.

    With the smallest send buffer, a message of 1 kB fills a Unix socket until the peer has read all of it. So
    when the socket is writable again, journald has read the message. When it has read the second message, it
    has processed the first one. It is not enough to wait for the first one: journald may be preempted after
    it has read a message and before it looks up the sender, for longer than a short program lives.
    """
    room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    writable = select.poll()
    writable.register(sock, select.POLLOUT)
    until = time.monotonic() + _SEEN_S
    for message in (head + _EMPTY, _EMPTY):
        sock.sendall(message)
        if not writable.poll(max(0.0, until - time.monotonic()) * 1000):
            break
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room // 2)  # The kernel doubles the value.


def stream(identifier: str, target: str, *, seen: bool = False, journald: str = STREAM) -> int:
    """Return a descriptor (close-on-exec) to use as stdout and stderr of other programs. Never fails: the
    last resort is our own stderr.

    journald's descriptor survives its restart in systemd's fd store, so no line is lost. A stream has no
    fields but the identifier; `<3>` at a line's start sets its priority. With `seen`, wait until journald has
    looked up this process: a program may end at once. `journald` is the path of its socket for streams.
    """
    path = target.removesuffix("+stderr")
    try:
        if path.startswith("/"):
            return LogFile(path).fd
        if target == "journal":
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(journald)
                sock.shutdown(socket.SHUT_RD)
                # The lines are: identifier, unit (empty, since the cgroup decides), priority, level prefix,
                # forward to syslog, kmsg, console. An empty line follows. journald drops it, but reads the
                # cgroup of this process now. Without it, journald would do so at the first line, and the line
                # of a process that has ended by then would belong to no unit
                # (https://github.com/systemd/systemd/issues/2913).
                head = f"{identifier}\n\n6\n1\n0\n0\n0\n".encode()
                if seen:
                    _send_and_wait(sock, head)
                else:
                    sock.sendall(head + b"\n")
                return sock.detach()
    except OSError:
        pass
    return _stderr()
