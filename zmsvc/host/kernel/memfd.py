"""Memory files: how more than a datagram holds is passed on, to journald and to the supervisor, and a
launch to the task.
"""

from __future__ import annotations

import fcntl
import os

from zmsvc.core.errors import ProtocolError

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, data: bytes) -> int:
    """A descriptor (close-on-exec) of a memory file that holds `data` and can never change again."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write(fd, data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def private(name: str, data: bytes) -> int:
    """Return a descriptor (close-on-exec) of a memory file that holds `data`, for a process that trusts
    this one.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        _write(fd, data)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read(fd: int, limit: int) -> bytes:
    """What a sealed memory file from anyone holds; the descriptor stays open.

    Raises ProtocolError for anything else: a pipe would let the sender block us, an unsealed file change
    under our eyes.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ProtocolError("cannot read passed file: it is not a memory file") from error
    if seals & _SEALS != _SEALS:
        raise ProtocolError("cannot read passed file: it is not sealed")
    size = os.fstat(fd).st_size
    if size > limit:
        raise ProtocolError(f"cannot read passed file: {size} bytes, at most {limit} are allowed")
    return os.pread(fd, size, 0)
