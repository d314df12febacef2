"""PROCESS out of which tasks are forked: a daemon that has imported everything but the user's code, so a start costs milliseconds.

Every page that is written, here between two forks or in a child, is a page that is not shared any more, and copying it is most of what
a start costs. So all that tasks have in common is done here once, and a launch is looked into by its child alone. No ZMQ context may
exist here: a fork would share it. What a task does in its process, and its rehearsal, are the only imports across processes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from zmsvc.core.errors import CANNOT_EXECUTE
from zmsvc.host import interpreter, linux, packets
from zmsvc.host.fork import Forker
from zmsvc.host.interpreter import Shortcut
from zmsvc.protocol import forking
from zmsvc.task import rehearsal, runner

NAME = "zmsvc-template"
"""What `ps` calls this process; a task is called by its id."""


def live(line: socket.socket, gate: int, keeper: int, *, cgroups: bool) -> NoReturn:
    """Be the template in a fork of the keeper, until that hangs up."""
    # Whatever happens here must not return into the keeper's stack: a second keeper would run.
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        linux.die_with_parent(keeper)
        linux.set_process_name(NAME)
        off = interpreter.disabled()
        runner.settle([line.fileno(), gate])
        if Shortcut.REHEARSAL not in off:
            _rehearse()
        fork, orders = Forker(), packets.Unread(line)
        interpreter.freeze()
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
            print(f"zmsvcd: the template of tasks has failed: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


def _rehearse() -> None:
    # It saves time and memory; a start that cannot be rehearsed is still a start.
    try:
        rehearsal.rehearse()
    except Exception as error:
        print(f"zmsvcd: {error!r}; tasks will start more slowly", file=sys.stderr, flush=True)


def _child(orders: packets.Unread, line: socket.socket, gate: int, keeper: int, *, move: bool) -> NoReturn:
    status, task = CANNOT_EXECUTE, "?"
    # As above; and the loop in which tasks are forked must not go on in a task.
    try:
        # Not through the object, which is a piece of Python; nobody uses or frees it any more.
        os.close(line.fileno())
        os.setsid()
        linux.die_with_parent(keeper)
        spec, fds = forking.decode_launch(orders.data(), orders.fds)
        task = spec.task
        if move:
            linux.enter_cgroup(Path(f"/proc/self/fd/{fds.cgroup}"))
        if fds.cgroup is not None:
            os.close(fds.cgroup)
        # From here on it may be seen, so the keeper has to know it.
        if os.read(gate, 1):
            os.close(gate)
            gc.enable()
            status = runner.run(spec, fds)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            print(f"cannot start task {task}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)
