"""The cost of an idle fleet: CPU time and wake-ups of the contender's own processes and of its tasks, as the
kernel counts them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.fleet import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """The counts for all threads of some processes, since their start."""

    seconds: float
    wakeups: int

    def __sub__(self, before: Used) -> Used:
        return Used(seconds=self.seconds - before.seconds, wakeups=self.wakeups - before.wakeups)


def used(pids: Collection[int]) -> Used:
    nanoseconds = wakeups = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            try:
                spent, status = (thread / "schedstat").read_text(), (thread / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # The supervisor has a thread for each client, and the client of this thread has disconnected.
            nanoseconds += int(spent.split()[0])
            found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
            wakeups += int(found[1]) if found else 0
    return Used(seconds=nanoseconds / 1e9, wakeups=wakeups)


def measure(session: Session, seconds: float) -> dict[str, float]:
    """Return `idle.cpu`, the part of one core that the contender itself uses; `idle.wakeups` a second;
    `idle.tasks`, the wake-ups a second of all its tasks.
    """
    managers = [pid for pids in session.managers().values() for pid in pids]
    tasks = [session.receiver.pids[name] for name in session.fleet.entry]
    before, before_tasks, begin = used(managers), used(tasks), time.monotonic()
    time.sleep(seconds)
    lasted = time.monotonic() - begin
    own, of_tasks = used(managers) - before, used(tasks) - before_tasks
    return {
        "idle.cpu": own.seconds / lasted,
        "idle.wakeups": own.wakeups / lasted,
        "idle.tasks": of_tasks.wakeups / lasted,
    }
