"""Gives a task an interpreter of its own: a new program takes the place of the fork
(`<fresh>yes</fresh>`). See `fresh` for its side.
"""

from __future__ import annotations

import os
import sys

from zmsvc.protocol.forking import encode_launch
from zmsvc.protocol.launch import Descriptors, LaunchSpec

PROGRAM = "zmsvc.task.fresh"


def execute(spec: LaunchSpec, fds: Descriptors) -> OSError:
    """Let a new interpreter take this process's place. It comes back only with the reason why that could
    not be.
    """
    try:
        memory = os.memfd_create("zmsvc-launch", 0)
        os.write(memory, encode_launch(spec))
        wanted = {"memory": memory, "curve_server": fds.curve_server, "output": fds.output}
        given = {name: fd for name, fd in wanted.items() if fd is not None}
        for fd in given.values():
            os.set_inheritable(fd, True)
        words = [f"{name}={fd}" for name, fd in given.items()]
        os.execv(sys.executable, [sys.executable, "-P", "-m", PROGRAM, *words])
    except OSError as error:
        return error
