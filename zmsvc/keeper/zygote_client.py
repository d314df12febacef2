"""The keeper's line to the zygote, out of which every task is forked. A zygote that ends is started again.

The keeper never waits for it: launches stand in a queue, one of them is with the zygote, and its answer is an
event as any other. A task that was forked does nothing before the keeper knows its PID: it waits at a gate,
and one whose PID got lost with its zygote finds the gate closed and ends.
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

from zmsvc.core.errors import ProtocolError
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux, memfd
from zmsvc.keeper.dispatcher import Dispatcher, attempt
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.keeper.output import OutputClient, Pipe
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors, LaunchSpec

ANSWER = 10.0
"""Seconds that a fork may take, the start and the rehearsal of a new zygote included. One that was stopped
is killed then.
"""

TRIES = 5
"""Zygotes that may die under one launch: a process that kills them one after the other shall not make a
start fail.
"""

PAUSE = 1.0
"""Seconds in which no further launch tries it after that."""
GIVEN_UP = "the zygote, out of which tasks are forked, died each time it was started"

MAX_WAITING = 100_000
"""Launches that wait for the zygote: more than a large context has."""
MAX_BYTES = 256 << 20
"""Bytes of them: each has the configuration and environment of its task."""


@dataclass(slots=True, eq=False)
class Fork:
    """A task that is to be forked. `done` is called with its PID and start time, or `failed` with the
    reason.
    """

    spec: LaunchSpec | None
    data: bytes
    """The launch, as the task reads it."""
    cgroup: Path | None
    fds: Descriptors
    done: Callable[[int, int], None]
    failed: Callable[[OSError], None]
    tries: int = 0
    opener: int = -1
    """The other end of the task's gate."""
    output: Pipe | None = None
    """What it prints into, from the order to the answer."""

    def shut(self) -> None:
        """Close the gate, where a task that waits ends, and the pipe of one that was not forked."""
        if self.opener >= 0:
            os.close(self.opener)
            self.opener = -1
        if self.output is not None:
            self.output.close()
            self.output = None


