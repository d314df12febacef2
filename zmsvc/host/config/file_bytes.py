"""The bytes of the files of a context, and a digest of them. zmsvcctl imports this module to see that a file
has changed, so it imports no dataclass.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from zmsvc.core.errors import ConfigError, PlaceError
from zmsvc.host import directories

MAX_SIZE = 16 << 20
"""The maximum size of all files of a context together, in bytes. A file of 1,000 tasks has about one million.
"""
MAX_PARTS = 10_000
"""The maximum number of files in the directory of a context."""

File = tuple[str, bytes]
"""A path and the bytes of its file."""


def parts_directory(path: str | Path) -> Path:
    """Return the directory whose files add tasks to a context file."""
    return Path(path).with_suffix(".d")


def read(path: str | Path) -> tuple[bytes, tuple[File, ...]]:
    """Return the bytes of a context file, and the files in its directory, each MAX_SIZE + 1 bytes at most.
    Root's tasks run as root, so root reads no file that other users may change.

    Raises OSError if the context file cannot be read, and ConfigError for a file that is refused and for any
    other fault of the directory.
    """
    with open(path, "rb") as file:
        _check(path, file.fileno())
        text = file.read(MAX_SIZE + 1)
    return text, _read_parts(parts_directory(path))


def saved(text: bytes, parts: Iterable[File]) -> str:
    """Return the files of the directory in the form of the state file. The `text` of the context file is
    stored there separately.

    An earlier release would replace that text and leave this value. So the value has a digest of the text to
    which it belongs.
    """
    # Latin-1 has a character for each byte; the files may have any encoding.
    files = {os.path.basename(path): each.decode("latin-1") for path, each in parts}
    return json.dumps({"of": digest_of_text(text), "files": files}, ensure_ascii=False)


def digest(text: bytes, parts: Iterable[File]) -> str:
    """Return a digest of all files of a context, by which a client sees that they have changed."""
    return digest_of_text(saved(text, parts).encode())


def digest_of_text(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _read_parts(directory: Path) -> tuple[File, ...]:
    try:
        names = sorted(each for each in os.listdir(directory) if each.endswith(".xml") and each[0] != ".")
        if os.geteuid() == 0:
            directories.check_directory_of_files(directory)
    except FileNotFoundError:
        return ()
    except PlaceError as error:
        raise ConfigError(
            [f"{directory}:1: root cannot use this directory: {error}, expected a directory of root's"]
        ) from error
    except OSError as error:
        raise ConfigError(
            [f"{directory}:1: cannot read the directory ({_why(error)}), expected files that add tasks"]
        ) from error
    if len(names) > MAX_PARTS:
        raise ConfigError([f"{directory}:1: there are {len(names)} files, expected at most {MAX_PARTS}"])
    parts, faults, left = [], list[str](), MAX_SIZE
    for name in names:
        try:
            text = _read_part(directory / name, left)
        except ConfigError as error:
            faults += error.faults
            continue
        if text is not None:
            parts.append((str(directory / name), text))
            left = max(0, left - len(text))
    if faults:
        raise ConfigError(faults)
    return tuple(parts)


def _read_part(path: Path, limit: int) -> bytes | None:
    """Return the bytes of a file, `limit` + 1 at most; None if it has just been removed."""
    try:
        # Without O_NONBLOCK a FIFO would block the supervisor.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError([f"{path}:1: this is not a regular file, expected one that adds tasks"])
            _check(path, fd)
            return file.read(limit + 1)
    except FileNotFoundError as error:
        if not os.path.lexists(path):
            return None
        raise ConfigError([f"{path}:1: the link leads to no file, expected one that adds tasks"]) from error
    except OSError as error:
        raise ConfigError(
            [f"{path}:1: cannot read the file ({_why(error)}), expected one that adds tasks"]
        ) from error


def _check(path: str | Path, fd: int) -> None:
    if os.geteuid() == 0:
        try:
            directories.check_file(path, os.fstat(fd))
        except PlaceError as error:
            raise ConfigError(
                [f"{os.fspath(path)}:1: root cannot use this file: {error}, expected a file of root's"]
            ) from error


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
