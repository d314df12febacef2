"""The pipes at which tasks wait before their first steps. The supervisor decides when a task goes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from zmsvc.host.complain import complain
from zmsvc.host.kernel import free_descriptors
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol.launch import LaunchSpec


class Barriers:
    """The closed barriers, each by its launch."""

    def __init__(self, machine: KeeperMachine) -> None:
        self._machine = machine
        self._writers: dict[int, int] = {}

    def create(self, spec: LaunchSpec) -> int | None:
        """Create a closed barrier if the launch has one. Return the end of its pipe that the task gets, for
        the caller to close. Without a free descriptor return None: the task does not wait, which is better
        than no start.
        """
        if not spec.barrier:
            return None
        # There may be a barrier of an earlier try, whose zygote has died.
        self.open([spec.launch])
        try:
            return self._closed(spec.launch)
        except OSError as error:
            complain(f"zmsvcd: {spec.task} does not wait before its first step: {error.strerror}")
            return None

    def _closed(self, launch: int) -> int:
        reader, self._writers[launch] = self._machine.pipe()
        try:
            free_descriptors.leave_room(self._writers[launch])
        except OSError:
            os.close(reader)
            self.open([launch])
            raise
        return reader

    def open_all(self) -> None:
        """Let every task go on: this supervisor does not know barriers."""
        self.open([*self._writers])

    def open(self, launches: Iterable[int]) -> None:
        """Let these tasks go on. A launch without a barrier, or with an open one, is left out."""
        for launch in launches:
            if (writer := self._writers.pop(launch, None)) is not None:
                # A byte opens the barrier, and not the end of the pipe: a child that the keeper forks now may
                # have a copy of the pipe.
                with contextlib.suppress(BrokenPipeError):
                    os.write(writer, b"\n")
                os.close(writer)
