"""Users and groups of this machine, by name or number. Looked up only; nothing here changes who a process is."""

from __future__ import annotations

import grp
import pwd


def check_user(name: str) -> str:
    """The same name, when there is such a user. Raises ValueError."""
    try:
        pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        raise ValueError(f"there is no user {name!r}, expected one of this machine") from None
    return name


def check_group(name: str) -> str:
    """The same name, when there is such a group. Raises ValueError."""
    try:
        grp.getgrgid(int(name)) if name.isdecimal() else grp.getgrnam(name)
    except KeyError:
        raise ValueError(f"there is no group {name!r}, expected one of this machine") from None
    return name
