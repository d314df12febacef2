"""Give a task a new interpreter: the fork executes one (`<fresh>yes</fresh>`), which runs
zmsvc.task.fresh.
"""

from __future__ import annotations

import os
import sys

from zmsvc.protocol.forking import encode_launch
from zmsvc.protocol.launch import Descriptors, LaunchSpec

PROGRAM = "zmsvc.task.fresh"


def execute(spec: LaunchSpec, fds: Descriptors) -> OSError:
    """Execute a new interpreter in this process. Return only on failure, with the error."""
    try:
        memory = os.memfd_create("zmsvc-launch", 0)
        os.write(memory, encode_launch(spec))
        wanted = {"memory": memory, "curve_server": fds.curve_server, "output": fds.output}
        passed = {name: fd for name, fd in wanted.items() if fd is not None}
        for fd in passed.values():
            os.set_inheritable(fd, True)
        words = [f"{name}={fd}" for name, fd in passed.items()]
        os.execv(sys.executable, [sys.executable, "-P", "-m", PROGRAM, *words])
    except OSError as error:
        return error
