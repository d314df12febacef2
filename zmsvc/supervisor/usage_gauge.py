"""The measurement of what all running tasks use of the machine, for clients that ask for it with `status`.
The loop itself reads /proc, a few tasks at a time, and serves others in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from zmsvc.core.world import Task, World, service_of
from zmsvc.host.kernel.process_usage import ProcessUsage, of_process
from zmsvc.supervisor.launch_spec import shared

PORTION = 32
"""The number of processes that are read in one turn of the loop: 0.7 ms."""

Read = Callable[[int, int], ProcessUsage | None]


class UsageGauge:
    """The gauge of one supervisor. It remembers the last CPU time of each running task: between the end of a
    process and the report of the keeper nothing else tells it, and a counter must not fall.
    """

    def __init__(self, read: Read = of_process, portion: int = PORTION) -> None:
        self._read = read
        self._portion = portion
        self._last: dict[int, float] = {}

    async def measure(self, world: World) -> dict[int, ProcessUsage]:
        """Return what each running process uses, by its PID."""
        found: dict[int, ProcessUsage] = {}
        for number, task in enumerate(_measurable(world), 1):
            usage = self._read(task.pid or 0, task.start_time)
            if usage is not None:
                found[task.pid or 0] = usage
            if number % self._portion == 0:
                await asyncio.sleep(0)
        return found

    def of_tasks(self, world: World, measured: Mapping[int, ProcessUsage]) -> dict[int, ProcessUsage]:
        """Return what each running task uses, by its launch. Thread tasks are left out: they share a process,
        and the kernel does not tell them apart. So is a task whose process /proc hides.
        """
        result: dict[int, ProcessUsage] = {}
        for task in _measurable(world):
            usage, before = measured.get(task.pid or 0), self._last.get(task.launch)
            if usage is None and before is None:
                continue
            # The main process may have ended meanwhile, or another one may have taken its place.
            usage = usage or ProcessUsage(cpu_seconds=0.0, memory_bytes=0, threads=0)
            result[task.launch] = replace(usage, cpu_seconds=max(usage.cpu_seconds, before or 0.0))
        self._last = {launch: usage.cpu_seconds for launch, usage in result.items()}
        return result


def _measurable(world: World) -> list[Task]:
    """Return the tasks that have a process of their own on this host."""
    return [
        task
        for (_, name), task in world.tasks.items()
        if task.live
        and task.pid is not None
        and not task.host
        and not ((service := service_of(world.context, name, task)) and shared(service))
    ]
