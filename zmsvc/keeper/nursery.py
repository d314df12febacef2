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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zmsvc.host import linux, packets
from zmsvc.keeper import template

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

    def fork(self, spec: Mapping[str, Any], cgroup: Path | None, fds: Mapping[str, int]) -> int:
        """Fork a task that runs `spec` (see zmsvc.task.runner), with descriptors by name. Gives its PID. Raises OSError."""
        for _ in range(TRIES):
            # Not while an exception is handled: whatever fails in a task later would be told as a consequence of it.
            if self._line is None:
                self.start()
            with contextlib.suppress(ConnectionError):
                return self._ask(spec, cgroup, fds)
            # It died since the last launch, or under this one.
            self.ended()
        raise OSError(errno.ECHILD, "the template of tasks died each time")

    def _ask(self, spec: Mapping[str, Any], cgroup: Path | None, fds: Mapping[str, int]) -> int:
        assert self._line is not None
        group = linux.cgroup_descriptor(cgroup) if cgroup is not None else None
        try:
            packets.send_to_fork(self._line, spec, {template.GROUP: group, **fds} if group is not None else fds)
        finally:
            if group is not None:
                os.close(group)
        try:
            answer = int(self._line.recv(64) or b"0")
        except TimeoutError:
            print("zmsvcd: the template of tasks does not answer, starting another one", file=sys.stderr, flush=True)
            answer = 0
        if answer == 0:
            raise ConnectionResetError
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        os.write(self._gate, b"\n")
        return answer

    def ended(self) -> None:
        """It is gone, or is no more to be used: the next launch starts another one."""
        if self.pid is not None and (started := linux.start_time(self.pid)) is not None:
            linux.send_signal(self.pid, started, signal.SIGKILL)
        if self._line is not None:
            self._line.close()
            os.close(self._gate)
        self._line, self.pid = None, None
