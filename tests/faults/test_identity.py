"""A PID alone identifies no process: after a reboot, under another keeper, or when the kernel has given the
number to an unrelated process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator

import pytest
from context import Context
from waiting import stop_process, wait_for_end

from zmsvc.host.kernel import pidfds, processes


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process outside of the context."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def state(context: Context) -> contextlib.closing[sqlite3.Connection]:
    """Return the open state file, for a `with` block."""
    return contextlib.closing(
        sqlite3.connect(context.home / "state" / context.name / "state.db", isolation_level=None)
    )


def killed_as_by_a_power_cut(context: Context) -> int:
    """End the context without an orderly stop; return the PID that its task had."""
    pid, supervisor = context.tasks()["ts_1"]["pid"], context.status()["pid"]
    stop_process(supervisor)
    assert context.daemon is not None
    context.daemon.kill()
    context.wait()
    os.kill(supervisor, signal.SIGKILL)
    for each in (supervisor, pid):
        wait_for_end(each)
    return int(pid)


@pytest.mark.parametrize("rebooted", [False, True], ids=["the keeper died", "the machine was rebooted"])
def test_an_unrelated_process_with_the_pid_of_a_task_is_left_alone(
    context: Context, stranger: subprocess.Popen[bytes], rebooted: bool
) -> None:
    """The state file names a task's PID, which an unrelated process has by now."""
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    old = killed_as_by_a_power_cut(context)
    with state(context) as db:
        row = db.execute("SELECT row FROM tasks").fetchone()[0]
        assert f'"pid":{old}' in row
        db.execute(
            "UPDATE tasks SET pid = ?, row = ?",
            (stranger.pid, row.replace(f'"pid":{old}', f'"pid":{stranger.pid}')),
        )
        if rebooted:
            db.execute("UPDATE meta SET value = 'another boot' WHERE name = 'boot_id'")
    context.start()
    task = context.tasks("T")["ts_1"]
    assert (task["sub"], task["pid"] == stranger.pid, task["restarts"]) == ("running", False, 0)
    assert context.ask(verb="restart", transaction="T", tasks=["ts_1"])["ok"]
    assert context.stop() == 0
    assert stranger.poll() is None


def test_launches_of_another_boot_are_ignored(context: Context) -> None:
    """This holds even if the keeper had the same ID: times and numbers of another boot mean nothing."""
    context.looped("Echo")
    context.task(
        "ts_1", "Echo", rules={"on_fail": ("restart", "ts_1")}, service="<restart_delay>1h</restart_delay>"
    )
    context.start("--transaction", "T")
    os.kill(context.tasks()["ts_1"]["pid"], signal.SIGKILL)
    context.task_is("ts_1", "back-off")
    assert context.stop() == 0
    with state(context) as db:
        db.execute("UPDATE meta SET value = 'another boot' WHERE name = 'boot_id'")
    context.start()
    (transaction,) = context.status()["transactions"]
    assert (transaction["id"], transaction["tasks"][0]["sub"]) == ("T", "running")


def test_a_signal_reaches_the_intended_process_or_none(stranger: subprocess.Popen[bytes]) -> None:
    started = processes.start_time(stranger.pid)
    assert started is not None
    assert not pidfds.send_signal(stranger.pid, started - 1, signal.SIGKILL), (
        "the number was another process's then"
    )
    assert stranger.poll() is None
    assert pidfds.send_signal(stranger.pid, started, signal.SIGKILL)
    assert stranger.wait() == -signal.SIGKILL
    assert not pidfds.send_signal(stranger.pid, started, signal.SIGKILL), "it is gone"
