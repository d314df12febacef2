"""Permit users other than the owner and group to open a file or a socket: a POSIX access control list, as
setfacl(1) writes it (acl(5)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_ATTRIBUTE = "system.posix_acl_access"
# From linux/posix_acl_xattr.h and linux/posix_acl.h: a version, then tag, permissions and ID of each entry,
# in this order.
_VERSION, _NO_ID = 2, 0xFFFF_FFFF
_OWNER, _USER, _GROUP, _MASK, _OTHER = 1, 2, 4, 0x10, 0x20


def admit(path: Path, uids: Iterable[int]) -> None:
    """Give these users the permissions of the group of a file, and take back all that earlier calls have
    given. Follows no link. Raises OSError.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if not (stat.S_ISSOCK(mode) or stat.S_ISREG(mode)):
            raise OSError(errno.EINVAL, "neither a socket nor a regular file", str(path))
        # The attributes of an O_PATH descriptor can be reached only by this name.
        _set(f"/proc/self/fd/{fd}", mode, sorted(set(uids)))
    finally:
        os.close(fd)


def _set(name: str, mode: int, uids: list[int]) -> None:
    if not uids:
        with contextlib.suppress(OSError):  # no list, or a file system without lists
            os.removexattr(name, _ATTRIBUTE)
        return
    owner, group, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    entries = [(_OWNER, owner, _NO_ID), *((_USER, group, uid) for uid in uids)]
    entries += [(_GROUP, group, _NO_ID), (_MASK, group, _NO_ID), (_OTHER, other, _NO_ID)]
    os.setxattr(
        name,
        _ATTRIBUTE,
        struct.pack("<I", _VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries),
    )
