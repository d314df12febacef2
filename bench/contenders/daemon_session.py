"""The base class for sessions of contenders that have one daemon. Each contender defines its orders."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bench.fleet import Fleet
from bench.receiver import Receiver, end


class DaemonSession:
    """A session with one daemon. A thread gives the order to start, because the order may return only when
    all tasks run.
    """

    tells = False
    role = "daemon"

    def __init__(self, fleet: Fleet, receiver: Receiver, pid: int) -> None:
        self.fleet = fleet
        self.receiver = receiver
        self._pid = pid
        self._order: threading.Thread | None = None

    def in_background(self, order: Callable[[], object]) -> None:
        self._order = threading.Thread(target=order)
        self._order.start()

    def started(self) -> None:
        assert self._order is not None
        self._order.join()

    def managers(self) -> dict[str, list[int]]:
        return {self.role: [self._pid]}

    def start_task(self, name: str) -> None:
        """Start one task of the fleet."""
        raise NotImplementedError

    def revive(self, victim: str, heir: str) -> None:
        end(self.receiver.pids[heir])
        self.start_task(victim)
        self.receiver.hear([victim])
