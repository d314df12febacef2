"""Who may connect to a tcp endpoint of a context over loopback without CURVE keys. core/access.py has the rule in words.

The supervisor writes what the context file says of it into the runtime directory, and the device reads it, so that a reload counts at
once. Without the file nobody but the daemon's own users may connect.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import time
from pathlib import Path

from zmsvc.core.model import BusAccess, Context
from zmsvc.host import directories

_REMEMBER_S = 10.0
"""Seconds for which the user database is not asked again about one user; it may be on another machine."""
_MAX_REMEMBERED = 1024


def write(file: Path, context: Context) -> None:
    """Put down what the context file says. Raises OSError."""
    users = sorted({task.user for task in context.tasks.values() if task.user})
    directories.write_new(file, json.dumps({"access": context.bus_access, "users": users}), 0o640)


class Members:
    """The users that may connect, as the file and the user database have them now."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, int] | None = None
        self._access: str = BusAccess.MEMBERS
        self._users: frozenset[str] = frozenset()
        self._known: dict[int, tuple[bool, float]] = {}

    def admit(self, uid: int) -> bool:
        """Tell whether this user may connect."""
        self._read()
        if self._access == BusAccess.ANYONE or uid in (0, os.geteuid()):
            return True
        verdict, until = self._known.get(uid, (False, 0.0))
        if time.monotonic() >= until:
            verdict = self._judge(uid)
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known[uid] = (verdict, time.monotonic() + _REMEMBER_S)
        return verdict

    def _judge(self, uid: int) -> bool:
        if str(uid) in self._users:
            return True
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return False
        # The name in the file may be another name of the same number.
        return uid in self._numbers() or os.getegid() in os.getgrouplist(entry.pw_name, entry.pw_gid)

    def _numbers(self) -> set[int]:
        found = set()
        for user in self._users:
            with contextlib.suppress(KeyError):
                found.add(pwd.getpwnam(user).pw_uid)
        return found

    def _read(self) -> None:
        try:
            about = self._file.stat()
        except OSError:
            return
        if (about.st_ino, about.st_mtime_ns) == self._seen:
            return
        # What cannot be read changes nothing; the supervisor puts whole files here.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads(self._file.read_bytes())
            access, users = str(told["access"]), frozenset(map(str, told["users"]))
            self._access, self._users = access, users
            self._seen = (about.st_ino, about.st_mtime_ns)
            self._known.clear()
