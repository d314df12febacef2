"""The control groups of tasks and their limits. `core.resource_limits` says what an option means.

A controller is enabled only when a task needs it, because it costs a little in each operation that it counts.
In cgroup v2 only a group that contains no process itself can pass a controller on, so the keeper, the
supervisor and the device have groups beside `tasks/`.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from zmsvc.core.resource_limits import UNLIMITED, GroupLimit, Whole, limits_of
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol.launch import LaunchSpec

NO_GROUP = "the context has no control groups (zmsvcd runs in no unit with Delegate=yes)"


ACCOUNTING = GroupLimit(option="memory_restart", controller="memory", files={})
"""The memory controller of a group, without a limit."""


class TaskGroups:
    """The groups of tasks in `directory`, which is None if the keeper has no delegated control group."""

    def __init__(self, machine: KeeperMachine, directory: Path | None) -> None:
        self._machine, self._directory = machine, directory
        self._enabled: set[str] = set()
        self._written: dict[Path, set[str]] = {}
        """The files to which a limit was written, by group: the next launch of a task may use the same
        group.
        """

    def limit(self, spec: LaunchSpec, group: Path | None) -> LaunchSpec:
        """Set the limits of the group of a launch, before its fork. Return the launch with the limits that
        could not be set, each with the reason.
        """
        if spec.memory_accounting:
            # The group may stay without accounting: the supervisor has another way to measure.
            self._set(ACCOUNTING, group)
        limits = limits_of(spec, self._whole)
        if not limits and not (group is not None and self._written.get(group)):
            return spec
        unset = [f"{each.option}: {why}" for each in limits if (why := self._set(each, group))]
        if group is not None:
            self._remove_others(group, {file for each in limits for file in each.files})
        return replace(spec, unset_limits=tuple(unset))

    def remove(self, group: Path) -> None:
        """Remove a group that no launch uses."""
        self._written.pop(group, None)
        self._machine.remove_cgroup(group)

    def _whole(self) -> Whole:
        return Whole(memory=self._machine.memory_size(), tasks=self._machine.most_tasks())

    def _set(self, limit: GroupLimit, group: Path | None) -> str:
        """Set one limit. Return the reason if that is not possible."""
        if group is None or self._directory is None:
            return NO_GROUP
        try:
            if limit.controller not in self._enabled:
                self._enable(self._directory, limit.controller)
            self._machine.make_cgroup(group)
            self._write(group, limit)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _enable(self, directory: Path, controller: str) -> None:
        unit = directory.parent
        if controller not in self._machine.cgroup_controllers(unit):
            raise OSError(errno.ENOENT, f"the unit has no {controller} controller")
        for each in (unit, directory):
            self._machine.enable_controller(each, controller)
        self._enabled.add(controller)

    def _write(self, group: Path, limit: GroupLimit) -> None:
        missing = 0
        for file, text in limit.files.items():
            try:
                self._machine.write_cgroup(group, file, text)
            except FileNotFoundError:
                missing += 1
            else:
                self._written.setdefault(group, set()).add(file)
        if limit.files and missing == len(limit.files):
            raise OSError(errno.ENOENT, f"the kernel has no {' or '.join(limit.files)}")

    def _remove_others(self, group: Path, files: set[str]) -> None:
        """Remove the limits of an earlier launch from a group."""
        written = self._written.get(group, set())
        for file in [file for file in UNLIMITED if file in written - files]:
            with suppress(OSError):
                self._machine.write_cgroup(group, file, UNLIMITED[file])
            written.discard(file)
