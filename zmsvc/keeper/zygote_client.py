"""The keeper's channel to the zygote, which forks every task. The keeper restarts a zygote that ends.

The keeper never waits for the zygote. Launches are queued, the zygote works on one of them at a time, and its
answer is an event like any other. A forked task waits at its start gate until the keeper knows its PID. If
the PID is lost because the zygote died, the keeper closes the gate and the task ends.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux, memfd
from zmsvc.keeper.barriers import Barriers
from zmsvc.keeper.dispatcher import Dispatcher, attempt
from zmsvc.keeper.fdstore_process import FdstoreProcess
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.keeper.output import OutputClient, Pipe
from zmsvc.keeper.task_groups import TaskGroups
from zmsvc.keeper.task_sockets import TaskSockets
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors, LaunchSpec

ANSWER_TIMEOUT = 10.0
"""Seconds that a fork may take, with the start and warm-up of a new zygote. After that the keeper kills the
zygote, which may be stopped (SIGSTOP).
"""

MAX_TRIES = 5
"""The number of zygotes that may die during one launch before the launch fails. A start must not fail because
a few zygotes were killed.
"""

PAUSE = 1.0
"""Seconds for which every launch fails at once, after MAX_TRIES zygotes have died during one launch."""
ZYGOTE_DIES = "the zygote, which forks tasks, died each time it was started"

MAX_WAITING = 100_000
"""Launches that may wait for the zygote: more than a large context has."""
MAX_BYTES = 256 << 20
"""Bytes that waiting launches may have in total: each contains the configuration and environment of its task.
"""


@dataclass(slots=True, eq=False)
class Fork:
    """A task to be forked. `done` is called with its PID and start time, or `failed` with the reason."""

    spec: LaunchSpec | None
    data: bytes
    """The encoded launch, which the task decodes."""
    cgroup: Path | None
    fds: Descriptors
    done: Callable[[int, int], None]
    failed: Callable[[OSError | ZmsvcError], None]
    tries: int = 0
    gate_writer: int = -1
    """The writing end of the task's start gate."""
    output: Pipe | None = None
    """The pipe for the task's output, until the zygote has answered."""

    def close(self) -> None:
        """Close the start gate, which ends a task that waits there, and the output pipe of a task that was
        not forked.
        """
        if self.gate_writer >= 0:
            os.close(self.gate_writer)
            self.gate_writer = -1
        if self.output is not None:
            self.output.close()
            self.output = None


