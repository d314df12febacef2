"""Wrap the kernel's interfaces: prctl, pidfds, process identity, credentials, cgroup v2 files. A wrapper is a
few lines and decides nothing.

Only this module, `interpreter`, and the modules with one shortcut each (`immortal`, `constants`,
`allocators`) may import ctypes.
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

from zmsvc.host.python.interpreter import Switch, disabled

ROOM = 16
"""The number of descriptors that long-lived files and sockets must leave free. Finding, signaling or killing
a process takes a few of them for a moment.
"""

# From the Linux kernel headers (prctl.h).
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

PR_GET_TID_ADDRESS = 40
_ATTEMPTS = 8
_STAT_LIMIT = 4096
"""The most bytes that are read of /proc/PID/stat: 50 numbers and a name of 16 characters take fewer."""
# From sched.h.
CLONE_INTO_CGROUP = 0x2_0000_0000
CLONE_PARENT = 0x8000
CLONE_CHILD_SETTID = 0x0100_0000
CLONE_CHILD_CLEARTID = 0x0020_0000
_SIBLING = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
# From linux/sched.h.
PF_FORKNOEXEC = 0x40
# From asm/unistd.h and asm-generic/unistd.h, by machine and the size of a pointer: a 32-bit program has other
# numbers. Machines whose clone() has other arguments are left out.
_CLONE_NUMBERS = {
    ("x86_64", 8): 56,
    ("aarch64", 8): 220,
    ("riscv64", 8): 220,
    ("loongarch64", 8): 220,
    ("ppc64le", 8): 120,
}
SYS_CLONE3 = 435
_KCMP_NUMBERS = {
    ("x86_64", 8): 312,
    ("aarch64", 8): 272,
    ("riscv64", 8): 272,
    ("loongarch64", 8): 272,
    ("ppc64le", 8): 354,
}
# From linux/kcmp.h.
_KCMP_FILE = 0
# From asm-generic/socket.h.
SO_PEERGROUPS = 59
SO_PASSRIGHTS = 83

# PyDLL holds the GIL during a call, since no other thread may run around a fork.
_libc = ctypes.PyDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    # Pass plain bytes: a ctypes buffer would make a new type for each length, which writes to 40 pages.
    if _libc.prctl(option, value if isinstance(value, bytes) else ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def become_subreaper() -> None:
    """Make this process the parent of orphans among its descendants, so that it can read their exit
    statuses.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """SIGKILL this process when `parent` dies, or at once if it has died already.

    A change of user or group clears this setting: call it again after dropping privileges.
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def signal_at_parents_death(number: int) -> None:
    """Send this process a signal when its parent dies."""
    _prctl(PR_SET_PDEATHSIG, number)


def set_process_name(name: str) -> None:
    """Set the name that `ps -o comm` shows, the first 15 bytes of it. An executed program gets its own
    name.
    """
    _prctl(PR_SET_NAME, name.encode())


def set_process_title(title: str) -> None:
    """Set the command line that `ps` and `systemctl status` show, cut to the length of the original one."""
    begin, end = _own_arguments()
    if end > begin:
        # The last byte stays 0. Otherwise the kernel would go on and read the environment.
        room = end - begin
        ctypes.memmove(begin, title.encode()[: room - 1].ljust(room, b"\0"), room)


@functools.cache
def _own_arguments() -> tuple[int, int]:
    """Return the addresses of this process's arguments, which are the same in a fork; (0, 0) if the kernel
    does not report them.

    The zygote reads them once.
    """
    fields = stat_fields(os.getpid())
    return (int(fields[45]), int(fields[46])) if fields and len(fields) > 46 else (0, 0)


class SiblingClone:
    """A fork as a system call: the child becomes a sibling of this process, a child of its parent. Only for a
    single-threaded process.

    Create this object once, and call it for each fork. It does none of the interpreter's work around a fork:
    see zmsvc.host.kernel.fork.
    """

    def __init__(self) -> None:
        """Raises OSError if the kernel lacks a feature, or if the number of the call on this machine is
        unknown.
        """
        self._number = _CLONE_NUMBERS.get((os.uname().machine, struct.calcsize("P")))
        if self._number is None:
            raise OSError(errno.ENOSYS, f"the number of clone() is not known for {os.uname().machine}")
        # glibc keeps the thread's ID at this address. Its fork() updates the ID; here the kernel does that,
        # because no fork() of glibc runs. A kernel without CONFIG_CHECKPOINT_RESTORE does not report the
        # address.
        address = ctypes.c_ulong()
        if _libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "the kernel does not tell the address of the thread's ID")
        self._address = address
        self._flags = ctypes.c_ulong(_SIBLING)
        # Look this up here, since it would cost 70 copied pages in each child.
        self._syscall = _libc.syscall

    def arguments(self, cgroup: int) -> bytes:
        """Return the arguments of a call with this descriptor of a cgroup's directory."""
        # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls,
        # set_tid, set_tid_size, cgroup. A sibling inherits its parent's exit signal; the field must be 0.
        return struct.pack(
            "=11Q", _SIBLING | CLONE_INTO_CGROUP, 0, self._address.value, 0, 0, 0, 0, 0, 0, 0, cgroup
        )

    def __call__(self, arguments: bytes | None) -> tuple[int, bool]:
        """Fork. Return the PID (0 in the child, -1 on failure, see `error`), and True if the child started in
        the cgroup of `arguments`.

        To start there takes 0.2 ms; to move a single process takes 12 ms (a global grace period). It needs
        clone3(). A kernel may lack that, or a seccomp filter forbid it, as that of RestrictNamespaces= does;
        then the child has to move itself.
        """
        if arguments is not None:
            pid = int(self._syscall(SYS_CLONE3, arguments, ctypes.c_size_t(len(arguments))))
            if pid >= 0:
                return pid, True
        # The address is the fourth argument on some machines, and the fifth, after an unused `tls`, on
        # others.
        return int(self._syscall(self._number, self._flags, None, None, self._address, self._address)), False

    @staticmethod
    def error() -> OSError:
        """Return the error of the last call that returned -1."""
        return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def current_umask() -> int:
    """Return the umask of this process, which can be read only by setting it. For a single-threaded
    process.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def forbid_new_privileges() -> None:
    """Set no_new_privs: setuid bits and file capabilities have no effect in this process and its
    descendants.
    """
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def has_capabilities() -> bool:
    """Return True if this process has any capability, or could pass one on."""
    status = Path("/proc/self/status").read_text()
    return any(int(word, 16) for word in re.findall(r"^Cap(?:Inh|Prm|Amb):\s*(\w+)$", status, re.MULTILINE))


def drop_capabilities() -> None:
    """Drop every capability of this thread, also those that it would pass to an executed program
    (capabilities(7)).
    """
    # struct __user_cap_header_struct of linux/capability.h with version 3, and twice struct
    # __user_cap_data_struct.
    if _libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def leave_room(fd: int) -> None:
    """Raise OSError (EMFILE) if this new descriptor is one of the last ROOM: the kernel assigns the lowest
    free number.
    """
    if fd >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - ROOM:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def require_free(count: int) -> None:
    """Raise OSError (EMFILE) unless this process may open so many further descriptors. It counts them all,
    since the number of a new one is low if an earlier one was closed.
    """
    if len(os.listdir("/proc/self/fd")) + count > resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def same_file(first: int, second: int) -> bool:
    """Return True if two descriptors of this process are of the same open file, as after dup(2). Return False
    as well if the kernel does not answer. No file system is asked.
    """
    number = _KCMP_NUMBERS.get((os.uname().machine, struct.calcsize("P")))
    own = os.getpid()
    return number is not None and _libc.syscall(number, own, own, _KCMP_FILE, first, second) == 0


# --- inotify

# From sys/inotify.h.
IN_MODIFY = 0x0002
IN_MOVED_TO = 0x0080
IN_CREATE = 0x0100


class Inotify:
    """A notifier of changes of files and directories, see inotify(7)."""

    def __init__(self) -> None:
        """Raises OSError, for example if the user has fs.inotify.max_user_instances already."""
        self._fd = _checked(_libc.inotify_init1(os.O_CLOEXEC))

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def watch(self, fd: int, events: int) -> None:
        """Watch the file or directory of a descriptor, independent of its current name. Raises OSError."""
        _checked(_libc.inotify_add_watch(self._fd, f"/proc/self/fd/{fd}".encode(), ctypes.c_uint32(events)))

    def wait(self) -> None:
        """Wait for the next event."""
        # Calls of _libc hold the GIL; os.read lets other threads run.
        os.read(self._fd, 65536)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# --- identity


def boot_id() -> str:
    """Return the ID of this boot. PIDs, start times and monotonic times of another boot are meaningless."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot; None if there is no such process. PID, start
    time and boot ID identify a process.
    """
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def stat_fields(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat from `state` (field 3) on; None if the process is gone."""
    try:
        # A file object would make five more system calls.
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _STAT_LIMIT).rpartition(b")")[2].split()
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return None


