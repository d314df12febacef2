"""The client of the keeper, and the receiver of the tasks' notifications. Both become facts, in a fixed
order. The datagrams of a task are read after the messages of the keeper and become facts before the end of
the task, so no fact of a task comes after its end. They are only peeked at. When their consequences are in
the state file, `discard_peeked` discards them, so a crash in between loses nothing.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, assert_never

from zmsvc import __version__
from zmsvc.core import facts as ft
from zmsvc.core import poison
from zmsvc.core.errors import ProtocolError
from zmsvc.core.facts import Fact
from zmsvc.core.frozen import frozen
from zmsvc.core.json_depth import check_depth
from zmsvc.core.probing import Health
from zmsvc.host import seqpacket
from zmsvc.host.descriptor_closer import DescriptorCloser
from zmsvc.host.sparse_log import SparseLog
from zmsvc.host.systemd import datagrams, notify
from zmsvc.keeper_client.fdstore_client import FdstoreClient
from zmsvc.keeper_client.machine import LocalMachine, Outside
from zmsvc.keeper_client.user_notify import UserNotify
from zmsvc.protocol import OLDEST, PROTOCOL, PROTOCOL_NUMBERED_SIGNALS, PROTOCOL_SET_MAIN, watching
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.launch import LaunchSpec

BATCH = 1024
"""The number of datagrams that are received at once. It is more than the kernel queues
(net.unix.max_dgram_qlen), so no datagram from before an end is left.
"""
MAX_OTHERS = 1024
"""The number of received descriptors that may wait to be closed. With more, those of the next datagrams are
closed at once and not stored.
"""
BATCH_BYTES = 256 << 10
"""Bytes after which other sockets get a turn, because each of 500 waiting datagrams may have a megabyte. If a
task has ended, all datagrams are read nevertheless.
"""

_URGENT = sv.SignalTask | sv.KillTask | sv.ReplaceDevice


CROWD = 100
"""With this many launches that the keeper has not reported yet, the supervisor reads messages in portions."""

LAUNCHED_MS = 1000
"""Milliseconds in which the keeper has to report a launch when a process that may belong to it sends
datagrams already.
"""

log = logging.getLogger(__name__)

HOLD = 0.25
"""Seconds that the end of a task of another user waits for its last datagrams. A user who blocks the thread
that reads them delays only its own tasks, and no longer than that.
"""

Speaker = tuple[int, str]
"""The sender of a datagram: a PID, and the ID of the task if several tasks share the process."""


@frozen
class _DeferredEnd:
    """An end that waits until all datagrams of `user` from before the question with the number `asked` have
    been taken.
    """

    end: Fact
    user: UserNotify
    asked: int
    until: float


class Listener(Protocol):
    """The part of the supervisor that waits for the sockets: supervisor/session.py."""

    def backlog(self, waiting: bool) -> None:
        """If `waiting` is True, orders wait for room in the socket to the keeper: call `send_orders` whenever
        there is room. If it is False, no order waits any more.
        """

    def wake(self) -> None:
        """Call `facts`: there is news that no descriptor announces. Any thread calls this method."""


class NotifyPolicy(Protocol):
    """The part of the supervisor that has the context file: supervisor/loop.py."""

    def admits_all(self, launch: int) -> bool:
        """Return True if every process of a launch may notify for it, and not its main process alone."""

    def store_of(self, launch: int) -> tuple[str, int]:
        """Return the name of the descriptor store of a launch, and the number of descriptors that it may
        have.
        """


class Children:
    """The supervisor's connection to the keeper, and the notify socket that the keeper holds for it."""

    def __init__(
        self,
        keeper: socket.socket,
        notify_socket: socket.socket,
        outside: Outside | None = None,
        fdstore: socket.socket | None = None,
    ) -> None:
        self.outside = outside or LocalMachine()
        self.store = FdstoreClient(fdstore)
        self.keeper = keeper
        self.notify = notify_socket
        self.device = sv.DeviceState()
        self.on_device: list[Callable[[], object]] = []
        """Functions that are called after each report about the device."""
        self.zygote_version = ""
        self.lost = False
        """True if the keeper is gone, and the context with it."""
        self._requests: list[sv.StopAll | sv.Reload] = []
        """Requests of systemd or the operator that the keeper passed on."""
        self.refused = SparseLog(log.warning)
        """Datagrams of processes that do not belong to a task, or that cannot be read."""
        self._launch_of: dict[Speaker, int] = {}
        self._speaker_of: dict[int, Speaker] = {}
        self._ordered: set[int] = set()
        """Launches that the keeper has not reported yet."""
        self._unsent: deque[sv.Order] = deque()
        """Orders that wait for room in the keeper's socket. A thousand launches take the keeper a second or
        two, in which the supervisor has to read other sockets.
        """
        self._urgent: deque[sv.Order] = deque()
        """Signals and kills overtake the other orders, since their timeouts run already. They are for
        processes that exist, so none of them can overtake its own launch.
        """
        self.waiting = False
        """True while orders wait."""
        self.listener: Listener | None = None
        self.notify_policy: NotifyPolicy | None = None
        self._spare = datagrams.ReservedDescriptor()
        """A spare descriptor. With it, an update that comes as a descriptor can be received even at the limit
        of descriptors.
        """
        self._peeked = 0
        self._others: list[int] = []
        """Further descriptors of the datagrams that were peeked at."""
        self._closer = DescriptorCloser()
        datagrams.peek_from_start(notify_socket)
        self.context_mark = b""
        """The mark of all processes of the context (host/kernel/process_marks.py)."""
        self.protocol = PROTOCOL
        """The protocol that keeper and supervisor have agreed on."""
        self._users: dict[int, UserNotify] = {}
        self._uid_of: dict[int, int] = {}
        """The users of tasks that run as another user, by launch."""
        self._deferred_ends: deque[_DeferredEnd] = deque()
        """Ends of tasks that run as another user. They wait until all earlier datagrams have been taken."""

    # --- facts

    def greet(self) -> sv.Hello:
        """Wait for the keeper's first message, which lists its children, and agree on a protocol.

        Raises ProtocolError if there is no keeper, or no common protocol.
        """
        self.keeper.setblocking(True)
        hello, _ = self._report()
        if not isinstance(hello, sv.Hello):
            raise ProtocolError("cannot greet the keeper: it is gone")
        for _ in range(hello.users):
            report, fds = self._report()
            if isinstance(report, sv.NotifySocket):
                self._listen_to(report.uid, fds)
        self.keeper.setblocking(False)
        if hello.protocol < OLDEST:
            raise ProtocolError(
                f"cannot serve the keeper: it speaks protocol {hello.protocol} (zmsvc "
                f"{hello.version or '1.0'}), "
                f"zmsvc {__version__} speaks {OLDEST} to {PROTOCOL}; restart the context"
            )
        self.protocol = min(PROTOCOL, hello.protocol)
        self.device, self.zygote_version = hello.device, hello.zygote_version
        for launched in hello.children:
            self._know(launched)
        for end in hello.ends:
            self._know(end)
        if hello.protocol > 0:
            self.tell(sv.Introduce(protocol=min(PROTOCOL, hello.protocol), version=__version__))
        return hello

    def _know(self, child: sv.Launched | sv.Exited) -> None:
        speaker = child.pid, child.tag
        self._launch_of[speaker] = child.launch
        self._speaker_of[child.launch] = speaker
        if isinstance(child, sv.Launched) and child.uid is not None:
            self._uid_of[child.launch] = child.uid

    def _report(self) -> tuple[sv.Report | None, dict[str, int]]:
        """Return the next report of the keeper with its descriptors, or None when the keeper is gone."""
        got = seqpacket.receive(self.keeper)
        if got is None:
            return None, {}
        body, fds = got
        report = sv.REPORTS.decode(body)
        if not isinstance(report, sv.NotifySocket | sv.StoreContents):
            for fd in fds.values():
                os.close(fd)
        return report, fds

    def _listen_to(self, uid: int, fds: Mapping[str, int]) -> None:
        sock = socket.socket(fileno=fds["socket"])
        if uid in self._users:
            sock.close()
        else:
            self._users[uid] = UserNotify(sock, uid, self)

    def wake(self) -> None:
        if self.listener is not None:
            self.listener.wake()

    def take_requests(self) -> list[sv.StopAll | sv.Reload]:
        """Return the requests of systemd or the operator that came since the last call."""
        requests, self._requests = self._requests, []
        return requests

    def facts(self, *, all_said: bool = False) -> list[Fact]:
        """Return the facts since the last call.

        Some waiting datagrams may be left for the next call, unless `all_said`. But each datagram from before
        an end becomes a fact before that end.
        """
        starts, ends = self._from_keeper()
        notification_facts: list[Fact] = []
        size = 0
        for _ in range(BATCH):
            if size >= BATCH_BYTES and not (ends or all_said):
                break
            waiting = len(self._others) + self._closer.number()
            datagram = self.outside.receive(
                self.notify, peek=True, spare=self._spare, keep_others=waiting < MAX_OTHERS
            )
            if datagram is None:
                break
            self._peeked += 1
            self._others += datagram.others
            size += datagram.size()
            notification_facts += self._take_datagram(datagram, starts, ends)
            self._spare.renew()
        for user in self._users.values():
            if all_said:
                user.wait(user.ask(), HOLD)
            for datagram in user.take():
                notification_facts += self._take_datagram(datagram, starts, ends)
        # Send descriptors to their stores before the facts are acted on: a launch that follows from the facts
        # needs them.
        self.store.flush()
        due_ends = self._due_ends(ends)
        for end in due_ends:
            self._forget_speaker(end)
        return [*starts, *notification_facts, *due_ends]

    def _take_datagram(
        self, datagram: datagrams.Datagram, starts: list[Fact], ends: list[Fact]
    ) -> Iterable[Fact]:
        if self._speaker(datagram) not in self._launch_of:
            self._await_launched(datagram, starts, ends)
        return self._facts_in(datagram)

    def _due_ends(self, ends: list[Fact]) -> list[Fact]:
        """Return the ends that are due. The end of a task of another user waits until its last datagrams have
        been taken.
        """
        due: list[Fact] = []
        now = time.monotonic()
        for end in ends:
            user = self._user_of(end)
            if user is None:
                due.append(end)
            else:
                self._deferred_ends.append(
                    _DeferredEnd(end=end, user=user, asked=user.ask(), until=now + HOLD)
                )
        deferred = self._deferred_ends
        self._deferred_ends = deque()
        for each in deferred:
            if each.user.said_all(each.asked):
                due.append(each.end)
            elif now >= each.until:
                self.refused.add(
                    "User %d delays the notifications of its tasks: an end is reported before them",
                    each.user.uid,
                )
                due.append(each.end)
            else:
                self._deferred_ends.append(each)
        return due

    def _forget_speaker(self, end: Fact) -> None:
        """Forget which launch a member of a shared process had, when this member has ended: its next launch
        has the same process and member ID.

        READY=1 of the next launch may come before the keeper reports that launch. To wait for the
        acknowledgment of the end would take too long while the disk is full.
        """
        if not isinstance(end, ft.TaskExited | ft.TaskGone):
            return
        speaker = self._speaker_of.get(end.launch)
        if speaker is not None and speaker[1] and self._launch_of.get(speaker) == end.launch:
            del self._launch_of[speaker]

    def _user_of(self, end: Fact) -> UserNotify | None:
        if not isinstance(end, ft.TaskExited | ft.TaskGone):
            return None
        return self._users.get(self._uid_of.get(end.launch, -1))

    def seconds_until_due(self) -> float | None:
        """Return the seconds after which a deferred end is due even if its last datagrams are missing; None
        if no end waits.
        """
        return max(0.0, self._deferred_ends[0].until - time.monotonic()) if self._deferred_ends else None

    def _speaker(self, datagram: datagrams.Datagram) -> Speaker:
        member_id = next((value for key, value in datagram.lines if key == "X_ZMSVC_TASK"), "")
        # A task that has a process of its own may send this line, too, but only about itself.
        if (datagram.pid, "") in self._launch_of:
            return datagram.pid, ""
        return self._admitted(datagram) or (datagram.pid, member_id)

    def _admitted(self, datagram: datagrams.Datagram) -> Speaker | None:
        """Return the sender for a process that is not the main one of a task and may notify for it. Return
        None for other processes, and for those that have ended.
        """
        launch = self.outside.launch_of(datagram.pid, self.context_mark) if self.context_mark else None
        if launch is None or launch not in self._speaker_of:
            return None
        # Each process of the task may send a result: it changes nothing that only the main process decides.
        if not (self._admits_all(launch) or datagrams.only_reports_a_result(datagram)):
            return None
        # A process of another user may have the same mark, but not this user ID.
        if datagram.uid not in (0, self._uid_of.get(launch, os.geteuid())):
            return None
        return self._speaker_of[launch]

    def _admits_all(self, launch: int) -> bool:
        return self.notify_policy is not None and self.notify_policy.admits_all(launch)

    def _await_launched(self, datagram: datagrams.Datagram, starts: list[Fact], ends: list[Fact]) -> None:
        """Read `launched` for a task whose first datagram came before this report of the keeper. The keeper
        sends the report right after it has opened the task's start gate.

        If the keeper has reported all launches, the sender is not a task, and cannot make the supervisor
        wait.
        """
        while self._ordered and not self.lost and self._speaker(datagram) not in self._launch_of:
            if not self.outside.wait(self.keeper, LAUNCHED_MS):
                return
            more, later = self._from_keeper()
            starts += more
            ends += later

    def discard_peeked(self) -> None:
        """Discard the datagrams that were peeked at: their consequences are in the state file."""
        count, self._peeked = self._peeked, 0
        datagrams.discard(self.notify, count)
        # Close these only now, in another thread: the datagrams had references, too, and to close the last
        # reference may take long.
        others, self._others = self._others, []
        for fd in others:
            self._closer.close("", fd)
        for user in self._users.values():
            user.discard_peeked()

    def _from_keeper(self) -> tuple[list[Fact], list[Fact]]:
        """Return the starts, which come before the datagrams of tasks, and the ends, which come after
        them.
        """
        starts: list[Fact] = []
        ends: list[Fact] = []
        while not self.lost:
            try:
                report, fds = self._report()
            except BlockingIOError:
                break
            except ProtocolError as error:
                # A report of another release cannot be read. Later reports can.
                log.error("Ignored a report of the keeper: %s", error)
                continue
            if report is None:
                self.lost = True
                break
            if isinstance(report, sv.NotifySocket):
                self._listen_to(report.uid, fds)
            elif isinstance(report, sv.StoreContents):
                self._take_stores(report, fds)
            else:
                self._take(report, starts, ends)
        return starts, ends

    def _take_stores(self, report: sv.StoreContents, fds: Mapping[str, int]) -> None:
        if "channel" in fds:
            self.store.replace(socket.socket(fileno=fds["channel"]))
        self.store.update(report)

    def _take(self, report: sv.Report, starts: list[Fact], ends: list[Fact]) -> None:
        match report:
            case sv.Launched():
                self._know(report)
                self._ordered.discard(report.launch)
                starts.append(
                    ft.TaskLaunched(launch=report.launch, pid=report.pid, start_time=report.start_time)
                )
                if report.executed:
                    starts.append(ft.TaskExecuted(launch=report.launch))
                if report.line_seen:
                    starts.append(ft.ReadyLineSeen(launch=report.launch))
            case sv.Executed():
                starts.append(ft.TaskExecuted(launch=report.launch))
            case sv.LineSeen():
                starts.append(ft.ReadyLineSeen(launch=report.launch))
            case watching.TopicHeard():
                starts.append(ft.TopicHeard(launch=report.launch, topic=report.topic))
            case watching.TopicSilent():
                starts.append(ft.TopicSilent(launch=report.launch, topic=report.topic))
            case sv.MainProcess():
                self._launch_of.pop(self._speaker_of.get(report.launch, (0, "")), None)
                self._know(sv.Launched(launch=report.launch, pid=report.pid, start_time=report.start_time))
                starts.append(
                    ft.MainChanged(launch=report.launch, pid=report.pid, start_time=report.start_time)
                )
            case sv.LaunchFailed():
                self._ordered.discard(report.launch)
                ends.append(ft.LaunchFailed(launch=report.launch, why=report.why))
            case sv.Exited():
                ends.append(exit_of(report))
            case sv.Gone():
                ends.append(ft.TaskGone(launch=report.launch, leftovers=tuple(map(_leftover, report.ended))))
            case sv.DeviceState():
                self.device = report
                for call in self.on_device:
                    call()
            case sv.ZygoteState():
                self.zygote_version = report.version
            case sv.StopAll() | sv.Reload():
                self._requests.append(report)
            case sv.Hello() | sv.NotifySocket() | sv.StoreContents():
                log.error("Ignored a second %s of the keeper", type(report).__name__)
            case _:
                assert_never(report)

    # --- notifications of tasks

    def _facts_in(self, datagram: datagrams.Datagram) -> Iterable[Fact]:
        launch = self._launch_of.get(self._speaker(datagram))
        if launch is None:
            self._refuse(datagram)
            return []
        if self.notify_policy is not None:
            self.store.take(datagram, *self.notify_policy.store_of(launch))
        try:
            return [*_facts_of(launch, datagram), *self._main_named(launch, datagram)]
        except (ProtocolError, ValueError, OverflowError, RecursionError) as error:
            # An exception here would lose all facts that were read with this one, and the datagram would stay
            # in the queue for the next supervisor.
            self.refused.add("Cannot read what process %d says: %s", datagram.pid, error)
            return []

    def _main_named(self, launch: int, datagram: datagrams.Datagram) -> Iterable[Fact]:
        """Yield a fact for MAINPID=. Only a process of the same launch can become the main one."""
        named = dict(datagram.lines).get("MAINPID")
        if named is None or self._speaker_of[launch][1]:
            return
        pid = int(named)
        if pid == self._speaker_of[launch][0]:
            return
        try:
            started = self.outside.start_time(pid)
            belongs = self.outside.launch_of(pid, self.context_mark) == launch
        except OSError as error:
            # No descriptor is free, for example.
            self.refused.add(
                "Process %d names %d as the main process: ignored, because it cannot be examined (%s)",
                datagram.pid,
                pid,
                error.strerror,
            )
            return
        if started is None or not belongs:
            self.refused.add(
                "Process %d names %d as the main process, which is not one of its task: ignored",
                datagram.pid,
                pid,
            )
        elif self.protocol < PROTOCOL_SET_MAIN:
            self.refused.add(
                "Process %d names another main process: a keeper of an earlier zmsvc cannot take it",
                datagram.pid,
            )
        else:
            yield ft.MainNamed(launch=launch, pid=pid, start_time=started)

    def _refuse(self, datagram: datagrams.Datagram) -> None:
        for fd in datagram.fds:
            os.close(fd)
        self.refused.add("Process %d is not a task's main process: its notification is ignored", datagram.pid)

    # --- orders

    def knows_signal(self, name: str) -> bool:
        """Return True if the keeper can send a signal of this name."""
        return self.protocol >= PROTOCOL_NUMBERED_SIGNALS or name in signal.Signals.__members__

    def ask_to_end(self, launch: int, name: str, others: str) -> None:
        """Have the keeper send the stop signal to the main process of a launch, and `others` to its other
        processes; an empty name sends nothing. A signal that the keeper does not know becomes SIGTERM.
        """
        self.tell(sv.SignalTask(launch=launch, signal=self._known(name), rest=self._known(others)))

    def _known(self, name: str) -> str:
        if not name or self.knows_signal(name):
            return name
        log.warning("The keeper of an earlier zmsvc does not know %s: it sends SIGTERM instead", name)
        return "SIGTERM"

    def tell(self, order: sv.Order) -> None:
        """Send an order to the keeper after those of earlier calls; an urgent order overtakes the others.
        Orders wait here while the socket has no room.
        """
        if self.lost:
            return
        (self._urgent if isinstance(order, _URGENT) else self._unsent).append(order)
        if not self.waiting:
            self.send_orders()

    def send_orders(self) -> None:
        """Send waiting orders, as far as there is room."""
        waiting = False
        try:
            while (queue := self._urgent or self._unsent) and not self.lost:
                seqpacket.send(self.keeper, sv.ORDERS.encode(queue[0]))
                order = queue.popleft()
                if isinstance(order, LaunchSpec):
                    self._ordered.add(order.launch)
        except BlockingIOError:
            waiting = True
        except OSError:
            self.lost = True
        if self.lost:
            self._unsent.clear()
            self._urgent.clear()
        if waiting is not self.waiting:
            self.waiting = waiting
            if self.listener is not None:
                self.listener.backlog(waiting)

    @property
    def crowded(self) -> bool:
        """True while the keeper has many launches to report. Reports and datagrams are then read in
        portions.
        """
        return self.waiting or len(self._ordered) >= CROWD

    def finish(self) -> None:
        """Send all waiting orders at the end of this supervisor. Wait while the keeper does not read."""
        self.listener = None
        room = select.poll()
        room.register(self.keeper, select.POLLOUT)
        # The socket stays non-blocking: a read that came now would wait for the keeper, and the keeper waits
        # for the end of this process.
        self.send_orders()
        while self.waiting:
            room.poll()
            self.send_orders()

    def forget(self, launch: int) -> None:
        self.tell(sv.Acknowledge(launch=launch))
        self._uid_of.pop(launch, None)
        speaker = self._speaker_of.pop(launch, None)
        if speaker is not None and self._launch_of.get(speaker) == launch:
            del self._launch_of[speaker]


