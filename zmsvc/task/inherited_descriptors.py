"""The descriptors that a task in Python gets at its start: the sockets of `<listen>`, and what an earlier
process of the task has stored.
"""

from __future__ import annotations

import functools
import os
import socket

from zmsvc.core import listening
from zmsvc.host.systemd.notify import Notifier
from zmsvc.task.passed_descriptors import FIRST


def listen_sockets(name: str | None = None) -> list[socket.socket]:
    """Return the listening sockets that the keeper holds for this task, in the order of the context file.
    With `name`, return those with this name, which is by default the ID of the task in the file.

    Each call returns the same objects. They are shared with all replicas of the task: another one may accept
    a connection first, so a socket that is readable may have none. Empty for a task without `<listen>`, and
    in a child process.
    """
    return [sock for each, sock in _sockets(os.getpid()) if name in (None, each)]


def store_descriptor(fd: int, name: str = listening.STORED, *, poll: bool = True) -> None:
    """Store a copy of a descriptor: the next process of this task gets it after a crash or a restart, by
    `stored_descriptors`. The option `<file_descriptor_store_max>` says how many may be stored.

    A socket or a pipe is removed from the store when its other end is closed, unless `poll` is False. Several
    descriptors may have one name, of up to 255 printable ASCII letters without a colon. As the other reports
    of a task, this does not wait for the supervisor, whose log says if a descriptor was refused.

    Raises ValueError for another name. Without a supervisor this does nothing.
    """
    _notify(f"FDSTORE=1\nFDNAME={listening.name(name)}" + ("" if poll else "\nFDPOLL=0"), fd)


def remove_stored_descriptors(name: str = listening.STORED) -> None:
    """Remove all descriptors with this name from the store. Those that this process has stay open.

    Raises ValueError for a name that no descriptor can have. Without a supervisor this does nothing.
    """
    _notify(f"FDSTOREREMOVE=1\nFDNAME={listening.name(name)}")


def stored_descriptors(name: str | None = None) -> list[tuple[str, int]]:
    """Return the name and the number of each descriptor that was in the store when this process started, in
    the order in which they were stored. With `name`, return those with this name.

    They stay in the store until they are removed. Each call returns the same numbers, also of those that the
    task has closed meanwhile. Empty in a child process.
    """
    names, stored = _names(os.getpid())
    first = len(names) - stored
    return [(each, FIRST + at) for at, each in enumerate(names) if at >= first and name in (None, each)]


def _notify(text: str, *fds: int) -> None:
    notifier = Notifier()
    try:
        notifier.notify(text, fds=fds)
    finally:
        notifier.close()


@functools.cache
def _sockets(pid: int) -> tuple[tuple[str, socket.socket], ...]:
    names, stored = _names(pid)
    own = names[: len(names) - stored]
    return tuple((name, socket.socket(fileno=FIRST + at)) for at, name in enumerate(own))


def _names(pid: int) -> tuple[list[str], int]:
    """Return the names of all descriptors that this process got, and the number of stored ones, which are the
    last.
    """
    if os.environ.get("LISTEN_PID") != str(pid):
        return [], 0
    return os.environ["LISTEN_FDNAMES"].split(":"), int(os.environ.get("ZMSVC_STORED_FDS", "0"))
