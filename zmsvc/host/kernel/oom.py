"""Whether the kernel killed for want of memory: a process that it chose ends by SIGKILL, as by anybody's
hand, and only a count tells.
"""

from __future__ import annotations

from pathlib import Path

from zmsvc.host.kernel import linux


class OomKills:
    """The kernel's count of processes that it has killed in a cgroup. Without a count there never was one,
    as far as anybody can tell.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen = self._count()

    def grown(self) -> bool:
        """Whether there has been one since this was asked last."""
        seen, self._seen = self._seen, self._count()
        return self._seen > seen

    def _count(self) -> int:
        try:
            lines = self._file.read_text().splitlines() if self._file else []
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def of_context(delegated: Path | None) -> OomKills:
    """For all processes of a context: those of the cgroup that was handed over to it, or of the one that
    the keeper happens to be in.
    """
    unified, legacy = delegated or linux.own_cgroup(), linux.own_cgroup("memory")
    files = [
        unified / "memory.events" if unified else None,
        legacy / "memory.oom_control" if legacy else None,
    ]
    return OomKills(next((file for file in files if file and file.exists()), None))
