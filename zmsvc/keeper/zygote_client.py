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
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import assert_never

from zmsvc.core.deadline import Deadline
from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import free_descriptors, memfd
from zmsvc.keeper.barriers import Barriers
from zmsvc.keeper.dispatcher import Dispatcher, attempt
from zmsvc.keeper.fdstore_process import FdstoreProcess
from zmsvc.keeper.machine import ChildEnd, KeeperMachine
from zmsvc.keeper.output import OutputClient, Pipe
from zmsvc.keeper.spare_tasks import QUIET, SpareTasks
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
    spare: bool = False
    """True for a spare task, which has no launch yet."""

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
    `groups` limits. `on_greeting` is called when a zygote has sent its version. Without `spares` each task is
    forked when it is launched.
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
        spares: SpareTasks | None = None,
    ) -> None:
        self.sockets, self.barriers = TaskSockets(machine), Barriers(machine)
        self.answer_timeout = ANSWER_TIMEOUT
        self._machine, self._dispatcher = machine, dispatcher
        self._output = output
        """The client that creates a pipe for the output of a task that needs one."""
        self._stores, self._spares = stores, spares
        self._cgroups, self._groups, self._on_greeting = cgroups, groups, on_greeting
        self._channel: socket.socket | None = None
        self._common_gate = -1
        self._gate_per_task = False
        """True if each task gets its own start gate. At a common gate, a task that is killed before it reads
        its byte would leave the byte for the next task.
        """
        self._may_spare = False
        """True if the zygote forks spare tasks."""
        self._spare_at: float | None = None
        """The time at which the zygote forks a spare task, if no launch comes before."""
        self._early_ends: dict[int, tuple[ChildEnd, float]] = {}
        """The children of no launch that were reaped while an answer of the zygote is due. One of them may be
        the process of this order, killed at once: its PID may belong to another one from now on.
        """
        self.on_spare_known: Callable[[], None] = lambda: None
        """Called when the PID of a spare task is known, or there is none: until then a child of the keeper
        may be that spare task.
        """
        self._greeting_pending = False
        """True until the zygote has sent its greeting."""
        self._waiting: deque[Fork] = deque()
        self._bytes = 0
        self._in_progress: Fork | None = None
        """The task that the zygote is forking."""
        self._answer = Deadline()
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
            free_descriptors.leave_room(gate_writer)
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
        self._greeting_pending, self._spare_at = False, None
        self._answer.clear()
        if self._spares is not None:
            # The installed files of the next zygote may be of another release.
            self._spares.drop()
        in_progress, self._in_progress = self._in_progress, None
        if in_progress is not None:
            in_progress.close()
        if in_progress is not None and in_progress.spare:
            self.on_spare_known()
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
        self._closed, self._spare_at = True, None
        self.cancel_all()
        if self._spares is not None:
            self._spares.drop()

    def due(self) -> float | None:
        """Return the time by which `on_time` has to be called."""
        # While an answer is due, no spare task is planned.
        return self._spare_at if self._answer.due is None else self._answer.due

    def on_time(self, now: float) -> None:
        """Replace a zygote that does not answer in time, and order a spare task that is due."""
        if self._spare_at is not None and now >= self._spare_at:
            self._spare_at = None
            self._order_spare()
        if self._answer.is_over(now):
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
        self._spare_at = None
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
        if in_progress is not None and not in_progress.spare:
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
                if self._answer.due is None:
                    self._answer.begin(self._machine.now(), self.answer_timeout)
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
        with contextlib.ExitStack() as copies:
            try:
                packet = self._open(order, copies, has_gate=self._gate_per_task)
                self._early_ends.clear()
                self._in_progress = order
                self._answer.begin(self._machine.now(), self.answer_timeout)
                seqpacket.send_data(self._channel, *packet)
            except (ConnectionError, BlockingIOError):
                # The zygote is gone, or another process writes to the channel.
                self.ended()
            except (OSError, ZmsvcError) as error:
                self._in_progress = None
                self._answer.clear()
                order.close()
                order.failed(error)

    def _open(
        self, order: Fork, copies: contextlib.ExitStack, *, has_gate: bool
    ) -> tuple[bytes, dict[str, int]]:
        """Return the packet of a launch and the descriptors that go with it. `copies` closes the keeper's
        copies of those. Raises OSError or ZmsvcError.
        """
        spec, fds = order.spec, order.fds

        def closed_later(fd: int) -> int:
            copies.callback(os.close, fd)
            return fd

        if order.cgroup is not None:
            fds = replace(fds, cgroup=closed_later(self._machine.open_cgroup(order.cgroup)))
        memory = closed_later(memfd.private("zmsvc-launch", order.data))
        if has_gate:
            gate, order.gate_writer = self._machine.pipe()
            fds = replace(fds, gate=closed_later(gate))
        if self._gate_per_task and (output := self._output_pipe(order)) is not None:
            fds = replace(fds, output=closed_later(output))
        # Open the sockets only now: while the launch waited, the supervisor may have stopped the task and
        # released its sockets.
        fds = replace(fds, listen=self.sockets.open(spec.listen) if spec else ())
        store = self._stores.connection(spec) if self._stores and spec else None
        if store is not None:
            fds = replace(fds, store=closed_later(store))
        # In a shared process each task has a barrier of its own.
        barrier = self.barriers.create(spec) if spec and spec.service_type != "Thread" else None
        if barrier is not None:
            fds = replace(fds, barrier=closed_later(barrier))
        free_descriptors.leave_room(max(memory, order.gate_writer))
        return forking.order(fds, memory)

    def _output_pipe(self, order: Fork) -> int | None:
        """Create the output pipe of a task. Return the task's end for the caller to close. Raises OSError."""
        if self._output is None or order.spec is None or not self._output.reads(order.spec):
            return None
        order.output, write = self._output.pipe_of(order.spec)
        return write

    # --- spare tasks

    @property
    def spare_pids(self) -> Collection[int]:
        """The children of the keeper that are spare tasks."""
        return () if self._spares is None else self._spares.pids

    @property
    def forks_spare(self) -> bool:
        """True while the zygote forks a spare task, whose PID is not known yet."""
        return self._in_progress is not None and self._in_progress.spare

    def unknown_ended(self, info: ChildEnd, cpu: float) -> None:
        """Note the end of a child that is neither a task nor a spare task, as far as it is known."""
        if self._in_progress is not None:
            self._early_ends[info.si_pid] = info, cpu

    def early_end(self, pid: int) -> tuple[ChildEnd, float] | None:
        """Return the end of a process for which `done` is being called, if it was reaped before its PID was
        known; else None. Its PID may be that of another process, which must get no signal.
        """
        return self._early_ends.get(pid)

    def spare_ended(self, pid: int) -> bool:
        """Handle the end of a child. Return False if it was no spare task."""
        return self._spares is not None and self._spares.ended(pid)

    def give(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> tuple[int, int] | None:
        """Give a launch to the spare task. Return the PID and the start time of the task. Return None if
        the launch has to be forked. Raises OSError or ZmsvcError if that would fail, too.

        A spare task that is dead has not read the launch, so the task does not run twice.
        """
        spares = self._spares
        if spares is None or self._closed:
            return None
        spares.wanted = True
        spare = spares.ready_for(spec)
        if spare is None:
            return None
        spec = self._groups.limit(spec, cgroup)
        order = Fork(
            spec, forking.encode_launch(spec), cgroup, fds, lambda pid, started: None, lambda error: None
        )
        with contextlib.ExitStack() as copies:
            try:
                packet = self._open(order, copies, has_gate=False)
                started = self._start_time(spare.pid)
                seqpacket.send_data(spare.line, *packet)
            except (ConnectionError, BlockingIOError):
                order.close()
                spares.drop()
                return None
            except BaseException:
                order.close()
                raise
        self._keep_output(order, spare.pid)
        spares.given(spare, spec)
        self._plan_spare()
        return spare.pid, started

    def _plan_spare(self) -> None:
        """Have a spare task forked if no launch comes for a while."""
        idle = not self._waiting and self._in_progress is None
        if idle and self._may_spare and self.has_greeted and not self._closed:
            assert self._spares is not None
            self._spare_at = self._machine.now() + QUIET if self._spares.due else None

    def _order_spare(self) -> None:
        assert self._spares is not None
        if self._channel is None:
            return
        with contextlib.ExitStack() as copies:
            try:
                spare, theirs = self._spares.create()
                copies.callback(theirs.close)
                group = self._spares.open_group()
                if group is not None:
                    copies.callback(os.close, group)
                done, failed = partial(self._spares.forked, spare), partial(self._spares.failed, spare)
                self._early_ends.clear()
                self._in_progress = Fork(None, b"", None, Descriptors(), done, failed, spare=True)
                self._answer.begin(self._machine.now(), self.answer_timeout)
                seqpacket.send_data(
                    self._channel, *forking.order_spare(group, theirs.fileno(), warm=spare.warm)
                )
            except (ConnectionError, BlockingIOError):
                self.on_loss()
            except OSError:
                # No descriptor or process is free: tasks are forked when they are launched.
                self._in_progress = None
                self._answer.clear()
                self._spares.drop()

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
        self._answer.clear()
        if self._greeting_pending:
            self.version, protocol = forking.decode_hello(packet)
            self._greeting_pending = False
            self._gate_per_task = protocol >= forking.PROTOCOL_GATES
            self._may_spare = self._spares is not None and protocol >= forking.PROTOCOL_SPARE_TASKS
            self._on_greeting()
        else:
            answer = forking.decode_answer(packet)
            order, self._in_progress = self._in_progress, None
            if order is None:
                raise ProtocolError("cannot read the zygote's answer: nothing was asked of it")
            self._answered(order, answer)
        self._next()
        self._plan_spare()

    def _start_time(self, pid: int) -> int:
        try:
            return self._machine.start_time(pid) or 0
        except OSError:
            # The task is a child that is not reaped, so its PID alone identifies it.
            return 0

    def _keep_output(self, order: Fork, pid: int) -> None:
        """Keep the pipe for the output of a task that was forked, and close the rest of its order."""
        if self._output is not None and order.output is not None:
            self._output.keep(order.output, pid)
            order.output = None
        order.close()

    def _answered(self, order: Fork, answer: forking.Answer) -> None:
        match answer:
            case forking.Forked(pid=pid) if pid in self._early_ends:
                if order.spare:
                    order.failed(ProcessLookupError())
                elif order.data:
                    self._keep_output(order, pid)
                    attempt(partial(order.done, pid, 0))
            case forking.Forked(pid=pid):
                if order.spare:
                    order.done(pid, 0)
                elif order.data:
                    # EPIPE: the task was killed. EAGAIN: the common gate is full of bytes, one of which lets
                    # the task pass.
                    with contextlib.suppress(BrokenPipeError, BlockingIOError):
                        os.write(order.gate_writer if order.gate_writer >= 0 else self._common_gate, b"\n")
                    self._keep_output(order, pid)
                    started = self._start_time(pid)
                    if not attempt(lambda: order.done(pid, started)):
                        self._machine.signal_child(pid, signal.SIGKILL)
                else:
                    self._machine.signal_child(pid, signal.SIGKILL)
            case forking.NotForked() as refused:
                order.failed(refused.error())
            case other:
                assert_never(other)
        self._early_ends.clear()
        if order.spare:
            self.on_spare_known()
