"""Write the log to the standard error of the daemon, for a person or the log of a container. The reader may
stop reading.
"""

from __future__ import annotations

import os
import threading
from collections import deque

from zmsvc.core import printable

MOST = 1 << 20
"""The limit in bytes of lines that wait for the reader. Further lines are left out and counted."""
LAST = 2.0
"""Seconds that `close` waits for the reader."""
WRITE = 4096
"""Bytes of one write: as much as is blocked if the reader stops reading."""


class StandardError:
    """A writer thread, so that neither the log file nor the tasks wait for the reader. It sleeps while there
    is nothing to write.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._terminal = os.isatty(fd)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self.left_out = 0
        """The number of lines that were left out since the last notice about them."""
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def show(self, entries: bytes) -> None:
        """Queue complete lines. Never blocks."""
        with self._changed:
            if self._size + len(entries) > MOST:
                self.left_out += entries.count(b"\n")
                return
            if self.left_out:
                notice = (
                    b"zmsvc-output: %d lines are not shown here: the reader was too slow\n" % self.left_out
                )
                self.left_out = 0
                self._append(notice)
            self._append(entries)
            self._changed.notify()

    def _append(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)

    def close(self) -> None:
        """Wait until everything is written, for at most LAST seconds."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(LAST)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ending:
                        return
                    self._changed.wait()
                data = self._waiting.popleft()
            self._write(data)
            with self._changed:
                self._size -= len(data)

    def _write(self, data: bytes) -> None:
        if self._terminal:
            data = printable.lines(data.decode("utf-8", "replace")).encode()
        try:
            for at in range(0, len(data), WRITE):
                os.write(self._fd, data[at : at + WRITE])
        except OSError:
            return  # The terminal is closed or the pipe has no reader; the log file has the lines.
