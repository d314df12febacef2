"""Limits of the control group of a task, under the unit of the system and under that of a user. Where the
machine of the test has no controllers, the journal says so for each limit, and the task runs.
"""

from __future__ import annotations

from collections.abc import Callable

from installed import Installed, task
from machine import Machine
from users import lingering
from waiting import wait_for

LIMITS = {
    "memory_max": ("64M", "memory", {"memory.max": str(64 << 20)}),
    "memory_high": ("32M", "memory", {"memory.high": str(32 << 20)}),
    "cpu_quota": ("50%", "cpu", {"cpu.max": "50000 100000"}),
    "cpu_weight": ("50", "cpu", {"cpu.weight": "50"}),
    "tasks_max": ("40", "pids", {"pids.max": "40"}),
    "io_weight": ("500", "io", {"io.weight": "default 500", "io.bfq.weight": "136"}),
}
ALL = "".join(f"<{option}>{text}</{option}>" for option, (text, _, _) in LIMITS.items())


def assert_limited(machine: Machine, pid: int) -> None:
    """Check that each limit is in its file, or that the journal has the reason."""
    group = "/sys/fs/cgroup" + machine.sh(f"sed -n s/^0:://p /proc/{pid}/cgroup").stdout.strip()
    unit = group.partition("/tasks/")[0]
    controllers = machine.sh(f"cat {unit}/cgroup.controllers").stdout.split()
    for option, (_, controller, files) in LIMITS.items():
        texts = machine.sh(
            "; ".join(f"echo {file} $(head -n 1 {group}/{file} 2>&1)" for file in files)
        ).stdout
        if controller not in controllers:
            wait_for(
                lambda option=option, controller=controller: (  # type: ignore[misc]
                    f"Cannot set {option}: the unit has no {controller} controller"
                    in machine.journal("ZMSVC_TASK=ts_100")
                )
            )
        elif "No such file" not in texts:
            assert [f"{file} {text}" for file, text in files.items()] == texts.splitlines()


def test_the_limits_of_a_task_under_the_unit_are_set_also_after_the_keeper_was_killed(
    context: Callable[..., Installed],
) -> None:
    limited = context("Limited", task("ts_100", "Talker", service=ALL), task("ts_101", "Talker"))
    limited.start()

    def check() -> None:
        assert_limited(limited.machine, {key[1]: pid for key, pid in limited.pids().items()}["ts_100"])

    check()
    # The unit's control group then still has the controllers that the killed keeper has enabled.
    limited.machine.sh(f"kill -KILL {limited.status()['keeper_pid']}")
    wait_for(lambda: limited.show("NRestarts") == "1" and limited.show("ActiveState") == "active")
    check()
    limited.machine.sh(f"systemctl reload {limited.unit}")
    assert limited.show("ActiveState") == "active"


def test_the_limits_of_a_task_under_a_users_manager_are_set(machine: Machine) -> None:
    with lingering(machine, task("ts_100", "Talker", service=ALL)) as user:
        user.sh("systemctl --user start zmsvc@Mine")
        assert_limited(machine, user.pids()["ts_100"])
