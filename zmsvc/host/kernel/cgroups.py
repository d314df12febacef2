"""Control groups of version 2: their files, their processes and their limits."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from zmsvc.host.kernel.pidfds import kill_each
from zmsvc.host.kernel.processes import stat_fields


def own(controller: str = "") -> Path | None:
    """Return the directory of this process's cgroup; None without one.

    Without `controller` it is in the unified hierarchy (pure or hybrid), otherwise in the v1 hierarchy of
    that controller.
    """
    mount = _mount(controller)
    if mount is None:
        return None
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers.split(",") == [controller] and path.startswith("/"):
            return mount / path[1:]
    return None


def of_process(pid: int) -> str:
    """Return the path of a process's cgroup in the unified hierarchy. It is empty for the root cgroup, for a
    zombie, if the process does not exist, and if there is no unified hierarchy.
    """
    fields = stat_fields(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return ""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((line.removeprefix("0::").rstrip("/") for line in lines if line.startswith("0::/")), "")


def _mount(controller: str) -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(maxsplit=2)
        wanted = kind == "cgroup" and controller in options.split(",") if controller else kind == "cgroup2"
        if wanted:
            return Path(before.split()[4])
    return None


_USER_SERVICE = re.compile(r"/user@\d+\.service/(?:.*/)?[^/]+\.service$")
"""The path of a service's cgroup below a user's service manager."""


def is_delegated(directory: Path) -> bool:
    """Return True if this process may create cgroups in `directory`: systemd has delegated it, or it belongs
    to a user's own service.

    systemd marks a delegated cgroup by an extended attribute. But the user manager of systemd 252 does not,
    even with Delegate=yes. There the owner of the directory shows it: everything below user@UID.service
    belongs to the user.
    """
    writable = all(os.access(path, os.W_OK) for path in (directory, directory / "cgroup.procs"))
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return writable and os.getxattr(directory, name) == b"1"
    if not writable or not _USER_SERVICE.search(f"{directory}"):
        return False
    return directory.stat().st_uid == os.geteuid()


def enter(directory: Path) -> None:
    """Move this process into a cgroup."""
    (directory / "cgroup.procs").write_text("0")


def descriptor(directory: Path) -> int:
    """Return a descriptor of a cgroup's directory, which is created if it is missing. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def is_populated(directory: Path) -> bool:
    """Return True if a process, running or zombie, is in this cgroup or below it."""
    try:
        return "populated 1" in (directory / "cgroup.events").read_text()
    except OSError as error:
        if error.errno not in _NO_CGROUP:
            raise
        return False


_NO_CGROUP = (errno.ENOENT, errno.ENODEV)
"""Errors for a cgroup that does not exist, or was removed while its file was open."""


def processes_in(directory: Path, without: str = "") -> list[int]:
    """Return the processes in a cgroup and in the cgroups below it. With `without`, leave out the cgroups
    directly below it whose names begin with this text. Raises OSError.
    """
    found: list[int] = []
    for path, below, _ in os.walk(directory):
        if without and path == str(directory):
            below[:] = [name for name in below if not name.startswith(without)]
        try:
            found += [int(line) for line in (Path(path) / "cgroup.procs").read_text().split()]
        except OSError as error:
            # The processes of a threaded cgroup are listed in the cgroup above it.
            if error.errno not in (*_NO_CGROUP, errno.EOPNOTSUPP):
                raise
    return found


def kill(directory: Path) -> None:
    """SIGKILL all processes of a cgroup at once (Linux 5.14), or on older kernels one by one."""
    try:
        (directory / "cgroup.kill").write_text("1")
    except OSError:
        kill_each(processes_in(directory))


def remove(directory: Path) -> None:
    """Remove a cgroup and the cgroups below it. A cgroup that still has a process stays."""
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return


def controllers(directory: Path) -> list[str]:
    """Return the controllers that a cgroup has, and may pass on to the cgroups in it. Raises OSError."""
    return (directory / "cgroup.controllers").read_text().split()


def machine_controllers() -> list[str]:
    """Return the controllers that the machine has in the unified hierarchy; none without one."""
    mount = _mount("")
    try:
        return controllers(mount) if mount else []
    except OSError:
        # The root of a mount in a container may lack the file.
        return []


def enable_controller(directory: Path, name: str) -> None:
    """Pass a controller on to the cgroups in a cgroup that itself has no process. Raises OSError."""
    (directory / "cgroup.subtree_control").write_text(f"+{name}")


def write(directory: Path, file: str, text: str) -> None:
    """Write a text to a file of a cgroup. Raises OSError."""
    # With O_NONBLOCK the write of a lower memory limit does not wait until the kernel has reclaimed memory
    # (since Linux 6.16).
    fd = os.open(directory / file, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def memory_size() -> int:
    """Return the bytes of memory that this process may use: those of this machine, or of the container or
    another cgroup around it if that has a lower limit.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [machine]
    for controller, file in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        directory, mount = own(controller), _mount(controller)
        if directory is not None and mount is not None:
            limits += limits_around(directory, mount, file)
    return min(limits)


def limits_around(directory: Path, mount: Path, file: str) -> list[int]:
    """Return the limits in a file of a cgroup and of those above it, up to `mount`."""
    found = []
    for each in (directory, *directory.parents):
        try:
            text = (each / file).read_text().strip()
        except OSError:
            # The root of the machine has no such file, and a controller may be missing.
            text = ""
        if text.isdecimal():
            found.append(int(text))
        if each == mount:
            break
    return found
