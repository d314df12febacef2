"""Append to a log file, reopen it when its path names another file, and count lost lines. Write to a terminal
or pipe without waiting.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import time

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK
"""O_NONBLOCK: a FIFO at the path must not block this process."""
_MODE = 0o640
_NAMED_ELSEWHERE = (errno.ENOENT, errno.ENOTDIR)


def stamp(at: float) -> str:
    """Return a time (seconds since the epoch) in the format of the file."""
    seconds, zone = _second(int(at))
    return f"{seconds}.{int(at * 1000) % 1000:03}{zone}"


@functools.lru_cache(maxsize=1)
def _second(at: int) -> tuple[str, str]:
    """Return a time without its fraction, and its zone. The result is cached, because many lines have the
    same second.
    """
    moment = time.localtime(at)
    return time.strftime("%Y-%m-%dT%H:%M:%S", moment), time.strftime("%z", moment)


def offer(fd: int, data: bytes) -> bool:
    """Write to a terminal or a pipe as much as it takes at once. Return False if a part is left. Raises
    OSError. A pipe that is ready takes PIPE_BUF bytes without blocking. A stopped terminal (Ctrl-S) is not
    ready.
    """
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    for at in range(0, len(data), select.PIPE_BUF):
        if not ready.poll(0):
            return False
        os.write(fd, data[at : at + select.PIPE_BUF])
    return True


class LogFile:
    """A log file that follows its path.

    After `mv`, lines go into the old file until the path names another one, or until `reopen`, because
    logrotate itself creates the new file with its owner and mode. After `rm`, the next write creates a new
    file.
    """

    def __init__(self, path: str, *, later: bool = False) -> None:
        """Open the file, or with `later` at the first write. Raises OSError."""
        self.path = path
        self.lost_lines = 0
        self.lost_bytes = 0
        self._torn = False
        """True if the last line was written only in part."""
        self.fd = -1
        self._identity = (-1, -1)
        if not later:
            self._open()

    def _open(self) -> None:
        fd = os.open(self.path, _APPEND, _MODE)
        if self.fd >= 0:
            os.close(self.fd)
        about = os.fstat(fd)
        self.fd, self._identity, self._torn = fd, (about.st_dev, about.st_ino), False

    def reopen(self) -> None:
        """Open the file that the path names now, or create it. Raises OSError; the old file then stays
        open.
        """
        self._open()

    def follow(self) -> None:
        """Reopen if the path names another file. Otherwise this takes one system call. Raises OSError."""
        try:
            about = os.lstat(self.path)
        except OSError as error:
            if self.fd < 0 or (error.errno in _NAMED_ELSEWHERE and os.fstat(self.fd).st_nlink == 0):
                self._open()
            return
        if (about.st_dev, about.st_ino) != self._identity:
            self._open()

    def write(self, data: bytes) -> OSError | None:
        """Append complete lines to the file that the path names. If lines are lost, count them and return the
        error.
        """
        try:
            self.follow()
        except OSError as error:
            # The new file at the path cannot be opened. Write to the old one, if there is one.
            if self.fd < 0:
                self._lose(len(data), data)
                return error
        left = memoryview(b"\n" + data if self._torn else data)
        try:
            while left:
                left = left[os.write(self.fd, left) :]
        except OSError as error:
            self._lose(len(data), bytes(left))
            return error
        self._torn = False
        return None

    def _lose(self, size: int, rest: bytes) -> None:
        self._torn = len(rest) < size or self._torn
        self.lost_lines += rest.count(b"\n")
        self.lost_bytes += len(rest)

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
