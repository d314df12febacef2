"""Nothing polls: an idle supervisor, keeper and device wake up only for their watchdog."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from context import Context, Subscriber
from waiting import PATIENCE, wait_for

SECONDS = 4


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_an_idle_context_makes_no_system_calls(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    for number in range(5):
        context.task(f"ts_{number}", "Echo")
    # The watchdog interval is long here, so no process wakes up in the seconds of the test.
    context.start(WATCHDOG_USEC="120000000")
    status = context.status()
    tasks = [task["pid"] for task in context.tasks().values()]
    watched = {
        "supervisor": status["pid"],
        "keeper": status["keeper_pid"],
        "device": status["device_pid"],
        "task": tasks[0],
    }
    for name, pid in watched.items():
        wait_for(lambda name=name, pid=pid: is_idle(pid, home / f"trace-{name}"), 2 * PATIENCE)  # type: ignore[misc]


def is_idle(pid: int, trace: Path) -> bool:
    """Return True if a process makes no system call for some seconds. On a busy machine it may still have work of its
    start.
    """
    # When strace attaches, a process shows once the system call in which it waits. That line is not a wake-up.
    command = [
        "timeout",
        "--signal=INT",
        str(SECONDS),
        "strace",
        "-qq",
        "-r",
        "-p",
        str(pid),
        "-o",
        str(trace),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 124, -signal.SIGINT):
        raise RuntimeError(done.stderr)
    assert late_calls(trace.read_text()) == []
    return True


def late_calls(trace: str) -> list[str]:
    """Return the system calls of a trace with relative times, without those of its first second, which belong
    to the start.
    """
    at, found = 0.0, []
    for line in trace.splitlines():
        after, _, call = line.strip().partition(" ")
        at += float(after)
        if at > 1.0 and not re.search(r"<unfinished|<detached|resuming|restart_syscall", call):
            found.append(line)
    return found
