"""A disk of its own for a test: small, so that it is soon full, and used by no other process, so that it can
be made read-only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from needs import need


class Disk:
    """A mounted one. It is full while the file `fill` is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        fill = self.path / "fill"
        with open(fill, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
        fill.unlink()

    def remount(self, option: str) -> None:
        """`ro` is refused while a process has a file open for writing."""
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True)


@contextlib.contextmanager
def disk(path: Path, size: str = "2m") -> Iterator[Disk]:
    """Mounts one of this size at this directory, which is made."""
    need(os.geteuid() == 0, "only root can mount a disk")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
