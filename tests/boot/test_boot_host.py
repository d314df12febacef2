"""The unit zmsvc-host@ on a machine that also runs the context: it runs the tasks that the context places on
it, in control groups of its own, and a cluster has it to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from installed import Installed, task
from machine import Machine
from waiting import wait_for

UNIT = "zmsvc-host@Placed.service"
FILE = "/etc/zmsvc/Context-Placed.xml"
TCP = "tcp://127.0.0.1:"


@pytest.fixture
def placed(context: Callable[..., Installed], machine: Machine) -> Iterator[Installed]:
    """A context that places a task on this machine. Nothing of it runs."""
    name = machine.sh("uname -n").stdout.strip()
    installed = context("Placed", task("ts_1", "Talker", service="<placement/>"), task("ts_2", "Talker"))
    machine.sh(
        f"sed -i -e 's|<Context>|<Context><hosts endpoint=\"{TCP}15558\">{name}</hosts>|' "
        f"-e 's|ipc:///run/zmsvc/Placed/front|{TCP}15556|; s|ipc:///run/zmsvc/Placed/back|{TCP}15557|' {FILE}"
    )
    installed.ctl("keys", "make")
    yield installed
    machine.sh(
        f"systemctl stop {UNIT}; rm -rf /etc/zmsvc/keys/Placed /etc/zmsvc/cluster /run/systemd/system/{UNIT}.d; "
        "systemctl daemon-reload",
        check=False,
    )


def of_task(installed: Installed, sub: str) -> dict[str, Any]:
    """Wait until the placed task is in this sub-state; return it."""

    def told() -> dict[str, Any]:
        (transaction,) = installed.status()["transactions"]
        found = next(each for each in transaction["tasks"] if each["id"] == "ts_1")
        assert found["sub"] == sub, found
        return dict(found)

    return wait_for(told)


def envoys(machine: Machine) -> list[str]:
    return machine.sh("pgrep -f '[z]msvc.envoy'", check=False).stdout.split()


def test_tasks_of_a_host_are_in_its_unit_and_outlive_its_envoy(placed: Installed, machine: Machine) -> None:
    machine.sh(f"systemctl start {UNIT}")
    placed.start()
    pid = of_task(placed, "running")["pid"]
    group = machine.sh(f"cat /proc/{pid}/cgroup").stdout
    assert f"/{UNIT}/tasks/" in group
    assert machine.sh(f"stat -c %U /proc/{pid}").stdout == "zmsvc\n"
    before = envoys(machine)
    machine.sh(f"systemctl reload {UNIT}")
    wait_for(lambda: len(envoys(machine)) == 1 and envoys(machine) != before)
    machine.sh(f"kill -9 {pid}")
    ended = of_task(placed, "failed")
    assert ended["exit"]["signal"] == "SIGKILL"
    machine.sh(f"systemctl stop {UNIT}")
    assert machine.sh(f"systemctl show --value -p Result {UNIT}").stdout == "success\n"
    assert not envoys(machine)


def test_a_host_of_a_cluster_is_started_by_the_cluster_alone(placed: Installed, machine: Machine) -> None:
    machine.sh("mkdir -p /etc/zmsvc/cluster; touch /etc/zmsvc/cluster/Placed")
    done = machine.sh(f"systemctl start {UNIT}", check=False)
    assert (done.returncode, "Assertion failed" in done.stderr) == (1, True)
    # Pacemaker makes this file before it starts a unit.
    machine.put(f"/run/systemd/system/{UNIT}.d/50-pacemaker.conf", "[Service]\nRestart=no\n")
    machine.sh(f"systemctl daemon-reload; systemctl start {UNIT}")
    assert machine.sh(f"systemctl is-active {UNIT}").stdout == "active\n"
