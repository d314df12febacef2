"""Who may connect to the bus of a context without CURVE keys. core/access.py has the rule in words.

At a socket with a file the kernel applies the rule: owner, group, and a list of the users of tasks. For tcp
over loopback the supervisor writes what the context file says into the runtime directory, and the device
reads it, so that a reload counts at once. Without the file only root and the daemon's own users may connect.
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
"""Seconds for which the user database is not asked again about one user; it may be on another machine."""
_MAX_REMEMBERED = 1024


def write(file: Path, context: Context) -> None:
    """Put down what the context file says. Raises OSError."""
    users = sorted({task.user for task in context.tasks.values() if task.user})
    directories.write_new(file, json.dumps({"access": context.bus_access, "users": users}), 0o640)
    # A Monitor of another user reads it, too. Where the file system knows no such lists, that one lets in
    # fewer users.
    with contextlib.suppress(OSError):
        acl.admit(file, other_users(users))


def open_sockets(places: Places, context: Context) -> tuple[frozenset[int], list[str]]:
    """Let the user of each task open the sockets of the bus, and no user whom the file no longer names.

    Return the users who can open all of them, and what a person should be told.
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
                    f"the <user> of a task cannot be let to {path}: {error.strerror}; with "
                    f"<group>{group}</group> the task reaches it"
                )
    return frozenset() if problems else uids, problems


def _sockets(places: Places, context: Context) -> Iterator[Path]:
    """Where the bus has a file: the endpoints of the context file, and beside tcp those for the context's
    own tasks.
    """
    yield from (places.sub_socket, places.pub_socket)
    for place in (context.endpoints.front_bind, context.endpoints.backend_bind):
        if place.startswith("ipc://"):
            path = Path(place.removeprefix("ipc://"))
            if path not in (places.sub_socket, places.pub_socket):
                yield path


def number(user: str) -> int | None:
    """Return the user ID that a `<user>` means; None where the user database knows no such name."""
    uid = numeric_id(user)
    if uid is not None:
        return uid
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        return None


def group_number(group: str) -> int | None:
    """Return the group ID that a `<group>` means; None where the user database knows no such name."""
    gid = numeric_id(group)
    if gid is not None:
        return gid
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None


def other_users(users: Iterable[str]) -> frozenset[int]:
    """Return the IDs of those users who are not the daemon's own."""
    return frozenset(uid for user in users if (uid := number(user)) is not None) - {os.geteuid()}


class Members:
    """The users that may connect, as the file and the user database have them now. Without a file: root
    and the daemon's own.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._daemon = (os.geteuid(), os.getegid())
        """User and group of the daemon: of the file's owner, for a task of another user may ask, too."""
        self._seen: tuple[int, int] | None = None
        self._access: str = BusAccess.MEMBERS
        self._users: frozenset[str] = frozenset()
        self._known: dict[int, tuple[bool, float]] = {}

    def admit(self, uid: int) -> bool:
        """Tell whether this user may connect."""
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
        # The name in the file may be another name of the same number.
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
        # What cannot be read changes nothing; the supervisor puts whole files here.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads(self._file.read_bytes())
            access, users = str(told["access"]), frozenset(map(str, told["users"]))
            self._access, self._users, self._daemon = access, users, (about.st_uid, about.st_gid)
            self._seen = (about.st_ino, about.st_mtime_ns)
            self._known.clear()
