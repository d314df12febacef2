"""Ctrl-C ends a context in order; a second one kills what has not ended, as people know it from docker
compose.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from pathlib import Path

from context import Context
from waiting import PATIENCE, wait_for, wait_for_end

from zmsvc.keeper.keeper import SAME_CTRL_C

DEAF = "<command>sh -c 'trap \"\" TERM INT; touch {file}; while :; do sleep 1000; done'</command>"


def stubborn(context: Context) -> int:
    """Start a task that ignores the stop signal and has a stop timeout of an hour. Return its PID."""
    ignores = context.home / "ignores"
    context.looped("Parent", "def setup(self):\n    pass\n")
    context.task(
        "deaf",
        "Deaf",
        kind="Command",
        config=DEAF.format(file=ignores),
        service="<stop_timeout>1h</stop_timeout>",
    )
    context.task("tame", "Parent")
    context.start("--transaction", "T")
    wait_for(ignores.exists)
    return int(context.task_is("deaf", "running")["pid"])


def press_until_gone(daemon: subprocess.Popen[bytes], pid: int) -> None:
    """Press Ctrl-C until the task has ended. A second one within a quarter of a second counts as the same.
    This waits after each, because a further one would kill the interpreter of a daemon that is about to end.
    """
    until = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until, "the task goes on"
        daemon.send_signal(signal.SIGINT)
        with contextlib.suppress(AssertionError):
            wait_for_end(pid, 2 * SAME_CTRL_C)


def test_a_second_ctrl_c_kills_what_has_not_ended(context: Context) -> None:
    pid = stubborn(context)
    assert context.daemon is not None
    daemon = context.daemon
    daemon.send_signal(signal.SIGINT)
    context.task_is("deaf", "stop-sigterm")
    context.task_is("tame", "stopped")

    press_until_gone(daemon, pid)
    assert context.wait() == 0


def test_a_sigint_passed_on_by_a_wrapper_counts_once(context: Context) -> None:
    """npm and others forward a signal that the terminal has sent to all processes already."""
    pid = stubborn(context)
    assert context.daemon is not None
    context.daemon.send_signal(signal.SIGINT)
    context.daemon.send_signal(signal.SIGINT)
    context.task_is("deaf", "stop-sigterm")
    context.daemon.send_signal(signal.SIGTERM)
    context.task_is("tame", "stopped")
    context.ask(verb="status")
    assert context.tasks()["deaf"]["sub"] == "stop-sigterm", "SIGTERM does not hasten it"
    assert Path(f"/proc/{pid}").exists()
    assert context.ctl("events", "-n", "50").stdout.count("killing") == 0
    press_until_gone(context.daemon, pid)
    context.wait()
