"""Create and read memory files. They carry data that is too large for a datagram, to journald and the
supervisor, and a launch to the task.
"""

from __future__ import annotations

import fcntl
import os

from zmsvc.core.errors import ProtocolError

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, data: bytes) -> int:
    """Return a descriptor (close-on-exec) of a memory file with `data` that can never change again."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write(fd, data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def private(name: str, data: bytes) -> int:
    """Return a descriptor (close-on-exec) of an unsealed memory file with `data`, for a process that trusts
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
    """Return the content of a sealed memory file from an untrusted process. The descriptor stays open.

    Raises ProtocolError for any other descriptor: the sender could block us with a pipe, and could change an
    unsealed file while we read it.
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
