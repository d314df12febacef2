"""`systemctl --user start zmsvc@NAME`: a context of a user's own service manager, which runs without a
login (linger).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from installed import alive, task
from machine import Machine
from users import NAME, User, lingering
from waiting import wait_for


@pytest.fixture
def user(machine: Machine) -> Iterator[User]:
    with lingering(
        machine, task("ts_100", "Talker"), task("ts_101", "Talker"), task("ts_102", "Talker", entry=False)
    ) as found:
        yield found


def test_a_user_starts_a_context_and_each_task_has_a_control_group_of_its_own(user: User) -> None:
    user.sh("systemctl --user start zmsvc@Mine")
    assert (user.show("ActiveState"), user.show("Delegate")) == ("active", "yes")
    tasks = user.pids()
    assert tasks.keys() == {"ts_100", "ts_101"}
    groups = {user.group(pid) for pid in tasks.values()}
    assert len(groups) == 2
    assert {group.partition("/")[0] for group in groups} == {"tasks"}
    assert user.group(user.status()["keeper_pid"]) == "keeper"
    assert user.machine.sh(f"stat -c %U /proc/{tasks['ts_100']}").stdout.strip() == NAME


def test_reload_under_a_users_manager_takes_the_new_file(user: User) -> None:
    user.sh("systemctl --user start zmsvc@Mine")
    before = user.pids()
    user.sh("sed -i 's/A task of the boot tests/Another description/' ~/.config/zmsvc/Context-Mine.xml")
    user.sh("systemctl --user reload zmsvc@Mine")
    assert user.pids() == before
    user.sh("echo bad > ~/.config/zmsvc/Context-Mine.xml")
    assert "Job for zmsvc@Mine.service failed" in user.sh(
        "systemctl --user reload zmsvc@Mine 2>&1", check=False
    )
    assert user.pids() == before


def test_a_killed_keeper_of_a_user_is_started_again(user: User) -> None:
    user.sh("systemctl --user start zmsvc@Mine")
    keeper, tasks = user.status()["keeper_pid"], user.pids()
    user.machine.sh(f"kill -KILL {keeper}")
    wait_for(lambda: user.show("NRestarts") == "1" and user.show("ActiveState") == "active")
    assert alive(user.machine, list(tasks.values())) == []
    assert user.pids().keys() == tasks.keys()
    assert {user.group(pid).partition("/")[0] for pid in user.pids().values()} == {"tasks"}


def test_stop_leaves_no_process_of_a_users_context(user: User) -> None:
    user.sh("systemctl --user start zmsvc@Mine")
    group = f"/sys/fs/cgroup{user.show('ControlGroup')}"
    listed = user.machine.sh(f"find {group} -name cgroup.procs -exec cat {{}} +").stdout.split()
    assert {str(pid) for pid in user.pids().values()} < set(listed)
    user.sh("systemctl --user stop zmsvc@Mine")
    assert alive(user.machine, [int(pid) for pid in listed]) == []
    assert user.machine.sh(f"test -e {group}", check=False).returncode == 1
    assert user.show("Result") == "success"
    assert user.sh("ls $XDG_RUNTIME_DIR/zmsvc 2>/dev/null", check=False) == ""


def test_units_of_pip_users_run_what_was_installed(user: User) -> None:
    """`make install` makes a virtual environment, as pip users have. Its own units are removed here."""
    taken = "/usr/local/lib/systemd/user/zmsvc@.service"
    user.machine.sh(f"mv {taken} {taken}.away")
    try:
        missing = user.sh(
            "systemctl --user daemon-reload; systemctl --user start zmsvc@Mine 2>&1", check=False
        )
        assert "Unit zmsvc@Mine.service not found" in missing
        said = user.sh("/usr/local/lib/zmsvc/bin/zmsvcctl units --user --install")
        assert said.startswith(f"installed /home/{NAME}/.config/systemd/user/zmsvc@.service\nnext: ")
        user.sh(said.partition("next: ")[2].replace("zmsvc@NAME", "zmsvc@Mine"))
        assert user.show("FragmentPath") == f"/home/{NAME}/.config/systemd/user/zmsvc@.service"
        assert "/usr/local/lib/zmsvc/bin/zmsvcd" in user.show("ExecStart")
        assert user.pids().keys() == {"ts_100", "ts_101"}
    finally:
        user.machine.sh(f"mv {taken}.away {taken}")


def test_units_of_the_system_run_what_was_installed(machine: Machine) -> None:
    """This is as after `pip install` into a virtual environment for all users: there is no unit, and the
    printed commands are sufficient.
    """
    machine.sh(
        "mkdir /tmp/away && cd /usr/local/lib && mv systemd/system sysusers.d tmpfiles.d /tmp/away && "
        "systemctl daemon-reload"
    )
    try:
        assert machine.sh("systemctl cat zmsvc@EchoAction", check=False).returncode != 0
        said = machine.sh("/usr/local/lib/zmsvc/bin/zmsvcctl units --install").stdout
        machine.sh(said.partition("next: ")[2].replace("zmsvc@NAME", "zmsvc@EchoAction"))
        assert machine.sh("systemctl is-active zmsvc@EchoAction").stdout == "active\n"
        assert (
            "/usr/local/lib/zmsvc/bin/zmsvcd"
            in machine.sh("systemctl show -p ExecStart zmsvc@EchoAction").stdout
        )
        machine.sh("systemctl stop zmsvc@EchoAction")
    finally:
        machine.sh("cd /usr/local/lib && rm -r systemd/system sysusers.d tmpfiles.d && mv /tmp/away/*.d .")
        machine.sh("mv /tmp/away/system /usr/local/lib/systemd && rmdir /tmp/away && systemctl daemon-reload")
