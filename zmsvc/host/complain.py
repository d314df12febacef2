"""What the processes of a daemon tell the terminal that they were started from, and the log file of the
context.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from zmsvc.core import logline, printable
from zmsvc.host.log_file import LogFile, offer, stamp

WARNING = 4
TARGET = "ZMSVC_LOG"
"""The variable that says where a daemon logs, as `journal.configure` takes it."""
DETACHED = "ZMSVC_DETACHED"
"""The variable that says that no person has the standard error of this daemon: it leads into the log file."""


def complain(text: str) -> None:
    """Write lines to standard error, without control characters, and to the log file if this daemon has one.

    They are lost where no reader takes them: a journal that was stopped, a full disk or a closed terminal
    must not hold or end a daemon.
    """
    target = os.environ.get(TARGET, "")
    path = target.removesuffix("+stderr")
    if path.startswith("/"):
        _to_file(path, text)
    # There it is a pipe, which may be full: the keeper would wait for the process that reads it.
    if DETACHED not in os.environ or not path.startswith("/"):
        _to_stderr(printable.lines(text))


def _to_stderr(lines: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        try:
            fd = sys.stderr.fileno()
        except (AttributeError, OSError, ValueError):
            # A stream of a test, or of the user's, that has no descriptor.
            print(lines, file=sys.stderr, flush=True)
            return
        sys.stderr.flush()
        offer(fd, f"{lines}\n".encode(errors="backslashreplace"))


def _to_file(path: str, text: str) -> None:
    try:
        file = LogFile(path)
    except OSError:
        return
    try:
        # For a process of the daemon it is its own name, which `ps` shows as well.
        begin = f"{stamp(time.time())} {logline.start('zmsvcd', os.getpid(), '')}{logline.NAMES[WARNING]}: "
        file.write(
            "".join(begin + logline.body(line) for line in text.splitlines()).encode(
                "utf-8", "surrogateescape"
            )
        )
    finally:
        file.close()
