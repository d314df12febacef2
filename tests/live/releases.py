"""Other releases of zmsvc, and a directory in which one is installed after the other, as a package manager
does while processes run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from needs import need

ROOT = Path(__file__).parents[2]

ZMSVC_1_0 = "4ef1121"
"""The commit of zmsvc 1.0, whose keeper and supervisor send no protocol number."""

PROTOCOL_3 = "b68ab39"
"""The last commit whose keeper speaks protocol 3. It can fork on every Python, unlike that of 1.0."""


def extracted(commit: str, into: Path) -> Path:
    """Extract the package of a commit. Return the directory for PYTHONPATH."""
    git = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "zmsvc"], capture_output=True, check=False
    )
    need(git.returncode == 0, f"the history of this checkout has no commit {commit} (git fetch --unshallow)")
    directory = into / commit
    directory.mkdir()
    # Use tar, because tarfile has filters only since Python 3.11.4, and newer versions require one.
    subprocess.run(["tar", "-x", "-C", str(directory)], input=git.stdout, check=True)
    return directory


def edited(into: Path, name: str, file: str, pattern: str, replacement: str) -> Path:
    """Copy the package of this tree, with one change in a file. Return the directory for PYTHONPATH."""
    directory = into / name
    shutil.copytree(ROOT / "zmsvc", directory / "zmsvc", ignore=shutil.ignore_patterns("__pycache__"))
    path = directory / "zmsvc" / file
    text, count = re.subn(pattern, replacement, path.read_text(), flags=re.MULTILINE)
    assert count, f"{file} has no {pattern}"
    path.write_text(text)
    return directory


class Installed:
    """A directory for PYTHONPATH that stands for one release at a time."""

    def __init__(self, home: Path, release: Path) -> None:
        self.path = home / "installed"
        self.path.symlink_to(release)

    def replace(self, release: Path) -> None:
        """Install this release: new processes import it, and those that run keep the modules that they have
        imported.
        """
        new = self.path.with_name("installed.new")
        new.symlink_to(release)
        os.rename(new, self.path)
