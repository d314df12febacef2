"""Forks for the zygote: the child becomes a child of the keeper, which is the zygote's parent and a child
subreaper.

A sibling fork (CLONE_PARENT) is one system call. Where the kernel, a seccomp filter or the interpreter does
not offer it, a fork of a fork gives the same: the child's parent ends at once, and the kernel makes the child
one of the nearest subreaper.

`make bench-forks` measures them. Of 300 each, on two cores with Python 3.11, the least: 0.53 ms for a sibling
fork with only the child's hook (as before Python 3.13), 0.56 ms with all three hooks, 2.7 ms for two forks.
3.13 and 3.14 take the same.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.python import interpreter
from zmsvc.host.python.interpreter import Shortcut

Fork = Callable[[int | None], tuple[int, bool]]
"""Takes a descriptor of a cgroup's directory, or None. Returns the PID, 0 in the child, and whether the child
began in that cgroup; where it did not, it has to move by itself. Raises OSError in the parent."""

_NOT_OFFERED = (errno.EINVAL, errno.EPERM, errno.ENOSYS)
"""Of a clone() with CLONE_PARENT: by a kernel, by a seccomp filter."""


class Forker:
    """A `Fork` that uses what is there. It writes to as little memory as can be: what the zygote writes is
    not shared any more.
    """

    def __init__(self) -> None:
        self._fork: Fork = DoubleFork()
        if Shortcut.SIBLING_FORK in interpreter.disabled():
            return
        try:
            self._fork = SiblingFork()
        except (OSError, AttributeError) as error:
            self._tell(error)

    def __call__(self, cgroup: int | None) -> tuple[int, bool]:
        try:
            return self._fork(cgroup)
        except OSError as error:
            if error.errno not in _NOT_OFFERED or isinstance(self._fork, DoubleFork):
                raise
            self._tell(error)
        self._fork = DoubleFork()
        return self._fork(cgroup)

    @staticmethod
    def _tell(error: Exception) -> None:
        complain(f"zmsvcd: no sibling fork here ({error}); each task is forked twice")


class SiblingFork:
    """One clone() with CLONE_PARENT, between the interpreter's own hooks."""

    def __init__(self) -> None:
        """Raises OSError or AttributeError where the kernel or the interpreter does not offer it."""
        self._clone = linux.SiblingClone()
        self._hooks = interpreter.ForkHooks()

    def __call__(self, cgroup: int | None) -> tuple[int, bool]:
        arguments = None if cgroup is None else self._clone.arguments(cgroup)
        self._hooks.before()
        pid, inside = self._clone(arguments)
        if pid == 0:
            self._hooks.child()
            return pid, inside
        self._hooks.parent()
        if pid < 0:
            raise self._clone.error()
        return pid, inside


class DoubleFork:
    """Two os.fork() in a row. The process between them ends as soon as it has told the PID of the second."""

    def __call__(self, _cgroup: int | None) -> tuple[int, bool]:
        told, teller = os.pipe2(os.O_CLOEXEC)
        gate, opener = os.pipe2(os.O_CLOEXEC)
        first = os.fork()
        if first == 0:
            return self._between(gate, opener, told, teller)
        os.close(teller)
        os.close(gate)
        said = os.read(told, 32)
        os.close(told)
        os.waitpid(first, 0)
        # Only now is the child one of the keeper's: until then it may not look who its parent is.
        os.close(opener)
        pid = int(said or b"0")
        if pid == 0:
            # There may be a child that nobody knows. It ends with the zygote, and so does this launch.
            raise RuntimeError("the process between two forks was killed")
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid, False

    @staticmethod
    def _between(gate: int, opener: int, told: int, teller: int) -> tuple[int, bool]:
        os.close(opener)
        os.close(told)
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid != 0:
            os.write(teller, b"%d" % pid)
            os._exit(0)
        os.close(teller)
        os.read(gate, 1)
        os.close(gate)
        return 0, False
