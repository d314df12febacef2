"""Keep some descriptors of this process free: signals and stops need them."""

from __future__ import annotations

import errno
import os
import resource

ROOM = 16
"""The number of descriptors that long-lived files and sockets must leave free. Finding, signaling or killing
a process takes a few of them for a moment.
"""


def leave_room(fd: int) -> None:
    """Raise OSError (EMFILE) if this new descriptor is one of the last ROOM: the kernel assigns the lowest
    free number.
    """
    if fd >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - ROOM:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def require_free(count: int) -> None:
    """Raise OSError (EMFILE) unless this process may open so many further descriptors. It counts them all,
    since the number of a new one is low if an earlier one was closed.
    """
    if len(os.listdir("/proc/self/fd")) + count > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
