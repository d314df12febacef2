"""Send sd_notify datagrams: a process reports to its supervisor.

The sender is the notifier of sdnotify without its traps. sdnotify connects once, and sends nothing any more
after another process has bound the socket; it writes latin-1; it drops every error; it passes no descriptors.
If the queue is full (10 datagrams by default), `notify` waits for the reader. So a message may be late, but
is not lost.
"""

from __future__ import annotations

import array
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Sequence

from sdnotify import SystemdNotifier

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

UPDATE, POISON = "X_ZMSVC_UPDATE", "X_ZMSVC_POISON"
"""The keys of the texts that travel as a sealed memory file if they are large: the result of a task, and its
report about a message that it could not handle.
"""
IN_FILE = "_FD"
"""The end of such a key if the text is in a file, whose descriptor comes with the datagram."""
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
# Errors of a socket whose other end is gone. Another process has bound the path, or will.
_STALE = frozenset({errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET, errno.ENOENT, errno.EPIPE})

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
        """As `notify` with these lines, but raise BlockingIOError if the receiver has no room after
        `never_wait`.
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
        return self._offer_text(UPDATE, json_text, size, before=number, after=after, fds=fds)

    def poison(self, json_text: str) -> bool:
        """Report a message that this process cannot handle (`core.poison.as_json`). Return False if the queue
        is full. Raises OSError.
        """
        return self._offer_text(POISON, json_text, len(json_text.encode()))

    def _offer_text(
        self, key: str, text: str, size: int, *, before: str = "", after: str = "", fds: Sequence[int] = ()
    ) -> bool:
        if size <= UPDATE_INLINE:
            return self._offer(f"{before}{key}={text}{after}", fds)
        fd = memfd.sealed("zmsvc-update", text.encode())
        try:
            return self._offer(f"{before}{key}{IN_FILE}=1{after}", [fd, *fds])
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
