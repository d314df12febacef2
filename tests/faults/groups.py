"""Control groups for tests: one that is delegated as by systemd, and others that limit memory or the number
of processes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from needs import need
from waiting import wait_for


def _mounted(kind: str, option: str = "") -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith(f"{kind} ") and (not option or option in after.split()[-1].split(",")):
            return Path(before.split()[4])
    return None


@contextlib.contextmanager
def _made(base: Path) -> Iterator[Path]:
    # A killed run may have left a group with this PID in its name.
    directory = base / f"zmfault-{os.getpid()}-{time.monotonic_ns()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        for path, _, _ in os.walk(directory, topdown=False):
            wait_for(lambda path=path: _removed(Path(path)))  # type: ignore[misc]


def _removed(directory: Path) -> bool:
    """Remove a group; return False if it is not empty yet, for which the kernel takes a moment. Processes in
    it are moved to the root.
    """
    for word in (directory / "cgroup.procs").read_text().split():
        with contextlib.suppress(OSError):
            os.kill(int(word), 9)
    with contextlib.suppress(OSError):
        directory.rmdir()
    return not directory.exists()


@contextlib.contextmanager
def delegated() -> Iterator[list[str]]:
    """Yield the command that runs a daemon in a delegated group."""
    need(os.geteuid() == 0, "only root can delegate a control group")
    base = _mounted("cgroup2")
    need(base, "there is no cgroup v2 hierarchy")
    assert base is not None
    for name in {"cpu", "io", "memory", "pids"}.intersection(
        (base / "cgroup.controllers").read_text().split()
    ):
        (base / "cgroup.subtree_control").write_text(f"+{name}")
    with _made(base) as directory:
        os.setxattr(directory, "trusted.delegate", b"1")
        yield ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(directory)]


@contextlib.contextmanager
def little_memory(mebibytes: int) -> Iterator[list[str]]:
    """Yield the command that runs a daemon in a group with a limit of memory, and without swap."""
    need(os.geteuid() == 0, "only root can limit memory")
    base, unified = _with_controller("memory")
    with _made(base) as directory:
        limit = str(mebibytes << 20)
        (directory / ("memory.max" if unified else "memory.limit_in_bytes")).write_text(limit)
        if (directory / "memory.swap.max").exists():
            (directory / "memory.swap.max").write_text("0")
        yield ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(directory)]


def _with_controller(name: str) -> tuple[Path, bool]:
    """Return the hierarchy whose groups have this controller, and True if it is the unified one."""
    unified = _mounted("cgroup2")
    has = unified is not None and name in (unified / "cgroup.controllers").read_text().split()
    base = unified if has else _mounted("cgroup", name)
    need(base, f"there is no {name} controller")
    assert base is not None
    if has:
        (base / "cgroup.subtree_control").write_text(f"+{name}")
    return base, has


class Limited:
    """A group that limits the number of processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def processes(self) -> list[int]:
        return [int(word) for word in (self._directory / "cgroup.procs").read_text().split()]

    def wait_until_full(self) -> None:
        limit = int((self._directory / "pids.max").read_text())
        wait_for(lambda: int((self._directory / "pids.current").read_text()) >= limit)


@contextlib.contextmanager
def at_most(number: int, pid: int) -> Iterator[Limited]:
    """Limit the number of processes and threads of a process and its children, this process included."""
    need(os.geteuid() == 0, "only root can make a control group")
    base, has = _with_controller("pids")
    groups = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    before = next(path for _, controllers, path in groups if controllers == ("" if has else "pids"))
    with _made(base) as directory:
        (directory / "cgroup.procs").write_text(str(pid))
        (directory / "pids.max").write_text(str(number))
        try:
            yield Limited(directory)
        finally:
            (directory / "pids.max").write_text("max")
            # All that was forked meanwhile lives on.
            home = base / before.lstrip("/") / "cgroup.procs"
            for word in (directory / "cgroup.procs").read_text().split():
                home.write_text(word)
