"""Turn each line that a task prints from Python into a log record with the journal fields."""

from __future__ import annotations

import codecs
import functools
import io
import logging
import threading
from collections.abc import Iterator
from typing import Any

_LINE_LIMIT = 48 << 10  # journald's own LineMax
_LEVELS = (50, 50, 50, 40, 30, 20, 20, 10)  # of logging, by syslog's priorities


class LineWriter(io.TextIOBase):
    """A replacement of `sys.stdout` that passes lines directly to a log handler. If the lines went through
    loggers, a handler of the user that writes to stderr would call itself for ever. `<3>` at a line's start
    sets its priority, as everywhere under systemd.

    Each thread has its own incomplete line. It is kept until its line break or `close`; `flush` does not
    write it. Programs that a task starts inherit the descriptor `fd`, not this object.
    """

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, handler: logging.Handler, *, name: str, level: int, fd: int) -> None:
        self._handler = handler
        self._name = name
        self._level = level
        self._fd = fd
        self._begun: dict[int, str] = {}

    @functools.cached_property
    def buffer(self) -> io.RawIOBase:
        """A stream for code that prints bytes; invalid UTF-8 is replaced."""
        return _Bytes(self)

    def write(self, text: str) -> int:
        thread = threading.get_ident()
        begun = self._begun.pop(thread, "") + text
        *whole, rest = begun.split("\n")
        for line in whole:
            self._emit(line)
        while len(rest) > _LINE_LIMIT:
            self._emit(rest[:_LINE_LIMIT])
            rest = rest[_LINE_LIMIT:]
        if rest:
            self._begun[thread] = rest
        return len(text)

    def _emit(self, line: str) -> None:
        line = line.rstrip("\r")
        level, extra = self._level, {}
        if len(line) > 2 and line[0] == "<" and line[2] == ">" and line[1] in "01234567":
            extra, level, line = {"PRIORITY": line[1]}, _LEVELS[int(line[1])], line[3:]
        if not line:
            return  # journald drops empty lines as well
        for part in _parts(line):
            record = logging.LogRecord(self._name, level, "", 0, part, None, None)
            record.journal = extra
            self._handler.handle(record)

    def flush(self) -> None:
        """Do nothing: complete lines are written already."""

    def close(self) -> None:
        if not self.closed:
            for thread in list(self._begun):
                self._emit(self._begun.pop(thread, ""))
        super().close()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False


def _parts(line: str) -> Iterator[str]:
    for start in range(0, len(line), _LINE_LIMIT):
        yield line[start : start + _LINE_LIMIT]


class _Bytes(io.RawIOBase):
    """The bytes interface of a LineWriter."""

    def __init__(self, lines: LineWriter) -> None:
        self._lines = lines
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: Any) -> int:
        self._lines.write(self._decoder.decode(bytes(data)))
        return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._lines.fileno()
