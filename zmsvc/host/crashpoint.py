"""A hook for fault injection: the supervisor calls `reached` before every side effect, and a test may arm it.

`ZMSVC_CRASH_FILE` names a file. If the file has a number, each side effect counts it down, and the process
dies before the side effect at which it becomes 0. If the file has a name, the process dies before the first
side effect of that name. It dies as if kill -9 had come between two lines. Without the variable the hook does
nothing.
"""

from __future__ import annotations

import os
import signal

_FILE = os.environ.get("ZMSVC_CRASH_FILE")


def reached(name: str) -> None:
    """Die here if the hook is armed for this side effect, and write its name to the file."""
    if _FILE is None:
        return
    try:
        with open(_FILE) as file:
            armed = file.read()
    except FileNotFoundError:
        return
    if armed.isdecimal():
        left = int(armed) - 1
        _write(f"died before {name}" if left <= 0 else str(left))
        if left > 0:
            return
    elif armed == name:
        _write(f"died before {name}")
    else:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _write(text: str) -> None:
    assert _FILE is not None
    with open(_FILE, "w") as file:
        file.write(text)
