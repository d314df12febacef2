"""Finds the processes of a launch beside its main one.

By its control group where there is one. Else by descent, and among the orphans that the keeper, a subreaper,
was given, by session and by the marks of host/kernel/process_marks.py, which tell the launch.

A process of the daemon's own user can move itself into another control group of the unit, as into the
keeper's own. So where there are orphans they are looked at with control groups as well. That costs nothing as
long as there are none: the keeper's children are counted, once for all that have ended together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from zmsvc.keeper.launch_record import LaunchRecord
from zmsvc.keeper.machine import KeeperMachine


class Descendants:
    """All processes of a context. `known` are the keeper's children that are no orphans.

    `astray` tells of an orphan whether it has the mark of no launch that is there, and is in the control
    group of none; `settled` whether its control group, which it could not leave, is that of a launch.
    """

    def __init__(
        self,
        outside: KeeperMachine,
        mark: bytes,
        known: Collection[int],
        astray: Callable[[int], bool],
        settled: Callable[[int], bool],
    ) -> None:
        self._astray, self._settled = astray, settled
        self._counted: list[int] | None = None
        self._outside = outside
        self._mark = mark
        """What all processes of this context, and no others, have in their environment."""
        self._known = known

    def count(self, gone: Collection[int]) -> None:
        """Look for orphans once for all of these children, which have ended and were reaped, until `forget`.

        What they have left became the keeper's before it heard of their end. A thousand tasks may end at
        once.
        """
        self._counted = self._found(gone)

    def forget(self) -> None:
        """What was counted is over: other processes may have come."""
        self._counted = None

    def orphans(self) -> list[int]:
        """Return the keeper's children that it did not fork, zombies and forks on their way included."""
        return self._found(()) if self._counted is None else self._counted

    def _found(self, gone: Collection[int]) -> list[int]:
        known = len(self._known) - sum(pid in self._known for pid in gone)
        if self._outside.number_of_children() <= known:
            return []
        return [pid for pid in self._outside.children() if pid not in self._known]

    def left(self, held: LaunchRecord) -> bool:
        """Tell whether the main process left others behind. Without orphans nobody did, and /proc need not
        be searched.
        """
        return bool((held.cgroup is not None or self.orphans()) and self.all(held))

    def all(self, held: LaunchRecord) -> list[int]:
        """Return every other process of a launch. Without a control group that is a search through all
        processes of the machine.
        """
        if held.cgroup is not None:
            found = self._in_group(held)
            return found + [pid for pid in self._strays(held) if pid not in found]
        found = self._outside.belonging({held.pid}, *self._marks(held))
        return [pid for pid in found if pid != held.pid and pid not in self._known]

    def near(self, held: LaunchRecord) -> list[int]:
        """Return the other processes that can be found without such a search: those in reach of a signal that
        asks them to end.

        A thousand tasks may be stopped at once. Nothing is lost by one that is missed: it is found when the
        main process has ended.
        """
        if held.cgroup is not None:
            return self._in_group(held)
        found = self._outside.children(held.pid) if held.end is None else []
        found += [pid for pid in self.orphans() if self._outside.marked(pid, {held.pid}, *self._marks(held))]
        for pid in found:  # which grows
            found += [child for child in self._outside.children(pid) if child not in found]
        return [pid for pid in found if pid not in self._known]

    def _in_group(self, held: LaunchRecord) -> list[int]:
        assert held.cgroup is not None
        if not self._outside.populated(held.cgroup):
            return []
        return [pid for pid in self._outside.processes(held.cgroup) if pid != held.pid]

    def _strays(self, held: LaunchRecord) -> list[int]:
        """Return the orphans with the marks of a launch, wherever they are, and those of which no mark or
        control group tells a launch.

        The latter are ended with the launch that ends next. Marks can be put on, and the task of another user
        would delay the end of all others by a process with theirs: of one that cannot move the control group
        tells whose it is.
        """
        return [pid for pid in self.orphans() if self._strayed(pid, held) or self._astray(pid)]

    def _strayed(self, pid: int, held: LaunchRecord) -> bool:
        return self._outside.marked(pid, {held.pid}, *self._marks(held)) and not self._settled(pid)

    def _marks(self, held: LaunchRecord) -> tuple[bytes, int]:
        # OtherProcess contexts count their launches from 1 as well.
        return self._mark, held.host.mark if held.host else held.launch
