"""The warm fork of a task: the child of a process that has imported everything but the user's code, so a start costs milliseconds.

No ZMQ context may exist in the keeper: a fork would share it. `zmsvc.task.runner` is the one import across processes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from zmsvc.host import linux
from zmsvc.task import runner

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
CANNOT_START = 203
"""Exit status of a child that failed before the task's own code (systemd's EXIT_EXEC)."""


def warm() -> None:
    """Settle the heap before the first fork: what is there now is shared by all tasks and never looked at by their collector."""
    gc.collect()
    gc.freeze()


def fork(spec: dict[str, Any], cgroup: Path | None) -> int:
    """Fork a task that runs `spec` (see zmsvc.task.runner) and return its PID. Signals wait until the child has its own handlers."""
    keeper = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid, inside = _fork(cgroup)
        if pid == 0:
            _child(spec, None if inside else cgroup, keeper)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _fork(cgroup: Path | None) -> tuple[int, bool]:
    """Fork; also whether the child is in its cgroup already, or has to move there."""
    if cgroup is not None:
        try:
            return linux.fork_into(cgroup), True
        except OSError:
            return os.fork(), False
    return os.fork(), False


def _child(spec: dict[str, Any], cgroup: Path | None, keeper: int) -> NoReturn:
    status = CANNOT_START
    # Whatever happens here must not return into the keeper's stack: a second keeper would run.
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        linux.die_with_parent(keeper)
        if cgroup is not None:
            linux.enter_cgroup(cgroup)
        status = runner.run(spec)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            print(f"cannot start task {spec.get('task')}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)
