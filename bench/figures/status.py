"""The command that shows all tasks, as a whole process: from its start to its end, with the answer on its
standard output.
"""

from __future__ import annotations

import time

from bench.fleet import Session


def measure(session: Session, times: int) -> list[float]:
    """Return the seconds of each call."""
    command = session.status()
    found = []
    for _ in range(times):
        begin = time.monotonic()
        # Some contenders use the exit status for the state of the worst service.
        command.run(check=False)
        found.append(time.monotonic() - begin)
    return found
