"""Wrap the system calls that Python does not have: prctl, clone, capabilities, kcmp, inotify, and a few
functions of the C library. A wrapper is a few lines and decides nothing.

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
import signal
import struct
from pathlib import Path

from zmsvc.host.kernel.processes import stat_fields

# From the Linux kernel headers (prctl.h).
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

PR_GET_TID_ADDRESS = 40
# From sched.h.
CLONE_INTO_CGROUP = 0x2_0000_0000
CLONE_PARENT = 0x8000
CLONE_CHILD_SETTID = 0x0100_0000
CLONE_CHILD_CLEARTID = 0x0020_0000
_SIBLING = CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
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


def trim_heap() -> None:
    """Return malloc's free memory to the kernel. This walks the whole heap, in some milliseconds: call it
    only after a flood.
    """
    with contextlib.suppress(AttributeError):  # musl has no malloc_trim.
        _libc.malloc_trim(0)
