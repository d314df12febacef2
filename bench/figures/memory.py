"""Memory of processes in bytes: their own pages and their share of shared pages (PSS in
/proc/PID/smaps_rollup); and page faults.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from pathlib import Path

from bench.fleet import Session


def pss(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def faults(pid: int) -> int:
    """Return the number of page faults of this process since its fork. Most of these faults copied or made a
    page.
    """
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def measure(session: Session) -> dict[str, float]:
    """Return `memory` of one task, the mean of all; `memory.ROLE` of the contender's processes, and
    `memory.own` of all of these; `faults`, the page faults of the start of a task, the median of all.
    """
    managers = session.managers()
    pids = [session.receiver.pids[name] for name in session.fleet.entry]
    faulted = statistics.median(map(faults, pids))
    tasks = _sum(pids)
    own = {role: _sum(pids) for role, pids in managers.items()}
    return {
        "memory": tasks / len(pids),
        "faults": faulted,
        "memory.own": sum(own.values()),
        **{f"memory.{role}": value for role, value in own.items()},
    }


def _sum(pids: Iterable[int]) -> float:
    return float(sum(pss(pid) for pid in pids))
