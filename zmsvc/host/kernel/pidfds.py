"""Signal exactly one process, and wait for its end. A PID alone may mean another process by then."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable

from zmsvc.host.kernel.processes import start_time


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signal exactly this process through a pidfd. Return False if it is gone or its PID has been reused."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Read the start time after the pidfd has been opened: from then on the pidfd stands for one process.
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def kill_each(pids: Iterable[int]) -> None:
    """SIGKILL each of these processes, if its PID still means the same process. After an error for one
    process, go on with the others.
    """
    for pid in pids:
        with contextlib.suppress(OSError):
            started = start_time(pid)
            if started is not None:
                send_signal(pid, started, signal.SIGKILL)


def wait_for_end(pid: int, seconds: float) -> bool:
    """Block until a process has ended; return False if it has not in time."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)
