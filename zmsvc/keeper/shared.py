"""A process that the tasks of a transaction share (`serviceType="Thread"`), as the keeper holds it: who is in it, and the line to it.

Over the line the keeper orders a member's start and stop, and is told of a member's end. Closing it is the order to end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from zmsvc.core.errors import ProtocolError
from zmsvc.host import linux, packets
from zmsvc.host.complain import complain
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors, LaunchSpec


class Host:
    """One such process. `mark` is the launch number in its environment, that of the task it was made for."""

    def __init__(self, zygote: ZygoteClient, spec: LaunchSpec, cgroup: Path | None) -> None:
        """Fork it. Raises OSError."""
        self.mark = spec.launch
        self.cgroup = cgroup
        self.members: set[int] = set()
        """Launches whose end nobody has told."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            linux.leave_room(its.fileno())
            self.pid = zygote.fork(spec, cgroup, Descriptors(shared_line=its.fileno()))
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
        self.start_time = linux.start_time(self.pid) or 0
        ours.setblocking(False)
        self._line: socket.socket | None = ours

    @property
    def open(self) -> bool:
        """Whether it takes members."""
        return self._line is not None

    def fileno(self) -> int:
        return -1 if self._line is None else self._line.fileno()

    def tell(self, order: sharing.Order, fds: Descriptors | None = None) -> bool:
        """Order a start or a stop; False when it is about to be gone, or hangs and reads no more."""
        if self._line is None:
            return False
        try:
            packets.send(self._line, sharing.ORDERS.encode(order), fds.given() if fds else {})
        except OSError:
            return False
        return True

    def heard(self) -> list[tuple[int, int]]:
        """Members that have ended since the last call: launch and exit status."""
        found: list[tuple[int, int]] = []
        while self._line is not None:
            try:
                report = packets.receive_message(self._line, sharing.REPORTS)
            except BlockingIOError:
                break
            except ProtocolError as error:
                # The user's code runs in that process, and may have written into any descriptor of it.
                complain(f"zmsvcd: process {self.pid} that tasks share: {error}")
                report = None
            if report is None:
                self.close()
                break
            if report.launch in self.members:
                found.append((report.launch, report.status))
                self.members.discard(report.launch)
        return found

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class Hosts:
    """The shared processes that take members, one a transaction.

    `ended` is told of each member that has ended: its launch, its status, and whether nobody is left and the process is to end.
    """

    def __init__(
        self,
        zygote: ZygoteClient,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], object],
        ended: Callable[[int, int, bool], None],
    ) -> None:
        self._zygote = zygote
        self._watch = watch
        self._unwatch = unwatch
        self._ended = ended
        self._of: dict[str, Host] = {}

    def start(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors) -> Host:
        """Have a task started in its transaction's process, which is made when there is none, or none that listens."""
        transaction, start = spec.transaction, sharing.StartMember(spec=spec)
        host = self._of.get(transaction)
        if host is None or not host.tell(start, fds):
            made = Host(self._zygote, spec, cgroup)
            if host is not None:
                self._part(transaction)
            host = self._of[transaction] = made
            self._watch(host.fileno(), partial(self._hear, transaction, host))
            host.tell(start, fds)
        host.members.add(spec.launch)
        return host

    def _part(self, transaction: str) -> None:
        """No more members for this process."""
        host = self._of.pop(transaction)
        self._unwatch(host.fileno())
        host.close()

    def _hear(self, transaction: str, host: Host) -> None:
        descriptor = host.fileno()
        for launch, status in host.heard():
            self._ended(launch, status, not host.members)
        if not host.open:
            self._unwatch(descriptor)
            del self._of[transaction]
        elif not host.members:
            self._part(transaction)
