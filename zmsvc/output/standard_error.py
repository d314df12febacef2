"""The standard error of the daemon, where the log goes to a person or to a container's log as well. Its
reader may stop reading.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from zmsvc.core import printable

MOST = 1 << 20
"""Bytes that wait for a reader; what comes meanwhile is left out and counted."""
LAST = 2.0
"""Seconds that the reader has at the end."""
WRITE = 4096
"""Bytes of one write: what the reader does not take holds no more than that."""


class StandardError:
    """A thread that writes, so that neither the file nor the tasks wait for the reader. It sleeps while
    there is nothing to write.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._terminal = os.isatty(fd)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self.left_out = 0
        """Lines since the reader was last told."""
        self._news = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def show(self, entries: bytes) -> None:
        """Have whole lines written. Never waits."""
        with self._news:
            if self._size + len(entries) > MOST:
                self.left_out += entries.count(b"\n")
                return
            if self.left_out:
                told = (
                    b"zmsvc-output: %d lines are not shown here, whose reader was too slow\n" % self.left_out
                )
                self.left_out = 0
                self._append(told)
            self._append(entries)
            self._news.notify()

    def _append(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def close(self) -> None:
        """Wait until the reader has had all of it, or for as long as it may take."""
        with self._news:
            self._ending = True
            self._news.notify()
        self._thread.join(LAST)

    def _live(self) -> None:
        while True:
            with self._news:
                while not self._waiting:
                    if self._ending:
                        return
                    self._news.wait()
                data = self._waiting.popleft()
            self._write(data)
            with self._news:
                self._size -= len(data)

    def _write(self, data: bytes) -> None:
        if self._terminal:
            data = printable.lines(data.decode("utf-8", "replace")).encode()
        try:
            for at in range(0, len(data), WRITE):
                os.write(self._fd, data[at : at + WRITE])
        except OSError:
            return  # A terminal that was closed, a pipe without a reader: the log file has it.
