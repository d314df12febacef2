"""The one hook for faults on purpose: `reached` stands before every side effect of a supervisor; a test may arm it.

Unarmed it does nothing.

`ZMSVC_CRASH_FILE` names a file. While it holds a number, each side effect counts it down, and the one that brings it to 0 is not
done: the process is killed instead, as by kill -9 between two lines.
"""

from __future__ import annotations

import os
import signal

_FILE = os.environ.get("ZMSVC_CRASH_FILE")


def reached(name: str) -> None:
    """A side effect is about to happen; `name` is written down when it is where the process dies."""
    if _FILE is None:
        return
    try:
        with open(_FILE) as file:
            left = int(file.read()) - 1
    except (FileNotFoundError, ValueError):
        return
    with open(_FILE, "w") as file:
        file.write(str(left) if left else f"died before {name}")
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
