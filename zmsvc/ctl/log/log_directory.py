"""The log file of a context, opened and followed through one open directory, so that no other user can
redirect the reader by a link or a rename.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from zmsvc.core.errors import PlaceError
from zmsvc.host import directories
from zmsvc.host.kernel import linux

_PORTION = 256 << 10
MAX_LINE = 1 << 20
"""Bytes after which an unfinished line is shown as it is."""


class LogDirectory:
    """The open directory of a log file that user `owner` writes. Raises PlaceError for a directory of another
    user, and OSError.
    """

    def __init__(self, path: Path, owner: int) -> None:
        self._name = path.name
        self._directory = directories.hold(path.parent, owner)

    def __enter__(self) -> LogDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)

    def open(self) -> IO[bytes]:
        """Open the file for reading. Raises PlaceError for a link, a device or a FIFO, which could hang the
        reader, and OSError.
        """
        return open(directories.open_file(Path(self._name), os.O_RDONLY, dir_fd=self._directory), "rb")

    def follow(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield each line after the file's position, for ever, also after a rotation or truncation. inotify
        reports new data.
        """
        with linux.Inotify() as inotify:
            inotify.watch(self._directory, linux.IN_CREATE | linux.IN_MOVED_TO)
            inotify.watch(file.fileno(), linux.IN_MODIFY)
            lines = _Lines(file)
            while True:
                newer = self._newer(lines.file)
                # Read after this check. Otherwise a line of a renamed file could be missed.
                yield from lines.more()
                if newer is None:
                    inotify.wait()
                    continue
                yield from lines.end()
                lines = _Lines(newer)
                inotify.watch(newer.fileno(), linux.IN_MODIFY)

    def _newer(self, file: IO[bytes]) -> IO[bytes] | None:
        """Return the file that has replaced this one under its name; None while there is none."""
        try:
            about = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            if os.path.samestat(about, os.fstat(file.fileno())):
                return None
            return self.open()
        except (OSError, PlaceError):
            return None


class _Lines:
    """The lines of a file that grows."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self._rest = b""

    def more(self) -> Iterator[bytes]:
        """Yield each complete new line; of a truncated file all lines."""
        if os.fstat(self.file.fileno()).st_size < self.file.tell():
            self.file.seek(0)
            self._rest = b""
        while data := self.file.read(_PORTION):
            *lines, self._rest = (self._rest + data).split(b"\n")
            yield from (line + b"\n" for line in lines)
            if len(self._rest) > MAX_LINE:
                yield from self.end()

    def end(self) -> Iterator[bytes]:
        """Yield the rest of an unfinished line."""
        if self._rest:
            yield self._rest + b"\n"
            self._rest = b""
