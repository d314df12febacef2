"""The IDs of the users and groups that a context file names."""

from __future__ import annotations

import grp
import pwd

from zmsvc.core.owners import numeric_id


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
