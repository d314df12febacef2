"""A machine to test on: systemd, journald and D-Bus of this machine, booted in namespaces over a temporary
overlay of /, or those of another distribution in a directory.

$ZMSVC_BOOT_TREE names another directory than /, such as a Debian in a folder (scripts/suite.py).

It needs root, boots in a third of a second, has no network, and changes nothing on the host. This module does
not use zmsvc. When the process that made the machine is killed, the machine is killed, too, and its mounts
end with its namespaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import textwrap
import time
from pathlib import Path
from types import TracebackType

TOOLS = ("unshare", "nsenter", "setpriv", "systemctl", "dbus-daemon", "ip")
"""Programs that must be installed on the host."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HERE = Path(__file__).parent
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Machine:
    """A booted machine whose files are those of `lower`, with an overlay above.

    `prepare` is a command that runs in it before the boot, by chroot, with the network and `checkout` at
    /mnt.
    """

    def __init__(
        self, *prepare: str, checkout: Path = Path("/"), lower: Path | None = None, patience: float = 300
    ) -> None:
        self._groups = cgroup_base() / f"zmtest-{os.getpid()}-{time.monotonic_ns()}"
        self._directory = Path(tempfile.mkdtemp(prefix="zmtest."))
        try:
            self._lock = self._make_groups()
            self.pid = self._boot(
                prepare, checkout, lower or Path(os.environ.get("ZMSVC_BOOT_TREE", "/")), patience
            )
            state = self.sh("systemctl is-system-running --wait", check=False).stdout.strip()
            if state != "running":
                raise RuntimeError(
                    f"cannot use the machine: it is {state}\n"
                    f"{self.sh('systemctl --failed', check=False).stdout}"
                )
        except BaseException:
            self.close()
            raise

    @property
    def root(self) -> Path:
        """Return the root of the file system of the machine, as a path of this process."""
        return Path(f"/proc/{self.pid}/root")

    def sh(
        self, command: str, *, check: bool = True, timeout: float = 60, user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the machine, as root or `user`. Unless `check` is False, the test fails if
        the status is not 0.
        """
        become = f"setpriv --reuid {user} --regid {user} --init-groups" if user else ""
        enter = (
            f"nsenter -t {self.pid} -m -u -i -n -p -C -r -w env -i TERM=dumb LANG=C.UTF-8 HOME=/root "
            f"PATH={_PATH} {become}"
        )
        # The command is moved into the control group of the machine first, so that a command that hangs ends
        # with the machine.
        done = subprocess.run(
            [
                "sh",
                "-c",
                f'echo 0 > "$0"; exec {enter} sh -c "$1"',
                str(self._groups / "machine/commands/cgroup.procs"),
                command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{command!r} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file on the machine. Common leading blanks of the text are removed."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))
        file.chmod(mode)

    def journal(self, *matches: str, output: str = "short-precise") -> str:
        """Return the output of journalctl for the matches. First journald stores all that it has received."""
        quoted = " ".join(f"'{match}'" for match in matches)
        show = f"journalctl --no-pager --quiet --output={output} {quoted}"
        return self.sh(f"journalctl --sync; {show}", check=False).stdout

    def close(self) -> None:
        """Kill all processes of the machine, PID 1 first. The mounts end with the namespaces."""
        if self._groups.exists():
            (self._groups / "cgroup.kill").write_text("1")
        if hasattr(self, "_process"):
            self._process.wait(60)
        remove_groups(self._groups)
        if hasattr(self, "_lock"):
            os.close(self._lock)
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_groups(self) -> int:
        """Make the control groups of the machine. Return a descriptor that has them locked, so that groups
        whose process was killed are found to be free. A PID would not show that, since it may be one of
        another PID namespace.
        """
        for old in self._groups.parent.glob("zmtest-*"):  # a killed run leaves only empty directories
            with contextlib.suppress(OSError):
                os.close(held(old))
                remove_groups(old)
        self._groups.mkdir()
        lock = held(self._groups)
        for name in ("machine", "outside"):
            (self._groups / name).mkdir()
        return lock

    def _boot(self, prepare: tuple[str, ...], checkout: Path, lower: Path, patience: float) -> int:
        """Return the PID on the host of PID 1 of the machine, when systemd has reported the end of the
        boot.
        """
        work = self._directory / "work"
        work.mkdir()
        address = str(self._directory / "booted")
        output = self._directory / "output"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as booted, output.open("wb") as log:
            booted.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            booted.bind(address)
            # setpriv: when the thread that started the machine ends, all of the machine ends.
            start = (
                'echo 0 > "$0"; exec setpriv --pdeathsig KILL unshare --mount --propagation private sh "$@"'
            )
            self._process = subprocess.Popen(
                [
                    "sh",
                    "-c",
                    start,
                    str(self._groups / "machine/cgroup.procs"),
                    str(_HERE / "prepare.sh"),
                    str(work),
                    str(checkout),
                    str(_HERE / "boot.sh"),
                    str(lower),
                    *prepare,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": address},
            )
            pid = ready(booted, self._process, patience)
        if not pid:
            raise RuntimeError(f"cannot boot a machine:\n{output.read_text(errors='replace')}")
        # The root group of the machine must have no process of ours, because otherwise no controller could be
        # enabled there.
        (self._groups / "outside/cgroup.procs").write_text(str(self._process.pid))
        (self._groups / "machine/commands").mkdir()
        return pid


def ready(booted: socket.socket, process: subprocess.Popen[bytes], patience: float) -> int:
    """Return the process that sent READY=1, or 0 if `process` has ended before, or the time."""
    until = time.monotonic() + patience
    pidfd = os.pidfd_open(process.pid)
    try:
        while (left := until - time.monotonic()) > 0:
            if booted.fileno() not in select.select([booted.fileno(), pidfd], [], [], left)[0]:
                return 0
            text, ancillary, _, _ = booted.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
            if b"READY=1" in text.splitlines():
                return int(_CREDENTIALS.unpack(ancillary[0][2])[0])
        return 0
    finally:
        os.close(pidfd)


def cgroup_base() -> Path:
    """Return the directory of cgroup v2 on the host."""
    for base in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (base / "cgroup.procs").exists():
            return base
    raise RuntimeError("cannot boot a machine: there is no cgroup v2 here")


def held(directory: Path) -> int:
    """Lock a directory and return its descriptor. Raises BlockingIOError when another process holds it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def remove_groups(top: Path) -> None:
    """Remove control groups when their last processes have ended, which the kernel reports by a change of
    cgroup.events.
    """
    for directory, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(FileNotFoundError), (Path(directory) / "cgroup.events").open() as events:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while "populated 1" in events.read() and poll.poll(10_000):
                events.seek(0)
        with contextlib.suppress(OSError):
            os.rmdir(directory)
