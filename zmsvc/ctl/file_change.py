"""Compare the files of a context with those that its supervisor has read."""

from __future__ import annotations

from zmsvc.core.errors import ConfigError

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.status_reply import ContextStatus


def needs_reload(it: ContextStatus) -> bool | None:
    """Return True if the files differ from what runs. Return None if that is unknown: this user may not read
    them, or the supervisor is of an earlier release.
    """
    if not it.file_digest:
        return None
    # Imported here for start-up time: only status and show compare.
    from zmsvc.host.config import context_files

    try:
        files = context_files.read(it.file)
    except FileNotFoundError:
        return True
    except ConfigError:
        # A reload would refuse the files, and say why.
        return True
    except OSError:
        return None
    return context_files.digest(files.text, files.parts) != it.file_digest
