"""The keeper's line to the zygote, out of which every task is forked. A zygote that ends is started again.

A launch is answered at once with a PID, or fails. A task that was forked does nothing before the keeper knows its PID: it waits at a
gate, and one whose PID got lost with its zygote finds the gate closed and ends.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from zmsvc.core.errors import ProtocolError
from zmsvc.host import linux, memfd, packets
from zmsvc.host.complain import complain
from zmsvc.keeper.worker import spawn
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors, LaunchSpec

ANSWER = 10.0
"""Seconds that a fork may take, the start and the rehearsal of a new zygote included. One that was stopped is killed then, so that the
keeper is not held up by it for as long as systemd waits for its sign of life."""

TRIES = 5
"""Zygotes that may die under one launch: a process that kills them one after the other shall not make a start fail."""

PAUSE = 1.0
"""Seconds in which no further launch tries it after that: each try takes the keeper a quarter of a second."""
GIVEN_UP = "the zygote, out of which tasks are forked, died each time it was started"

Watch = Callable[[int, Callable[[], None]], None]


class ZygoteClient:
    """Forks tasks. `cgroups`: each of them is given a control group.

    `watch` and `unwatch` are the selector's, `greeted` is called when a zygote has said its version.
    """

    def __init__(self, *, cgroups: bool, watch: Watch, unwatch: Callable[[int], object], greeted: Callable[[], None]) -> None:
        self._cgroups = cgroups
        self._watch, self._unwatch, self._greeted = watch, unwatch, greeted
        self._line: socket.socket | None = None
        self._gate = -1
        self._silent = False
        """It has not said its first word, for which its line is watched."""
        self._put_off_until = -math.inf
        self.pid: int | None = None
        self.version = ""
        """Of the zygote that runs, or ran last."""

    def start(self) -> None:
        """Execute a zygote. Raises OSError."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gate, opener = os.pipe2(os.O_CLOEXEC)
        arguments = ["--line", str(its.fileno()), "--gate", str(gate), "--keeper", str(os.getpid())]
        arguments += ["--protocol", str(forking.PROTOCOL), *["--cgroups"] * self._cgroups]
        try:
            linux.leave_room(opener)
            self.pid = spawn("zmsvc.zygote", arguments, {}, [its.fileno(), gate])
        except OSError:
            ours.close()
            os.close(opener)
            raise
        finally:
            its.close()
            os.close(gate)
        ours.settimeout(ANSWER)
        self._line, self._gate, self._silent = ours, opener, True
        self._watch(ours.fileno(), self._hear)

    def _hear(self) -> None:
        """The first word came, or the zygote ended before it."""
        try:
            self._greet(socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass  # The selector meant a line that was closed meanwhile, whose number this one has.
        except (ConnectionError, ProtocolError):
            self.ended()

    def _greet(self, flags: int = 0) -> None:
        """Wait for the first word. Raises ConnectionError when the zygote has ended, or does not answer."""
        if not self._silent or self._line is None:
            return
        said = self._receive(flags)
        self._silent = False
        self._unwatch(self._line.fileno())
        self.version = forking.decode_hello(said)
        self._greeted()

    def fork(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> int:
        """Fork a task. Returns its PID. Raises OSError."""
        if time.monotonic() < self._put_off_until:
            raise OSError(errno.ECHILD, GIVEN_UP)
        for _ in range(TRIES):
            if self._line is None:
                self.start()
            with contextlib.suppress(ConnectionError, ProtocolError):
                return self._ask(spec, cgroup, fds)
            # It died since the last launch, or under this one.
            self.ended()
        self._put_off_until = time.monotonic() + PAUSE
        raise OSError(errno.ECHILD, GIVEN_UP)

    def _ask(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> int:
        self._greet()
        assert self._line is not None
        group = memory = None
        try:
            group = linux.cgroup_descriptor(cgroup) if cgroup is not None else None
            memory = memfd.private("zmsvc-launch", forking.encode_launch(spec))
            linux.leave_room(memory)
            packets.send_data(self._line, *forking.order(replace(fds, cgroup=group), memory))
        finally:
            for fd in (group, memory):
                if fd is not None:
                    os.close(fd)
        match forking.decode_answer(self._receive()):
            case forking.Forked(pid=pid):
                os.write(self._gate, b"\n")
                return pid
            case forking.NotForked() as refused:
                raise refused.error()
            case other:
                assert_never(other)

    def _receive(self, flags: int = 0) -> bytes:
        """Return the next packet. Raises ConnectionError when there is none in time."""
        assert self._line is not None
        try:
            said = self._line.recv(forking.PACKET, flags)
        except TimeoutError:
            complain("zmsvcd: the zygote does not answer, starting another one")
            said = b""
        if not said:
            raise ConnectionResetError
        return said

    @property
    def worked(self) -> bool:
        """It has said its first word, so another one will probably run as well."""
        return self.pid is not None and not self._silent

    def ended(self) -> None:
        """The zygote is gone, or is not to be used any more: the next launch starts another one."""
        if self.pid is not None and (started := linux.start_time(self.pid)) is not None:
            linux.send_signal(self.pid, started, signal.SIGKILL)
        if self._line is not None:
            if self._silent:
                self._unwatch(self._line.fileno())
            self._line.close()
            os.close(self._gate)
        self._line, self.pid, self._silent = None, None, False
