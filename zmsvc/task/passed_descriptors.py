"""Give a task the sockets of `<listen>` as sd_listen_fds(3) says: from descriptor 3 on. The variables are in
`environment`.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace

from zmsvc.protocol.launch import Descriptors

FIRST = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""


def place(fds: Descriptors) -> Descriptors:
    """Move the sockets to their numbers, and every other descriptor of the launch out of their way. All are
    close-on-exec. The process has no descriptors but these and the standard ones.
    """
    count = len(fds.listen)
    if not count:
        return fds
    moved = {name: _above(fd, FIRST + count) for name, fd in fds.given().items()}
    placed = Descriptors.named(moved)
    for at, fd in enumerate(placed.listen):
        os.dup2(fd, FIRST + at, inheritable=False)
        os.close(fd)
    return replace(placed, listen=tuple(range(FIRST, FIRST + count)))


def _above(fd: int, lowest: int) -> int:
    """Return the descriptor, or a copy with a number from `lowest` on, which replaces it."""
    if fd >= lowest:
        return fd
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    os.close(fd)
    return copy


def pass_on(fds: Descriptors) -> None:
    """Let the program that this process is about to execute inherit the sockets."""
    for fd in fds.listen:
        os.set_inheritable(fd, True)
