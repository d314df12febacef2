"""Turn the data of one task's pipe into lines, and these into entries of the log file. Pure: the caller
passes the time stamp, and writes the returned bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmsvc.core import logline
from zmsvc.core.values import RUNNING_ID
from zmsvc.protocol.output import TakePipe


class TaskPipe:
    """One pipe, with its incomplete line of at most `logline.LINE_LIMIT` bytes."""

    def __init__(self, about: TakePipe) -> None:
        self.about = about
        self._rest = b""
        self._start = logline.start(about.identifier, about.pid, logline.about(about.transaction, about.task))

    def take(self, data: bytes) -> list[bytes]:
        """Return all complete lines. A longer one than the limit is several."""
        *whole, rest = (self._rest + data).split(b"\n")
        if len(rest) > logline.LINE_LIMIT:
            *cut, rest = logline.pieces(rest)
            whole += cut
        self._rest = rest
        return whole

    def end(self) -> list[bytes]:
        """Return the incomplete last line."""
        rest, self._rest = self._rest, b""
        return [rest]

    def entries(self, lines: Iterable[bytes], stamp: str) -> bytes:
        """Return the entries of these lines. Empty lines are dropped, as journald does."""
        plain = self._head(stamp, logline.INFO)
        out = bytearray()
        for line in lines:
            # This fast path is for plain lines of ordinary length: a task may write a million lines a second.
            if line[:1] in b"\x1e<\r" or len(line) > logline.LINE_LIMIT:
                for piece in logline.pieces(line):
                    out += self._entry(piece, stamp)
            else:
                out += plain + line.rstrip(b"\r") + b"\n"
        return bytes(out)

    def _head(self, stamp: str, priority: int, start: str | None = None) -> bytes:
        return f"{stamp} {self._start if start is None else start}{logline.NAMES[priority]}: ".encode(
            "utf-8", "surrogateescape"
        )

    def _entry(self, line: bytes, stamp: str) -> bytes:
        if logline.is_record(line):
            try:
                return self._record(line, stamp)
            except ValueError:
                pass  # A program of the task has written the first character of a record, but not a record.
        priority, text = logline.prefixed(line.rstrip(b"\r"))
        return (
            self._head(stamp, logline.INFO if priority is None else priority) + text + b"\n" if text else b""
        )

    def _record(self, line: bytes, stamp: str) -> bytes:
        """Return the entry of a record of Python's logging. In a shared process the record itself names its
        task.
        """
        priority, identifier, task, text = logline.decode_record(line)
        start = None
        if not self.about.task and RUNNING_ID.fullmatch(task):
            start = logline.start(identifier, self.about.pid, logline.about(self.about.transaction, task))
        return self._head(stamp, priority, start) + logline.body(text).encode("utf-8", "surrogateescape")
