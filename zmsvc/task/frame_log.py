"""Two memory files that hold the messages of a LastValue. The descriptor store of the task keeps them, so the
next process of the task finds the messages there.

One of the files is in use: each message is appended to it. `rewrite` copies the messages that are still
wanted to the other file, which is then in use. A process can be killed at any moment: a message that was not
written whole is ignored, and the file with the higher generation is the one in use.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence

from zmsvc.core.last_values import Key, LogPosition

_MAGIC = b"zmsvclv1"
_HEAD = struct.Struct("<8sQ")
"""The magic and the generation. The generation 0 is that of a file which is not in use."""
_RECORD = struct.Struct("<II")
"""The size and the checksum of the message that follows."""


class FrameLog:
    """The two files. Their descriptors belong to this object's user."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = [*fds]
        generations = [_generation(fd) for fd in fds]
        self._current = generations.index(max(generations))
        self._generation = generations[self._current]
        self._end = _HEAD.size
        if not self._generation:
            self._begin(self._fds[self._current])
            self._commit()

    @staticmethod
    def create() -> int:
        """Return the descriptor of a new file."""
        return os.memfd_create("zmsvc last values", os.MFD_CLOEXEC)

    @property
    def end(self) -> int:
        """The size of the file in use."""
        return self._end

    def recover(self) -> Iterator[tuple[LogPosition, bytes]]:
        """Yield the messages that an earlier process has written, in their order. Call this once, before
        `append`.
        """
        fd = self._fds[self._current]
        size = os.fstat(fd).st_size
        while (frame := self._record(fd, size)) is not None:
            place = LogPosition(self._end + _RECORD.size, len(frame))
            self._end = place.offset + place.size
            yield place, frame
        # The rest is the beginning of a message whose writer was killed.
        os.ftruncate(fd, self._end)

    def _record(self, fd: int, size: int) -> bytes | None:
        head = os.pread(fd, _RECORD.size, self._end)
        if len(head) < _RECORD.size:
            return None
        length, checksum = _RECORD.unpack(head)
        if self._end + _RECORD.size + length > size:
            return None
        frame = os.pread(fd, length, self._end + _RECORD.size)
        return frame if zlib.crc32(frame) == checksum else None

    def append(self, frame: bytes) -> LogPosition:
        """Write a message. Raises OSError."""
        return self._append(self._fds[self._current], frame)

    def _append(self, fd: int, frame: bytes) -> LogPosition:
        data = memoryview(_RECORD.pack(len(frame), zlib.crc32(frame)) + frame)
        at = self._end
        while data:
            written = os.pwrite(fd, data, at)
            data, at = data[written:], at + written
        place = LogPosition(self._end + _RECORD.size, len(frame))
        self._end = at
        return place

    def read(self, place: LogPosition) -> bytes:
        """Return a message."""
        return os.pread(self._fds[self._current], place.size, place.offset)

    def rewrite(self, places: Mapping[Key, LogPosition]) -> dict[Key, LogPosition]:
        """Copy these messages to the other file, and use that. Return their new places. Raises OSError; then
        nothing has changed.
        """
        old_end, other = self._end, 1 - self._current
        try:
            self._begin(self._fds[other])
            moved = {key: self._append(self._fds[other], self.read(place)) for key, place in places.items()}
        except OSError:
            os.ftruncate(self._fds[other], 0)
            self._end = old_end
            raise
        self._current = other
        self._commit()
        os.ftruncate(self._fds[1 - other], 0)
        return moved

    def _begin(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.pwrite(fd, _HEAD.pack(_MAGIC, 0), 0)
        self._end = _HEAD.size

    def _commit(self) -> None:
        self._generation += 1
        os.pwrite(self._fds[self._current], _HEAD.pack(_MAGIC, self._generation), 0)


def _generation(fd: int) -> int:
    head = os.pread(fd, _HEAD.size, 0)
    if len(head) < _HEAD.size:
        return 0
    magic, generation = _HEAD.unpack(head)
    return int(generation) if magic == _MAGIC else 0
