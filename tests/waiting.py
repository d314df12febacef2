"""Wait for facts with a deadline, so that no test sleeps. This module does not use zmsvc."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

Answer = TypeVar("Answer")

PATIENCE = 25.0
"""Seconds that a fact may take on a busy machine. A test that passes does not come near it."""

_PAUSES = (0.01, 0.1)
"""The shortest and the longest pause between two looks, in seconds. A look may ask the supervisor, which takes CPU
time from what the test waits for. So the pause grows to an eighth of the time waited.
"""


def wait_for(fact: Callable[[], Answer], deadline: float = PATIENCE) -> Answer:
    """Call `fact` until it returns something true, and return that. An AssertionError means: not yet. So does a
    file or process that does not exist: it may come, and an entry of /proc may vanish while `fact` reads it.

    Use this for facts that no event of the kernel announces. The end of a process and a line in a pipe have
    such an event.
    """
    began = time.monotonic()
    while True:
        try:
            answer = fact()
            if answer:
                return answer
            why = f"the last answer was {answer!r}"
        except (AssertionError, FileNotFoundError, ProcessLookupError) as error:
            why = str(error)
        waited = time.monotonic() - began
        if waited > deadline:
            raise AssertionError(f"not true within {deadline:g} s: {why}")
        shortest, longest = _PAUSES
        select.select([], [], [], min(longest, max(shortest, waited / 8)))


def wait_until_still(look: Callable[[], Answer], seconds: float = 0.5) -> None:
    """Wait until what `look` returns has not changed for so long. What changes more often never comes to rest, but
    a process that waits for a CPU may.
    """
    seen, since = look(), time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        now = look()
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    wait_for(still)


def context_switches(pid: int) -> list[str]:
    """Return how often each thread of a process has slept and was interrupted."""
    found = []
    for each in sorted(Path(f"/proc/{pid}/task").iterdir()):
        # A thread may end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = (each / "status").read_text().splitlines()
            found += [line for line in lines if "ctxt_switches" in line]
    return found


def wait_until_it_sleeps(pid: int) -> None:
    """Wait until each thread of a process has slept in three looks in a row. One that spins never does, and one that
    has work does between two pieces of it.
    """
    awake = dict.fromkeys(Path(f"/proc/{pid}/task").iterdir(), 3)

    def all_sleep() -> bool:
        for each in [*awake]:
            try:
                state = (each / "stat").read_text().rpartition(")")[2].split()[0]
            except FileNotFoundError:
                state, awake[each] = "S", 1
            awake[each] = awake[each] - 1 if state == "S" else 3
            if not awake[each]:
                del awake[each]
        assert not awake, f"awake: {', '.join(each.name for each in awake)}"
        return True

    wait_for(all_sleep)


def wait_for_end(pid: int, deadline: float = PATIENCE) -> None:
    """Wait until the process has ended; a zombie has ended, too."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(deadline * 1000), f"process {pid} did not end within {deadline:g} s"
    finally:
        os.close(pidfd)


def stop_process(pid: int) -> None:
    """Send SIGSTOP and wait until each thread has stopped, because one that runs on another CPU goes on for a
    moment.
    """

    def stopped() -> bool:
        states = [
            each.read_text().rpartition(")")[2].split()[0]
            for each in Path(f"/proc/{pid}/task").glob("*/stat")
        ]
        assert {*states} == {"T"}, f"the threads of process {pid} are {', '.join(states) or 'gone'}, not T"
        return True

    os.kill(pid, signal.SIGSTOP)
    wait_for(stopped)


def wait_for_line(stream: IO[bytes], part: str, deadline: float = PATIENCE) -> str:
    """Return the first line of an unbuffered pipe that contains `part`, and drop all lines before it. This
    reads byte by byte, so that no data is left in a buffer that the next call does not have.
    """
    until = time.monotonic() + deadline
    seen, line = b"", b""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    while not (line.endswith(b"\n") and part.encode() in line):
        line = b"" if line.endswith(b"\n") else line
        readable = poll.poll(max(0, until - time.monotonic()) * 1000)
        byte = os.read(stream.fileno(), 1) if readable else b""
        assert byte, (
            f"no line with {part!r} within {deadline:g} s or before the end, only:\n"
            f"{seen.decode(errors='replace')}"
        )
        line, seen = line + byte, seen + byte
    return line.decode(errors="replace").rstrip("\n")