class ZygoteClient:
    """A queue of tasks to be forked by the zygote. With `cgroups`, each task gets a control group, which
    `groups` limits. `on_greeting` is called when a zygote has sent its version.
    """

    def __init__(
        self,
        machine: KeeperMachine,
        dispatcher: Dispatcher,
        *,
        cgroups: bool,
        groups: TaskGroups,
        on_greeting: Callable[[], None],
        output: OutputClient | None = None,
        stores: FdstoreProcess | None = None,
    ) -> None:
        self.sockets, self.barriers = TaskSockets(machine), Barriers(machine)
        self.answer_timeout = ANSWER_TIMEOUT
        self._machine, self._dispatcher = machine, dispatcher
        self._output = output
        """The client that creates a pipe for the output of a task that needs one."""
        self._stores = stores
        self._cgroups, self._groups, self._on_greeting = cgroups, groups, on_greeting
        self._channel: socket.socket | None = None
        self._common_gate = -1
        self._gate_per_task = False
        """True if each task gets its own start gate. At a common gate, a task that is killed before it reads
        its byte would leave the byte for the next task.
        """
        self._greeting_pending = False
        """True until the zygote has sent its greeting."""
        self._waiting: deque[Fork] = deque()
        self._bytes = 0
        self._in_progress: Fork | None = None
        """The task that the zygote is forking."""
        self._answer_due: float | None = None
        """The time by which the zygote has to answer; None while no answer is expected."""
        self._paused_until = -math.inf
        self._closed = False
        self.pid: int | None = None
        self.version = ""
        """Version of the zygote that runs, or ran last."""

    # --- one zygote

    def start(self) -> None:
        """Execute a zygote. Raises OSError."""
        ours, theirs = self._machine.channel()
        gate = gate_writer = -1
        try:
            gate, gate_writer = self._machine.pipe()
            arguments = ["--line", str(theirs.fileno()), "--gate", str(gate), "--keeper", str(os.getpid())]
            arguments += ["--protocol", str(forking.PROTOCOL), *["--cgroups"] * self._cgroups]
            linux.leave_room(gate_writer)
            # The zygote blocks on its end. The keeper's ends of the channel and of the gate must not block.
            theirs.setblocking(True)
            os.set_blocking(gate_writer, False)
            self._dispatcher.watch(ours.fileno(), self._on_channel, drop=self.on_loss)
            self.pid = self._machine.spawn("zmsvc.zygote", arguments, {}, [theirs.fileno(), gate])
        except OSError:
            self._dispatcher.unwatch(ours.fileno())
            ours.close()
            if gate_writer >= 0:
                os.close(gate_writer)
            raise
        finally:
            theirs.close()
            if gate >= 0:
                os.close(gate)
        self._channel, self._common_gate, self._greeting_pending = ours, gate_writer, True

    @property
    def has_greeted(self) -> bool:
        """True if the zygote has sent its greeting. Then another zygote will probably start as well."""
        return self._channel is not None and not self._greeting_pending

    def ended(self) -> None:
        """Give up this zygote, which has ended or cannot be used. The next launch starts another one."""
        pid, channel, self.pid, self._channel = self.pid, self._channel, None, None
        if channel is not None:
            self._dispatcher.unwatch(channel.fileno())
            channel.close()
            os.close(self._common_gate)
        self._greeting_pending, self._answer_due = False, None
        in_progress, self._in_progress = self._in_progress, None
        if in_progress is not None:
            in_progress.close()
        if in_progress is not None and in_progress.data:
            in_progress.tries += 1
            self._waiting.appendleft(in_progress)
            self._bytes += len(in_progress.data)
        if pid is not None:
            self._machine.signal_child(pid, signal.SIGKILL)

    def on_loss(self) -> None:
        """Handle the loss of the zygote. If it had greeted, start another one at once, so that the next
        launch need not wait for the start.
        """
        has_greeted = self.has_greeted
        if self._in_progress is None and self._greeting_pending and self._waiting:
            self._waiting[0].tries += 1
        self.ended()
        self._next()
        if has_greeted and self._channel is None and not self._closed:
            try:
                self.start()
            except OSError as error:
                # The next launch starts a zygote again.
                complain(f"zmsvcd: cannot start the zygote: {error.strerror}")

    def reaped(self) -> None:
        """Handle the end of the zygote, whose PID is free for reuse from here on."""
        self.pid = None
        self.on_loss()

    def close(self) -> None:
        """Stop forking: the context ends."""
        self._closed = True
        self.cancel_all()

    def due(self) -> float | None:
        """Return the time by which `on_time` has to be called."""
        return self._answer_due

    def on_time(self, now: float) -> None:
        """Replace a zygote that does not answer in time."""
        if self._answer_due is not None and now >= self._answer_due:
            complain("zmsvcd: the zygote does not answer, starting another one")
            self.on_loss()

    # --- forks

    def fork(
        self,
        spec: LaunchSpec,
        cgroup: Path | None,
        fds: Descriptors,
        done: Callable[[int, int], None],
        failed: Callable[[OSError | ZmsvcError], None],
    ) -> None:
        """Fork a task after those that wait already. `fds` must stay open until `done` or `failed` is called,
        which may happen before this returns. Raises OSError.
        """
        spec = self._groups.limit(spec, cgroup)
        order = Fork(spec, forking.encode_launch(spec), cgroup, fds, done, failed)
        if self._closed:
            failed(OSError(errno.ECANCELED, "the context ends"))
        elif self._machine.now() < self._paused_until:
            failed(OSError(errno.ECHILD, ZYGOTE_DIES))
        elif len(self._waiting) >= MAX_WAITING or self._bytes + len(order.data) > MAX_BYTES:
            failed(OSError(errno.EAGAIN, "too many launches wait for the zygote"))
        else:
            self._waiting.append(order)
            self._bytes += len(order.data)
            self._next()

    def cancel_all(self) -> None:
        """Cancel all launches, because their supervisor is gone or the context ends. The task that is being
        forked is killed before it does anything.
        """
        waiting, self._waiting, self._bytes = list(self._waiting), deque(), 0
        in_progress = self._in_progress
        if in_progress is not None:
            in_progress.close()
            self._in_progress = Fork(
                None, b"", None, Descriptors(), lambda pid, started: None, lambda error: None, tries=MAX_TRIES
            )
            waiting.append(in_progress)
        for order in waiting:
            order.failed(OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))

    def _next(self) -> None:
        """Send the zygote the oldest waiting launch, unless it is busy or has not greeted yet."""
        while self._waiting and self._in_progress is None:
            if self._waiting[0].tries >= MAX_TRIES:
                self._paused_until = self._machine.now() + PAUSE
                self._fail_all()
                return
            if self._channel is None and not self._start_or_fail():
                continue
            if self._greeting_pending:
                if self._answer_due is None:
                    self._answer_due = self._machine.now() + self.answer_timeout
                return
            self._send_order()

    def _start_or_fail(self) -> bool:
        try:
            self.start()
        except OSError as error:
            self._pop().failed(error)
            return False
        return True

    def _pop(self) -> Fork:
        order = self._waiting.popleft()
        self._bytes -= len(order.data)
        return order

    def _fail_all(self) -> None:
        while self._waiting:
            self._pop().failed(OSError(errno.ECHILD, ZYGOTE_DIES))

    def _send_order(self) -> None:
        assert self._channel is not None
        order = self._pop()
        group = memory = gate = output = store = barrier = None
        try:
            group = self._machine.open_cgroup(order.cgroup) if order.cgroup is not None else None
            memory = memfd.private("zmsvc-launch", order.data)
            if self._gate_per_task:
                gate, order.gate_writer = self._machine.pipe()
                output = self._output_pipe(order)
            # Open the sockets only now: while the launch waited, the supervisor may have stopped the task and
            # released its sockets.
            listen = self.sockets.open(order.spec.listen) if order.spec else ()
            store = self._stores.connection(order.spec) if self._stores and order.spec else None
            # In a shared process each task has a barrier of its own.
            if order.spec and order.spec.service_type != "Thread":
                barrier = self.barriers.create(order.spec)
            linux.leave_room(max(memory, order.gate_writer))
            self._in_progress, self._answer_due = order, self._machine.now() + self.answer_timeout
            seqpacket.send_data(
                self._channel,
                *forking.order(
                    replace(
                        order.fds,
                        cgroup=group,
                        gate=gate,
                        output=output,
                        store=store,
                        barrier=barrier,
                        listen=listen,
                    ),
                    memory,
                ),
            )
        except (ConnectionError, BlockingIOError):
            # The zygote is gone, or another process writes to the channel.
            self.ended()
        except (OSError, ZmsvcError) as error:
            self._in_progress = self._answer_due = None
            order.close()
            order.failed(error)
        finally:
            for fd in (group, memory, gate, output, store, barrier):
                if fd is not None:
                    os.close(fd)

    def _output_pipe(self, order: Fork) -> int | None:
        """Create the output pipe of a task. Return the task's end for the caller to close. Raises OSError."""
        if self._output is None or order.spec is None or not self._output.reads(order.spec):
            return None
        order.output, write = self._output.pipe_of(order.spec)
        return write

    # --- its answers

    def _on_channel(self) -> None:
        """Handle packets of the zygote, or its end."""
        try:
            while self._channel is not None:
                packet = seqpacket.receive_data(self._channel, forking.PACKET)
                if not packet:
                    self.on_loss()
                    return
                self._on_packet(packet)
        except BlockingIOError:
            return
        except ProtocolError as error:
            complain(f"zmsvcd: {error}; starting another zygote")
            self.on_loss()

    def _on_packet(self, packet: bytes) -> None:
        self._answer_due = None
        if self._greeting_pending:
            self.version, protocol = forking.decode_hello(packet)
            self._greeting_pending, self._gate_per_task = False, protocol >= 2
            self._on_greeting()
        else:
            answer = forking.decode_answer(packet)
            order, self._in_progress = self._in_progress, None
            if order is None:
                raise ProtocolError("cannot read the zygote's answer: nothing was asked of it")
            self._answered(order, answer)
        self._next()

    def _start_time(self, pid: int) -> int:
        try:
            return self._machine.start_time(pid) or 0
        except OSError:
            # The task is a child that is not reaped, so its PID alone identifies it.
            return 0

    def _answered(self, order: Fork, answer: forking.Answer) -> None:
        match answer:
            case forking.Forked(pid=pid):
                if order.data:
                    # EPIPE: the task was killed. EAGAIN: the common gate is full of bytes, one of which lets
                    # the task pass.
                    with contextlib.suppress(BrokenPipeError, BlockingIOError):
                        os.write(order.gate_writer if order.gate_writer >= 0 else self._common_gate, b"\n")
                    if self._output is not None and order.output is not None:
                        self._output.keep(order.output, pid)
                        order.output = None
                    order.close()
                    started = self._start_time(pid)
                    if not attempt(lambda: order.done(pid, started)):
                        self._machine.signal_child(pid, signal.SIGKILL)
                else:
                    self._machine.signal_child(pid, signal.SIGKILL)
            case forking.NotForked() as refused:
                order.failed(refused.error())
            case other:
                assert_never(other)
