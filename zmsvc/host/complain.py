"""Write messages of a daemon's processes to the terminal that started them, and to the context's log file."""

from __future__ import annotations

import contextlib
import os
import sys
import time

from zmsvc.core import logline, printable
from zmsvc.host.log_file import LogFile, offer, stamp

WARNING = 4
TARGET = "ZMSVC_LOG"
"""The variable with the log target of a daemon, as `journal.configure` takes it."""
DETACHED = "ZMSVC_DETACHED"
"""The variable that is set if the standard error of this daemon leads into the log file and not to a
person.
"""


def complain(text: str) -> None:
    """Write lines without control characters to standard error, and to the log file if this daemon has one.
    Lines that the reader does not take are lost, because a stopped journald, a full disk or a closed terminal
    must not block or end a daemon.
    """
    target = os.environ.get(TARGET, "")
    path = target.removesuffix("+stderr")
    if path.startswith("/"):
        _to_file(path, text)
    # With DETACHED and a log file, stderr is a pipe that may be full: the keeper would wait for its reader.
    if DETACHED not in os.environ or not path.startswith("/"):
        _to_stderr(printable.lines(text))


def _to_stderr(lines: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        try:
            fd = sys.stderr.fileno()
        except (AttributeError, OSError, ValueError):
            # sys.stderr has no descriptor: a test or the user has replaced it.
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
        # All processes of the daemon write under this name.
        begin = f"{stamp(time.time())} {logline.start('zmsvcd', os.getpid(), '')}{logline.NAMES[WARNING]}: "
        file.write(
            "".join(begin + logline.body(line) for line in text.splitlines()).encode(
                "utf-8", "surrogateescape"
            )
        )
    finally:
        file.close()
