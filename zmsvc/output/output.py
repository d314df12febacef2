"""Reads the pipes of all tasks, puts the head of an entry before each line, and writes it to the log file and
to standard error.

A task waits while this process is behind: its pipe is full then. So nothing grows here, and a task that
floods gets its share of a turn. What has been read is written before the next pipe is read: a SIGKILL loses
one read of one task, and the lines without an end.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from typing import assert_never

from zmsvc.core import logline
from zmsvc.core.errors import ProtocolError
from zmsvc.host import seqpacket
from zmsvc.host.log_file import LogFile, stamp
from zmsvc.output.standard_error import StandardError
from zmsvc.output.task_pipe import TaskPipe
from zmsvc.protocol import output as protocol

READ = 65536
"""Bytes that one task has of a turn: what its pipe holds."""
LARGEST_PIPE = 1 << 20
"""Bytes that a pipe holds at most, where its task has made it larger (/proc/sys/fs/pipe-max-size)."""
WARNING = 4


class Output:
    """The pipes, the line to the keeper, and where the log goes. Both places may be missing."""

    def __init__(
        self, line: socket.socket, file: LogFile | None, screen: StandardError | None, name: str
    ) -> None:
        self._line = line
        self._file = file
        self._screen = screen
        self._start = logline.start(f"zmsvc-{name}", os.getpid(), "")
        self._taps: dict[int, TaskPipe] = {}
        self._epoll = select.epoll()
        self._events = select.EPOLLIN
        self._epoll.register(line.fileno(), self._events)
        self._losing: OSError | None = None
        self._reports: deque[protocol.Report] = deque()
        """What the keeper does not take now: one for each pipe at most."""
        line.setblocking(False)

    def run(self) -> None:
        """Until the keeper closes the line, and then until the pipes are empty."""
        open_ = True
        while open_:
            for fd, events in self._epoll.poll():
                if fd != self._line.fileno():
                    self._read(fd)
                    continue
                if events & select.EPOLLOUT:
                    self._report()
                if events & ~select.EPOLLOUT and not self._obey():
                    open_ = False
        for fd in list(self._taps):
            # No more than a pipe can hold: a process that is left over may write for ever.
            for _ in range(LARGEST_PIPE // READ):
                if not self._read(fd):
                    break
            if fd in self._taps:
                self._write(self._taps[fd].end(stamp(time.time())))
        self._tell_losses()
        if self._screen is not None:
            self._screen.close()

    # --- the keeper

    def _obey(self) -> bool:
        """Take one order; False when the keeper has closed the line."""
        try:
            got = seqpacket.receive(self._line)
            if got is None:
                return False
            order = protocol.ORDERS.decode(got[0])
        except (BlockingIOError, ProtocolError):
            return True  # The latter is of a keeper of another release.
        match order:
            case protocol.TakePipe():
                self._take(order, got[1]["read"])
            case protocol.Reopen():
                self._reopen()
            case protocol.Ping():
                self._tell(protocol.Pong())
            case _:
                assert_never(order)
        return True

    def _tell(self, report: protocol.Report) -> None:
        self._reports.append(report)
        self._report()

    def _report(self) -> None:
        """Send what the keeper takes. It may be stopped, and tasks must not wait for that."""
        try:
            while self._reports:
                seqpacket.send(self._line, protocol.REPORTS.encode(self._reports[0]))
                self._reports.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._reports.clear()  # The keeper is gone, which the next look at the line tells.
        events = select.EPOLLIN | (select.EPOLLOUT if self._reports else 0)
        if events != self._events:
            self._epoll.modify(self._line.fileno(), events)
            self._events = events

    def _take(self, about: protocol.TakePipe, fd: int) -> None:
        os.set_blocking(fd, False)
        self._taps[fd] = TaskPipe(about)
        self._epoll.register(fd, select.EPOLLIN)

    def _reopen(self) -> None:
        if self._file is None:
            return
        try:
            self._file.reopen()
        except OSError as error:
            self._say(f"Cannot open {self._file.path} anew: {error.strerror}")

    # --- pipes

    def _read(self, fd: int) -> bool:
        """Take one read of a pipe; False when there is nothing more for now, or for ever."""
        tap = self._taps[fd]
        try:
            data = os.read(fd, READ)
        except BlockingIOError:
            return False
        if data:
            self._write(tap.take(data, stamp(time.time())))
            return True
        self._write(tap.end(stamp(time.time())))
        self._epoll.unregister(fd)
        os.close(fd)
        del self._taps[fd]
        self._tell(protocol.Ended(pipe=tap.about.pipe))
        return False

    def _write(self, entries: bytes) -> None:
        if not entries:
            return
        if self._screen is not None:
            self._screen.show(entries)
        if self._file is None:
            return
        error = self._file.write(entries)
        if error is None:
            self._tell_losses()
        elif self._losing is None:
            self._losing = error
            if self._screen is not None:
                self._screen.show(self._entry(f"Cannot write to {self._file.path}: {error.strerror}"))

    def _tell_losses(self) -> None:
        """Say how much is missing, as soon as that can be written."""
        if self._losing is None or self._file is None:
            return
        lines, size = self._file.lost_lines, self._file.lost_bytes
        said = self._entry(f"{lines} lines ({size} bytes) of tasks are missing here: {self._losing.strerror}")
        if self._file.write(said) is None:
            self._losing = None
            self._file.lost_lines = self._file.lost_bytes = 0

    def _say(self, text: str) -> None:
        self._write(self._entry(text))

    def _entry(self, text: str) -> bytes:
        return f"{stamp(time.time())} {self._start}{logline.NAMES[WARNING]}: {logline.body(text)}".encode(
            "utf-8", "surrogateescape"
        )
