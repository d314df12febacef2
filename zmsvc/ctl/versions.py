"""Compare the releases of the processes of a context with the installed release."""

from __future__ import annotations

from zmsvc import __version__
from zmsvc.ctl.select_context import restart_command

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.status_reply import ContextStatus

UNKNOWN = "1.0"
"""The version of a process that sends none."""


def restart_needed(status: ContextStatus) -> bool:
    """Return True if keeper or zygote run another release than the installed one. Only a restart of the
    context replaces them.
    """
    return any(version != __version__ for version in (status.keeper_version, status.zygote_version))


def line(status: ContextStatus) -> str:
    """Return the line of `status`: one version if all are the same, else each version and the command that
    replaces the old process.
    """
    versions = {
        "supervisor": status.supervisor_version,
        "keeper": status.keeper_version,
        "zygote": status.zygote_version,
    }
    if all(version == __version__ for version in versions.values()):
        return __version__
    runs = ", ".join(f"{name} {version or UNKNOWN}" for name, version in versions.items())
    if restart_needed(status):
        return (
            f"{__version__} is installed; {runs}; restart needed: {restart_command(status.name, status.file)}"
        )
    return f"{__version__} is installed; {runs}; zmsvcctl -c {status.name} reexec renews the supervisor"
