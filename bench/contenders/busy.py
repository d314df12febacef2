"""Any contender beside a busy neighbor: a process that computes without a pause and is pinned to one core."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.fleet import Contender, Fleet, Session, running

_LOAD = "while True: pass"


class Busy:
    def __init__(self, contender: Contender) -> None:
        self.name = f"{contender.name} (busy)"
        self._contender = contender

    def missing(self) -> str:
        return self._contender.missing()

    @contextlib.contextmanager
    def open(self, fleet: Fleet, home: Path) -> Iterator[Session]:
        with self._contender.open(fleet, home) as session:
            argv = [sys.executable, "-c", _LOAD]
            with running(argv, home / "busy.log") as load:
                os.sched_setaffinity(load.pid, {min(os.sched_getaffinity(0))})
                yield session
