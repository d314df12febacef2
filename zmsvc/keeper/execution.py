"""Executes the keeper's own children: supervisor, device and zygote."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping


def execute(module: str, arguments: list[str], environment: Mapping[str, str], fds: list[int]) -> int:
    """Execute a module of ours as a child in a session of its own, so that a Ctrl-C at the terminal is the
    keeper's alone.

    Returns its PID. The descriptors keep their numbers there. Raises OSError.
    """
    # -P: the working directory is no place to find modules in.
    argv = [sys.executable, "-P", "-m", module, *arguments]
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        return os.posix_spawn(
            sys.executable,
            argv,
            {**os.environ, **environment},
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE],
        )
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)
