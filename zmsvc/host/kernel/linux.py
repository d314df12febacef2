"""The one door to the kernel: prctl, pidfds, process identity, credentials, cgroup v2 files. Each wrapper is
a few lines; none decides.

Only this module, `interpreter`, and those with one shortcut each (`immortal`, `constants`, `allocators`) may
import ctypes.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import re
import resource
import select
import signal
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from zmsvc.host.python.interpreter import Shortcut, disabled

ROOM = 16
"""Descriptors that what stays open leaves free: to find, signal and kill a process takes some for a
moment.
"""

# From the Linux kernel headers (prctl.h).
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

PR_GET_TID_ADDRESS = 40
_LOOKS = 8
# From sched.h.
CLONE_INTO_CGROUP = 0x2_0000_0000
CLONE_PARENT = 0x8000
CLONE_CHILD_SETTID = 0x0100_0000
CLONE_CHILD_CLEARTID = 0x0020_0000
_SIBLING = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
# From linux/sched.h.
PF_FORKNOEXEC = 0x40
# From asm/unistd.h and asm-generic/unistd.h: by machine and the size of a pointer, for a 32-bit program has
# numbers of its own. Machines are left out whose clone() has other arguments.
_CLONE_NUMBERS = {
    ("x86_64", 8): 56,
    ("aarch64", 8): 220,
    ("riscv64", 8): 220,
    ("loongarch64", 8): 220,
    ("ppc64le", 8): 120,
}
SYS_CLONE3 = 435
# From asm-generic/socket.h.
SO_PEERGROUPS = 59
SO_PASSRIGHTS = 83

# PyDLL keeps the interpreter's lock over a call: around a fork nobody else may run.
_libc = ctypes.PyDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    # The bytes themselves and no ctypes buffer: that is a new type for each length, made out of 40 pages.
    if _libc.prctl(option, value if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children, so their exit statuses are its own to
    read.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """SIGKILL this process when `parent` dies, also when that has happened already.

    A change of user or group clears it: call it again after dropping privileges.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def signal_at_parents_death(number: int) -> None:
    """Send this process a signal when its parent dies."""
    _prctl(PR_SET_PDEATHSIG, number)


def set_process_name(name: str) -> None:
    """What `ps -o comm` calls this process: the first 15 bytes of it. A program that is executed has its
    own.
    """
    _prctl(PR_SET_NAME, name.encode())


def set_process_title(title: str) -> None:
    """What `ps` and `systemctl status` show as the command line of this process, as far as its own had
    room.
    """
    begin, end = _own_arguments()
    if end > begin:
        # The last byte stays 0: else the kernel would go on to read where the environment is.
        room = end - begin
        ctypes.memmove(begin, title.encode()[: room - 1].ljust(room, b"\0"), room)


@functools.cache
def _own_arguments() -> tuple[int, int]:
    """Return where the arguments of this process are in its memory, as in that of a fork; (0, 0) where the
    kernel does not say.

    Read once, by the process out of which tasks are forked.
    """
    fields = stat_fields(os.getpid())
    return (int(fields[45]), int(fields[46])) if fields and len(fields) > 46 else (0, 0)


