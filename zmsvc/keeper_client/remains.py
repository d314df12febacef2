"""Kill what a keeper that is gone has left: the kernel kills its tasks with it, but not the processes that
they have started.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Container

from zmsvc.host.paths import Places
from zmsvc.keeper_client.machine import Outside

END = 10.0
"""Seconds for which the processes are killed. Only a fork bomb takes as long."""

log = logging.getLogger(__name__)


def kill_remains(
    outside: Outside, sessions: Container[int], places: Places, clock: Callable[[], float]
) -> None:
    """Kill all processes of a context on this host. `sessions` has the PIDs of its tasks."""
    killed: set[tuple[int, int | None]] = set()
    until = clock() + END
    found: list[int] = []
    # Repeat this only for processes that were forked meanwhile: a killed process forks no more, even if it
    # does not end at once. Do not wait for processes that cannot be killed (setuid root programs, or those
    # that hang in the kernel).
    while clock() < until:
        found = [pid for pid in outside.belonging(sessions, places.context_mark) if pid != os.getpid()]
        if not (doomed := {(pid, outside.start_time(pid)) for pid in found} - killed):
            return
        outside.kill_each(pid for pid, _ in doomed)
        killed |= doomed
    log.error(
        "%d processes of %s are left: they fork faster than they can be killed (systemd kills those of a "
        "unit; stop others by SIGSTOP before SIGKILL)",
        len(found),
        places.name,
    )
