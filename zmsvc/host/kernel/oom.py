"""Detect OOM kills. A process that the kernel kills because memory has run out ends by SIGKILL, as others do;
only the counter `oom_kill` of the cgroup shows the difference.
"""

from __future__ import annotations

from pathlib import Path

from zmsvc.host.kernel import cgroups


class OomKills:
    """The kernel's counter of OOM kills in a cgroup. Without a counter `grown` is always False."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen = self._count()

    def grown(self) -> bool:
        """Return True if there was an OOM kill since the last call."""
        seen, self._seen = self._seen, self._count()
        return self._seen > seen

    def _count(self) -> int:
        try:
            lines = self._file.read_text().splitlines() if self._file else []
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def of_context(delegated: Path | None) -> OomKills:
    """Return the counter for all processes of a context: that of its delegated cgroup, or else that of the
    keeper's own cgroup.
    """
    unified, legacy = delegated or cgroups.own(), cgroups.own("memory")
    files = [
        unified / "memory.events" if unified else None,
        legacy / "memory.oom_control" if legacy else None,
    ]
    return OomKills(next((file for file in files if file and file.exists()), None))
