"""Decide which users may connect to the bus of a context without CURVE keys. core/access.py states the rule.

For ipc the kernel applies it by the owner, the group and the ACL of the socket file; the ACL has the users of
tasks. For tcp over loopback the supervisor writes the settings of the context file to the members file in the
runtime directory, and the device reads that file, so that a reload has its effect at once. Without the file
only root and the daemon's own user and group may connect.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from zmsvc.core.model import BusAccess, Context
from zmsvc.core.owners import numeric_id
from zmsvc.host import directories
from zmsvc.host.kernel import acl
from zmsvc.host.paths import Places

_REMEMBER_S = 10.0
"""Seconds for which a lookup of a user is cached: the user database may be on another machine."""
_MAX_REMEMBERED = 1024


def write(file: Path, context: Context) -> None:
    """Write the members file for a context. Raises OSError."""
    users = sorted({task.user for task in context.tasks.values() if task.user})
    directories.write_new(file, json.dumps({"access": context.bus_access, "users": users}), 0o640)
    # A Monitor task of another user reads the file, too. On a file system without ACLs it cannot, and then it
    # accepts fewer users.
    with contextlib.suppress(OSError):
        acl.admit(file, other_users(users))


def open_sockets(places: Places, context: Context) -> tuple[frozenset[int], list[str]]:
    """Let the user of each task open the sockets of the bus, and no longer users that the context file does
    not name any more. Return the users that can open all of the sockets, and the problems to report to the
    operator.
    """
    uids = other_users(task.user for task in context.tasks.values() if task.user)
    problems = []
    for path in _sockets(places, context):
        try:
            acl.admit(path, uids)
        except FileNotFoundError:
            continue
        except OSError as error:
            if uids:
                group = directories.group(os.getegid())
                problems.append(
                    f"the <user> of a task cannot be given access to {path}: {error.strerror}; with "
                    f"<group>{group}</group> the task reaches it"
                )
    return frozenset() if problems else uids, problems


def _sockets(places: Places, context: Context) -> Iterator[Path]:
    """Yield the socket files of the bus: the ipc endpoints of the context file, and the sockets of the
    context's own tasks.
    """
    yield from (places.subscribe_socket, places.publish_socket)
    for place in (context.endpoints.publish_bind, context.endpoints.subscribe_bind):
        if place.startswith("ipc://"):
            path = Path(place.removeprefix("ipc://"))
            if path not in (places.subscribe_socket, places.publish_socket):
                yield path


def number(user: str) -> int | None:
    """Return the user ID of a `<user>`; None if the user database does not know the name."""
    uid = numeric_id(user)
    if uid is not None:
        return uid
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        return None


def group_number(group: str) -> int | None:
    """Return the group ID of a `<group>`; None if the user database does not know the name."""
    gid = numeric_id(group)
    if gid is not None:
        return gid
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None


def other_users(users: Iterable[str]) -> frozenset[int]:
    """Return the IDs of these users without the daemon's own user."""
    return frozenset(uid for user in users if (uid := number(user)) is not None) - {os.geteuid()}


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
        return uid in map(number, self._users) or self._daemon[1] in os.getgrouplist(
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
