"""Read environment files (`<environment_file>`). The syntax is in core/environment_file.py."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from zmsvc.core import environment_file
from zmsvc.core.values import optional_path

MOST = 1 << 20
"""Bytes of one file. The kernel accepts less as the environment of a program."""


def read_all(texts: Iterable[str]) -> dict[str, str]:
    """Return the variables of all files of an option; a later file counts more. Raises ValueError with the
    path, the line if there is one, and the reason.
    """
    found: dict[str, str] = {}
    for text in texts:
        found |= read(text)
    return found


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
    if len(data) > MOST:
        raise ValueError(f"more than {MOST >> 20} MiB")
    return data


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: a FIFO must not block the start of a task.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
