"""The supervisor's side of the descriptor stores: it passes the descriptors that tasks send to the fdstore
process, in the order in which they came, and knows the number of descriptors in each store.
"""

from __future__ import annotations

import logging
import socket

from zmsvc.core import listening
from zmsvc.core.frozen import frozen
from zmsvc.host import seqpacket
from zmsvc.host.sparse_log import SparseLog
from zmsvc.host.systemd.datagrams import Datagram
from zmsvc.protocol import fdstore as protocol
from zmsvc.protocol.supervision import StoreContents

MAX_CLOSING = 2 * listening.MAX_STORED
"""The number of descriptors of a task that may wait to be closed. While there are more, the task can store
none: closing them hangs.
"""

log = logging.getLogger(__name__)


@frozen
class _Waiting:
    order: protocol.Put | protocol.Remove
    fds: tuple[int, ...] = ()

    @property
    def tasks(self) -> str:
        """The names of the tasks that have sent the descriptors."""
        entries = self.order.entries if isinstance(self.order, protocol.Put) else ()
        return ", ".join(dict.fromkeys(entry.task for entry in entries))


class FdstoreClient:
    """The connection to the fdstore process, if one runs."""

    def __init__(self, channel: socket.socket | None = None) -> None:
        self._channel = channel
        self._contents: StoreContents | None = None
        self._waiting: list[_Waiting] = []
        self.refused = SparseLog(log.warning)
        """Descriptors that were not stored."""

    def number(self, task: str) -> int:
        """Return the number of descriptors in the store of a task."""
        return 0 if self._contents is None else int(self._contents.stored.get(task, 0))

    def _closing(self, task: str) -> int:
        return 0 if self._contents is None else int(self._contents.closing.get(task, 0))

    def replace(self, channel: socket.socket) -> None:
        """Use the channel to another fdstore process."""
        if self._channel is not None:
            self._channel.close()
        channel.setblocking(False)
        self._channel = channel

    def update(self, contents: StoreContents) -> None:
        """Take the contents of the stores that the keeper has reported."""
        # An earlier supervisor has logged the refusals that the first report counts.
        before, self._contents = self._contents or contents, contents
        for task, count in contents.refused.items():
            more = int(count) - int(before.refused.get(task, 0))
            if more > 0:
                self._refuse(more, "%s: its store is full (raise <file_descriptor_store_max>)", task)

    def take(self, datagram: Datagram, task: str, limit: int) -> None:
        """Queue the order of a datagram, if it has one, for the store of this task. The datagram's
        descriptors have to stay open until `flush`.
        """
        lines = dict(datagram.lines)
        if lines.get("FDSTOREREMOVE") == "1":
            name = _valid(lines.get("FDNAME", ""))
            if name and limit:
                self._waiting.append(_Waiting(order=protocol.Remove(task=task, name=name)))
            return
        if lines.get("FDSTORE") != "1":
            return
        if datagram.incomplete:
            self._refuse(1, "%s: this supervisor has too many open (raise LimitNOFILE= of the unit)", task)
        if not limit:
            self._refuse(
                len(datagram.others), "%s: it may store none (set <file_descriptor_store_max>)", task
            )
        elif self._closing(task) > MAX_CLOSING:
            why = "%s: earlier ones wait to be closed, which hangs (does a file system hang?)"
            self._refuse(len(datagram.others), why, task)
        else:
            name = _valid(lines.get("FDNAME", "")) or listening.STORED
            entry = protocol.StoredDescriptor(task=task, name=name, poll=lines.get("FDPOLL") != "0")
            for fd in datagram.others:
                self._add(entry, fd)

    def _add(self, entry: protocol.StoredDescriptor, fd: int) -> None:
        last = self._waiting[-1] if self._waiting else None
        if last is not None and isinstance(last.order, protocol.Put) and len(last.fds) < seqpacket.MAX_FDS:
            self._waiting[-1] = _Waiting(
                order=protocol.Put(entries=(*last.order.entries, entry)), fds=(*last.fds, fd)
            )
        else:
            self._waiting.append(_Waiting(order=protocol.Put(entries=(entry,)), fds=(fd,)))

    def flush(self) -> None:
        """Send the queued orders. They have to be sent before the launches that follow from the ends of
        tasks, so no order waits: a full channel means that the fdstore process hangs, for example in SIGSTOP.
        """
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            fds = {str(number): fd for number, fd in enumerate(each.fds)}
            try:
                if self._channel is None:
                    raise ConnectionError
                seqpacket.send(self._channel, protocol.ORDERS.encode(each.order), fds)
            except ConnectionError:
                why = "%s: the fdstore process does not run; the next one begins with empty stores"
                self._refuse(len(fds), why, each.tasks)
            except OSError as error:
                why = "%s: the fdstore process does not take it: %s (does it hang?)"
                self._refuse(len(fds), why, each.tasks, error.strerror)

    def _refuse(self, count: int, why: str, *arguments: object) -> None:
        for _ in range(count):
            self.refused.add(f"Cannot store a descriptor: {why}", *arguments)


def _valid(name: str) -> str:
    """Return a name of a descriptor; empty if it is not valid."""
    try:
        return listening.name(name)
    except ValueError:
        return ""
