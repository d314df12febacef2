"""Forks tasks: a daemon that has imported everything but the user's code, so that a start costs milliseconds.

A page that is written is no longer shared: one that the zygote writes between two forks is copied for it, one
that a task writes for the task. Copying pages is most of what a start costs. So the zygote does once whatever
all tasks have in common, and only the task reads its launch. That also keeps the secrets of one task out of
the memory that the next one is forked with. The zygote makes no ZMQ context, which its forks would share.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
from pathlib import Path
from typing import NoReturn

from zmsvc import __version__
from zmsvc.core.errors import CANNOT_EXECUTE
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.host.kernel.fork import Forker
from zmsvc.host.python import interpreter, page_sharing
from zmsvc.host.python.interpreter import Shortcut
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors
from zmsvc.task import runner, warmup

NAME = "zmsvc-zygote"
"""What `ps` calls this process; a task is called by its id."""


def live(line: socket.socket, gate: int, keeper: int, *, cgroups: bool) -> NoReturn:
    """Fork tasks until the keeper closes the line."""
    # A task is forked in this frame. It must never return into it, and nothing that fails here may do so in a
    # task.
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        linux.die_with_parent(keeper)
        linux.set_process_name(NAME)
        off = interpreter.disabled()
        log = os.environ.get("ZMSVC_LOG", "stderr")
        runner.settle([line.fileno(), gate])
        line.send(forking.encode_hello(__version__))
        if Shortcut.REHEARSAL not in off:
            _rehearse(log)
        linux.set_process_title(NAME)
        fork, orders = Forker(), seqpacket.PendingPackets(line)
        page_sharing.share()
        while orders.take():
            try:
                # The descriptor of a task's cgroup is the first that comes with a launch.
                pid, inside = fork(orders.fds[0] if cgroups else None)
            except OSError as error:
                pid, inside = -(error.errno or 1), False
            if pid == 0:
                _child(orders, line, gate, keeper, move=cgroups and not inside)
            answer = forking.Forked(pid=pid) if pid > 0 else forking.NotForked(number=-pid)
            for fd in orders.fds:
                os.close(fd)
            line.send(forking.encode_answer(answer))
    except BaseException as error:
        with contextlib.suppress(BaseException):
            complain(f"zmsvcd: the zygote has failed: {error!r}")
    finally:
        os._exit(0)


def _rehearse(log: str) -> None:
    # It saves time and memory; a start that cannot be rehearsed is still a start.
    try:
        warmup.rehearse(log)
    except Exception as error:
        complain(f"zmsvcd: {error!r}; tasks will start more slowly")


def _child(
    orders: seqpacket.PendingPackets, line: socket.socket, gate: int, keeper: int, *, move: bool
) -> NoReturn:
    status, task, fds = CANNOT_EXECUTE, "?", Descriptors()
    # As above; and the loop in which tasks are forked must not go on in a task.
    try:
        # Not through the object, which is a piece of Python; nothing uses or frees it any more.
        os.close(line.fileno())
        os.setsid()
        linux.die_with_parent(keeper)
        spec, fds = forking.read_launch(orders.data(), orders.fds)
        task = spec.task
        if move:
            linux.enter_cgroup(Path(f"/proc/self/fd/{fds.cgroup}"))
        if fds.cgroup is not None:
            os.close(fds.cgroup)
        # From here on the task may be seen, so the keeper has to know it. One of an earlier zmsvc has one
        # gate for all.
        own = gate if fds.gate is None else fds.gate
        if os.read(own, 1):
            for fd in {gate, own}:
                os.close(fd)
            gc.enable()
            status = runner.run(spec, fds)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            complain(f"cannot start task {task}: {error!r}")
            runner.report_to_keeper(fds, f"cannot start: {error!r}")
    finally:
        os._exit(status)