class SiblingClone:
    """The system call of a fork whose child is a child of this process's parent. For a process with one
    thread.

    Made once, and called for each fork. It does nothing of what an interpreter has to do around a fork: see
    zmsvc.host.kernel.fork.
    """

    def __init__(self) -> None:
        """Raises OSError where the kernel does not offer what it needs, or its system call has no known
        number.
        """
        self._number = _CLONE_NUMBERS.get((os.uname().machine, struct.calcsize("P")))
        if self._number is None:
            raise OSError(errno.ENOSYS, f"the number of clone() is not known for {os.uname().machine}")
        # glibc keeps the thread's ID at this address and would set it after its own fork; the kernel does it
        # for us. A kernel without CONFIG_CHECKPOINT_RESTORE does not tell the address.
        address = ctypes.c_ulong()
        if _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the kernel does not tell the address of the thread's ID")
        self._address = address
        self._flags = ctypes.c_ulong(_SIBLING)
        # Looked up here: in each child it would cost 70 copied pages.
        self._syscall = _libc.syscall

    def arguments(self, cgroup: int) -> bytes:
        """Return what a call with this descriptor of a cgroup's directory takes."""
        # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
        # set_tid, set_tid_size, cgroup. A sibling's exit signal is its parent's own, and may not be named.
        return struct.pack(
            "=11Q", _SIBLING | CLONE_INTO_CGROUP, 0, self._address.value, 0, 0, 0, 0, 0, 0, 0, cgroup
        )

    def __call__(self, arguments: bytes | None) -> tuple[int, bool]:
        """Fork. Returns the PID, 0 in the child or -1 (see `error`), and whether the child began in the
        cgroup of `arguments`.

        That takes 0.2 ms, where moving a lone process costs 12 ms (a global grace period). It needs clone3(),
        which a kernel or a seccomp filter may not offer (RestrictNamespaces= hides it); then the child has to
        move by itself.
        """
        if arguments is not None:
            pid = int(self._syscall(SYS_CLONE3, arguments, ctypes.c_size_t(len(arguments))))
            if pid >= 0:
                return pid, True
        # Some machines have the address fourth, some fifth, after a `tls` that nobody looks at here.
        return int(self._syscall(self._number, self._flags, None, None, self._address, self._address)), False

    @staticmethod
    def error() -> OSError:
        """Return the reason why the last call gave -1."""
        return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def current_umask() -> int:
    """Return the umask of this process, which the kernel tells only when it is set. For a process with one
    thread.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def forbid_new_privileges() -> None:
    """No program that this process or a descendant executes gains privileges: setuid bits and file
    capabilities have no effect.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def has_capabilities() -> bool:
    """Tell whether this process has any capability, or could pass one on."""
    status = Path("/proc/self/status").read_text()
    return any(int(word, 16) for word in re.findall(r"^Cap(?:Inh|Prm|Amb):\s*(\w+)$", status, re.MULTILINE))


def drop_capabilities() -> None:
    """Give up each capability of this thread, also those that a program which it executes would have
    (capabilities(7)).
    """
    # struct __user_cap_header_struct of linux/capability.h with version 3, and two times struct
    # __user_cap_data_struct.
    if _libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_room(fd: int) -> None:
    """Raise OSError (EMFILE) when this new descriptor is one of the last: the kernel gives the lowest
    number that is free.
    """
    if fd >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - ROOM:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


# --- news of files

# From sys/inotify.h.
IN_MODIFY = 0x0002
IN_MOVED_TO = 0x0080
IN_CREATE = 0x0100


class Inotify:
    """Tells that something has happened to files and directories, see inotify(7)."""

    def __init__(self) -> None:
        """Raises OSError, as where a user has as many as fs.inotify.max_user_instances allows."""
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC))

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def watch(self, fd: int, events: int) -> None:
        """Watch the file or directory that a descriptor stands for, whatever it is called by now. Raises
        OSError.
        """
        _checked(_libc.inotify_add_watch(self._fd, f"/proc/self/fd/{fd}".encode(), ctypes.c_uint32(events)))

    def wait(self) -> None:
        """Wait until something has happened since the last call."""
        # The GIL is kept over calls of _libc; this one lets other threads run.
        os.read(self._fd, 65536)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# --- identity


