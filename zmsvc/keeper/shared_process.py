"""The keeper's side of a process that tasks of a transaction share (`serviceType="Thread"`): the members
of the process, and the channel to it.

Over the channel the keeper starts and stops members, and the process reports each member's end. A closed
channel is the order to end.
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
from zmsvc.host.kernel import free_descriptors
from zmsvc.keeper.dispatcher import Dispatcher
from zmsvc.keeper.machine import KeeperMachine
from zmsvc.keeper.zygote_client import ZygoteClient
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors, LaunchSpec


@dataclass(frozen=True, slots=True, eq=False)
class _Joining:
    """A member that waits until the process is forked."""

    launch: int
    done: Callable[[SharedProcess], None]
    failed: Callable[[OSError], None]


class SharedProcess:
    """A shared process. Its environment has the launch ID of the task for which it was created,
    `first_launch`.
    """

    def __init__(self, spec: LaunchSpec, cgroup: Path | None, machine: KeeperMachine) -> None:
        """Create the channel. Raises OSError."""
        self.first_launch = spec.launch
        self.cgroup = cgroup
        self.members: set[int] = set()
        """Launches whose end the process has not reported."""
        self.pid: int | None = None
        """None until the process is forked."""
        self.start_time = 0
        self.joining: list[_Joining] = []
        self._channel: socket.socket | None
        self._channel, self._peer_end = machine.channel()
        self._peer_end.setblocking(True)

    @property
    def peer_fd(self) -> int:
        """Descriptor of the channel's other end, until the process is forked."""
        return self._peer_end.fileno()

    def close_peer_end(self) -> None:
        """Close the other end of the channel, after the fork or its failure."""
        self._peer_end.close()

    @property
    def is_open(self) -> bool:
        """True if the process accepts members."""
        return self._channel is not None

    def fileno(self) -> int:
        return -1 if self._channel is None else self._channel.fileno()

    def send(self, order: sharing.Order, fds: Descriptors | None = None) -> bool:
        """Send an order. Return False if the process is about to end, or hangs and does not read."""
        if self._channel is None:
            return False
        try:
            seqpacket.send(self._channel, sharing.ORDERS.encode(order), fds.given() if fds else {})
        except OSError:
            return False
        return True

    def receive_ends(self) -> list[tuple[int, int]]:
        """Return the members that have ended since the last call: launch and exit status."""
        found: list[tuple[int, int]] = []
        while self._channel is not None:
            try:
                report = seqpacket.receive_message(self._channel, sharing.REPORTS)
            except BlockingIOError:
                break
            except (ProtocolError, OSError) as error:
                # Users' code runs in that process and may have written to any of its descriptors.
                complain(f"zmsvcd: shared process {self.pid}: {error}")
                report = None
            if report is None:
                self.close()
                break
            if report.launch in self.members:
                found.append((report.launch, report.status))
                self.members.discard(report.launch)
        return found

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


class SharedProcesses:
    """The shared processes that accept members, one per transaction.

    `member_ended` is called for each member that has ended, with its launch, its exit status, and True if it
    was the last member; the process is then about to end.
    """

    def __init__(
        self,
        zygote: ZygoteClient,
        machine: KeeperMachine,
        dispatcher: Dispatcher,
        member_ended: Callable[[int, int, bool], None],
    ) -> None:
        self._zygote = zygote
        self._machine, self._dispatcher = machine, dispatcher
        self._on_member_ended = member_ended
        self._by_transaction: dict[str, SharedProcess] = {}

    def start(
        self,
        spec: LaunchSpec,
        cgroup: Path | None,
        fds: Descriptors,
        done: Callable[[SharedProcess], None],
        failed: Callable[[OSError], None],
    ) -> None:
        """Start a task in its transaction's process. Create the process if there is none that accepts
        members.

        Calls `done` or `failed`, perhaps before it returns. Raises OSError.
        """
        transaction, start = spec.transaction, sharing.StartMember(spec=spec)
        process = self._by_transaction.get(transaction)
        if process is not None and process.send(start, fds):
            process.members.add(spec.launch)
            if process.pid is None:
                process.joining.append(_Joining(spec.launch, done, failed))
            else:
                done(process)
            return
        if process is not None:
            # Reports that the process sent before its end are valid.
            self._on_channel(transaction, process)
            self._retire(transaction, process)
        self._create(spec, cgroup, fds, _Joining(spec.launch, done, failed))

    def _create(self, spec: LaunchSpec, cgroup: Path | None, fds: Descriptors, first: _Joining) -> None:
        process, transaction = SharedProcess(spec, cgroup, self._machine), spec.transaction
        try:
            free_descriptors.leave_room(process.peer_fd)
            self._dispatcher.watch(
                process.fileno(),
                partial(self._on_channel, transaction, process),
                drop=partial(self._retire, transaction, process),
            )
        except OSError:
            process.close_peer_end()
            process.close()
            raise
        self._by_transaction[transaction] = process
        process.members.add(spec.launch)
        process.joining.append(first)
        process.send(sharing.StartMember(spec=spec), fds)
        self._zygote.fork(
            spec,
            cgroup,
            Descriptors(shared_line=process.peer_fd),
            partial(self._forked, process),
            partial(self._not_forked, transaction, process),
        )

    def _forked(self, process: SharedProcess, pid: int, started: int) -> None:
        process.close_peer_end()
        process.pid, process.start_time = pid, started
        joining, process.joining = process.joining, []
        for each in joining:
            each.done(process)

    def _not_forked(self, transaction: str, process: SharedProcess, error: OSError) -> None:
        process.close_peer_end()
        self._retire(transaction, process)
        joining, process.joining = process.joining, []
        for each in joining:
            each.failed(error)

    def _retire(self, transaction: str, process: SharedProcess) -> None:
        """Accept no more members in this process."""
        if self._by_transaction.get(transaction) is process:
            del self._by_transaction[transaction]
        if process.is_open:
            self._dispatcher.unwatch(process.fileno())
            process.close()

    def drain(self, pid: int) -> None:
        """Read the rest of the channel of a process that has ended. A member whose end it reports there has
        ended with the reported status.
        """
        for transaction, process in [*self._by_transaction.items()]:
            if process.pid == pid:
                self._on_channel(transaction, process)

    def _on_channel(self, transaction: str, process: SharedProcess) -> None:
        if self._by_transaction.get(transaction) is not process:
            return
        descriptor = process.fileno()
        ends = process.receive_ends()
        if not process.is_open:
            self._dispatcher.unwatch(descriptor)
            del self._by_transaction[transaction]
        elif not process.members:
            self._retire(transaction, process)
        for number, (launch, status) in enumerate(ends, start=1):
            self._on_member_ended(launch, status, not process.members and number == len(ends))
