"""Read the pipes of all tasks, put the head of an entry before each line, and write it to the log file and to
standard error, or to the journal. Report the first line that has the pattern of its pipe.

While this process is behind, pipes are full and their tasks wait. So this process does not grow, and a task
that floods gets one read per turn. Data is written before the next pipe is read. So SIGKILL loses at most the
data of one read, and incomplete lines.
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
from zmsvc.output.journal_log import JournalLog
from zmsvc.output.line_search import LIMIT, LineSearch, SearchTooLong
from zmsvc.output.standard_error import StandardError
from zmsvc.output.task_pipe import TaskPipe
from zmsvc.protocol import output as protocol

READ = 65536
"""Bytes that are read from one task per turn: the capacity of its pipe."""
LARGEST_PIPE = 1 << 20
"""The largest capacity of a pipe that a task has enlarged (/proc/sys/fs/pipe-max-size)."""
WARNING = 4


class Output:
    """The pipes, the channel to the keeper, and the targets of the log: a file and standard error, each
    optional, or the journal.
    """

    def __init__(
        self,
        channel: socket.socket,
        file: LogFile | None,
        stderr: StandardError | None,
        name: str,
        journal: JournalLog | None = None,
    ) -> None:
        self._channel = channel
        self._file = file
        self._stderr = stderr
        self._journal = journal
        self._line_search = LineSearch()
        self._start = logline.start(f"zmsvc-{name}", os.getpid(), "")
        self._pipes: dict[int, TaskPipe] = {}
        self._epoll = select.epoll()
        self._events = select.EPOLLIN
        self._epoll.register(channel.fileno(), self._events)
        self._write_error: OSError | None = None
        self._reports: deque[protocol.Report] = deque()
        """Reports for which the channel has no room now, at most two for each pipe."""
        channel.setblocking(False)

    def run(self) -> None:
        """Run until the keeper closes the channel, then until the pipes are empty."""
        channel_open = True
        while channel_open:
            for fd, events in self._epoll.poll():
                if fd != self._channel.fileno():
                    self._read(fd)
                    continue
                if events & select.EPOLLOUT:
                    self._send_reports()
                if events & ~select.EPOLLOUT and not self._handle_order():
                    channel_open = False
        for fd in list(self._pipes):
            # Read at most the capacity of a pipe: a process that has outlived its task may write for ever.
            for _ in range(LARGEST_PIPE // READ):
                if not self._read(fd):
                    break
            if fd in self._pipes:
                self._write_lines(self._pipes[fd], self._pipes[fd].end())
        self._report_losses()
        if self._stderr is not None:
            self._stderr.close()

    # --- the keeper

    def _handle_order(self) -> bool:
        """Handle one order; return False if the keeper has closed the channel."""
        try:
            received = seqpacket.receive(self._channel)
            if received is None:
                return False
            order = protocol.ORDERS.decode(received[0])
        except (BlockingIOError, ProtocolError):
            return True  # ProtocolError: the keeper is of another release.
        match order:
            case protocol.TakePipe():
                self._add_pipe(order, received[1]["read"])
            case protocol.Reopen():
                self._reopen()
            case protocol.Ping():
                self._queue_report(protocol.Pong())
            case _:
                assert_never(order)
        return True

    def _queue_report(self, report: protocol.Report) -> None:
        self._reports.append(report)
        self._send_reports()

    def _send_reports(self) -> None:
        """Send reports while the channel has room. The keeper may be stopped, and tasks must not wait for
        it.
        """
        try:
            while self._reports:
                seqpacket.send(self._channel, protocol.REPORTS.encode(self._reports[0]))
                self._reports.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._reports.clear()  # The keeper is gone; the next receive on the channel notices.
        events = select.EPOLLIN | (select.EPOLLOUT if self._reports else 0)
        if events != self._events:
            self._epoll.modify(self._channel.fileno(), events)
            self._events = events

    def _add_pipe(self, order: protocol.TakePipe, fd: int) -> None:
        os.set_blocking(fd, False)
        self._pipes[fd] = TaskPipe(order)
        if order.line and (problem := self._line_search.add(fd, order.line)):
            self._log(f"Cannot search the output of {_whose(order)} for its <ready>: {problem}")
        self._epoll.register(fd, select.EPOLLIN)

    def _reopen(self) -> None:
        if self._file is None:
            return
        try:
            self._file.reopen()
        except OSError as error:
            self._log(f"Cannot reopen {self._file.path}: {error.strerror}")

    # --- pipes

    def _read(self, fd: int) -> bool:
        """Read a pipe once; return False if it is empty or has ended."""
        pipe = self._pipes[fd]
        try:
            data = os.read(fd, READ)
        except BlockingIOError:
            return False
        if data:
            lines = pipe.take(data)
            # Report before the lines are written: writing may take long, and what was read is lost when this
            # process is killed.
            self._search(fd, pipe, lines)
            self._write_lines(pipe, lines)
            return True
        self._write_lines(pipe, pipe.end())
        self._epoll.unregister(fd)
        os.close(fd)
        del self._pipes[fd]
        self._line_search.drop(fd)
        self._queue_report(protocol.Ended(pipe=pipe.about.pipe))
        return False

    def _search(self, fd: int, pipe: TaskPipe, lines: list[bytes]) -> None:
        try:
            if self._line_search.found(fd, lines):
                self._queue_report(protocol.LineSeen(pipe=pipe.about.pipe))
        except SearchTooLong:
            self._log(
                f"The search for the line of <ready> in the output of {_whose(pipe.about)} took more than "
                f"{LIMIT:g} s of CPU time: no further line is searched"
            )

    def _write_lines(self, pipe: TaskPipe, lines: list[bytes]) -> None:
        if self._journal is not None:
            self._journal.write(pipe.about, lines)
        else:
            self._write(pipe.entries(lines, stamp(time.time())))

    def _write(self, entries: bytes) -> None:
        if not entries:
            return
        if self._stderr is not None:
            self._stderr.show(entries)
        if self._file is None:
            return
        error = self._file.write(entries)
        if error is None:
            self._report_losses()
        elif self._write_error is None:
            self._write_error = error
            if self._stderr is not None:
                self._stderr.show(self._entry(f"Cannot write to {self._file.path}: {error.strerror}"))

    def _report_losses(self) -> None:
        """Log the number of lost lines, as soon as the file can be written."""
        if self._write_error is None or self._file is None:
            return
        lines, size = self._file.lost_lines, self._file.lost_bytes
        entry = self._entry(
            f"{lines} lines ({size} bytes) of tasks are missing here: {self._write_error.strerror}"
        )
        if self._file.write(entry) is None:
            self._write_error = None
            self._file.lost_lines = self._file.lost_bytes = 0

    def _log(self, text: str) -> None:
        if self._journal is not None:
            self._journal.warn(text)
        else:
            self._write(self._entry(text))

    def _entry(self, text: str) -> bytes:
        return f"{stamp(time.time())} {self._start}{logline.NAMES[WARNING]}: {logline.body(text)}".encode(
            "utf-8", "surrogateescape"
        )


def _whose(about: protocol.TakePipe) -> str:
    return f"{about.transaction}/{about.task}"
