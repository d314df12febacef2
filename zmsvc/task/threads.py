"""Tasks that share one process (`serviceType="Thread"`): a thread for each, with its own life, voice and
journal fields.

The keeper orders over a line who begins and who is to stop, and is told of every end; when the line closes,
the process ends. One that raises ends alone. What Python cannot keep apart ends all of them: a crash,
os._exit, a SIGKILL for one that does not stop.
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
from zmsvc.task.bus import Bus
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
        channel: Bus,
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
        self._log.addFilter(self._stamp)
        self._life = TaskRuntime(
            spec, fds, voice=self._notifier, channel=channel, stop=self.stop, log=self._log
        )
        # No daemon thread: those that the task starts would inherit that, and would not be waited for at the
        # end.
        self.thread = threading.Thread(target=self._live, name=spec.task, daemon=False)

    def _stamp(self, record: logging.LogRecord) -> bool:
        """What is logged by `self.log` is this task's, also from a thread of the user's own."""
        record.journal = {**self._fields, **getattr(record, "journal", {})}
        return True

    def _live(self) -> None:
        journal.scope(self._fields)
        try:
            self.status = self._life.live(self._load)
        finally:
            self._ended()

    def _load(self) -> type[TaskService]:
        with self._loading:
            return loader.load(self._spec.instance, self._spec.search)

    def close(self) -> None:
        """Wait for the thread, which has ended, and let go of what was its own: the next one of this task
        makes it anew.
        """
        self.thread.join()
        self._log.removeFilter(self._stamp)
        self._notifier.close()
        # A thread of the user's own may wait for it still.
        self.stop.request()
        os.close(self.stop.fd)


class _Process:
    """The members, and the line to the keeper."""

    def __init__(self, line: socket.socket, channel: Bus) -> None:
        self._line = line
        self._line.setblocking(False)
        self._channel = channel
        self._members: dict[int, _Member] = {}
        self._loading = threading.Lock()
        """Of the same service, the second waits until the first has been imported."""
        self._ends: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def empty(self) -> bool:
        """Whether each task has ended."""
        return not self._members

    def live(self) -> None:
        """Until the keeper closes the line. SIGTERM, which only strangers send, is the wish that all end."""
        stop = SignalStop()
        stop.listen()
        awake, asked = stop.poller(self._line.fileno(), self._bell), select.poll()
        for fd in (self._line.fileno(), self._bell):
            asked.register(fd, select.POLLIN)
        while True:
            if stop.requested:
                self._stop_all()
                asked.poll()
            else:
                stop.pause(math.inf, awake)
            self._tell_ends()
            if not self._obey():
                return

    def _stop_all(self) -> None:
        for member in self._members.values():
            member.stop.request()

    def _obey(self) -> bool:
        """Carry out what the keeper has ordered; False when it has closed the line."""
        while True:
            try:
                got = seqpacket.receive(self._line)
            except BlockingIOError:
                return True
            if got is None:
                return False
            match sharing.ORDERS.decode(got[0]):
                case sharing.StartMember(spec=spec):
                    self._start(spec.launch, spec, Descriptors(**got[1]))
                case sharing.StopMember(launch=launch):
                    if launch in self._members:
                        self._members[launch].stop.request()
                case other:
                    assert_never(other)

    def _start(self, launch: int, spec: LaunchSpec, fds: Descriptors) -> None:
        try:
            member = _Member(spec, fds, self._channel, self._loading, lambda: self._ended(launch))
            member.thread.start()
        except (OSError, RuntimeError) as error:
            # No descriptor or no thread is left for it, which is no reason to end the others.
            log.error("Cannot start %s: %s", spec.task, error)
            self._tell_end(launch, CANNOT_EXECUTE)
            return
        self._members[launch] = member

    def _ended(self, launch: int) -> None:
        """Called in the member's own thread, as the last thing."""
        self._ends.put(launch)
        os.eventfd_write(self._bell, 1)

    def _tell_ends(self) -> None:
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return
        while not self._ends.empty():
            launch = self._ends.get()
            member = self._members.pop(launch)
            member.close()
            self._tell_end(launch, member.status)

    def _tell_end(self, launch: int, status: int) -> None:
        seqpacket.send(self._line, sharing.REPORTS.encode(sharing.MemberEnded(launch=launch, status=status)))


def live(line: socket.socket, channel: Bus) -> int:
    """Be the process of all tasks that the keeper sends over `line`, until it closes it."""
    shared = _Process(line, channel)
    shared.live()
    if shared.empty:
        # What tasks have started and left goes on until here: an interpreter's threads are joined at its end,
        # not at a function's.
        process.join()
    return 0