def exit_of(end: sv.Exited) -> ft.TaskExited:
    return ft.TaskExited(
        launch=end.launch,
        code=end.code,
        signal=end.signal,
        others_left=end.left,
        oom=end.oom,
        why=end.why,
        cpu=end.cpu,
    )


def _leftover(each: sv.Leftover) -> ft.Leftover:
    return ft.Leftover(
        pid=each.pid, name=each.name, code=each.code, signal=each.signal, asked=each.asked, killed=each.killed
    )


def _facts_of(launch: int, datagram: datagrams.Datagram) -> Iterable[Fact]:
    lines = dict(datagram.lines)
    items, report = datagrams.texts_of(datagram)
    if items is not None:
        check_depth(items)
        value = json.loads(items, parse_constant=_no_number)
        if not isinstance(value, dict):
            raise ProtocolError("an update is not a JSON object")
        yield ft.TaskUpdated(launch=launch, items=value, sequence=int(lines.get("X_ZMSVC_SEQ", 0)))
    if report is not None:
        number, message = poison.from_json(report)
        yield ft.MessagePoisoned(launch=launch, number=number, message=message)
    if "STATUS" in lines:
        yield ft.TaskSaid(launch=launch, status=lines["STATUS"][: notify.STATUS_LIMIT])
    if "X_ZMSVC_MISSED" in lines:
        count = int(lines["X_ZMSVC_MISSED"])
        if not 0 <= count < 2**53:
            raise ProtocolError(f"{count} is not a number of missed messages")
        yield ft.MessagesMissed(launch=launch, count=count)
    if "EXTEND_TIMEOUT_USEC" in lines:
        yield ft.TimeoutExtended(launch=launch, seconds=int(lines["EXTEND_TIMEOUT_USEC"]) / 1e6)
    if notify.HEALTH in lines:
        yield ft.HealthReported(
            launch=launch,
            health=Health(lines[notify.HEALTH]),
            text=lines.get("STATUS", "")[: notify.STATUS_LIMIT],
        )
    if notify.HEARD in lines:
        yield ft.TopicHeard(launch=launch, topic=lines[notify.HEARD])
    if notify.SILENT in lines:
        yield ft.TopicSilent(launch=launch, topic=lines[notify.SILENT])
    if lines.get("WATCHDOG") == "1":
        yield ft.WatchdogFed(launch=launch)
    if lines.get("RELOADING") == "1":
        at = lines.get("MONOTONIC_USEC")
        yield ft.TaskReloading(launch=launch, at=None if at is None else int(at) / 1e6)
    if notify.TOPICS in lines:
        published = lines.get(notify.PUBLISHES)
        yield ft.TaskDeclared(
            launch=launch,
            topics=_topics(lines[notify.TOPICS]),
            publishes=None if published is None else _topics(published),
        )
    if lines.get("READY") == "1":
        yield ft.TaskReady(launch=launch)


def _topics(text: str) -> tuple[str, ...]:
    check_depth(text)
    topics = json.loads(text)
    if not isinstance(topics, list) or not all(isinstance(each, str) for each in topics):
        raise ProtocolError("its topics are not a list of texts")
    return tuple(topics)


def _no_number(name: str) -> Any:
    """Refuse NaN and Infinity: Python reads them, but they are not JSON, and other clients of the bus could
    not read them.
    """
    raise ProtocolError(f"{name} in an update is not JSON")


def children_and_ends(hello: sv.Hello) -> tuple[tuple[ft.Child, ...], list[ft.TaskExited]]:
    """Return the living children of a keeper, and the ends that no supervisor has acknowledged."""
    children = tuple(
        ft.Child(
            launch=child.launch,
            pid=child.pid,
            start_time=child.start_time,
            executed=child.executed,
            line_seen=child.line_seen,
            auxiliary=child.auxiliary_of > 0,
        )
        for child in hello.children
    )
    return children, [exit_of(end) for end in hello.ends]
