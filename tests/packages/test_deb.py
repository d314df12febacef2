"""The Debian package on a booted Debian: installed, upgraded under running tasks, downgraded, removed and
purged.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Debian, Packages
from installed import TALKER, Installed, alive, processes_of_user, task
from users import NAME, lingering
from waiting import wait_for

from zmsvc import __version__

pytestmark = pytest.mark.deadline(600)

ROOT = Path(__file__).parents[2]
NEXT = "<on_exit><action>start</action><call>ts_2</call></on_exit><on_fail><action>start</action><call>ts_2</call></on_fail>"

Command = Callable[..., str]


def chain(command: Command) -> tuple[str, str, str]:
    """Return a task whose end, good or bad, starts the second one, and a third one that only runs."""
    return (
        command("ts_1", "sleep 1001", rules=NEXT),
        command("ts_2", "sleep 1002", entry=False),
        command("ts_3", "sleep 1003"),
    )


def newer_and_older(packages: Packages) -> tuple[str, str]:
    """Return this tree and the first release, or the next revision and this tree if the first release can run
    no tasks.
    """
    if packages.first is None:
        return packages.following, packages.current
    return packages.current, packages.first


def state(context: Installed, name: str) -> str:
    ((_, found),) = [(key, each) for key, each in context.tasks().items() if key[1] == name]
    return str(found["state"])


def pid_of(context: Installed, name: str) -> int:
    (pid,) = [pid for (_, each), pid in context.pids().items() if each == name]
    return pid


def test_the_version_of_the_package_is_that_of_the_tree_and_sorts_between_the_releases() -> None:
    (version,) = re.findall(r"\Azmsvc \((\S+)\)", (ROOT / "debian/changelog").read_text())
    assert version.rpartition("-")[0] == re.sub(r"\.?(dev|a|b|rc)", r"~\1", __version__)
    for lower, higher in ("1.0.0-1", version), (version, "1.1.0-1"):
        assert (
            subprocess.run(["dpkg", "--compare-versions", lower, "lt", higher], check=False).returncode == 0
        )


def named_after_zmsvc(debian: Debian) -> set[str]:
    listed = debian.machine.sh(
        "find / -xdev -name '*zmsvc*' ! -path '/packages/*' ! -path '/var/log/*' ! -path '/tmp/*'"
    ).stdout
    return set(listed.splitlines())


def test_a_context_runs_after_the_installation_and_nothing_is_left_after_purge(
    debian: Debian, packages: Packages
) -> None:
    there = named_after_zmsvc(debian)
    # This program of xml-core is not installed, and the machine has no network. apt looks for programs in /usr alone.
    orders = "/tmp/update-xmlcatalog.orders"
    debian.machine.put("/usr/sbin/update-xmlcatalog", f'#!/bin/sh\necho "$*" >> {orders}\n', 0o755)
    said = debian.install(packages.current)
    entered = debian.machine.sh(f"cat {orders}").stdout.splitlines()
    assert sum(order.startswith("--add ") and "--id urn:zmsvc:context" in order for order in entered) == 4
    assert "is used instead" not in said
    assert debian.version() == __version__
    packed = set(debian.machine.sh("dpkg -L zmsvc").stdout.split())
    assert {
        f"/usr/share/doc/zmsvc/{name}"
        for name in ("README.md", "NEWS", "SECURITY.md", "docs/promises.md", "docs/pictures/terminal.svg")
    } <= packed
    machine = debian.machine
    echo = debian.context("EchoAction")
    echo.start()
    assert state(echo, "ts_100") == "active"
    assert "Slice=zmsvc.slice" in machine.sh("systemctl show -p Slice zmsvc@EchoAction").stdout
    assert "tasks/" in machine.sh(f"cat /proc/{pid_of(echo, 'ts_100')}/cgroup").stdout
    assert (
        "has started"
        in machine.sh("journalctl -x -t EchoAction MESSAGE_ID=3b158317ffc34036979dec15661307e9").stdout
    )
    machine.sh("systemctl enable zmsvc@EchoAction")

    before = echo.processes()
    debian.apt("remove")
    assert (alive(machine, before), processes_of_user(machine)) == ([], set())
    left = ("/etc/zmsvc/Context-EchoAction.xml", "/var/lib/zmsvc/EchoAction/state.db")
    machine.sh(f"ls {' '.join(left)}")

    assert debian.machine.sh(f"grep --count -e ^--del {orders}").stdout.strip() == "4"
    debian.apt("purge")
    assert named_after_zmsvc(debian) == there


def test_the_first_steps_of_the_readme_on_a_debian_machine(debian: Debian, packages: Packages) -> None:
    """The example runs, Prometheus has its metrics, and it is broken, explained and mended. Cockpit has tests of
    its own.
    """
    readme = (ROOT / "README.md").read_text()
    section = readme[readme.index("### A Debian machine") : readme.index("### Several machines")]
    build, prometheus, broken, mended = re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)
    debian.install(packages.current)
    machine = debian.machine
    machine.sh("useradd -m NAME")
    _, start = build.split("cockpit\nsystemctl")
    machine.sh(f"systemctl{start}")
    assert "ts_100  EchoAction  active" in machine.sh("zmsvcctl status", user="NAME").stdout
    # Leave out the line with apt: the machine has no network, and Prometheus is installed already.
    install, rest = prometheus.split("\n", 1)
    assert install.startswith("apt install ")
    *settings, query = rest.strip().splitlines()
    machine.sh("\n".join(settings))
    metric = 'zmsvc_task_state{context="EchoAction", instance="localhost:9649"'
    wait_for(lambda: metric in machine.sh(query.split("#")[0], check=False).stdout, 60)

    machine.sh(broken, check=False)
    wait_for(lambda: "interval 'ten'" in machine.sh("zmsvcctl -c EchoAction why ts_100").stdout)
    assert "its interval 'ten' is not a time" in machine.sh("zmsvcctl -c EchoAction check").stdout
    machine.sh(mended)
    assert state(debian.context("EchoAction"), "ts_100") == "active"


def test_what_make_install_left_in_usr_local_is_named(debian: Debian, packages: Packages) -> None:
    shadows = ("/usr/local/lib/systemd/system/zmsvc@.service", "/usr/local/bin/zmsvcd")
    for path in shadows:
        debian.machine.put(path, "")
    said = debian.install(packages.current)
    named = re.findall(r"^zmsvc: (\S+) is used instead of this package's", said, re.M)
    assert sorted(named) == sorted(shadows)
    assert "make uninstall" in said


def test_an_upgrade_replaces_the_supervisors_and_no_task_notices(
    debian: Debian, packages: Packages, command: Command
) -> None:
    """The files are the same. The system has been booted with the context enabled, so zmsvc.target is
    active.
    """
    debian.install(packages.current)
    debian.machine.put("/etc/zmsvc/services/Talker/__init__.py", "")
    debian.machine.put("/etc/zmsvc/services/Talker/ServiceTalker.py", TALKER)
    context = debian.context("Up", *chain(command), task("ts_4", "Talker"))
    debian.machine.sh(f"systemctl enable {context.unit} && systemctl restart zmsvc.target")
    wait_for(lambda: context.show("ActiveState") == "active")
    before, tasks = context.status(), context.pids()
    assert {name for _, name in tasks} == {"ts_1", "ts_3", "ts_4"}

    said = debian.install(packages.following)
    assert "keeps its old supervisor" not in said
    after = context.status()
    assert context.pids() == tasks
    assert after["keeper_pid"] == before["keeper_pid"]
    assert after["pid"] != before["pid"]
    debian.machine.sh(f"kill -KILL {pid_of(context, 'ts_1')}")
    wait_for(lambda: state(context, "ts_2") == "active")
    assert state(context, "ts_1") == "failed"


def test_an_upgrade_and_a_removal_reach_the_contexts_of_users(
    debian: Debian, packages: Packages, command: Command
) -> None:
    debian.install(packages.current)
    with lingering(debian.machine, *chain(command)) as user:
        idle = processes_of_user(debian.machine, NAME)
        user.sh("systemctl --user start zmsvc@Mine")
        before, tasks = user.status(), user.pids()
        assert tasks.keys() == {"ts_1", "ts_3"}
        said = debian.install(packages.following)
        assert "keeps its old supervisor" not in said
        after = user.status()
        assert user.pids() == tasks
        assert after["keeper_pid"] == before["keeper_pid"]
        assert after["pid"] != before["pid"]
        debian.apt("remove")
        assert processes_of_user(debian.machine, NAME) == idle


@pytest.mark.parametrize("kind", ["Command", "Process"])
def test_an_upgrade_of_the_first_release_leaves_its_tasks_alone(
    debian: Debian, packages: Packages, command: Command, kind: str
) -> None:
    if packages.first is None:
        pytest.skip("release 1.0.0 can fork no task on Python 3.13 and newer")
    debian.install(packages.first)
    assert debian.version() == "1.0.0"
    debian.machine.put("/etc/zmsvc/services/Talker/__init__.py", "")
    debian.machine.put("/etc/zmsvc/services/Talker/ServiceTalker.py", TALKER)
    first = (
        command("ts_1", "sleep 1001", rules=NEXT) if kind == "Command" else task("ts_1", "Talker", rules=NEXT)
    )
    context = debian.context("Old", first, *chain(command)[1:])
    context.start()
    before, tasks = context.status(), context.pids()
    assert {name for _, name in tasks} == {"ts_1", "ts_3"}

    said = debian.install(packages.current)
    assert "keeps its old supervisor" not in said
    assert debian.version() == __version__
    after = context.status()
    assert context.pids() == tasks
    assert after["keeper_pid"] == before["keeper_pid"]
    assert after["pid"] != before["pid"]

    debian.machine.sh(f"kill -KILL {tasks[next(key for key in tasks if key[1] == 'ts_1')]}")
    wait_for(lambda: state(context, "ts_2") == "active")
    assert state(context, "ts_1") == "failed"
    assert pid_of(context, "ts_3") == next(pid for (_, name), pid in tasks.items() if name == "ts_3")
    processes = context.processes()
    context.stop()
    assert (alive(debian.machine, processes), processes_of_user(debian.machine)) == ([], set())
    assert context.show("Result") == "success"
    context.start()
    assert "ts_3" in {name for _, name in context.pids()}


def test_after_a_downgrade_a_restart_goes_on_with_the_same_state(
    debian: Debian, packages: Packages, command: Command
) -> None:
    newer, older = newer_and_older(packages)
    debian.install(newer)
    context = debian.context("Down", *chain(command))
    context.start()
    transactions = {transaction for transaction, _ in context.pids()}
    debian.install(older)
    debian.machine.sh(f"systemctl restart {context.unit}", timeout=120)
    assert set(context.pids()) == {
        (transaction, name) for transaction in transactions for name in ("ts_1", "ts_3")
    }
    context.stop()
    assert processes_of_user(debian.machine) == set()


def test_an_older_version_refuses_the_state_of_a_newer_one_and_names_the_way_out(
    debian: Debian, packages: Packages, command: Command
) -> None:
    """So far the state file has had one schema, so the test writes a later one itself."""
    newer, older = newer_and_older(packages)
    debian.install(newer)
    context = debian.context("Down", *chain(command))
    context.start()
    context.stop()
    state_file = "/var/lib/zmsvc/Down/state.db"
    later = f"import sqlite3; sqlite3.connect('{state_file}').execute('PRAGMA user_version=1000')"
    debian.machine.sh(f'python3 -c "{later}"')
    debian.install(older)
    assert debian.machine.sh(f"systemctl start {context.unit}", check=False, timeout=120).returncode == 1
    journal = debian.machine.journal(f"_SYSTEMD_UNIT={context.unit}")
    assert f"cannot use state file {state_file}: it is of schema 1000" in journal
    assert "install the newer zmsvc again, or move the file away to begin afresh" in journal
    debian.machine.sh(f"mv {state_file} {state_file}.newer")
    context.start()
    assert {name for _, name in context.pids()} == {"ts_1", "ts_3"}
