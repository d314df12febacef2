"""The launches of the keeper of this host: processes, and ends that the supervisor has not saved. Pure.

The keeper tells all of it only when an envoy starts. From then on the envoy follows its reports, so that it
can tell each new supervisor, and the same one after a cut of the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from zmsvc.core import facts as ft


class HeldLaunches:
    """The launches of one keeper."""

    def __init__(self, children: Iterable[ft.Child], ends: Iterable[ft.TaskExited]) -> None:
        self._children = {child.launch: child for child in children}
        self._ends = {end.launch: end for end in ends}
        self._auxiliary: set[int] = set()

    @property
    def children(self) -> tuple[ft.Child, ...]:
        """The processes that run."""
        return tuple(self._children.values())

    @property
    def ends(self) -> tuple[ft.TaskExited, ...]:
        """The ends that were not acknowledged, in the order in which they came."""
        return tuple(self._ends.values())

    def is_to_launch(self, launch: int, *, auxiliary: bool) -> None:
        """Note an order to fork this launch."""
        if auxiliary:
            self._auxiliary.add(launch)

    def acknowledge(self, launch: int) -> None:
        """Note that the supervisor has saved an end, so the keeper forgets the launch."""
        self._ends.pop(launch, None)

    def take(self, fact: ft.TaskFact) -> None:
        """Note a report of the keeper. What a task says changes nothing."""
        match fact:
            case ft.TaskLaunched():
                if fact.launch not in self._ends and fact.launch not in self._children:
                    self._children[fact.launch] = ft.Child(
                        launch=fact.launch,
                        pid=fact.pid,
                        start_time=fact.start_time,
                        auxiliary=fact.launch in self._auxiliary,
                    )
                    self._auxiliary.discard(fact.launch)
            case ft.TaskExecuted():
                self._change(fact.launch, executed=True)
            case ft.ReadyLineSeen():
                self._change(fact.launch, line_seen=True)
            case ft.MainChanged():
                self._change(fact.launch, pid=fact.pid, start_time=fact.start_time)
            case ft.TaskExited():
                self._children.pop(fact.launch, None)
                self._ends[fact.launch] = fact
            case ft.LaunchFailed():
                self._auxiliary.discard(fact.launch)
            case ft.TaskGone():
                if fact.launch in self._ends:
                    self._ends[fact.launch] = replace(self._ends[fact.launch], others_left=False)
            case (
                ft.TaskDeclared()
                | ft.TaskReady()
                | ft.TaskReloading()
                | ft.TaskUpdated()
                | ft.TaskSaid()
                | ft.MessagesMissed()
                | ft.MessagePoisoned()
                | ft.WatchdogFed()
                | ft.HealthReported()
                | ft.TopicHeard()
                | ft.TopicSilent()
                | ft.MemoryMeasured()
                | ft.TimeoutExtended()
                | ft.MainNamed()
            ):
                pass
            case _:
                assert_never(fact)

    def _change(self, launch: int, **changes: int | bool) -> None:
        if launch in self._children:
            self._children[launch] = replace(self._children[launch], **changes)  # type: ignore[arg-type]
