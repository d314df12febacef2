"""Ctrl-C ends a context in order; a second one kills what has not ended, as people know it from docker
compose.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from context import Context
from waiting import wait_for

DEAF = "<command>sh -c 'trap \"\" TERM INT; while :; do sleep 1000; done'</command>"


def stubborn(context: Context) -> int:
    """Return the PID of a task that ignores the stop signal and has a stop timeout of an hour."""
    context.looped("Parent", "def setup(self):\n    pass\n")
    context.task("deaf", "Deaf", kind="Command", config=DEAF, service="<stop_timeout>1h</stop_timeout>")
    context.task("tame", "Parent")
    context.start("--transaction", "T")
    return int(context.task_is("deaf", "running")["pid"])


def press_until_gone(daemon: subprocess.Popen[bytes], pid: int) -> None:
    """Press Ctrl-C until the daemon has ended. A second one within a quarter of a second counts as the same.
    Stop when the interpreter ends, which a further one would kill.
    """

    def gone() -> bool:
        if Path(f"/proc/{pid}").exists():
            daemon.send_signal(signal.SIGINT)
            return False
        return True

    wait_for(gone)


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
