"""What the processes of a daemon tell the terminal that they were started from, or the file in its place."""

from __future__ import annotations

import contextlib
import os
import select
import sys

from zmsvc.core import printable


def complain(text: str) -> None:
    """Write lines to standard error, without control characters.

    They are lost where no reader takes them: a journal that was stopped, a full disk or a closed terminal must not hold or end a daemon.
    """
    lines = printable.lines(text)
    with contextlib.suppress(OSError, ValueError):
        try:
            fd = sys.stderr.fileno()
        except (AttributeError, OSError, ValueError):
            # A stream of a test, or of the user's, that has no descriptor.
            print(lines, file=sys.stderr, flush=True)
            return
        sys.stderr.flush()
        _write(fd, f"{lines}\n".encode(errors="backslashreplace"))


def _write(fd: int, data: bytes) -> None:
    room = select.poll()
    room.register(fd, select.POLLOUT)
    # A pipe that is ready has room for this much.
    while data and room.poll(0):
        data = data[os.write(fd, data[: select.PIPE_BUF]) :]
