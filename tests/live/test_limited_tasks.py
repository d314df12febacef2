"""Limits of the control group of a task. If the machine lacks a controller, there is a warning and the task
runs. On such a machine these tests check the warning, on any other the value in the file.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from context import Context
from waiting import wait_for

from zmsvc.core.resource_limits import CONTROLLERS
from zmsvc.host.kernel import cgroups
from zmsvc.keeper.task_groups import NO_GROUP

LIMITS = {
    "memory_max": ("64M", {"memory.max": str(64 << 20)}),
    "memory_high": ("32M", {"memory.high": str(32 << 20)}),
    "cpu_quota": ("50%", {"cpu.max": "50000 100000"}),
    "cpu_weight": ("50", {"cpu.weight": "50"}),
    "tasks_max": ("40", {"pids.max": "40"}),
    "io_weight": ("500", {"io.weight": "default 500", "io.bfq.weight": "136"}),
}
ALL = "".join(f"<{option}>{text}</{option}>" for option, (text, _) in LIMITS.items())
KINDS = ["Process", "Thread", "Command"]


def add(context: Context, task: str, kind: str, service: str) -> None:
    if kind == "Command":
        (context.home / "Services").mkdir(exist_ok=True)
        context.task(task, "Sleep", kind=kind, config="<command>sleep 3600</command>", service=service)
    else:
        context.looped("Echo")
        context.task(task, "Echo", kind=kind, service=service)


def root() -> Path:
    """The root of the unified hierarchy."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")


def group_of(pid: int) -> Path:
    return root() / cgroups.of_process(pid).lstrip("/")


def texts(group: Path, option: str) -> dict[str, str]:
    """Return the contents of the files of an option, of those that this kernel has."""
    found = {file: group / file for file in LIMITS[option][1]}
    return {name: file.read_text().split("\n")[0] for name, file in found.items() if file.exists()}


def assert_limited(context: Context, pid: int) -> None:
    """Check that each limit is in its file, or that the log has the reason."""
    for option, (_, expected) in LIMITS.items():
        found = texts(group_of(pid), option)
        if CONTROLLERS[option] in cgroups.machine_controllers() and found:
            assert found.items() <= expected.items()
        else:
            wait_for(lambda option=option: f"Cannot set {option}: the " in context.log.read_text())  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_the_limits_are_in_the_control_group_of_a_task_or_in_a_warning(grouped: Context, kind: str) -> None:
    add(grouped, "ts_1", kind, ALL)
    add(grouped, "ts_2", "Command", "")
    grouped.start("--transaction", "T")
    assert_limited(grouped, grouped.tasks()["ts_1"]["pid"])
    other = group_of(grouped.tasks()["ts_2"]["pid"])
    assert other.name == "T:ts_2"
    for option, (_, expected) in LIMITS.items():
        assert not texts(other, option).items() & expected.items()


def test_a_limit_is_there_before_a_task_runs_anything(grouped: Context) -> None:
    """The program reads its own limit, if it has one."""
    (grouped.home / "Services").mkdir()
    script = (
        f'cat "{root()}$(sed -n s/^0:://p /proc/self/cgroup)/pids.max" &gt; {grouped.home}/seen; '
        f"exec sleep 3600"
    )
    command = f"<arg>/bin/sh</arg><arg>-c</arg><arg>{script}</arg>"
    grouped.task(
        "ts_1",
        "Reads",
        kind="Command",
        config=f"<command>{command}</command>",
        service="<tasks_max>40</tasks_max>",
    )
    (grouped.home / "seen").touch()
    grouped.start("--transaction", "T")
    if "pids" in cgroups.machine_controllers():
        wait_for(lambda: (grouped.home / "seen").read_text() == "40\n")
    else:
        wait_for(lambda: "Cannot set tasks_max: the unit has no pids controller" in grouped.log.read_text())


def test_a_reload_restarts_a_task_whose_limit_differs_and_removes_the_old_limits(grouped: Context) -> None:
    add(grouped, "ts_1", "Command", ALL)
    grouped.start("--transaction", "T")
    before = grouped.tasks()["ts_1"]["pid"]
    grouped.clear_tasks()
    add(grouped, "ts_1", "Command", "<memory_high>16M</memory_high>")
    grouped.write()
    grouped.ctl("reload")
    after = grouped.tasks()["ts_1"]["pid"]
    assert after != before
    group = group_of(after)
    for option, (_, expected) in LIMITS.items():
        assert not texts(group, option).items() & expected.items()
    if "memory" in cgroups.machine_controllers():
        assert texts(group, "memory_high") == {"memory.high": str(16 << 20)}


@pytest.mark.parametrize("kind", KINDS)
def test_without_control_groups_each_limit_is_a_warning_and_the_task_runs(
    context: Context, kind: str
) -> None:
    add(context, "ts_1", kind, ALL)
    context.start("--transaction", "T")
    assert context.tasks()["ts_1"]["sub"] == "running"
    for option in LIMITS:
        wait_for(lambda option=option: f"Cannot set {option}: {NO_GROUP}" in context.log.read_text())


def test_check_warns_of_a_controller_that_the_machine_lacks(context: Context) -> None:
    add(context, "ts_1", "Command", ALL)
    context.write()
    checked = context.ctl("check", str(context.file)).stdout
    for option in LIMITS:
        warning = (
            f"ts_1: its <{option}> has no effect here: this machine has no {CONTROLLERS[option]} controller"
        )
        assert (warning in checked) == (CONTROLLERS[option] not in cgroups.machine_controllers())