def user_of(pid: int) -> int | None:
    """Return the effective user ID of a process; None if it is gone. The owner of its /proc directory is not
    reliable: it may be root.
    """
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next((int(line.split()[2]) for line in file if line.startswith(b"Uid:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None


def descends(pid: int, ancestor: int) -> bool:
    """Return True if `ancestor`, which is a subreaper, is an ancestor of a process, or if that cannot be
    found out.
    """
    for _ in range(_ATTEMPTS):
        at = pid
        while at and at != ancestor:
            fields = stat_fields(at)
            if fields is None:
                break  # This ancestor has just ended, and its children have another parent now.
            at = int(fields[1])
        else:
            return at == ancestor
    return True


def has_executed(pid: int) -> bool:
    """Return True if a process or zombie has executed a program since its fork; False if it is gone."""
    fields = stat_fields(pid)
    # PF_FORKNOEXEC in `flags` of proc(5): an exec clears it when it can no longer fail, and nothing sets it
    # again.
    return fields is not None and not int(fields[6]) & PF_FORKNOEXEC


def process_name(pid: int) -> str:
    """Return the name that `ps -o comm` shows; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def kill_each(pids: Iterable[int]) -> None:
    """SIGKILL each of these processes, if its PID still means the same process. After an error for one
    process, go on with the others.
    """
    for pid in pids:
        with contextlib.suppress(OSError):
            started = start_time(pid)
            if started is not None:
                send_signal(pid, started, signal.SIGKILL)


def environment_of(pid: int) -> bytes:
    """Return a process's initial environment, NUL between entries; empty if it cannot be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def show_environment(text: bytes) -> None:
    """Let `environment_of` return this text for this process and its later forks. A fork without an exec
    still has the initial environment of the zygote.

    The text overwrites the initial environment, which no code may use any more. If that is shorter than the
    text, nothing changes.
    """
    start, size = _environment_area()
    if len(text) <= size:
        ctypes.memmove(start, text.ljust(size, b"\0"), size)


_entries: list[bytes] = []
"""The entries of the environment that `put_variable` has made. The C library uses them where they are."""


def put_variable(name: bytes, value: bytes) -> None:
    """Set a variable of the C library, by putenv(3). os.putenv uses setenv(3), where glibc changes a tree of
    all values that were ever set; in a fork that copies 14 pages.
    """
    entry = b"%s=%s" % (name, value)
    _entries.append(entry)
    _checked(_libc.putenv(entry))


@functools.cache
def _environment_area() -> tuple[int, int]:
    """Return address and size of this program's initial environment. They are the same in a fork."""
    fields = stat_fields(os.getpid())
    start, end = (int(fields[47]), int(fields[48])) if fields else (0, 0)
    return start, end - start


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signal exactly this process through a pidfd. Return False if it is gone or its PID has been reused."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Read the start time after the pidfd has been opened: from then on the pidfd stands for one process.
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def wait_for_end(pid: int, seconds: float) -> bool:
    """Block until a process has ended; return False if it has not in time."""
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
    """Return (pid, uid, gid) of the process at the other end of a Unix stream."""
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", data)
    return pid, uid, gid


def peer_groups(sock: socket.socket) -> frozenset[int]:
    """Return all groups of the process at the other end of a Unix stream; only its primary group if it has
    more than 256.
    """
    primary = peer_credentials(sock)[2]
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        return frozenset({primary})
    return frozenset({primary, *struct.unpack(f"{len(data) // 4}I", data)})


def refuse_descriptors(sock: socket.socket) -> bool:
    """Make the kernel refuse descriptors that clients send over this Unix socket and the connections accepted
    from it.

    Return False if the kernel cannot (before Linux 6.16), or if ZMSVC_DISABLE has `passrights`.
    """
    if Switch.PASSRIGHTS in disabled():
        return False
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        return False
    return True


def refuses_descriptors(sock: socket.socket) -> bool:
    """Return True if the kernel refuses descriptors that clients send over this socket."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS) == 0
    except OSError:
        return False


# --- memory


def own_memory() -> int:
    """Return the resident bytes of this process that it shares with no file or other process."""
    with open("/proc/self/statm", "rb") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


def trim_heap() -> None:
    """Return malloc's free memory to the kernel. This walks the whole heap, in some milliseconds: call it
    only after a flood.
    """
    with contextlib.suppress(AttributeError):  # musl has no malloc_trim.
        _libc.malloc_trim(0)


# --- cgroup v2


def own_cgroup(controller: str = "") -> Path | None:
    """Return the directory of this process's cgroup; None without one.

    Without `controller` it is in the unified hierarchy (pure or hybrid), otherwise in the v1 hierarchy of
    that controller.
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


def _cgroup_mount(controller: str) -> Path | None:
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


def enter_cgroup(directory: Path) -> None:
    """Move this process into a cgroup."""
    (directory / "cgroup.procs").write_text("0")


def cgroup_descriptor(directory: Path) -> int:
    """Return a descriptor of a cgroup's directory, which is created if it is missing. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def cgroup_populated(directory: Path) -> bool:
    """Return True if a process, running or zombie, is in this cgroup or below it."""
    try:
        return "populated 1" in (directory / "cgroup.events").read_text()
    except OSError as error:
        if error.errno not in _NO_CGROUP:
            raise
        return False


_NO_CGROUP = (errno.ENOENT, errno.ENODEV)
"""Errors for a cgroup that does not exist, or was removed while its file was open."""


def cgroup_processes(directory: Path, without: str = "") -> list[int]:
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


def kill_cgroup(directory: Path) -> None:
    """SIGKILL all processes of a cgroup at once (Linux 5.14), or on older kernels one by one."""
    try:
        (directory / "cgroup.kill").write_text("1")
    except OSError:
        kill_each(cgroup_processes(directory))


def remove_cgroup(directory: Path) -> None:
    """Remove a cgroup and the cgroups below it. A cgroup that still has a process stays."""
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except OSError:
            return


def cgroup_controllers(directory: Path) -> list[str]:
    """Return the controllers that a cgroup has, and may pass on to the cgroups in it. Raises OSError."""
    return (directory / "cgroup.controllers").read_text().split()


def machine_controllers() -> list[str]:
    """Return the controllers that the machine has in the unified hierarchy; none without one."""
    mount = _cgroup_mount("")
    try:
        return cgroup_controllers(mount) if mount else []
    except OSError:
        # The root of a mount in a container may lack the file.
        return []


def enable_controller(directory: Path, name: str) -> None:
    """Pass a controller on to the cgroups in a cgroup that itself has no process. Raises OSError."""
    (directory / "cgroup.subtree_control").write_text(f"+{name}")


def write_cgroup(directory: Path, file: str, text: str) -> None:
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
        own, mount = own_cgroup(controller), _cgroup_mount(controller)
        if own is not None and mount is not None:
            limits += limits_around(own, mount, file)
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


def most_tasks() -> int:
    """Return the number of processes and threads that this machine may have."""
    return min(int(Path(f"/proc/sys/kernel/{name}").read_text()) for name in ("pid_max", "threads-max"))


def children_of(pid: int) -> list[int]:
    """Return the children of a single-threaded process, zombies included."""
    return [int(word) for word in _children(pid).split()]


def children_of_threads(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for thread in threads for word in _children(pid, thread).split()]


def number_of_children() -> int:
    """Return the number of children of this single-threaded process, zombies included. This is faster than
    listing them.
    """
    return _children(os.getpid()).count(b" ")


def _children(pid: int, thread: int | str = 0) -> bytes:
    """Return the PIDs of a thread's children, with a space after each. Thread 0 is the main thread."""
    try:
        with open(f"/proc/{pid}/task/{thread or pid}/children", "rb") as file:
            return file.read()
    except OSError:
        return b""
