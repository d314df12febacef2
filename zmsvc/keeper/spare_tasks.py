"""The spare task of a context: a fork of the zygote that waits for a launch. A launch that comes alone is
given to it, and the zygote forks the next one when no launch has come for a while. So the fork and most page
faults of a start happen before the task is needed (docs/performance.md).

A spare task holds no secret and nothing of the context file: it has only rehearsed a start, as its zygote
has. It is a task as soon as it is given a launch, and ends without one when its line to the keeper closes.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zmsvc.host.kernel import free_descriptors
from zmsvc.host.python import interpreter
from zmsvc.host.python.interpreter import Switch
from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol import forking
from zmsvc.protocol.launch import LaunchSpec

QUIET = 0.05
"""Seconds without a launch after which the zygote forks a spare task: its rehearsal must not take the
processor from tasks that start.
"""

MOST_WARM = 32
"""The number of tasks at a time that may have been warm spare tasks. On Python 3.11 each takes 1.3 MB more
than a task that was forked when it was launched, because the rehearsal copies more pages than a start alone.
Later spare tasks are cold: they were only forked.
"""


@dataclass(slots=True, eq=False)
class SpareTask:
    """A spare task."""

    line: socket.socket
    """The keeper's end of the line at which it waits."""
    warm: bool
    """True if it rehearses a start."""
    pid: int = 0
    """0 until the zygote has answered."""
    ready: bool = False
    """True when it waits for its launch."""


class SpareTasks:
    """At most one spare task waits at a time, in the control group `group`; None if the context has no
    control groups. `most_warm` is the number of tasks that may have been warm spare tasks.
    """

    def __init__(
        self, machine: KeeperMachine, dispatcher: Dispatcher, group: Path | None, most_warm: int = MOST_WARM
    ) -> None:
        self._machine, self._dispatcher = machine, dispatcher
        self._group, self._most_warm = group, most_warm
        self._current: SpareTask | None = None
        self._children: dict[int, SpareTask] = {}
        """The spare tasks that have no launch and were not reaped, by PID."""
        self._warm_tasks: set[int] = set()
        """The tasks that were warm spare tasks and run, by PID."""
        self._needless = False
        """True if a fork begins in its control group: a spare task would wait for the move into it."""
        self.wanted = False
        """True from a launch until the next spare task is ordered. So a spare task that fails or is killed is
        not replaced before the next launch.
        """

    @property
    def due(self) -> bool:
        """True if a spare task should be forked when the zygote has nothing else to do."""
        return self.wanted and not self._needless

    @property
    def pids(self) -> Collection[int]:
        """The children of the keeper that are spare tasks, or were and are not reaped yet."""
        return self._children.keys()

    def create(self) -> tuple[SpareTask, socket.socket]:
        """Return a spare task to be forked, and its end of the line, which the caller closes. Raises
        OSError.
        """
        self.wanted = False
        self.drop()
        ours, theirs = self._machine.channel()
        spare = SpareTask(ours, warm=len(self._warm_tasks) < self._most_warm)
        try:
            # The last descriptors are for tasks.
            free_descriptors.require_free(2 * free_descriptors.ROOM)
            # The spare task blocks on its end.
            theirs.setblocking(True)
            self._dispatcher.watch(
                ours.fileno(), partial(self._on_line, spare), drop=partial(self._drop, spare)
            )
        except OSError:
            ours.close()
            theirs.close()
            raise
        self._current = spare
        return spare, theirs

    def open_group(self) -> int | None:
        """Return a descriptor of the control group, for the caller to close. Raises OSError."""
        return None if self._group is None else self._machine.open_cgroup(self._group)

    def forked(self, spare: SpareTask, pid: int, _started: int) -> None:
        spare.pid = pid
        self._children[pid] = spare
        if spare is not self._current:
            self._machine.signal_child(pid, signal.SIGKILL)

    def failed(self, spare: SpareTask, _error: Exception) -> None:
        """Handle a refused fork. No launch depends on it, so it is not reported."""
        self._drop(spare)

    def _on_line(self, spare: SpareTask) -> None:
        try:
            packet = spare.line.recv(forking.PACKET)
        except BlockingIOError:
            return
        except ConnectionError:
            packet = b""
        if packet == forking.SPARE_IS_READY:
            spare.ready = True
        else:
            self._needless = self._needless or packet == forking.SPARE_IS_NEEDLESS
            self._drop(spare)

    def ready_for(self, spec: LaunchSpec) -> SpareTask | None:
        """Return the spare task if it waits and can become this task. A shared process and a task in a new
        interpreter gain nothing. The memory of a spare task is not counted in the control group of its task,
        so a task whose memory is limited or measured there is forked.
        """
        spare = self._current
        if spare is None or not spare.ready or spare.pid == 0:
            return None
        suits = spec.service_type in ("Process", "Command") and not spec.auxiliary_of and not spec.fresh
        counted = spec.memory_accounting or (spec.memory_max, spec.memory_high) != (-1, -1)
        return spare if suits and not counted else None

    def given(self, spare: SpareTask, spec: LaunchSpec) -> None:
        """Forget a spare task that was given its launch: it is that task now."""
        self._children.pop(spare.pid, None)
        # A program that is executed has none of this memory.
        if spare.warm and spec.service_type == "Process":
            self._warm_tasks.add(spare.pid)
        self._close(spare)

    def drop(self) -> None:
        """End the spare task, if there is one."""
        if self._current is not None:
            self._drop(self._current)

    def ended(self, pid: int) -> bool:
        """Handle the end of a child. Return False if it was no spare task."""
        self._warm_tasks.discard(pid)
        spare = self._children.pop(pid, None)
        if spare is None:
            return False
        self._close(spare)
        return True

    def _drop(self, spare: SpareTask) -> None:
        self._close(spare)
        if spare.pid in self._children:
            self._machine.signal_child(spare.pid, signal.SIGKILL)

    def _close(self, spare: SpareTask) -> None:
        if spare.line.fileno() >= 0:
            self._dispatcher.unwatch(spare.line.fileno())
            spare.line.close()
        if spare is self._current:
            self._current = None


def unless_disabled(machine: KeeperMachine, dispatcher: Dispatcher, group: Path | None) -> SpareTasks | None:
    """Return the spare tasks of a context; None if `ZMSVC_DISABLE` switches them off."""
    return None if Switch.SPARE_TASKS in interpreter.disabled() else SpareTasks(machine, dispatcher, group)
