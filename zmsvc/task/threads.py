"""Run the tasks that share one process (`serviceType="Thread"`): a thread for each, with its own runtime,
notifier and journal fields.

Over a socket, the channel, the keeper orders tasks to start and stop, and the process reports every end. When
the channel closes, the process ends. A task that raises ends alone. Python cannot isolate a crash, os._exit,
or the SIGKILL for a task that does not stop: these end all tasks.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import select
import socket
import threading
from collections.abc import Callable
from typing import assert_never

from zmsvc.core.errors import CANNOT_EXECUTE
from zmsvc.host import seqpacket
from zmsvc.host.systemd import journal
from zmsvc.host.systemd.notify import Notifier
from zmsvc.protocol import sharing
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import loader, process
from zmsvc.task.bus import TaskBus
from zmsvc.task.runtime import TaskRuntime
from zmsvc.task.sdk import TaskService
from zmsvc.task.stop import SignalStop, Stop

log = logging.getLogger("task")


class _Member:
    """One task of the process."""

    def __init__(
        self,
        spec: LaunchSpec,
        fds: Descriptors,
        bus: TaskBus,
        loading: threading.Lock,
        ended: Callable[[], None],
    ) -> None:
        self._loading = loading
        self.stop = Stop()
        self.status = 1
        self._ended = ended
        self._fields = {
            "SYSLOG_IDENTIFIER": spec.instance,
            "ZMSVC_TASK": spec.task,
            "ZMSVC_INSTANCE": spec.instance,
        }
        self._spec = spec
        self._notifier = Notifier(spec.notify, spec.task)
        self._log = logging.getLogger(f"{spec.instance}.{spec.task}")
        self._log.addFilter(self._add_fields)
        self._runtime = TaskRuntime(
            spec, fds, status_sink=self._notifier, bus=bus, stop=self.stop, log=self._log
        )
        # Do not make this a daemon thread: threads that the task starts would inherit that property, and
        # would not be joined at the end.
        self.thread = threading.Thread(target=self._run, name=spec.task, daemon=False)

    def _add_fields(self, record: logging.LogRecord) -> bool:
        """Add this task's fields to a record of `self.log`, also from a thread of the user."""
        record.journal = {**self._fields, **getattr(record, "journal", {})}
        return True

    def _run(self) -> None:
        journal.scope(self._fields)
        try:
            self.status = self._runtime.run(self._load)
        finally:
            self._ended()

    def _load(self) -> type[TaskService]:
        with self._loading:
            return loader.load(self._spec.instance, self._spec.search)

    def close(self) -> None:
        """Join the thread, which has ended, and release its resources. The next run of the task creates new
        ones.
        """
        self.thread.join()
        self._log.removeFilter(self._add_fields)
        self._notifier.close()
        # A thread of the user may still wait for the stop request.
        self.stop.request()
        os.close(self.stop.fd)


class _Process:
    """The shared process: its members, and the channel to the keeper."""

    def __init__(self, channel: socket.socket, bus: TaskBus) -> None:
        self._channel = channel
        self._channel.setblocking(False)
        self._bus = bus
        self._members: dict[int, _Member] = {}
        self._loading = threading.Lock()
        """This lock serializes imports, so that two tasks of one service import it only once."""
        self._ends: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._end_event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def empty(self) -> bool:
        """True if every task has ended."""
        return not self._members

    def run(self) -> None:
        """Serve until the keeper closes the channel. SIGTERM, which the keeper never sends here, stops all
        tasks.
        """
        stop = SignalStop()
        stop.listen()
        all_sources, orders = stop.poller(self._channel.fileno(), self._end_event), select.poll()
        for fd in (self._channel.fileno(), self._end_event):
            orders.register(fd, select.POLLIN)
        while True:
            if stop.requested:
                self._stop_all()
                orders.poll()
            else:
                stop.pause(math.inf, all_sources)
            self._report_ends()
            if not self._handle_orders():
                return

    def _stop_all(self) -> None:
        for member in self._members.values():
            member.stop.request()

    def _handle_orders(self) -> bool:
        """Carry out the keeper's orders; return False if it has closed the channel."""
        while True:
            try:
                received = seqpacket.receive(self._channel)
            except BlockingIOError:
                return True
            if received is None:
                return False
            match sharing.ORDERS.decode(received[0]):
                case sharing.StartMember(spec=spec):
                    self._start(spec.launch, spec, Descriptors.named(received[1]))
                case sharing.StopMember(launch=launch):
                    if launch in self._members:
                        self._members[launch].stop.request()
                case other:
                    assert_never(other)

    def _start(self, launch: int, spec: LaunchSpec, fds: Descriptors) -> None:
        try:
            member = _Member(spec, fds, self._bus, self._loading, lambda: self._ended(launch))
            member.thread.start()
        except (OSError, RuntimeError) as error:
            # No descriptor or thread is left for this task; the others go on.
            log.error("Cannot start %s: %s", spec.task, error)
            self._report_end(launch, CANNOT_EXECUTE)
            return
        self._members[launch] = member

    def _ended(self, launch: int) -> None:
        """Queue the end of a member. Called last in the member's own thread."""
        self._ends.put(launch)
        os.eventfd_write(self._end_event, 1)

    def _report_ends(self) -> None:
        try:
            os.eventfd_read(self._end_event)
        except BlockingIOError:
            return
        while not self._ends.empty():
            launch = self._ends.get()
            member = self._members.pop(launch)
            member.close()
            self._report_end(launch, member.status)

    def _report_end(self, launch: int, status: int) -> None:
        seqpacket.send(
            self._channel, sharing.REPORTS.encode(sharing.MemberEnded(launch=launch, status=status))
        )


def run(channel: socket.socket, bus: TaskBus) -> int:
    """Run all tasks that the keeper starts over `channel`, until it closes the channel."""
    shared = _Process(channel, bus)
    shared.run()
    if shared.empty:
        # Threads that tasks have left run on until here: like an interpreter, the process joins them at its
        # end.
        process.join()
    return 0
