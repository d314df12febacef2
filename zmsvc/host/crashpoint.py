"""The one hook for faults on purpose: `reached` stands before every side effect of a supervisor; a test may
arm it.

`ZMSVC_CRASH_FILE` names a file. While it holds a number, each side effect counts it down, and the one that
brings it to 0 is not done; while it holds a name, the first side effect of that name is not done: the process
is killed instead, as by kill -9 between two lines. Unarmed the hook does nothing.
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
