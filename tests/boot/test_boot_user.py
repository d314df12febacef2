"""`systemctl --user start zmsvc@NAME`: a context of a user's own service manager, which runs without a login (linger)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from installed import TALKER, alive, processes_of_user, task
from machine import Machine
from needs import need
from waiting import wait_for

NAME = "someone"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of the machine whose service manager runs, and the context Mine in the home directory."""

    machine: Machine
    uid: int

    def sh(self, command: str, *, check: bool = True) -> str:
        runtime = f"/run/user/{self.uid}"
        environment = f"HOME=/home/{NAME} XDG_RUNTIME_DIR={runtime} DBUS_SESSION_BUS_ADDRESS=unix:path={runtime}/bus"
        return self.machine.sh(f"env {environment} sh -c {shlex.quote(command)}", user=NAME, check=check).stdout

    def show(self, prop: str) -> str:
        return self.sh(f"systemctl --user show --value -p {prop} zmsvc@Mine").strip()

    def status(self) -> dict[str, Any]:
        contexts = json.loads(self.sh("zmsvcctl -c Mine --json status", check=False) or '{"contexts": []}')["contexts"]
        assert contexts, "Mine does not answer"
        answer: dict[str, Any] = contexts[0]
        return answer

    def pids(self) -> dict[str, int]:
        tasks = (each for one in self.status()["transactions"] for each in one["tasks"])
        return {each["id"]: each["pid"] for each in tasks if each["state"] == "active"}

    def group(self, pid: int) -> str:
        """The cgroup of a process, from the unit's own on."""
        path = self.machine.sh(f"cat /proc/{pid}/cgroup").stdout.strip()
        return path.partition("/zmsvc@Mine.service/")[2]


@pytest.fixture
def user(machine: Machine) -> Iterator[User]:
    pam = machine.sh("ls /lib/*/security/pam_systemd.so /usr/lib*/security/pam_systemd.so", check=False).stdout
    need(pam, "there is no pam_systemd, without which no user's service manager starts (Debian: apt-get install libpam-systemd)")
    machine.sh(f"useradd --create-home --shell /bin/sh {NAME}")
    uid = int(machine.sh(f"id -u {NAME}").stdout)
    home = f"/home/{NAME}"
    machine.put(f"{home}/.local/share/zmsvc/services/Talker/__init__.py", "")
    machine.put(f"{home}/.local/share/zmsvc/services/Talker/ServiceTalker.py", TALKER)
    runtime = f"/run/user/{uid}/zmsvc/Mine"
    context = f"""<Context>
    <FrontEndEndpoint>ipc://{runtime}/front</FrontEndEndpoint>
    <BackendEndpoint>ipc://{runtime}/back</BackendEndpoint>
    <ContextID>context001</ContextID>
    <TaskLogName>Mine</TaskLogName>{task("ts_100", "Talker")}{task("ts_101", "Talker")}{task("ts_102", "Talker", entry=False)}
</Context>
"""
    machine.put(f"{home}/.config/zmsvc/Context-Mine.xml", context)
    machine.sh(f"chown -R {NAME}:{NAME} {home}")
    machine.sh(f"mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/{NAME} && systemctl start user@{uid}")
    try:
        yield User(machine=machine, uid=uid)
    finally:
        machine.sh(f"systemctl stop user@{uid} user-runtime-dir@{uid}; rm -f /var/lib/systemd/linger/{NAME}", check=False)
        machine.sh(f"pkill -KILL -u {NAME}; userdel --remove {NAME}", check=False)


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
    assert "Job for zmsvc@Mine.service failed" in user.sh("systemctl --user reload zmsvc@Mine 2>&1", check=False)
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
    before = processes_of_user(user.machine, NAME)
    user.sh("systemctl --user start zmsvc@Mine")
    assert processes_of_user(user.machine, NAME) > before
    user.sh("systemctl --user stop zmsvc@Mine")
    assert processes_of_user(user.machine, NAME) == before
    assert user.show("Result") == "success"
    assert user.sh("ls $XDG_RUNTIME_DIR/zmsvc 2>/dev/null", check=False) == ""


def test_units_of_pip_users_run_what_was_installed(user: User) -> None:
    """`make install` made a virtual environment, as pip users have; its own units are taken away."""
    taken = "/usr/local/lib/systemd/user/zmsvc@.service"
    user.machine.sh(f"mv {taken} {taken}.away")
    try:
        missing = user.sh("systemctl --user daemon-reload; systemctl --user start zmsvc@Mine 2>&1", check=False)
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
    """As after `pip install` into a virtual environment for all users: no unit is there, and the commands that are printed suffice."""
    machine.sh("mkdir /tmp/away && cd /usr/local/lib && mv systemd/system sysusers.d tmpfiles.d /tmp/away && systemctl daemon-reload")
    try:
        assert machine.sh("systemctl cat zmsvc@EchoAction", check=False).returncode != 0
        said = machine.sh("/usr/local/lib/zmsvc/bin/zmsvcctl units --install").stdout
        machine.sh(said.partition("next: ")[2].replace("zmsvc@NAME", "zmsvc@EchoAction"))
        assert machine.sh("systemctl is-active zmsvc@EchoAction").stdout == "active\n"
        assert "/usr/local/lib/zmsvc/bin/zmsvcd" in machine.sh("systemctl show -p ExecStart zmsvc@EchoAction").stdout
        machine.sh("systemctl stop zmsvc@EchoAction")
    finally:
        machine.sh("cd /usr/local/lib && rm -r systemd/system sysusers.d tmpfiles.d && mv /tmp/away/*.d .")
        machine.sh("mv /tmp/away/system /usr/local/lib/systemd && rmdir /tmp/away && systemctl daemon-reload")