class ZygoteClient:
    """Forks tasks. `cgroups`: each of them is given a control group. `greeted` is called when a zygote has
    said its version.
    """

    def __init__(
        self,
        outside: KeeperMachine,
        dispatcher: Dispatcher,
        *,
        cgroups: bool,
        greeted: Callable[[], None],
        output: OutputClient | None = None,
    ) -> None:
        self._outside, self._dispatcher = outside, dispatcher
        self._output = output if output is not None and output.wanted else None
        """Gives each task a pipe for what it prints."""
        self._cgroups, self._greeted = cgroups, greeted
        self._line: socket.socket | None = None
        self._gate = -1
        self._own_gates = False
        """Each task is given a gate: one that was killed before it had read its byte would leave that to
        the next.
        """
        self._silent = False
        """It has not said its first word."""
        self._waiting: deque[Fork] = deque()
        self._bytes = 0
        self._asked: Fork | None = None
        """What the zygote is forking."""
        self._until: float | None = None
        """When it has to have answered."""
        self._put_off_until = -math.inf
        self._closed = False
        self.pid: int | None = None
        self.version = ""
        """Of the zygote that runs, or ran last."""

    # --- one zygote

    def start(self) -> None:
        """Execute a zygote. Raises OSError."""
        ours, its = self._outside.line()
        gate = opener = -1
        try:
            gate, opener = self._outside.pipe()
            arguments = ["--line", str(its.fileno()), "--gate", str(gate), "--keeper", str(os.getpid())]
            arguments += ["--protocol", str(forking.PROTOCOL), *["--cgroups"] * self._cgroups]
            linux.leave_room(opener)
            # It waits for orders; the keeper does not wait for it, nor at its gate.
            its.setblocking(True)
            os.set_blocking(opener, False)
            self._dispatcher.watch(ours.fileno(), self._hear, drop=self.lost)
            self.pid = self._outside.spawn("zmsvc.zygote", arguments, {}, [its.fileno(), gate])
        except OSError:
            self._dispatcher.unwatch(ours.fileno())
            ours.close()
            if opener >= 0:
                os.close(opener)
            raise
        finally:
            its.close()
            if gate >= 0:
                os.close(gate)
        self._line, self._gate, self._silent = ours, opener, True

    @property
    def worked(self) -> bool:
        """It has said its first word, so another one will probably run as well."""
        return self._line is not None and not self._silent

    def ended(self) -> None:
        """The zygote is gone, or is not to be used any more: the next launch starts another one."""
        pid, line, self.pid, self._line = self.pid, self._line, None, None
        if line is not None:
            self._dispatcher.unwatch(line.fileno())
            line.close()
            os.close(self._gate)
        self._silent, self._until = False, None
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.shut()
        if asked is not None and asked.data:
            asked.tries += 1
            self._waiting.appendleft(asked)
            self._bytes += len(asked.data)
        if pid is not None:
            self._outside.signal_child(pid, signal.SIGKILL)

    def lost(self) -> None:
        """The zygote died. Another one is started: at once when this one has worked, for the next launch
        would have to wait for it.
        """
        worked = self.worked
        if self._asked is None and self._silent and self._waiting:
            self._waiting[0].tries += 1
        self.ended()
        self._next()
        if worked and self._line is None and not self._closed:
            try:
                self.start()
            except OSError as error:
                # The next launch tries it again.
                complain(f"zmsvcd: cannot start the zygote: {error.strerror}")

    def reaped(self) -> None:
        """The zygote has ended, and its PID is nobody's from here on."""
        self.pid = None
        self.lost()

    def close(self) -> None:
        """The context ends: nothing is forked any more."""
        self._closed = True
        self.forget_all()

    def due(self) -> float | None:
        """Return when `on_time` has to be called."""
        return self._until

    def on_time(self, now: float) -> None:
        """Start another zygote instead of one that does not answer."""
        if self._until is not None and now >= self._until:
            complain("zmsvcd: the zygote does not answer, starting another one")
            self.lost()

    # --- forks

    def fork(
        self,
        spec: LaunchSpec,
        cgroup: Path | None,
        fds: Descriptors,
        done: Callable[[int, int], None],
        failed: Callable[[OSError], None],
    ) -> None:
        """Fork a task as soon as those before it are forked. `fds` stay open until one of the two is
        called, which may be at once.
        """
        order = Fork(spec, forking.encode_launch(spec), cgroup, fds, done, failed)
        if self._closed:
            failed(OSError(errno.ECANCELED, "the context ends"))
        elif self._outside.now() < self._put_off_until:
            failed(OSError(errno.ECHILD, GIVEN_UP))
        elif len(self._waiting) >= MAX_WAITING or self._bytes + len(order.data) > MAX_BYTES:
            failed(OSError(errno.EAGAIN, "too many launches wait for the zygote"))
        else:
            self._waiting.append(order)
            self._bytes += len(order.data)
            self._next()

    def forget_all(self) -> None:
        """No supervisor waits for these launches any more. What is being forked is killed before it does
        anything.
        """
        waiting, self._waiting, self._bytes = list(self._waiting), deque(), 0
        asked = self._asked
        if asked is not None:
            asked.shut()
            self._asked = Fork(
                None, b"", None, Descriptors(), lambda pid, started: None, lambda error: None, tries=TRIES
            )
            waiting.append(asked)
        for order in waiting:
            order.failed(OSError(errno.ECANCELED, os.strerror(errno.ECANCELED)))

    def _next(self) -> None:
        """Have the zygote fork what has waited longest, unless it is busy or has still to come up."""
        while self._waiting and self._asked is None:
            if self._waiting[0].tries >= TRIES:
                self._put_off_until = self._outside.now() + PAUSE
                self._give_up()
                return
            if self._line is None and not self._started():
                continue
            if self._silent:
                if self._until is None:
                    self._until = self._outside.now() + ANSWER
                return
            self._ask()

    def _started(self) -> bool:
        try:
            self.start()
        except OSError as error:
            self._take().failed(error)
            return False
        return True

    def _take(self) -> Fork:
        order = self._waiting.popleft()
        self._bytes -= len(order.data)
        return order

    def _give_up(self) -> None:
        while self._waiting:
            self._take().failed(OSError(errno.ECHILD, GIVEN_UP))

    def _ask(self) -> None:
        assert self._line is not None
        order = self._take()
        group = memory = gate = output = None
        try:
            group = self._outside.open_group(order.cgroup) if order.cgroup is not None else None
            memory = memfd.private("zmsvc-launch", order.data)
            if self._own_gates:
                gate, order.opener = self._outside.pipe()
                output = self._pipe(order)
            linux.leave_room(max(memory, order.opener))
            self._asked, self._until = order, self._outside.now() + ANSWER
            seqpacket.send_data(
                self._line, *forking.order(replace(order.fds, cgroup=group, gate=gate, output=output), memory)
            )
        except (ConnectionError, BlockingIOError):
            # It is gone, or something else writes into the line.
            self.ended()
        except OSError as error:
            self._asked = self._until = None
            order.shut()
            order.failed(error)
        finally:
            for fd in (group, memory, gate, output):
                if fd is not None:
                    os.close(fd)

    def _pipe(self, order: Fork) -> int | None:
        """Make the pipe of a task. Returns its end for the task, to be closed here. Raises OSError."""
        if self._output is None or order.spec is None:
            return None
        order.output, write = self._output.pipe_of(order.spec)
        return write

    # --- its answers

    def _hear(self) -> None:
        """The zygote said something, or has ended."""
        try:
            while self._line is not None:
                said = seqpacket.receive_data(self._line, forking.PACKET)
                if not said:
                    self.lost()
                    return
                self._take_word(said)
        except BlockingIOError:
            return
        except ProtocolError as error:
            complain(f"zmsvcd: {error}; starting another zygote")
            self.lost()

    def _take_word(self, said: bytes) -> None:
        self._until = None
        if self._silent:
            self.version, protocol = forking.decode_hello(said)
            self._silent, self._own_gates = False, protocol >= 2
            self._greeted()
        else:
            answer = forking.decode_answer(said)
            order, self._asked = self._asked, None
            if order is None:
                raise ProtocolError("cannot read the zygote's answer: nothing was asked of it")
            self._answered(order, answer)
        self._next()

    def _start_time(self, pid: int) -> int:
        try:
            return self._outside.start_time(pid) or 0
        except OSError:
            # It is a child that was not reaped, so its PID alone says enough.
            return 0

    def _answered(self, order: Fork, answer: forking.Answer) -> None:
        match answer:
            case forking.Forked(pid=pid):
                if order.data:
                    # A task that was killed meanwhile is at its gate no more. One that all have is never
                    # full: else it lets in, too.
                    with contextlib.suppress(BrokenPipeError, BlockingIOError):
                        os.write(order.opener if order.opener >= 0 else self._gate, b"\n")
                    if self._output is not None and order.output is not None:
                        self._output.keep(order.output, pid)
                        order.output = None
                    order.shut()
                    started = self._start_time(pid)
                    if not attempt(lambda: order.done(pid, started)):
                        self._outside.signal_child(pid, signal.SIGKILL)
                else:
                    self._outside.signal_child(pid, signal.SIGKILL)
            case forking.NotForked() as refused:
                order.failed(refused.error())
            case other:
                assert_never(other)
