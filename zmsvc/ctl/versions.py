"""A comparison of the releases that the processes of a context run with the installed release."""

from __future__ import annotations

from zmsvc import __version__
from zmsvc.ctl.select_context import restart_command

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.status_reply import ContextStatus

UNKNOWN = "1.0"
"""The version of a process that sends none."""


def restart_needed(it: ContextStatus) -> bool:
    """Return True if keeper or zygote run another release than the installed one. Only a restart of the
    context replaces them.
    """
    return any(version != __version__ for version in (it.keeper_version, it.zygote_version))


def line(it: ContextStatus) -> str:
    """Return the line of `status`: one version if all are the same, else each version and the command that
    replaces the old process.
    """
    versions = {"supervisor": it.supervisor_version, "keeper": it.keeper_version, "zygote": it.zygote_version}
    if all(version == __version__ for version in versions.values()):
        return __version__
    runs = ", ".join(f"{name} {version or UNKNOWN}" for name, version in versions.items())
    if restart_needed(it):
        return f"{__version__} is installed; {runs}; restart needed: {restart_command(it.name, it.file)}"
    return f"{__version__} is installed; {runs}; zmsvcctl -c {it.name} reexec renews the supervisor"
