"""The sockets of `<listen>` in a task in Python: zmsvc.task.listen_sockets."""

from __future__ import annotations

import functools
import os
import socket

from zmsvc.task.handover import FIRST


def listen_sockets(name: str | None = None) -> list[socket.socket]:
    """Return the listening sockets that the keeper holds for this task, in the order of the context file.
    With `name`, return those with this name, which is by default the ID of the task in the file.

    Each call returns the same objects. They are shared with all replicas of the task: another one may accept
    a connection first, so a socket that is readable may have none. Empty for a task without `<listen>`, and
    in a child process.
    """
    return [sock for each, sock in _sockets(os.getpid()) if name in (None, each)]


@functools.cache
def _sockets(pid: int) -> tuple[tuple[str, socket.socket], ...]:
    if os.environ.get("LISTEN_PID") != str(pid):
        return ()
    names = os.environ["LISTEN_FDNAMES"].split(":")
    return tuple((name, socket.socket(fileno=FIRST + at)) for at, name in enumerate(names))
