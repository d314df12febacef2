"""Decide which users may connect to the bus of a context without CURVE keys. core/access.py states the rule.

For ipc the kernel applies it by the owner, the group and the ACL of the socket file; the ACL has the users of
tasks. For tcp over loopback the supervisor writes the settings of the context file to the members file in the
runtime directory, and the device reads that file, so that a reload has its effect at once. Without the file
only root and the daemon's own user and group may connect.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import time
from pathlib import Path

from zmsvc.core.access import BusAccess
from zmsvc.host import user_ids

_REMEMBER_S = 10.0
"""Seconds for which a lookup of a user is cached: the user database may be on another machine."""
_MAX_REMEMBERED = 1024


class BusUsers:
    """The users that may connect, by the current members file and user database. Without a file: root and the
    daemon's own user and group.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._daemon = (os.geteuid(), os.getegid())
        """The user and the group of the daemon: first those of this process, and then those of the file,
        since this process may be a task of another user.
        """
        self._seen: tuple[int, int] | None = None
        self._access: str = BusAccess.MEMBERS
        self._users: frozenset[str] = frozenset()
        self._known: dict[int, tuple[bool, float]] = {}

    def admit(self, uid: int) -> bool:
        """Return True if this user may connect."""
        self._read()
        if self._access == BusAccess.ANYONE or uid in (0, os.geteuid(), self._daemon[0]):
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
        # The file may have another name for the same user ID.
        return uid in map(user_ids.number, self._users) or self._daemon[1] in os.getgrouplist(
            entry.pw_name, entry.pw_gid
        )

    def _read(self) -> None:
        if self._file is None:
            return
        try:
            about = self._file.stat()
        except OSError:
            return
        if (about.st_ino, about.st_mtime_ns) == self._seen:
            return
        # An unreadable file changes nothing; the supervisor replaces the file as a whole.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(self._file.read_bytes())
            access, users = str(content["access"]), frozenset(map(str, content["users"]))
            self._access, self._users, self._daemon = access, users, (about.st_uid, about.st_gid)
            self._seen = (about.st_ino, about.st_mtime_ns)
            self._known.clear()
