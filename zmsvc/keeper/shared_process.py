"""A process that the tasks of a transaction share (`serviceType="Thread"`), as the keeper holds it: who is in
it, and the line to it.

Over the line the keeper orders a member's start and stop, and is told of a member's end. Closing it is the
order to end.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zmsvc.core.errors import ProtocolError
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.kernel import linux
from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors, LaunchSpec


@dataclass(frozen=True, slots=True, eq=False)
class _Joining:
    """A member that waits for the process to be forked."""

    launch: int
    done: Callable[[SharedProcess], None]
    failed: Callable[[OSError], None]


class SharedProcess:
    """One such process. `mark` is the launch number in its environment, that of the task it was made for."""

    def __init__(self, spec: LaunchSpec, cgroup: Path | None, outside: KeeperMachine) -> None:
        """Make the line. Raises OSError."""
        self.mark = spec.launch
        self.cgroup = cgroup
        self.members: set[int] = set()
        """Launches whose end nobody has told."""
        self.pid: int | None = None
        """None until it is forked."""
        self.start_time = 0
        self.joining: list[_Joining] = []
        self._line: socket.socket | None
        self._line, self._its = outside.line()
        self._its.setblocking(True)

    @property
    def its(self) -> int:
        """Descriptor of the line's other end, until it is forked."""
        return self._its.fileno()

    def settled(self) -> None:
        """It was forked, or could not be: the other end of the line is its own."""
        self._its.close()

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
            seqpacket.send(self._line, sharing.ORDERS.encode(order), fds.given() if fds else {})
        except OSError:
            return False
        return True

    def heard(self) -> list[tuple[int, int]]:
        """Members that have ended since the last call: launch and exit status."""
        found: list[tuple[int, int]] = []
        while self._line is not None:
            try:
                report = seqpacket.receive_message(self._line, sharing.REPORTS)
            except BlockingIOError:
                break
            except (ProtocolError, OSError) as error:
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


class SharedProcesses:
    """The shared processes that take members, one a transaction.

    `ended` is told of each member that has ended: its launch, its status, and whether nobody is left and the
    process is to end.
    """

    def __init__(
        self,
        zygote: ZygoteClient,
        outside: KeeperMachine,
        dispatcher: Dispatcher,
        ended: Callable[[int, int, bool], None],
    ) -> None:
        self._zygote = zygote
        self._outside, self._dispatcher = outside, dispatcher
        self._ended = ended
        self._of: dict[str, SharedProcess] = {}

    def start(
        self,
        spec: LaunchSpec,
        cgroup: Path | None,
        fds: Descriptors,
        done: Callable[[SharedProcess], None],
        failed: Callable[[OSError], None],
    ) -> None:
        """Have a task started in its transaction's process, which is made when there is none, or none that
        listens.

        One of `done` and `failed` is called, perhaps at once. Raises OSError.
        """
        transaction, start = spec.transaction, sharing.StartMember(spec=spec)
        host = self._of.get(transaction)
        if host is not None and host.tell(start, fds):
            host.members.add(spec.launch)
            if host.pid is None:
                host.joining.append(_Joining(spec.launch, done, failed))
            else:
                done(host)
            return
        if host is not None:
            # What it has said before it ended counts.
            self._hear(transaction, host)
            self._part(transaction, host)
        self._make(spec, cgroup, fds, _Joining(spec.launch, done, failed))

    def _make(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors, first: _Joining) -> None:
        host, transaction = SharedProcess(spec, cgroup, self._outside), spec.transaction
        try:
            linux.leave_room(host.its)
            self._dispatcher.watch(
                host.fileno(),
                partial(self._hear, transaction, host),
                drop=partial(self._part, transaction, host),
            )
        except OSError:
            host.settled()
            host.close()
            raise
        self._of[transaction] = host
        host.members.add(spec.launch)
        host.joining.append(first)
        host.tell(sharing.StartMember(spec=spec), fds)
        self._zygote.fork(
            spec,
            cgroup,
            Descriptors(shared_line=host.its),
            partial(self._forked, host),
            partial(self._not_forked, transaction, host),
        )

    def _forked(self, host: SharedProcess, pid: int, started: int) -> None:
        host.settled()
        host.pid, host.start_time = pid, started
        joining, host.joining = host.joining, []
        for each in joining:
            each.done(host)

    def _not_forked(self, transaction: str, host: SharedProcess, error: OSError) -> None:
        host.settled()
        self._part(transaction, host)
        joining, host.joining = host.joining, []
        for each in joining:
            each.failed(error)

    def _part(self, transaction: str, host: SharedProcess) -> None:
        """No more members for this process."""
        if self._of.get(transaction) is host:
            del self._of[transaction]
        if host.open:
            self._dispatcher.unwatch(host.fileno())
            host.close()

    def hear_last_words(self, pid: int) -> None:
        """Read the line of a process that has ended to its end: who was out by then has ended as it says."""
        for transaction, host in [*self._of.items()]:
            if host.pid == pid:
                self._hear(transaction, host)

    def _hear(self, transaction: str, host: SharedProcess) -> None:
        if self._of.get(transaction) is not host:
            return
        descriptor = host.fileno()
        ends = host.heard()
        if not host.open:
            self._dispatcher.unwatch(descriptor)
            del self._of[transaction]
        elif not host.members:
            self._part(transaction, host)
        for number, (launch, status) in enumerate(ends, start=1):
            self._ended(launch, status, not host.members and number == len(ends))
