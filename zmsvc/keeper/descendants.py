"""Find the processes of a launch other than its main process.

With control groups, these are the members of the control group of the launch. Auxiliary processes have groups
of their own below it, which are left out. Without control groups, these are the descendants of the main
process, and the orphans that are in its session or carry the marks of the launch
(host/kernel/process_marks.py). The kernel gives orphans to the keeper, which is a subreaper.

A process of the daemon's own user can move itself into another control group of the unit, for example that of
the keeper. So orphans are checked even if there are control groups. This costs little while there are no
orphans: the keeper compares the number of its children with the number that it forked, once for all children
that end in one turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from zmsvc.keeper.launch_record import LaunchRecord
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol.launch import AUXILIARY_GROUP


class Descendants:
    """The search for all processes of a context. `known` has the children of the keeper that are not orphans.

    `is_stray` returns True for an orphan that neither carries the marks of an existing launch nor is in the
    control group of one. `is_confined` returns True for a process that is in the control group of a launch
    and may not leave it.
    """

    def __init__(
        self,
        machine: KeeperMachine,
        context_mark: bytes,
        known: Collection[int],
        is_stray: Callable[[int], bool],
        is_confined: Callable[[int], bool],
    ) -> None:
        self._is_stray, self._is_confined = is_stray, is_confined
        self._counted_orphans: list[int] | None = None
        self._machine = machine
        self._context_mark = context_mark
        """The environment entry that all processes of this context have, and no others."""
        self._known = known

    def count_orphans(self, gone: Collection[int]) -> None:
        """Search for orphans once for all these children, which have ended and were reaped: a thousand tasks
        may end at once. The result is used until `forget_count`.

        The kernel gives the orphans of a process to the keeper before it reports the end of that process.
        """
        self._counted_orphans = self._find_orphans(gone)

    def forget_count(self) -> None:
        """Drop the result of `count_orphans`: new processes may have appeared."""
        self._counted_orphans = None

    def orphans(self) -> list[int]:
        """Return the keeper's children that it did not fork. Zombies and forks in progress are included."""
        return self._find_orphans(()) if self._counted_orphans is None else self._counted_orphans

    def _find_orphans(self, gone: Collection[int]) -> list[int]:
        known = len(self._known) - sum(pid in self._known for pid in gone)
        if self._machine.number_of_children() <= known:
            return []
        return [pid for pid in self._machine.children() if pid not in self._known]

    def has_any(self, record: LaunchRecord) -> bool:
        """Return True if the launch has processes besides the main one, which has ended. Without control
        groups and without orphans there are none, and /proc need not be searched.
        """
        return bool((record.cgroup is not None or self.orphans()) and self.others(record))

    def others(self, record: LaunchRecord) -> list[int]:
        """Return every process of a launch besides the main one. Without a control group this searches all
        processes of the machine.
        """
        if record.cgroup is not None:
            found = self._in_cgroup(record)
            return found + [pid for pid in self._strays(record) if pid not in found]
        found = self._machine.belonging({record.pid}, *self._tags(record))
        return [pid for pid in found if pid != record.pid and pid not in self._known]

    def reachable(self, record: LaunchRecord) -> list[int]:
        """Return the other processes of a launch that can be found without a search of /proc: a thousand
        tasks may be stopped at once. These processes get the stop signal.

        A process that is missed here is found when the main process has ended.
        """
        if record.cgroup is not None:
            return self._in_cgroup(record)
        found = self._machine.children(record.pid) if record.end is None else []
        found += [
            pid for pid in self.orphans() if self._machine.marked(pid, {record.pid}, *self._tags(record))
        ]
        for pid in found:  # `found` grows in the loop
            found += [child for child in self._machine.children(pid) if child not in found]
        return [pid for pid in found if pid not in self._known]

    def _in_cgroup(self, record: LaunchRecord) -> list[int]:
        assert record.cgroup is not None
        if not self._machine.cgroup_populated(record.cgroup):
            return []
        found = self._machine.cgroup_processes(record.cgroup, AUXILIARY_GROUP)
        return [pid for pid in found if pid != record.pid]

    def _strays(self, record: LaunchRecord) -> list[int]:
        """Return the orphans that carry the marks of this launch, in any control group, and all orphans that
        belong to no launch.

        Orphans of no launch are ended with the launch that ends next. Marks can be forged: a task of another
        user could run a process with the marks of other launches, and so delay their end. So a process that
        cannot change its control group belongs to the launch of that group.
        """
        return [pid for pid in self.orphans() if self._strayed(pid, record) or self._is_stray(pid)]

    def _strayed(self, pid: int, record: LaunchRecord) -> bool:
        return self._machine.marked(pid, {record.pid}, *self._tags(record)) and not self._is_confined(pid)

    def _tags(self, record: LaunchRecord) -> tuple[bytes, int]:
        # Other contexts also count their launches from 1.
        return (
            self._context_mark,
            record.shared_process.first_launch if record.shared_process else record.launch,
        )
