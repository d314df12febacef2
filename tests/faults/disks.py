"""A disk for one test. It is small, so that it is soon full, and no other process uses it, so that it can be
made read-only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from needs import need


class Disk:
    """A mounted disk. It is full while the file `fill` exists."""

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
        """Mount the disk again with this option. The kernel refuses `ro` while a process has a file open for
        writing.
        """
        subprocess.run(["mount", "-o", f"remount,{option}", self.path], check=True)


@contextlib.contextmanager
def disk(path: Path, size: str = "2m") -> Iterator[Disk]:
    """Create this directory, and mount a disk of this size there."""
    need(os.geteuid() == 0, "only root can mount a disk")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
