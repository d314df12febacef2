"""Finds the processes of a launch beside its main one.

By its control group where there is one. Else by descent, and among the orphans that the keeper, a subreaper, was given, by session and
by the marks of host/marks.py, which tell the launch.
"""

from __future__ import annotations

from collections.abc import Collection

from zmsvc.keeper.held import Held
from zmsvc.keeper.outside import Outside


class Family:
    """All processes of a context. `known` are the keeper's children that are no orphans."""

    def __init__(self, outside: Outside, mark: bytes, known: Collection[int]) -> None:
        self._outside = outside
        self._mark = mark
        """What all processes of this context, and no others, have in their environment."""
        self._known = known

    def orphaned(self) -> bool:
        """Tell whether the keeper may have children that it did not fork. Counted, for a thousand tasks may end at once."""
        return self._outside.number_of_children() > len(self._known)

    def left(self, held: Held) -> bool:
        """Tell whether the main process left others behind. Without orphans nobody did, and /proc need not be searched."""
        return bool((held.cgroup is not None or self.orphaned()) and self.all(held))

    def all(self, held: Held) -> list[int]:
        """Return every other process of a launch. Without a control group that is a search through all processes of the machine."""
        if held.cgroup is not None:
            return self._in_group(held)
        found = self._outside.belonging({held.pid}, *self._marks(held))
        return [pid for pid in found if pid != held.pid and pid not in self._known]

    def near(self, held: Held) -> list[int]:
        """Return the other processes that can be found without such a search: those in reach of a signal that asks them to end.

        A thousand tasks may be stopped at once. Nothing is lost by one that is missed: it is found when the main process has ended.
        """
        if held.cgroup is not None:
            return self._in_group(held)
        found = self._outside.children(held.pid) if held.end is None else []
        if self.orphaned():
            orphans = [pid for pid in self._outside.children() if pid not in self._known]
            found += [pid for pid in orphans if self._outside.marked(pid, {held.pid}, *self._marks(held))]
        for pid in found:  # which grows
            found += [child for child in self._outside.children(pid) if child not in found]
        return [pid for pid in found if pid not in self._known]

    def _in_group(self, held: Held) -> list[int]:
        assert held.cgroup is not None
        if not self._outside.populated(held.cgroup):
            return []
        return [pid for pid in self._outside.processes(held.cgroup) if pid != held.pid]

    def _marks(self, held: Held) -> tuple[bytes, int]:
        # Other contexts count their launches from 1 as well.
        return self._mark, held.host.mark if held.host else held.launch
