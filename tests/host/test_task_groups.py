"""The keeper's limits of control groups, on directories whose files are made as the kernel makes them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from forked import launch_spec

from zmsvc.core.resource_limits import UNLIMITED
from zmsvc.keeper.machine import Machine
from zmsvc.keeper.task_groups import NO_GROUP, TaskGroups

KERNEL = {
    "memory": ("memory.max", "memory.high"),
    "cpu": ("cpu.max", "cpu.idle", "cpu.weight"),
    "pids": ("pids.max",),
    "io": ("io.weight",),
}


class Kernel(Machine):
    """A machine whose control groups are plain directories."""

    def __init__(self, unit: Path, controllers: str) -> None:
        self.tasks = unit / "tasks"
        self.tasks.mkdir(parents=True)
        (unit / "cgroup.controllers").write_text(controllers)
        self.enabled: list[str] = []

    def enable_controller(self, cgroup: Path, name: str) -> None:  # type: ignore[override]
        assert name in (self.tasks.parent / "cgroup.controllers").read_text()
        self.enabled.append(f"{cgroup.name}: {name}")

    def make_cgroup(self, cgroup: Path) -> None:  # type: ignore[override]
        cgroup.mkdir(exist_ok=True)
        for name, files in KERNEL.items():
            if f"tasks: {name}" in self.enabled:
                for file in files:
                    (cgroup / file).touch()

    def write_cgroup(self, cgroup: Path, file: str, text: str) -> None:  # type: ignore[override]
        if not (cgroup / file).exists():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        (cgroup / file).write_text(text)

    def remove_cgroup(self, cgroup: Path) -> None:  # type: ignore[override]
        for file in cgroup.iterdir():
            file.unlink()
        cgroup.rmdir()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path / "unit", "cpu io memory")


def test_the_limits_of_a_launch_are_in_its_group_and_its_controllers_are_enabled_once(kernel: Kernel) -> None:
    groups, group = TaskGroups(kernel, kernel.tasks), kernel.tasks / "TX:ts_1"
    spec = launch_spec(memory_max=1 << 20, cpu_weight=0, io_weight=7)
    for _ in range(2):
        assert groups.limit(spec, group) == spec
    found = {file: (group / file).read_text() for file in ("memory.max", "cpu.idle", "io.weight")}
    assert found == {"memory.max": str(1 << 20), "cpu.idle": "1", "io.weight": "default 7"}
    assert sorted(kernel.enabled) == sorted(
        f"{place}: {name}" for place in ("unit", "tasks") for name in ("memory", "cpu", "io")
    )


def test_a_launch_without_limits_enables_nothing_and_makes_no_group(kernel: Kernel) -> None:
    spec = launch_spec()
    assert TaskGroups(kernel, kernel.tasks).limit(spec, kernel.tasks / "TX:ts_1") is spec
    assert (kernel.enabled, list(kernel.tasks.iterdir())) == ([], [])


def test_the_next_launch_in_the_same_group_does_not_have_the_limits_of_the_last_one(kernel: Kernel) -> None:
    groups, group = TaskGroups(kernel, kernel.tasks), kernel.tasks / "TX:ts_1"
    groups.limit(launch_spec(memory_max=1 << 20, cpu_weight=0), group)
    groups.limit(launch_spec(memory_high=1 << 20), group)
    found = {file: (group / file).read_text() for file in ("memory.max", "memory.high", "cpu.idle")}
    assert found == {"memory.max": "max", "memory.high": str(1 << 20), "cpu.idle": "0"}
    groups.limit(launch_spec(), group)
    assert (group / "memory.high").read_text() == UNLIMITED["memory.high"]
    groups.remove(group)
    assert groups.limit(launch_spec(), group) == launch_spec()


def test_a_limit_that_cannot_be_set_is_named_with_its_reason_and_the_others_are_set(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups, group = TaskGroups(kernel, kernel.tasks), kernel.tasks / "TX:ts_1"
    spec = launch_spec(memory_max=1 << 20, tasks_max=5)
    assert groups.limit(spec, group).unset_limits == ("tasks_max: the unit has no pids controller",)
    assert (group / "memory.max").read_text() == str(1 << 20)

    def busy(cgroup: Path, name: str) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(kernel, "enable_controller", busy)
    assert groups.limit(launch_spec(cpu_quota=5), group).unset_limits == (
        "cpu_quota: Device or resource busy",
    )


def test_a_kernel_without_the_files_of_a_limit_is_named(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KERNEL, "io", ())
    unset = TaskGroups(kernel, kernel.tasks).limit(launch_spec(io_weight=7), kernel.tasks / "x").unset_limits
    assert unset == ("io_weight: the kernel has no io.bfq.weight or io.weight",)


def test_a_context_without_control_groups_says_so_for_each_limit() -> None:
    spec = launch_spec(memory_max="50%", tasks_max=5)
    unset = TaskGroups(Machine(), None).limit(spec, None).unset_limits
    assert unset == (f"memory_max: {NO_GROUP}", f"tasks_max: {NO_GROUP}")
