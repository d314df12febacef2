"""Which release each process of a context runs, beside the installed one, and what renews those that
differ.
"""

from __future__ import annotations

from zmsvc import __version__
from zmsvc.ctl.select_context import restart_command

TYPE_CHECKING = False  # As in client: typing is not worth its import.
if TYPE_CHECKING:
    from zmsvc.ctl.status_reply import ContextStatus

UNKNOWN = "1.0"
"""zmsvc 1.0 does not tell its version."""


def restart_needed(it: ContextStatus) -> bool:
    """Tell whether a process runs another release than the installed one that only a restart of the
    context renews.
    """
    return any(version != __version__ for version in (it.keeper_version, it.zygote_version))


def told(it: ContextStatus) -> str:
    """Return the line of `status`: one version where all are the same, else each with what renews it."""
    versions = {"supervisor": it.supervisor_version, "keeper": it.keeper_version, "zygote": it.zygote_version}
    if all(version == __version__ for version in versions.values()):
        return __version__
    runs = ", ".join(f"{name} {version or UNKNOWN}" for name, version in versions.items())
    if restart_needed(it):
        return f"{__version__} is installed; {runs}; restart needed: {restart_command(it.name, it.file)}"
    return f"{__version__} is installed; {runs}; zmsvcctl -c {it.name} reexec renews the supervisor"
