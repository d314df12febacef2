"""The client of the output process, which reads the output of tasks if the context does not log to the
journal, and otherwise that of tasks that are ready when they have written a certain line.

The keeper has a copy of the reading end of each pipe until the output process reports the end of the pipe.
When the output process dies, the next one gets all pipes. The keeper itself reads from no pipe, and never
waits for the output process.
"""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from zmsvc.core.frozen import frozen
from zmsvc.host import seqpacket
from zmsvc.host.complain import DETACHED, complain
from zmsvc.host.kernel import free_descriptors
from zmsvc.host.paths import Places
from zmsvc.keeper.connected_process import ConnectedProcess
from zmsvc.keeper.dispatcher import READ, WRITE, Dispatcher
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.protocol import output as protocol
from zmsvc.protocol.launch import LaunchSpec

PING_TIMEOUT = 10.0
"""Seconds that an answer to a ping may take while a pipe is readable. After that the keeper kills the output
process, because tasks would block on full pipes.
"""
RESERVED = 64
"""The number of descriptors that stay free. If fewer are left, the keeper keeps no copy of a pipe, and that
pipe breaks when the output process dies.
"""


@frozen
class Pipe:
    """A pipe for the output of a task that has not been forked yet."""

    read: int
    identifier: str
    transaction: str
    task: str
    launch: int = 0
    line: str = ""
    """The pattern of the line by which the task is ready, or nothing."""

    def close(self) -> None:
        """Close the pipe, since no task was forked."""
        os.close(self.read)


@frozen
class _OpenPipe:
    read: int
    order: protocol.TakePipe


