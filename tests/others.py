"""Run programs as other users of this machine, with user IDs that belong to no account."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from needs import need

_FIRST = 1_000_000


def others(count: int) -> list[int]:
    """Return user IDs that only this test process uses. Skip the test if no program can run as another
    user.
    """
    need(os.geteuid() == 0, "only root can be another user")
    need(shutil.which("setpriv"), "setpriv is not installed")
    found = [_FIRST + 10 * (os.getpid() % 100_000) + number for number in range(count)]
    # The daemon executes it again: setpriv itself may still reach what lies in root's home.
    again = "import subprocess, sys, zmsvc.ctl; subprocess.run([sys.executable, '-c', ''], check=True)"
    tried = subprocess.run(
        [*command(found[0]), sys.executable, "-P", "-c", again], cwd="/", capture_output=True
    )
    need(tried.returncode == 0, f"another user cannot run {sys.executable}: {tried.stderr.decode()}")
    return found


def command(uid: int, *groups: int) -> list[str]:
    """Return the beginning of a command line that runs the rest of it as this user, in the group of the same
    number and in `groups`.
    """
    more = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", *more]


def run(
    uid: int, *words: str, groups: tuple[int, ...] = (), **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program as this user, and wait for its end."""
    return subprocess.run(
        [*command(uid, *groups), *words], cwd="/", capture_output=True, text=True, timeout=60, **settings
    )


def python(
    uid: int, code: str, *words: str, groups: tuple[int, ...] = (), **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run Python code as this user, and wait for its end."""
    return run(uid, sys.executable, "-P", "-c", code, *words, groups=groups, **settings)


def give(path: Path, uid: int) -> None:
    """Give a directory and everything in it to this user."""
    for each in (path, *path.rglob("*")):
        os.chown(each, uid, uid, follow_symlinks=False)
