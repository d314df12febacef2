"""Fork tasks for the zygote: each child becomes a child of the keeper, which is the zygote's parent and a
child subreaper.

A sibling fork (CLONE_PARENT) is one system call. Where the kernel, a seccomp filter or the interpreter does
not offer it, a double fork has the same result: the process between the two forks ends at once, and the
kernel gives its child to the nearest subreaper.

`make bench-forks` measures them. The minimum of 300 forks, on two cores with Python 3.11: 0.53 ms for a
sibling fork with only the child's hook (as before Python 3.13), 0.56 ms with all three hooks, 2.7 ms for a
double fork. 3.13 and 3.14 take as long.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.python import interpreter
from zmsvc.host.python.interpreter import Switch

Fork = Callable[[int | None], tuple[int, bool]]
"""A function that takes a descriptor of a cgroup's directory, or None. It returns the PID (0 in the child)
and True if the child started in that cgroup. Otherwise the child has to move itself. Raises OSError in the
parent.
"""

_NOT_OFFERED = (errno.EINVAL, errno.EPERM, errno.ENOSYS)
"""Errors of clone() with CLONE_PARENT if the kernel or a seccomp filter does not permit it."""


class Forker:
    """A `Fork` that uses a sibling fork if possible. It writes to as little memory as possible: a page that
    the zygote writes to is no longer shared with earlier forks.
    """

    def __init__(self) -> None:
        self._fork: Fork = DoubleFork()
        if Switch.SIBLING_FORK in interpreter.disabled():
            return
        try:
            self._fork = SiblingFork()
        except (OSError, AttributeError) as error:
            self._report(error)

    def __call__(self, cgroup: int | None) -> tuple[int, bool]:
        try:
            return self._fork(cgroup)
        except OSError as error:
            if error.errno not in _NOT_OFFERED or isinstance(self._fork, DoubleFork):
                raise
            self._report(error)
        self._fork = DoubleFork()
        return self._fork(cgroup)

    @staticmethod
    def _report(error: Exception) -> None:
        complain(f"zmsvcd: no sibling fork here ({error}); each task is forked twice")


class SiblingFork:
    """One clone() with CLONE_PARENT, between the interpreter's own hooks."""

    def __init__(self) -> None:
        """Raises OSError or AttributeError if the kernel or the interpreter does not offer it."""
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


AROUND_FORK = (
    Forker.__call__,
    SiblingFork.__call__,
    linux.SiblingClone.arguments,
    linux.SiblingClone.__call__,
)
"""The functions around a sibling fork."""


class DoubleFork:
    """Two os.fork() in a row. The process between the two ends as soon as it has reported the PID of the
    second child.
    """

    def __call__(self, _cgroup: int | None) -> tuple[int, bool]:
        pid_reader, pid_writer = os.pipe2(os.O_CLOEXEC)
        gate_reader, gate_writer = os.pipe2(os.O_CLOEXEC)
        first = os.fork()
        if first == 0:
            return self._middle_process(gate_reader, gate_writer, pid_reader, pid_writer)
        os.close(pid_writer)
        os.close(gate_reader)
        answer = os.read(pid_reader, 32)
        os.close(pid_reader)
        os.waitpid(first, 0)
        # From now on the keeper is the parent of the child. Before this, the child must not read the PID of
        # its parent.
        os.close(gate_writer)
        pid = int(answer or b"0")
        if pid == 0:
            # There may be a child whose PID is not known. It ends with the zygote, and so does this launch.
            raise RuntimeError("the process between two forks was killed")
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid, False

    @staticmethod
    def _middle_process(
        gate_reader: int, gate_writer: int, pid_reader: int, pid_writer: int
    ) -> tuple[int, bool]:
        os.close(gate_writer)
        os.close(pid_reader)
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid != 0:
            os.write(pid_writer, b"%d" % pid)
            os._exit(0)
        os.close(pid_writer)
        os.read(gate_reader, 1)
        os.close(gate_reader)
        return 0, False
