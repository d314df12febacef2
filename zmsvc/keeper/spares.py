"""Spare processes, from which the first supervisor, device and output process of a context are made.

The keeper forks them before it reads any key, listens to a socket or becomes the parent of a task. Each
imports its module, waits for one order, and runs the module. So a process of a context shares with the keeper
what both import, and neither executes an interpreter nor imports the standard library again: see
docs/performance.md.

Only the first process of each kind is made in this way. A later one is executed, because the installed files
may be those of another version by then.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import importlib
import marshal
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.python import interpreter
from zmsvc.host.python.interpreter import Switch

MODULES = ("zmsvc.supervisor", "zmsvc.device", "zmsvc.output")
IDLE_S = 60.0
"""Seconds after which a spare process ends if no order has come."""
_ORDER_LIMIT = 1 << 20
"""The most bytes of an order: arguments and environment. The kernel allows about 200 kB by default."""
_MAX_FDS = 32
_STREAMS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Spare:
    """A waiting process."""

    pid: int
    channel: socket.socket

    def order(self, arguments: list[str], environment: Mapping[str, str], fds: list[int]) -> None:
        """Make the process run its module. The descriptors and the present standard streams get the same
        numbers there. Raises OSError.
        """
        fds = [*_STREAMS, *fds]
        data = marshal.dumps((arguments, dict(environment), fds))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        with self.channel:
            self.channel.sendmsg([data], rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def fork(modules: Iterable[str] = MODULES) -> dict[str, Spare]:
    """Fork a spare process for each module. Return them by module; none if the kernel refuses a fork."""
    made: dict[str, Spare] = {}
    if Switch.SPARES in interpreter.disabled():
        return made
    with contextlib.suppress(OSError):
        for module in modules:
            made[module] = _fork(module)
    return made


def _fork(module: str) -> Spare:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        _wait_and_run(module, theirs.detach())
    theirs.close()
    return Spare(pid, ours)


def _wait_and_run(module: str, channel: int) -> NoReturn:
    """Run in the fork. It never returns into the code of the keeper."""
    status = 1
    try:
        os.setsid()
        _reset_signals()
        linux.set_process_title(f"{module}: spare")
        # This closes above all the keeper's ends of the other channels: a spare process ends when the last
        # copy of its keeper's end is closed.
        _close_all_but({*_STREAMS, channel})
        # As with `python -P`: no module comes from the directory of the script.
        if not sys.flags.safe_path and sys.path:
            del sys.path[0]
        # The import runs while the keeper gets ready; in the device, while the supervisor gets ready.
        imported = importlib.import_module(f"{module}.__main__")
        order = _await_order(channel)
        status = _run(module, imported.main, *order) if order else 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _reset_signals() -> None:
    """Handle signals as an interpreter that has just been executed by the keeper."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _close_all_but(kept: Collection[int]) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in kept:
            with contextlib.suppress(OSError):  # The descriptor of the directory is closed already.
                os.close(fd)


def _await_order(channel: int) -> tuple[list[str], dict[str, str]] | None:
    """Return the arguments and the environment; None if the keeper needs this process no more."""
    sock = socket.socket(fileno=channel)
    sock.settimeout(IDLE_S)
    try:
        room = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
        data, ancillary, _flags, _address = sock.recvmsg(_ORDER_LIMIT, room)
    except TimeoutError:
        return None
    sock.close()
    if not data:
        return None
    arguments, environment, wanted = marshal.loads(data)
    received = array.array("i")
    for _level, _kind, content in ancillary:
        received.frombytes(content)
    # First move all out of the way: one of them may have the number that another one needs.
    above = max(wanted) + 1
    for fd, number in [(_move(fd, above), number) for fd, number in zip(received, wanted, strict=True)]:
        os.dup2(fd, number)
        os.close(fd)
    return arguments, environment


def _move(fd: int, above: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD, above)
    os.close(fd)
    return moved


def _run(module: str, main: Callable[[], object], arguments: list[str], environment: dict[str, str]) -> int:
    """Do what executing the interpreter with `-P -m MODULE ARGUMENTS` does, and return the exit status."""
    # Set all variables again: functions of C read the initial environment, which is overwritten below.
    os.environ.clear()
    os.environ.update(environment)
    if "NOTIFY_SOCKET" in environment:
        # By this the next keeper finds the processes that a killed one has left.
        linux.show_environment(os.fsencode(f"NOTIFY_SOCKET={environment['NOTIFY_SOCKET']}") + b"\0")
    linux.set_process_title(" ".join([module, *arguments]))
    sys.argv[:] = [module, *arguments]
    try:
        status = main()
    except SystemExit as end:
        status = end.code
    if isinstance(status, str):
        complain(status)
    return status if isinstance(status, int) else int(status is not None)