def boot_id() -> str:
    """Which boot this is: PIDs, start times and monotonic times of another one mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none. With the PID and the
    boot, its identity.
    """
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def stat_fields(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from `state` (field 3) on; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def user_of(pid: int) -> int | None:
    """Return the effective user ID of a process; None when it is gone. The owner of its /proc directory
    may be root instead.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next((int(line.split()[2]) for line in file if line.startswith(b"Uid:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def descends(pid: int, ancestor: int) -> bool:
    """Tell whether a process was forked by `ancestor`, a subreaper, or by what that has forked. True where
    it cannot be found out.
    """
    for _ in range(_LOOKS):
        at = pid
        while at and at != ancestor:
            fields = stat_fields(at)
            if fields is None:
                break  # It has ended meanwhile, and what it had forked has another parent now.
            at = int(fields[1])
        else:
            return at == ancestor
    return True


def has_executed(pid: int) -> bool:
    """Tell whether a process, or zombie, has executed a program since it was forked; False when it is
    gone.
    """
    fields = stat_fields(pid)
    # `flags` of proc(5): an exec that can no longer fail clears this one, and nothing sets it again.
    return fields is not None and not int(fields[6]) & PF_FORKNOEXEC


def process_name(pid: int) -> str:
    """What `ps` calls the command; empty when the process is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def kill_each(pids: Iterable[int]) -> None:
    """SIGKILL each of these processes, whatever has become of their numbers meanwhile. One that may not be
    killed spares no other.
    """
    for pid in pids:
        with contextlib.suppress(OSError):
            started = start_time(pid)
            if started is not None:
                send_signal(pid, started, signal.SIGKILL)


def environment_of(pid: int) -> bytes:
    """A process's initial environment, NUL between entries; empty when it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def show_environment(text: bytes) -> None:
    """Have `environment_of` this process, and of all that it forks, be this: without an exec it is what the
    forking program had.

    It is written where the old one lies, which nobody may use any more. Where that took less room nothing
    changes.
    """
    start, size = _environment_area()
    if len(text) <= size:
        ctypes.memmove(start, text.ljust(size, b"\0"), size)


@functools.cache
def _environment_area() -> tuple[int, int]:
    """Address and bytes of this program's initial environment. A fork has the same."""
    fields = stat_fields(os.getpid())
    start, end = (int(fields[47]), int(fields[48])) if fields else (0, 0)
    return start, end - start


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signal exactly this process through a pidfd; False when it is gone, or the PID is somebody else's by
    now.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The start time is read after the pidfd was opened: from here on the number cannot come to mean
        # another process.
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def wait_for_end(pid: int, seconds: float) -> bool:
    """Wait until a process has ended; False when it has not in time. It blocks."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of whoever is at the other end of a Unix stream."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", data)
    return pid, uid, gid


def peer_groups(sock: socket.socket) -> frozenset[int]:
    """All groups of whoever is at the other end of a Unix stream; of more than 256 the primary one alone."""
    primary = peer_credentials(sock)[2]
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        return frozenset({primary})
    return frozenset({primary, *struct.unpack(f"{len(data) // 4}I", data)})


def refuse_descriptors(sock: socket.socket) -> bool:
    """Have the kernel refuse descriptors that a client sends over this Unix socket, and over those that are
    accepted from it.

    False where it cannot (before Linux 6.16), or where ZMSVC_DISABLE says so.
    """
    if Shortcut.PASSRIGHTS in disabled():
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


def refuses_descriptors(sock: socket.socket) -> bool:
    """Tell whether the kernel refuses them."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0
    except OSError:
        return False


# --- memory


def own_memory() -> int:
    """Return the bytes that this process has in memory and shares with no file or other process."""
    with open("/proc/self/statm", "rb") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


def trim_heap() -> None:
    """Return what malloc has free to the system. It looks through all of the heap, in some milliseconds:
    after a flood only.
    """
    with contextlib.suppress(AttributeError):  # Not in musl.
        _libc.malloc_trim(0)


# --- cgroup v2


def own_cgroup(controller: str = "") -> Path | None:
    """The directory of the cgroup that this process is in; None without one.

    It is that of the unified hierarchy (pure or hybrid), or that of an old one with this controller.
    """
    mount = _cgroup_mount(controller)
    if mount is None:
        return None
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers.split(",") == [controller] and path.startswith("/"):
            return mount / path[1:]
    return None


def cgroup_of(pid: int) -> str:
    """Return the cgroup of a process in the unified hierarchy, from its root; empty where there is none,
    and for a zombie or no process.
    """
    fields = stat_fields(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return ""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((line.removeprefix("0::").rstrip("/") for line in lines if line.startswith("0::/")), "")


def _cgroup_mount(controller: str) -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(maxsplit=2)
        if kind == "cgroup" and controller in options.split(",") if controller else kind == "cgroup2":
            return Path(before.split()[4])
    return None


_USER_SERVICE = re.compile(r"/user@\d+\.service/(?:.*/)?[^/]+\.service$")
"""The path of a service's cgroup below that of a user's service manager."""


def is_delegated(directory: Path) -> bool:
    """Tell whether this process may make cgroups in `directory`: systemd has delegated it, or it is a user's
    own service.

    systemd marks a delegated cgroup by an extended attribute, but the user manager of systemd 252 sets none,
    though the unit says Delegate=yes. There the owner decides: all below user@UID.service is the user's.
    """
    writable = all(os.access(path, os.W_OK) for path in (directory, directory / "cgroup.procs"))
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return writable and os.getxattr(directory, name) == b"1"
    if not writable or not _USER_SERVICE.search(f"{directory}"):
        return False
    return directory.stat().st_uid == os.geteuid()


def enter_cgroup(directory: Path) -> None:
    """Move this process into a cgroup."""
    (directory / "cgroup.procs").write_text("0")


def cgroup_descriptor(directory: Path) -> int:
    """A descriptor of a cgroup's directory, which is made where it is missing. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def cgroup_populated(directory: Path) -> bool:
    """Whether a process, running or zombie, is in this cgroup or below it."""
    try:
        return "populated 1" in (directory / "cgroup.events").read_text()
    except OSError as error:
        if error.errno not in _NO_CGROUP:
            raise
        return False


_NO_CGROUP = (errno.ENOENT, errno.ENODEV)
"""There is no such cgroup, or it was removed while its file was open."""


def cgroup_processes(directory: Path) -> list[int]:
    """Return the processes in a cgroup and in those that were made below it. Raises OSError."""
    found: list[int] = []
    for path, _, _ in os.walk(directory):
        try:
            found += [int(line) for line in (Path(path) / "cgroup.procs").read_text().split()]
        except OSError as error:
            # A threaded cgroup has its processes told by the one above it.
            if error.errno not in (*_NO_CGROUP, errno.EOPNOTSUPP):
                raise
    return found


def kill_cgroup(directory: Path) -> None:
    """SIGKILL everything in a cgroup at once (Linux 5.14); where that is not to be had each process in
    turn.
    """
    try:
        (directory / "cgroup.kill").write_text("1")
    except OSError:
        kill_each(cgroup_processes(directory))


def remove_cgroup(directory: Path) -> None:
    """Remove a cgroup and the empty ones below it. A process that came late keeps it."""
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return


def children_of(pid: int) -> list[int]:
    """The children of a single-threaded process, zombies included."""
    return [int(word) for word in _children(pid).split()]


def children_of_threads(pid: int) -> list[int]:
    """Return the children of a process, those that its other threads have forked included."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for thread in threads for word in _children(pid, thread).split()]


def number_of_children() -> int:
    """How many children this process, which has one thread, has; zombies count. Less work than to read who
    they are.
    """
    return _children(os.getpid()).count(b" ")


def _children(pid: int, thread: int | str = 0) -> bytes:
    """Their PIDs, with a space after each. A thread of 0 is the first one."""
    try:
        with open(f"/proc/{pid}/task/{thread or pid}/children", "rb") as file:
            return file.read()
    except OSError:
        return b""
