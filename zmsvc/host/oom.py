"""Whether the kernel killed for want of memory: a process that it chose ends by SIGKILL, as by anybody's hand, and only a count tells."""

from __future__ import annotations

from pathlib import Path

from zmsvc.host import linux

_MACHINE = Path("/proc/vmstat")


class OomKills:
    """The kernel's count of processes that it killed in a cgroup and below it, or on the whole machine where memory is not accounted."""

    def __init__(self, cgroup: Path | None) -> None:
        counted = cgroup / "memory.events" if cgroup else _MACHINE
        self._file = counted if counted.exists() else _MACHINE
        self._seen = self._count()

    def grown(self) -> bool:
        """Whether there has been one since this was asked last."""
        seen, self._seen = self._seen, self._count()
        return self._seen > seen

    def _count(self) -> int:
        try:
            lines = self._file.read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def of_context(delegated: Path | None) -> OomKills:
    """For all processes of a context: those of the cgroup that was handed over to it, or of the one that the keeper happens to be in."""
    return OomKills(delegated or linux.own_cgroup())
