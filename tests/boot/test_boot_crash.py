"""Crashes of the supervisor, of the keeper and of systemd's own state: which processes end with them, and
which go on.
"""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, alive, processes_of_user, task
from machine import Machine
from waiting import wait_for


def kill(machine: Machine, pid: int) -> None:
    """Send SIGKILL. The PID must not be 0, which would be the process group of the test."""
    assert pid > 1
    machine.sh(f"kill -KILL {pid}")


def supervisor_other_than(context: Installed, old: int) -> bool:
    return bool(context.status()["pid"] not in (0, None, old))


def test_a_killed_supervisor_is_replaced_and_no_task_notices(talker: Installed) -> None:
    before, tasks = talker.status(), talker.pids()
    kill(talker.machine, before["pid"])
    wait_for(lambda: supervisor_other_than(talker, before["pid"]))
    after = talker.status()
    assert talker.pids() == tasks
    assert after["keeper_pid"] == before["keeper_pid"]
    assert after["restarts"] == before["restarts"] + 1
    assert talker.show("ActiveState") == "active"
    assert talker.show("NRestarts") == "0"


def test_a_task_that_dies_while_there_is_no_supervisor_is_not_forgotten(talker: Installed) -> None:
    supervisor = talker.status()["pid"]
    ((key, pid),) = talker.pids().items()
    talker.machine.sh(f"kill -KILL {supervisor} {pid}")
    wait_for(lambda: talker.tasks()[key]["exit"])
    ended = talker.tasks()[key]
    assert (ended["state"], ended["exit"]["signal"]) == ("failed", "SIGKILL")


def test_a_killed_keeper_takes_all_along_and_systemd_starts_the_context_afresh(talker: Installed) -> None:
    before, keeper, tasks = talker.processes(), talker.status()["keeper_pid"], talker.pids()
    kill(talker.machine, keeper)
    wait_for(lambda: talker.show("NRestarts") == "1" and talker.show("ActiveState") == "active")
    assert alive(talker.machine, before) == []
    assert talker.pids().keys() == tasks.keys(), "what was active is active again, once"
    # This may take a moment: between the two questions a program of the task may have ended. An orphan would
    # stay.
    wait_for(lambda: processes_of_user(talker.machine) == set(talker.processes()))


def test_a_context_that_was_stopped_in_the_middle_of_a_crash_leaves_nothing(talker: Installed) -> None:
    before = talker.processes()
    keeper = talker.status()["keeper_pid"]
    talker.machine.sh(f"kill -KILL {keeper}; systemctl stop {talker.unit}")
    assert alive(talker.machine, before) == []
    assert processes_of_user(talker.machine) == set()
    assert talker.show("ActiveState") in ("inactive", "failed")


def test_a_hung_supervisor_is_replaced_and_no_task_notices(
    context: Callable[..., Installed], machine: Machine
) -> None:
    hung = context("Hung", task("ts_100", "Talker"))
    machine.put(f"/run/systemd/system/{hung.unit}.d/watchdog.conf", "[Service]\nWatchdogSec=5s\n")
    machine.sh("systemctl daemon-reload")
    try:
        hung.start()
        before, tasks = hung.status(), hung.pids()
        machine.sh(f"kill -STOP {before['pid']}")
        wait_for(lambda: supervisor_other_than(hung, before["pid"]))
        assert hung.pids() == tasks
        assert hung.show("NRestarts") == "0"
    finally:
        machine.sh(f"rm -r /run/systemd/system/{hung.unit}.d; systemctl daemon-reload")


def test_daemon_reexec_changes_nothing(talker: Installed) -> None:
    before, tasks = talker.status(), talker.pids()
    talker.machine.sh("systemctl daemon-reexec")
    after = talker.status()
    assert talker.pids() == tasks
    assert (after["pid"], after["keeper_pid"], after["restarts"]) == (
        before["pid"],
        before["keeper_pid"],
        before["restarts"],
    )
    assert (talker.show("ActiveState"), talker.show("NRestarts")) == ("active", "0")


def test_reexec_replaces_the_supervisor_alone(talker: Installed) -> None:
    before, tasks = talker.status(), talker.pids()
    talker.ctl("reexec")
    after = talker.status()
    assert talker.pids() == tasks
    assert (after["keeper_pid"], after["device_pid"]) == (before["keeper_pid"], before["device_pid"])
    assert after["pid"] != before["pid"]
    assert alive(talker.machine, [before["pid"]]) == []
    assert (talker.show("ActiveState"), talker.show("NRestarts")) == ("active", "0")


def test_the_contexts_of_one_machine_do_not_touch_each_other(context: Callable[..., Installed]) -> None:
    one, other = (context(name, task("ts_100", "Talker")) for name in ("One", "Other"))
    one.start()
    other.start()
    tasks = other.pids()
    one.stop()
    assert other.pids() == tasks
    assert other.machine.sh("ls /run/zmsvc").stdout.split() == ["Other"]
