"""The loop of the zygote. Before it forks, it has imported everything but the code of the user, so a start
takes milliseconds.

The zygote and a task share a page until one of them writes to it; then the kernel copies it. Copied pages are
most of the cost of a start. So the zygote does once all work that the tasks have in common, and only the task
reads its launch. This also keeps the secrets of one task out of the memory of the next one. The zygote
creates no ZMQ context, because its forks would share it.
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
from zmsvc.host.kernel import cgroups, linux
from zmsvc.host.kernel.fork import AROUND_FORK, Forker
from zmsvc.host.python import interpreter, page_sharing, withheld_hooks
from zmsvc.host.python.interpreter import Switch
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors
from zmsvc.task import runner, warmup

NAME = "zmsvc-zygote"
"""The name that `ps` shows for this process; a task has its ID as name."""
SPARE = "zmsvc-spare"
"""The name of a spare task."""


def run(channel: socket.socket, start_gate: int, keeper: int, *, cgroups: bool) -> NoReturn:
    """Fork tasks until the keeper closes the channel."""
    # A task is forked in this frame and must never return from it, whatever fails in the code below.
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        linux.die_with_parent(keeper)
        linux.set_process_name(NAME)
        off = interpreter.disabled()
        runner.prepare_zygote([channel.fileno(), start_gate])
        channel.send(forking.encode_hello(__version__))
        if Switch.REHEARSAL not in off:
            _warm_up()
        linux.set_process_title(NAME)
        _fork_tasks(channel, start_gate, keeper, cgroups=cgroups)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            complain(f"zmsvcd: the zygote has failed, the keeper starts the next one: {error!r}")
    finally:
        os._exit(0)


def _fork_tasks(channel: socket.socket, start_gate: int, keeper: int, *, cgroups: bool) -> None:
    fork, orders = Forker(), seqpacket.PendingPackets(channel)
    page_sharing.share()
    while orders.take():
        try:
            # The descriptor of a task's cgroup is the first one of a launch.
            pid, inside = fork(orders.fds[0] if cgroups else None)
        except OSError as error:
            pid, inside = -(error.errno or 1), False
        if pid == 0:
            _run_task(orders, channel, start_gate, keeper, move=cgroups and not inside)
        answer = forking.Forked(pid=pid) if pid > 0 else forking.NotForked(number=-pid)
        for fd in orders.fds:
            os.close(fd)
        channel.send(forking.encode_answer(answer))


def _log() -> str:
    """Return the log of the context, as in a launch."""
    return os.environ.get("ZMSVC_LOG", "stderr")


def _warm_up() -> None:
    # The warm-up saves time and memory. A failed warm-up must not prevent the start.
    try:
        around = (_fork_tasks, _run_task, withheld_hooks.register, *AROUND_FORK)
        warmup.rehearse(_log(), [function.__code__ for function in around])
    except Exception as error:
        complain(f"zmsvcd: the zygote cannot warm up, so tasks start more slowly: {error!r}")


def _run_task(
    orders: seqpacket.PendingPackets, channel: socket.socket, start_gate: int, keeper: int, *, move: bool
) -> NoReturn:
    status, task, fds = CANNOT_EXECUTE, "?", Descriptors()
    # The task must never return into the loop that forks tasks.
    try:
        # Close the descriptor and not the socket object: a write to the object would copy its page. Nothing
        # uses or frees the object any more.
        os.close(channel.fileno())
        os.setsid()
        linux.die_with_parent(keeper)
        withheld_hooks.register()
        packet = orders.data()
        spare = forking.read_spare(packet, orders.fds)
        if spare is not None:
            packet, received = _await_launch(spare, move=move)
            spec, fds = forking.read_launch(packet, received)
            move = fds.cgroup is not None
        else:
            spec, fds = forking.read_launch(packet, orders.fds)
        task = spec.task
        if move:
            cgroups.enter(Path(f"/proc/self/fd/{fds.cgroup}"))
        if fds.cgroup is not None:
            os.close(fds.cgroup)
        # From here on other processes can notice the task, so the keeper has to know the PID of the task
        # first. It knows that of a spare task. A keeper of an earlier zmsvc uses one gate for all tasks.
        own_gate = start_gate if fds.gate is None else fds.gate
        if spare is not None or os.read(own_gate, 1):
            for fd in {start_gate, own_gate}:
                os.close(fd)
            gc.enable()
            status = runner.run(spec, fds)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            complain(f"cannot start task {task}: {error!r}")
            runner.report_to_keeper(fds, f"cannot start: {error!r}")
    finally:
        os._exit(status)


def _await_launch(order: forking.SpareOrder, *, move: bool) -> tuple[bytes, list[int]]:
    """Be a spare task: rehearse a start, and wait at the line. Return the packet of the launch with its
    descriptors. The process ends if the keeper closes the line.
    """
    linux.set_process_name(SPARE)
    keeper = socket.socket(fileno=order.line)
    if order.cgroup is not None:
        if not move:
            keeper.send(forking.SPARE_IS_NEEDLESS)
            os._exit(0)
        os.close(order.cgroup)
    if order.warm and Switch.REHEARSAL not in interpreter.disabled():
        try:
            warmup.rehearse_once(_log())
        except Exception as error:
            # The rehearsal may have left something behind. The zygote forks the task itself.
            complain(f"zmsvcd: a spare task cannot warm up: {error!r}")
            os._exit(1)
    keeper.send(forking.SPARE_IS_READY)
    # The title says that it is ready, so it comes last.
    linux.set_process_title(SPARE)
    launches = seqpacket.PendingPackets(keeper)
    if not launches.take():
        os._exit(0)
    keeper.close()
    return launches.data(), launches.fds
