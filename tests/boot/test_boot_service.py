"""systemctl with a context: start, stop, reload, the target, and a bad context file."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from installed import TRANSACTION, Installed, alive, task
from machine import Machine
from waiting import wait_for


def test_start_returns_when_the_entry_tasks_are_ready(echo: Installed) -> None:
    echo.start()
    status = echo.status()
    assert echo.show("ActiveState") == "active"
    assert echo.show("MainPID") == str(status["keeper_pid"])
    assert [each["state"] for each in echo.tasks().values()] == ["active"]


def test_the_confinement_of_the_unit_lets_the_zygote_rehearse(echo: Installed) -> None:
    echo.start()
    # The entry task was forked out of it.
    wait_for(lambda: "counting 10 s" in echo.machine.journal("-u", echo.unit))
    assert "more slowly" not in echo.machine.journal("-u", echo.unit)


def test_the_status_line_of_the_unit_says_how_many_tasks_run(echo: Installed) -> None:
    echo.start()
    assert echo.show("StatusText")


def test_a_transaction_is_started_and_stopped_by_its_id(echo: Installed) -> None:
    echo.start()
    echo.ctl("start", "--transaction", TRANSACTION)
    assert echo.tasks()[TRANSACTION, "ts_100"]["state"] == "active"
    echo.ctl("stop", "--transaction", TRANSACTION)
    assert (TRANSACTION, "ts_100") not in echo.pids()
    assert len(echo.pids()) == 1, "the transaction that the context opened by itself must go on"


def test_everything_runs_as_the_user_of_the_unit_in_its_control_group(talker: Installed) -> None:
    listed = talker.machine.sh(f"ps -o user= -p {','.join(map(str, talker.processes()))}").stdout.split()
    assert set(listed) == {"zmsvc"}
    tree = talker.machine.sh(f"systemd-cgls --no-pager -u {talker.unit}").stdout
    for group in ("keeper", "supervisor", "tasks"):
        assert f"─{group}" in tree


def test_stop_leaves_no_process_and_no_directory(talker: Installed) -> None:
    pids = talker.processes()
    talker.stop()
    assert alive(talker.machine, pids) == []
    assert talker.show("Result") == "success"
    assert talker.machine.sh(f"systemd-cgls --no-pager -u {talker.unit}", check=False).stdout.count("─") == 0
    assert talker.machine.sh("ls /run/zmsvc").stdout == ""


@pytest.mark.parametrize("stop_timeout", ["500ms", "2s"])
def test_stop_kills_a_task_that_ignores_sigterm(context: Callable[..., Installed], stop_timeout: str) -> None:
    deaf = context("Deaf", task("ts_100", "Deaf", service=f"<stop_timeout>{stop_timeout}</stop_timeout>"))
    deaf.start()
    wait_for(lambda: "deaf now" in deaf.machine.journal("-t", "Deaf"))
    pids = deaf.processes()
    deaf.stop()
    assert alive(deaf.machine, pids) == []
    assert deaf.show("Result") == "success", "the supervisor has to kill it, not systemd"


def test_the_program_behind_a_shell_has_its_stop_signal_and_its_time_before_it_is_killed(
    context: Callable[..., Installed],
) -> None:
    script = "sh -c 'trap \"echo asked to end; exit 0\" TERM; echo waits now; while :; do sleep 0.1; done'; :"
    program = task(
        "ts_100", "Wrapped", configuration=f"<command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></command>"
    )
    wrapped = context("Wrapped", program.replace('serviceType="Process"', 'serviceType="Command"'))
    wrapped.start()
    wait_for(lambda: "waits now" in wrapped.machine.journal("-t", "Wrapped"))
    pids = wrapped.processes()
    wrapped.stop()
    assert alive(wrapped.machine, pids) == []
    assert "asked to end" in wrapped.machine.journal("-t", "Wrapped")


def test_a_reload_command_runs_as_its_task_does_below_the_control_group_of_it(
    context: Callable[..., Installed],
) -> None:
    script = "echo reloads as $(id -un) for $MAINPID in $(grep ^0:: /proc/self/cgroup)"
    command = f"<reload_command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></reload_command>"
    program = task("ts_100", "Sleeper", configuration="<command>sleep 3600</command>", service=command)
    sleeper = context("Sleeper", program.replace('serviceType="Process"', 'serviceType="Command"'))
    sleeper.start()
    ((key, pid),) = sleeper.pids().items()
    assert "reloaded" in sleeper.ctl("reload", "ts_100")
    said = wait_for(lambda: re.search(r"reloads as zmsvc.*", sleeper.machine.journal("-t", "Sleeper")))
    group = sleeper.machine.sh(f"grep ^0:: /proc/{pid}/cgroup").stdout.strip()
    assert said[0].startswith(f"reloads as zmsvc for {pid} in {group}/.zmsvc-")
    assert sleeper.pids() == {key: pid}


def test_restart_restarts_the_tasks_too(talker: Installed) -> None:
    before, processes = talker.pids(), talker.processes()
    talker.machine.sh(f"systemctl restart {talker.unit}")
    after = talker.pids()
    assert alive(talker.machine, processes) == []
    assert before.keys() == after.keys(), "the transaction must be resumed"
    assert not set(before.values()) & set(after.values())


def test_reload_changes_only_what_differs(talker: Installed) -> None:
    before = talker.pids()
    talker.configure(task("ts_100", "Talker"), task("ts_102", "Deaf", entry=False), task("ts_103", "Talker"))
    talker.machine.sh(f"systemctl reload {talker.unit}")
    added = wait_for(lambda: {key: pid for key, pid in talker.pids().items() if key[1] == "ts_103"})
    assert talker.pids() == before | added
    assert {name for _, name in talker.tasks()} == {"ts_100", "ts_102", "ts_103"}
    talker.configure(task("ts_100", "Talker"), task("ts_103", "Talker", configuration="<color>red</color>"))
    talker.machine.sh(f"systemctl reload {talker.unit}")
    wait_for(lambda: talker.pids().keys() == (before | added).keys() and talker.pids() != before | added)
    assert talker.pids().items() >= before.items()
    assert alive(talker.machine, [*added.values()]) == []


def test_a_reload_with_a_bad_file_fails_and_changes_nothing(talker: Installed) -> None:
    before = talker.tasks().keys(), talker.pids()
    talker.configure(
        task("ts_100", "Talker", rules="<on_exit><action>start</action><call>ts_999</call></on_exit>")
    )
    assert talker.machine.sh(f"systemctl reload {talker.unit}", check=False).returncode != 0
    assert talker.show("ActiveState") == "active"
    assert (talker.tasks().keys(), talker.pids()) == before
    assert "Context-Talk.xml:" in talker.machine.journal("-u", talker.unit)


def test_a_missing_context_file_is_named_and_not_tried_again(context: Callable[..., Installed]) -> None:
    assert_refused(context("Nowhere"), "/etc/zmsvc/Context-Nowhere.xml")


def test_a_broken_context_file_is_named_with_the_line_and_not_tried_again(
    context: Callable[..., Installed],
) -> None:
    broken = context("Broken", task("ts_100", "Talker"), task("ts_100", "Talker"))
    assert_refused(broken, "/etc/zmsvc/Context-Broken.xml:")


def assert_refused(refused: Installed, named: str) -> None:
    assert refused.machine.sh(f"systemctl start {refused.unit}", check=False).returncode == 1
    assert refused.show("ActiveState") == "failed"
    assert refused.show("Result") == "exit-code"
    assert refused.show("ExecMainStatus") == "2"
    assert refused.show("NRestarts") == "0"
    assert named in refused.machine.journal("-u", refused.unit)


def test_the_target_starts_what_is_enabled_and_stops_all(
    machine: Machine, context: Callable[..., Installed]
) -> None:
    one, other = (context(name, task("ts_100", "Talker")) for name in ("One", "Other"))
    machine.sh(f"systemctl enable {one.unit}")
    other.start()
    try:
        machine.sh("systemctl start zmsvc.target")
        assert one.pids()
        assert "zmsvc.target" in machine.sh("systemctl show -p Wants --value multi-user.target").stdout
        machine.sh("systemctl stop zmsvc.target")
        wait_for(lambda: not one.processes() and not other.processes())
        wait_for(lambda: [each.show("ActiveState") for each in (one, other)] == ["inactive", "inactive"])
    finally:
        machine.sh(f"systemctl disable {one.unit}")


def test_a_task_may_have_a_user_of_its_own_with_the_drop_in_of_the_unit(
    machine: Machine, context: Callable[..., Installed]
) -> None:
    other = context("Other", task("ts_100", "Talker", service="<user>nobody</user><group>zmsvc</group>"))
    machine.put(
        f"/run/systemd/system/{other.unit}.d/user.conf",
        "[Service]\nUser=root\nProtectProc=default\nCapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL "
        "CAP_CHOWN\n"
        "AmbientCapabilities=CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN\n",
    )
    machine.sh("systemctl daemon-reload")
    try:
        other.start()
        ((key, pid),) = other.pids().items()
        assert machine.sh(f"ps -o user= -p {pid}").stdout.strip() == "nobody"
        other.ctl("stop", "--task", "ts_100")
        assert other.tasks()[key]["exit"]["code"] == 0, "it has to hear the SIGTERM"
    finally:
        machine.sh(f"rm -r /run/systemd/system/{other.unit}.d; systemctl daemon-reload")
