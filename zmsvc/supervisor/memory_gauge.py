"""The measurement of the tasks that have a `memory_restart`: at intervals, in a thread, while such a task
runs. core.memory_limit decides what follows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from zmsvc.core import memory_limit
from zmsvc.core.facts import MemoryMeasured
from zmsvc.core.memory_limit import Measurement
from zmsvc.core.model import Context
from zmsvc.host.kernel import cgroups, process_memory, processes
from zmsvc.supervisor.launch_spec import cgroup_name
from zmsvc.supervisor.loop import Loop

log = logging.getLogger(__name__)


class MemoryGauge:
    """The gauge of one supervisor. `cgroup` is the directory of the control groups of tasks, if there are
    any.
    """

    def __init__(self, loop: Loop, cgroup: str | None) -> None:
        self._loop, self._cgroup = loop, cgroup
        self._running = asyncio.get_running_loop()
        self._memory = cgroups.memory_size()
        self._context: Context | None = None
        self._wanted = False
        self._timer: asyncio.TimerHandle | None = None
        self._work: asyncio.Task[None] | None = None
        loop.on_change.append(self._changed)

    def close(self) -> None:
        for each in (self._timer, self._work):
            if each is not None:
                each.cancel()

    def _changed(self) -> None:
        """Begin to measure if a task may need it."""
        if self._context is not self._loop.world.context:
            self._context = self._loop.world.context
            self._wanted = memory_limit.may_measure(self._context)
        if self._wanted and self._timer is None and self._work is None:
            self._timer = self._running.call_later(memory_limit.INTERVAL, self._begin)

    def _begin(self) -> None:
        self._timer = None
        found = list(memory_limit.to_measure(self._loop.world, self._memory))
        if found and not self._loop.over.is_set():
            self._work = self._running.create_task(self._measure(found))
        # Now no task is to be measured. The next change of the world begins again.

    async def _measure(self, found: Sequence[Measurement]) -> None:
        # Measure in a thread: the kernel goes through all pages of a process.
        try:
            used = await asyncio.to_thread(self._used, found)
        except OSError as error:
            log.warning(
                "Cannot measure the memory of tasks, so memory_restart has no effect now: %s", error.strerror
            )
            used = []
        # Each fact costs a turn of the loop, so only measurements above the limit become facts.
        self._loop.take(
            *(
                MemoryMeasured(launch=each.launch, used=amount, machine=self._memory)
                for each, amount in zip(found, used, strict=False)
                if amount > each.limit
            )
        )
        self._work = None
        self._timer = self._running.call_later(memory_limit.INTERVAL, self._begin)

    def _used(self, found: Sequence[Measurement]) -> list[int]:
        return [self._of(each) for each in found]

    def _of(self, task: Measurement) -> int:
        group = Path(self._cgroup, cgroup_name(task.key)) if self._cgroup else None
        if group is not None and (used := process_memory.of_cgroup(group)) is not None:
            return used
        processes = cgroups.processes_in(group) if group is not None else _family(task.pid)
        return process_memory.of_processes(processes, enough=task.limit)


def _family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    waiting, seen = [pid], {pid}
    while waiting:
        here = waiting.pop()
        yield here
        children = [each for each in processes.children_of_threads(here) if each not in seen]
        seen.update(children)
        waiting += children
