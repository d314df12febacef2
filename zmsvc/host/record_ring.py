"""The files of a record: a ring of segments in a directory beside the state file. The oldest segments are
removed before a new one could exceed the bound of the ring.

Only the daemon's user can read them, because facts have reports of tasks. A link, or a directory or file of
another user, in their place is refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from zmsvc.core.errors import PlaceError
from zmsvc.host import directories

SEGMENT = 8 << 20
"""The largest segment, in bytes."""
RING = 32 << 20
"""The largest sum of all segments, in bytes."""
MAX_SEGMENTS = 100
"""The largest number of segments: each start of a supervisor begins one."""

_NAME = re.compile(r"[0-9]{10}")


class SegmentFile:
    """The segment that is being written. A write that fails leaves no part of it behind."""

    def __init__(self, fd: int, limit: int) -> None:
        self._fd = fd
        self._limit = limit
        self.size = 0

    def has_room(self, size: int) -> bool:
        return self.size + size <= self._limit

    def write(self, data: bytes) -> None:
        """Append whole lines. Raises OSError, also if the segment would become too large."""
        if not self.has_room(len(data)):
            raise OSError(
                f"a segment of it has at most {self._limit >> 20} MiB, in which the context file and the "
                "last updates of all tasks have to fit; remove <record>, or divide the tasks among several "
                "contexts"
            )
        if os.write(self._fd, data) != len(data):
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise OSError("the disk took only a part")
        self.size += len(data)

    def close(self) -> None:
        os.close(self._fd)


class RecordRing:
    """The segments in `directory`, which is made with the first one."""

    def __init__(self, directory: Path, *, ring: int = RING, segment: int = SEGMENT) -> None:
        self._directory = directory
        self._ring, self.segment = ring, segment

    def begin(self) -> SegmentFile:
        """Begin a new segment. Raises OSError and PlaceError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._directory, 0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = os.open(self._directory, flags)
        try:
            self._check(os.fstat(directory))
            sizes = _sizes(directory)
            self._make_room(directory, sizes)
            name = f"{max(map(int, sizes), default=0) + 1:010}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return SegmentFile(os.open(name, flags, 0o600, dir_fd=directory), self.segment)
        finally:
            os.close(directory)

    def _check(self, about: os.stat_result) -> None:
        if about.st_uid != os.geteuid():
            raise PlaceError(f"{self._directory} belongs to {directories.user(about.st_uid)}")
        if others := directories.writers(about):
            raise PlaceError(f"{self._directory} may be changed by {others}")

    def _make_room(self, directory: int, sizes: dict[str, int]) -> None:
        """Remove the oldest segments until there is room for a new one."""
        left = dict(sorted(sizes.items()))
        while left and (sum(left.values()) + self.segment > self._ring or len(left) >= MAX_SEGMENTS):
            oldest = next(iter(left))
            os.unlink(oldest, dir_fd=directory)
            del left[oldest]


def _sizes(directory: int) -> dict[str, int]:
    """Return the sizes of the segments by their names. Files of other names are left alone."""
    found = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                found[entry.name] = entry.stat(follow_symlinks=False).st_size
    return found


def read(directory: Path) -> list[bytes]:
    """Return the contents of the newest segments that make up a ring, oldest first. Raises OSError and
    PlaceError.
    """
    held = directories.hold(directory, os.stat(directory.parent).st_uid)
    try:
        found: list[bytes] = []
        for name in sorted(_sizes(held), reverse=True)[: MAX_SEGMENTS + 1]:
            found.append(_contents(name, held))
            # The owner of the directory may have put further files there.
            if sum(map(len, found)) > RING:
                break
        return found[::-1]
    finally:
        os.close(held)


def _contents(name: str, directory: int) -> bytes:
    try:
        fd = directories.open_file(Path(name), os.O_RDONLY, dir_fd=directory)
    except FileNotFoundError:
        return b""  # The supervisor has removed it meanwhile.
    with open(fd, "rb") as file:
        return file.read(SEGMENT) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
