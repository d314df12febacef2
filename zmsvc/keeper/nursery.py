"""The keeper's line to the template process, out of which every task is forked. It is started again when it is gone.

A launch is answered at once with a PID, or fails. A task that was forked does nothing before the keeper knows its PID: it waits at a
gate, and one whose PID got lost with its template finds the gate closed and ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from zmsvc.host import linux, packets
from zmsvc.keeper import template
from zmsvc.protocol import forking
from zmsvc.protocol.launch import Descriptors, LaunchSpec

ANSWER = 10.0
"""Seconds that a fork may take, the rehearsal of a new template included. One that was stopped is killed then, so that the keeper is not
held up by it for as long as systemd waits for its sign of life."""

TRIES = 5
"""Templates that may die under one launch. Whoever kills them one after the other shall not make a start fail."""


class Nursery:
    """Forks tasks. `cgroups`: whether each of them is given a control group."""

    def __init__(self, *, cgroups: bool) -> None:
        self._cgroups = cgroups
        self._line: socket.socket | None = None
        self._gate = -1
        self.pid: int | None = None
        """Of the template."""

    def start(self) -> None:
        """Fork the template. Raises OSError."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gate, opener = os.pipe2(os.O_CLOEXEC)
        keeper = os.getpid()
        try:
            linux.leave_room(opener)
            self.pid = os.fork()
            if self.pid == 0:
                template.live(its, gate, keeper, cgroups=self._cgroups)
        except OSError:
            ours.close()
            os.close(opener)
            raise
        finally:
            its.close()
            os.close(gate)
        ours.settimeout(ANSWER)
        self._line, self._gate = ours, opener

    def fork(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> int:
        """Fork a task. Returns its PID. Raises OSError."""
        for _ in range(TRIES):
            # Not while an exception is handled: whatever fails in a task later would be told as a consequence of it.
            if self._line is None:
                self.start()
            with contextlib.suppress(ConnectionError):
                return self._ask(spec, cgroup, fds)
            # It died since the last launch, or under this one.
            self.ended()
        raise OSError(errno.ECHILD, "the template of tasks died each time")

    def _ask(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> int:
        assert self._line is not None
        group = linux.cgroup_descriptor(cgroup) if cgroup is not None else None
        try:
            given = replace(fds, cgroup=group)
            packets.send_data(self._line, forking.encode_launch(spec, given), given.given())
        finally:
            if group is not None:
                os.close(group)
        try:
            said = self._line.recv(forking.ANSWER)
        except TimeoutError:
            print("zmsvcd: the template of tasks does not answer, starting another one", file=sys.stderr, flush=True)
            said = b""
        if not said:
            raise ConnectionResetError
        match forking.decode_answer(said):
            case forking.Forked(pid=pid):
                os.write(self._gate, b"\n")
                return pid
            case forking.NotForked() as refused:
                raise refused.error()
            case other:
                assert_never(other)

    def ended(self) -> None:
        """It is gone, or is no more to be used: the next launch starts another one."""
        if self.pid is not None and (started := linux.start_time(self.pid)) is not None:
            linux.send_signal(self.pid, started, signal.SIGKILL)
        if self._line is not None:
            self._line.close()
            os.close(self._gate)
        self._line, self.pid = None, None
