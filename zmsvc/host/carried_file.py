"""Read the file that another host has written about its context, for `zmsvcd --resume-from`."""

from __future__ import annotations

import os
import stat

from zmsvc.core import carried
from zmsvc.core.carried import Carried
from zmsvc.core.errors import CarriedError, reason

VARIABLE = "ZMSVC_RESUME"
"""The environment variable that has the path."""


class CarriedFile:
    """The content of a file, and a text that identifies the file."""

    __slots__ = ("carried", "stamp")

    def __init__(self, carried: Carried, stamp: str) -> None:
        self.carried = carried
        self.stamp = stamp


def read(path: str) -> CarriedFile:
    """Return the content of the file. Raises CarriedError."""
    try:
        # Open without blocking: the open of a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise CarriedError(f"cannot resume from {path}: it is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                text = file.read(carried.MAX_SIZE + 1)
        finally:
            os.close(descriptor)
        return CarriedFile(carried.parse(text), f"{about.st_dev}:{about.st_ino}:{about.st_mtime_ns}")
    except OSError as error:
        why = reason(error).removeprefix(f"{path}: ")
        raise CarriedError(f"cannot resume from {path}: {why}") from None
    except ValueError as error:
        raise CarriedError(f"cannot resume from {path}: {error}") from None