class OutputClient(ConnectedProcess):
    """The output process, its pipes, and the channel to it. If the target of the context's log is the
    journal, tasks write to the journal themselves. Then no output process is wanted until the first task is
    launched that needs one. `on_line` gets the launch ID of a task that has written the line by which it is
    ready.
    """

    def __init__(
        self,
        machine: KeeperMachine,
        places: Places,
        listeners: Listeners,
        cgroup: Path | None,
        dispatcher: Dispatcher,
        on_line: Callable[[int], None],
    ) -> None:
        super().__init__(machine, places, listeners, cgroup, dispatcher)
        self._target = os.environ.get("ZMSVC_LOG", "journal")
        self.wanted = self._target != "journal"
        self._on_line = on_line
        self._pipes: dict[int, _OpenPipe] = {}
        self._unsent: dict[int, None] = {}
        """The numbers of the pipes that the output process has yet to get, in order."""
        self._orders: list[protocol.Order] = []
        """Other unsent orders, two at most."""
        self._awaited: dict[int, int] = {}
        """The launch IDs of the pipes whose lines are searched, by their numbers."""
        self._next = 1
        self._ending = False

    # --- the process

    def start(self) -> None:
        """Start the output process and give it every pipe, also after the end of another one. After a failed
        start the keeper tries again later, and the pipes stay open.
        """
        arguments = ["--log", self._target, "--name", self.places.name]
        if not self._spawn_connected("output", arguments):
            return
        self._orders = []
        self._unsent = dict.fromkeys(self._pipes)
        self._flush()

    def capture(self) -> None:
        """Redirect stdout and stderr of the keeper and its workers to the log, through the output process. So
        no process of the context keeps a renamed log file open.

        Only a detached daemon does this: in the foreground, stdout and stderr belong to the person at the
        terminal.
        """
        if self.wanted and DETACHED in os.environ:
            pipe, write = self._open("zmsvcd")
            for stream in (1, 2):
                os.dup2(write, stream)
            os.close(write)
            self.keep(pipe, os.getpid())

    def ended(self) -> None:
        """Schedule the next start: at once, or after a delay if this process ended soon after its start."""
        if not self._ending:
            complain("zmsvcd: the output process ended, starting the next one")
        self._disconnect()
        super().ended()

    def due(self) -> float | None:
        """Return the time of the next start, or by which the process has to answer; None if neither is
        wanted.
        """
        return super().due() if self.wanted and not self._ending else None

    def finish(self) -> bool:
        """Ask the output process to write the rest and end; return True when it has ended. Call this when no
        task is left: the keeper starts no further output process.
        """
        if not self.wanted or (self._ending and self.pid is None):
            return True
        if not self._ending:
            if self.pid is None:
                self.start()
            self._ending = True
        self._flush()
        return self.pid is None

    # --- pipes

    def _open(self, identifier: str, transaction: str = "", task: str = "") -> tuple[Pipe, int]:
        # Only the reading end is non-blocking, because a task of the same user can open its own pipe and take
        # the bytes that the reader was about to read.
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if self.channel is None or self._unsent:
                free_descriptors.leave_room(max(read, write))
            os.set_blocking(write, True)
        except OSError:
            os.close(read)
            os.close(write)
            raise
        return Pipe(read=read, identifier=identifier, transaction=transaction, task=task), write

    def reads(self, spec: LaunchSpec) -> bool:
        """Return True if the output process reads the output of this task."""
        return self._target != "journal" or bool(spec.ready_line)

    def pipe_of(self, spec: LaunchSpec) -> tuple[Pipe, int]:
        """Make the pipe of a launch; return it and the task's end. Tasks that share a process share a pipe.
        Raises OSError.
        """
        shared = spec.service_type == "Thread"
        pipe, write = self._open(
            spec.context if shared else spec.instance, spec.transaction, "" if shared else spec.task
        )
        if not self.wanted:
            # The keeper starts the output process in this turn. Until it reads, the pipe has room.
            self.wanted, self._restart_at = True, self.machine.now()
        return replace(pipe, launch=spec.launch, line=spec.ready_line), write

    def keep(self, pipe: Pipe, pid: int) -> None:
        """Hand the pipe of a forked process over to the output process."""
        number, self._next = self._next, self._next + 1
        order = protocol.TakePipe(
            pipe=number,
            identifier=pipe.identifier,
            pid=pid,
            transaction=pipe.transaction,
            task=pipe.task,
            line=pipe.line,
        )
        self._pipes[number] = _OpenPipe(read=pipe.read, order=order)
        if pipe.line:
            self._awaited[number] = pipe.launch
        self._unsent[number] = None
        self._flush()

    # --- the channel

    def reopen(self) -> None:
        """Make the output process reopen the log file."""
        if self.channel is not None and protocol.Reopen() not in self._orders:
            self._orders.append(protocol.Reopen())
            self._flush()

    def check(self) -> None:
        """Send a ping if a pipe is readable, and none is on its way."""
        if self.channel is not None and self._deadline.due is None and self._has_output():
            self._deadline.begin(self.machine.now(), PING_TIMEOUT)
            self._orders.append(protocol.Ping())
            self._flush()

    def abort(self) -> None:
        """Kill an output process that has not answered the ping."""
        complain("zmsvcd: the output process does not answer, starting the next one")
        self._deadline.clear()
        self.signal(signal.SIGKILL)

    def _has_output(self) -> bool:
        poll = select.poll()
        for pipe in self._pipes.values():
            poll.register(pipe.read, select.POLLIN)
        return bool(poll.poll(0))

    def _flush(self) -> None:
        """Send as much as the socket takes now, and the rest when it becomes writable."""
        channel = self.channel
        if channel is None:
            return
        try:
            while self._orders:
                seqpacket.send(channel, protocol.ORDERS.encode(self._orders[0]))
                self._orders.pop(0)
            while self._unsent:
                number = next(iter(self._unsent))
                pipe = self._pipes[number]
                seqpacket.send(channel, protocol.ORDERS.encode(pipe.order), {"read": pipe.read})
                del self._unsent[number]
                # With few free descriptors, the start of a task matters more than output that is lost only if
                # the output process dies.
                if pipe.read >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVED:
                    self._forget(number)
        except BlockingIOError:
            self._dispatcher.expect(channel.fileno(), READ | WRITE)
            return
        except OSError:
            # The output process has ended, or the kernel allows no more descriptors on their way. The next
            # process gets all pipes.
            self.signal(signal.SIGKILL)
            return
        if self._ending:
            self._disconnect()
        else:
            self._dispatcher.expect(channel.fileno(), READ)

    def _on_channel(self) -> None:
        for report in self._reports("output", protocol.REPORTS):
            match report:
                case protocol.Ended():
                    self._awaited.pop(report.pipe, None)
                    self._forget(report.pipe)
                case protocol.LineSeen():
                    self._line_seen(report.pipe)
                case protocol.Pong():
                    self._deadline.clear()
                case _:
                    assert_never(report)

    def _line_seen(self, number: int) -> None:
        """Search no further line of this pipe, and tell the keeper."""
        launch = self._awaited.pop(number, None)
        # With few free descriptors the keeper has no copy of the pipe.
        if number in self._pipes:
            pipe = self._pipes[number]
            self._pipes[number] = replace(pipe, order=replace(pipe.order, line=""))
        if launch is not None:
            self._on_line(launch)

    def _forget(self, number: int) -> None:
        pipe = self._pipes.pop(number, None)
        if pipe is not None:
            os.close(pipe.read)
