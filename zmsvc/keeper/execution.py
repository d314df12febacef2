"""Execute the keeper's workers: supervisor, device, zygote, output process, fdstore process and watcher
process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping


def execute(module: str, arguments: list[str], environment: Mapping[str, str], fds: list[int]) -> int:
    """Execute a zmsvc module as a child in a session of its own, so that Ctrl-C at the terminal signals the
    keeper alone.

    Return the child's PID. The descriptors keep their numbers in the child. Raises OSError.
    """
    # -P: do not import modules from the working directory.
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
