"""Read environment files (`<environment_file>`). The syntax is in core/environment_file.py."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from zmsvc.core import environment_file
from zmsvc.core.errors import PlaceError
from zmsvc.core.values import optional_path
from zmsvc.host import directories

MOST = 1 << 20
"""The largest size of one file in bytes. By default the kernel accepts 2 MiB of arguments and variables
together.
"""


def read_all(texts: Iterable[str]) -> dict[str, str]:
    """Return the variables of all files of an option; a later file counts more. Raises ValueError with the
    path, the line if there is one, and the reason.
    """
    found: dict[str, str] = {}
    for text in texts:
        found |= read(text)
    return found


def replaceable(text: str) -> str:
    """Return the reason why another user could replace this file or a link to it; empty if none could. Root
    does not read such a file for a task, since a link could lead to a secret of root.
    """
    try:
        directories.check_source(Path(optional_path(text)[0]))
    except PlaceError as error:
        return str(error)
    except OSError:
        return ""  # `read` reports the same error.
    return ""


def read(text: str) -> dict[str, str]:
    """Return the variables of the file at a path. If a `-` is before it, the file may be missing. Raises
    ValueError as `read_all` does.
    """
    path, optional = optional_path(text)
    try:
        data = _content(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if optional:
            return {}
        raise ValueError(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    try:
        return environment_file.parse(data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: bytes that are not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{path}:{error}") from None


def _content(path: str) -> bytes:
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        data = file.read(MOST + 1)
    if data is None:
        # The file is one of the kernel's that has nothing to read now.
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if len(data) > MOST:
        raise ValueError(f"more than {MOST >> 20} MiB")
    return data


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: a FIFO must not block the start of a task.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
