"""The output process as the keeper runs it: it reads what tasks print, where the context does not log to the
journal.

The keeper holds the reading end of each pipe until the output process tells that the pipe has ended, and
gives all of them to the next one when it dies. The keeper itself reads none, and never waits for it.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from zmsvc.core.errors import ProtocolError
from zmsvc.host import seqpacket
from zmsvc.host.complain import DETACHED, complain
from zmsvc.host.kernel import linux
from zmsvc.host.paths import Places
from zmsvc.keeper.dispatcher import READ, WRITE, Dispatcher
from zmsvc.keeper.listeners import Listeners
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.keeper.restarted_process import RestartedProcess
from zmsvc.protocol import output as protocol
from zmsvc.protocol.launch import LaunchSpec

HANG = 10.0
"""Seconds that an answer may take while there is something to read; then it is killed, for the tasks would
wait for ever.
"""
SPARE = 64
"""Descriptors that the pipes leave to the keeper: a pipe beyond is the output process's alone, and breaks
when that dies.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipe:
    """A pipe whose other end a task is given, until that is forked."""

    read: int
    identifier: str
    transaction: str
    task: str

    def close(self) -> None:
        """No task was forked."""
        os.close(self.read)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    read: int
    about: protocol.TakePipe


class OutputClient(RestartedProcess):
    """The process, the pipes, and the line between. `target` is where the context logs; to the journal
    tasks write by themselves.
    """

    def __init__(
        self,
        outside: KeeperMachine,
        places: Places,
        doors: Listeners,
        cgroup: Path | None,
        dispatcher: Dispatcher,
    ) -> None:
        super().__init__(outside, places, doors, cgroup)
        self._target = os.environ.get("ZMSVC_LOG", "journal")
        self.wanted = self._target != "journal"
        self._dispatcher = dispatcher
        self._line: socket.socket | None = None
        self._held: dict[int, _Held] = {}
        self._untold: dict[int, None] = {}
        """Numbers of the pipes that the process has not been given, in their order."""
        self._orders: list[protocol.Order] = []
        """What else it has not been told: two at most."""
        self._next = 1
        self._asked: float | None = None
        """When it was asked for an answer that has not come."""
        self._ending = False

    # --- the process

    def start(self) -> None:
        """Start it and give it every pipe. One that cannot be started is tried again later; its pipes
        wait.
        """
        ours, its = self.outside.line()
        arguments = ["--line", str(its.fileno()), "--log", self._target, "--name", self.places.name]
        try:
            self._dispatcher.watch(ours.fileno(), self._on_line, drop=self._give_up)
            self.spawn("zmsvc.output", arguments, {}, [its.fileno()])
        except OSError as error:
            self._dispatcher.unwatch(ours.fileno())
            ours.close()
            complain(f"zmsvcd: cannot start the output process: {error.strerror}; trying again")
            self.put_off()
            return
        finally:
            its.close()
        self._line, self._asked, self._orders = ours, None, []
        self._untold = dict.fromkeys(self._held)
        self._flush()

    def capture(self) -> None:
        """Let what this process and its workers write to stdout and stderr go to the log by way of the output
        process.

        Only where no person has them: a log file that was renamed is then held by no process of the context.
        """
        if self.wanted and DETACHED in os.environ:
            pipe, write = self._open("zmsvcd")
            for stream in (1, 2):
                os.dup2(write, stream)
            os.close(write)
            self.keep(pipe, os.getpid())

    def ended(self) -> None:
        """It is gone; the next one starts at once, or after a delay when it ended soon."""
        if not self._ending:
            complain("zmsvcd: the output process ended, starting the next one")
        self._hang_up()
        super().ended()

    def due(self) -> float | None:
        """Return when it is to be started."""
        return super().due() if self.wanted and self.pid is None and not self._ending else None

    def over(self) -> bool:
        """Have it write what there is and end, once; tell whether it has. No task is left, and nothing is
        started any more.
        """
        if not self.wanted or (self._ending and self.pid is None):
            return True
        if not self._ending:
            if self.pid is None:
                self.start()
            self._ending = True
        self._flush()
        return self.pid is None

    def _give_up(self) -> None:
        """Nothing can be had of it: the next one is given every pipe."""
        self._hang_up()
        self.signal(signal.SIGKILL)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._dispatcher.unwatch(self._line.fileno())
            self._line.close()
            self._line = None

    # --- pipes

    def _open(self, identifier: str, transaction: str = "", task: str = "") -> tuple[Pipe, int]:
        # Not blocking for its reader: a task of the same user could read from its own pipe what the reader
        # was told of.
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if self._line is None or self._untold:
                linux.leave_room(max(read, write))
            os.set_blocking(write, True)
        except OSError:
            os.close(read)
            os.close(write)
            raise
        return Pipe(read=read, identifier=identifier, transaction=transaction, task=task), write

    def pipe_of(self, spec: LaunchSpec) -> tuple[Pipe, int]:
        """Make the pipe of a launch, and its end for the task. Tasks that share a process have one. Raises
        OSError.
        """
        shared = spec.service_type == "Thread"
        return self._open(
            spec.context if shared else spec.instance, spec.transaction, "" if shared else spec.task
        )

    def keep(self, pipe: Pipe, pid: int) -> None:
        """The process of a pipe is there: have its output read."""
        number, self._next = self._next, self._next + 1
        about = protocol.TakePipe(
            pipe=number, identifier=pipe.identifier, pid=pid, transaction=pipe.transaction, task=pipe.task
        )
        self._held[number] = _Held(read=pipe.read, about=about)
        self._untold[number] = None
        self._flush()

    # --- the line

    def reopen(self) -> None:
        """Have it open the log file anew."""
        if self._line is not None and protocol.Reopen() not in self._orders:
            self._orders.append(protocol.Reopen())
            self._flush()

    def look(self) -> None:
        """Kill one that has not answered for `HANG` seconds; ask it again when there is something to read."""
        if self._line is None:
            return
        now = self.outside.now()
        if self._asked is not None:
            if now - self._asked >= HANG:
                complain("zmsvcd: the output process does not answer, starting the next one")
                self.signal(signal.SIGKILL)
        elif self._something_to_read():
            self._asked = now
            self._orders.append(protocol.Ping())
            self._flush()

    def _something_to_read(self) -> bool:
        poll = select.poll()
        for held in self._held.values():
            poll.register(held.read, select.POLLIN)
        return bool(poll.poll(0))

    def _flush(self) -> None:
        """Send what it takes now; the rest goes when it has read."""
        line = self._line
        if line is None:
            return
        try:
            while self._orders:
                seqpacket.send(line, protocol.ORDERS.encode(self._orders[0]))
                self._orders.pop(0)
            while self._untold:
                number = next(iter(self._untold))
                held = self._held[number]
                seqpacket.send(line, protocol.ORDERS.encode(held.about), {"read": held.read})
                del self._untold[number]
                # With few descriptors left a start matters more than what is lost when the output process
                # dies.
                if held.read >= resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE:
                    self._let_go(number)
        except BlockingIOError:
            self._dispatcher.expect(line.fileno(), READ | WRITE)
            return
        except OSError:
            # It has ended, or has so many descriptors on their way that the kernel takes no more: the next
            # one is given all of them.
            self.signal(signal.SIGKILL)
            return
        if self._ending:
            self._hang_up()
        else:
            self._dispatcher.expect(line.fileno(), READ)

    def _on_line(self) -> None:
        while self._line is not None:
            try:
                report = seqpacket.receive_message(self._line, protocol.REPORTS)
            except BlockingIOError:
                self._flush()
                return
            except ProtocolError as error:
                complain(f"zmsvcd: the output process: {error}")
                continue
            match report:
                case None:
                    self._hang_up()
                case protocol.Ended():
                    self._let_go(report.pipe)
                case protocol.Pong():
                    self._asked = None
                case _:
                    assert_never(report)

    def _let_go(self, number: int) -> None:
        held = self._held.pop(number, None)
        if held is not None:
            os.close(held.read)
