"""Ctrl-C ends a context in order; a second one kills what has not ended, as people know it from docker
compose.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from context import Context
from releases import edited
from waiting import PATIENCE, wait_for, wait_for_end

from zmsvc.keeper.keeper import SAME_CTRL_C

DEAF = "<command>sh -c 'trap \"\" TERM INT; touch {file}; while :; do sleep 1000; done'</command>"


def stubborn(context: Context, close: str = "pass", **environment: str) -> int:
    """Start a task that ignores the stop signal and has a stop timeout of an hour, and a tame one, which runs the
    line `close` at its end. Return the PID of the first one.
    """
    ignores = context.home / "ignores"
    context.looped("Parent", f"def close(self):\n    {close}\n")
    context.task(
        "deaf",
        "Deaf",
        kind="Command",
        config=DEAF.format(file=ignores),
        service="<stop_timeout>1h</stop_timeout>",
    )
    context.task("tame", "Parent")
    context.start("--transaction", "T", **environment)
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


def test_a_sigint_passed_on_by_a_wrapper_counts_once(context: Context, home: Path) -> None:
    """npm and others forward a signal that the terminal has sent to all processes already. Here it may be an hour
    late, because a busy machine may delay the second signal for longer than the quarter of a second.
    """
    patient = edited(home, "patient", "keeper/keeper.py", r"^SAME_CTRL_C = .*", "SAME_CTRL_C = 3600.0")
    gate = f"while not __import__('os').path.exists('{home}/go'): __import__('time').sleep(0.01)"
    pid = stubborn(context, gate, PYTHONPATH=str(patient))
    assert context.daemon is not None
    context.daemon.send_signal(signal.SIGINT)
    context.task_is("deaf", "stop-sigterm")
    context.daemon.send_signal(signal.SIGINT)
    context.daemon.send_signal(signal.SIGTERM)
    # The keeper reports this end after it has handled both signals.
    (home / "go").touch()
    context.task_is("tame", "stopped")
    assert context.tasks()["deaf"]["sub"] == "stop-sigterm", "neither SIGINT nor SIGTERM hastens it"
    assert Path(f"/proc/{pid}").exists()
    assert context.ctl("events", "-n", "50").stdout.count("killing") == 0
    # Its child ignores the stop signal, too.
    os.killpg(pid, signal.SIGKILL)
    context.wait()
