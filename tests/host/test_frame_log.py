"""The memory files that hold the messages of a LastValue."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmsvc.core.last_values import LogPosition
from zmsvc.task.frame_log import FrameLog

KEYS = [("TX", sender, "t") for sender in "abc"]


@pytest.fixture
def fds() -> Iterator[list[int]]:
    found = [FrameLog.create(), FrameLog.create()]
    yield found
    for fd in found:
        os.close(fd)


def recovered(fds: list[int]) -> list[bytes]:
    log = FrameLog(fds)
    found = [(place, frame) for place, frame in log.recover()]
    assert [log.read(place) for place, _ in found] == [frame for _, frame in found]
    return [frame for _, frame in found]


def test_the_next_process_finds_what_was_written(fds: list[int]) -> None:
    log = FrameLog(fds)
    frames = [b"one", b"", b"x" * 100_000]
    places = [log.append(each) for each in frames]
    assert [log.read(each) for each in places] == frames
    assert recovered(fds) == frames
    # The files may come in any order.
    assert recovered(fds[::-1]) == frames


def test_a_message_that_was_not_written_whole_is_ignored(fds: list[int]) -> None:
    log = FrameLog(fds)
    log.append(b"one")
    begins = log.end
    log.append(b"two" * 1000)
    whole = os.pread(fds[0], 10_000, 0)
    for size in (begins, begins + 1, begins + 8, begins + 9, len(whole) - 1):
        os.ftruncate(fds[0], size)
        log = FrameLog(fds)
        assert [frame for _, frame in log.recover()] == [b"one"]
        log.append(b"three")
        assert recovered(fds) == [b"one", b"three"]
        os.ftruncate(fds[0], 0)
        os.pwrite(fds[0], whole, 0)
    os.pwrite(fds[0], b"?", begins + 100)
    assert recovered(fds) == [b"one"]


def test_a_rewrite_keeps_what_is_wanted_and_frees_the_rest(fds: list[int]) -> None:
    log = FrameLog(fds)
    places = {}
    for number in range(300):
        places[KEYS[number % 3]] = log.append(b"%d" % number * 100)
    wanted = {key: places[key] for key in KEYS[1:]}
    moved = log.rewrite(wanted)
    assert [log.read(moved[key]) for key in KEYS[1:]] == [b"298" * 100, b"299" * 100]
    assert sum(os.fstat(fd).st_size for fd in fds) < 1000
    log.append(b"more")
    assert recovered(fds) == [b"298" * 100, b"299" * 100, b"more"]
    moved = log.rewrite({KEYS[1]: moved[KEYS[1]]})
    assert recovered(fds) == [b"298" * 100]


def test_a_rewrite_that_was_cut_off_changes_nothing(fds: list[int], tmp_path: Path) -> None:
    """A kill between two system calls is a file of that moment."""
    log = FrameLog(fds)
    place = log.append(b"one")
    old = os.pread(fds[0], 1000, 0)
    log.rewrite({KEYS[0]: place})
    new = os.pread(fds[1], 1000, 0)
    for size in range(len(new)):
        os.ftruncate(fds[0], 0)
        os.pwrite(fds[0], old, 0)
        os.ftruncate(fds[1], 0)
        # The generation is written last.
        os.pwrite(fds[1], (new[:8] + bytes(8) + new[16:])[:size], 0)
        assert recovered(fds) == [b"one"]
    os.pwrite(fds[1], new, 0)
    assert recovered(fds) == [b"one"]


def test_a_rewrite_without_memory_leaves_all_as_it_was(fds: list[int]) -> None:
    log = FrameLog(fds)
    place = log.append(b"one")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 20, 26):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                log.rewrite({KEYS[0]: place})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert log.read(log.append(b"two")) == b"two"
    assert log.read(place) == b"one"
    assert LogPosition(0, 0) < place
