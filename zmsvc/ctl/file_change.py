"""Compare the files of a context with those that its supervisor has read."""

from __future__ import annotations

import os
import stat

from zmsvc.core.errors import ConfigError

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.status_reply import ContextStatus
    from zmsvc.host.paths import Places


def needs_reload(status: ContextStatus, places: Places) -> bool | None:
    """Return True if the files differ from what runs. Return None if that is unknown: this user may not read
    them, or the supervisor is of an earlier release.
    """
    if not status.file_digest or not _may_open(status.file, places):
        return None
    # Imported here for start-up time: only status and show compare.
    from zmsvc.host.config import file_bytes

    try:
        if not stat.S_ISREG(os.stat(status.file).st_mode):
            return None
        files = file_bytes.read(status.file)
    except FileNotFoundError:
        return True
    except (ConfigError, OSError):
        return None
    return file_bytes.digest(*files) != status.file_digest


def _may_open(path: str, places: Places) -> bool:
    """Return False for a path that only a supervisor of another user has named, since it could make root open
    a device.
    """
    if path == os.path.abspath(places.config_file):
        return True
    try:
        return os.lstat(places.control_socket).st_uid in (0, os.geteuid())
    except OSError:
        return False
