"""Hold the stored descriptors of tasks, and give them to the next process of the task.

A descriptor comes from a task, and the call that closes or examines it may hang for as long as the task likes
(SO_LINGER, FUSE, NFS). So not the loop closes such a descriptor, but a thread for each task. And it asks the
kernel nothing about a file that its file system would have to answer.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Any, assert_never

from zmsvc.core.errors import ProtocolError
from zmsvc.core.frozen import frozen
from zmsvc.host import seqpacket
from zmsvc.host.complain import complain
from zmsvc.host.descriptor_closer import DescriptorCloser
from zmsvc.host.kernel import linux
from zmsvc.protocol import fdstore as protocol

_POLLED = ("socket:", "pipe:")
"""The first letters of a link in /proc/self/fd, for files whose other end can be closed. Other files are not
polled: poll(2) may hang on a FUSE file, and on an epoll that contains one. The link of a file on a file
system begins with a slash.
"""


@frozen
class _Stored:
    fd: int
    name: str


class DescriptorStores:
    """The stores of all tasks, the channel from keeper and supervisor, and the connections to tasks that
    start. `most` is the limit of all stores together.
    """

    def __init__(self, channel: socket.socket, most: int) -> None:
        self._channel = channel
        self._most = most
        self._limits: dict[str, int] = {}
        self._stores: dict[str, list[_Stored]] = {}
        self._polled: dict[int, str] = {}
        """The tasks of the descriptors that are polled."""
        self._starting: dict[int, tuple[socket.socket, str]] = {}
        """The connections to processes that have not asked yet, and their tasks."""
        self._refused: Counter[str] = Counter()
        self._closer = DescriptorCloser()
        self._reported: protocol.Counts | None = None
        self._epoll = select.epoll()
        self._events = select.EPOLLIN
        channel.setblocking(False)
        self._epoll.register(channel.fileno(), self._events)
        self._epoll.register(self._closer.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Run until the keeper closes the channel."""
        channel_open = True
        while channel_open:
            # The channel is read last. A descriptor that arrives over it may get the number of one that was
            # just closed. An event of the closed one that was read in the same round would then be taken for
            # an event of the new one.
            for fd, _ in sorted(self._epoll.poll(), key=lambda event: event[0] == self._channel.fileno()):
                if fd == self._channel.fileno():
                    channel_open = self._handle_orders()
                elif fd == self._closer.fileno():
                    self._closer.acknowledge()
                elif fd in self._starting:
                    self._serve(*self._starting.pop(fd))
                elif fd in self._polled:
                    self._other_end_closed(fd)
            self._report()

    # --- orders

    def _handle_orders(self) -> bool:
        """Handle all waiting orders; return False if the keeper has closed the channel."""
        while True:
            try:
                received = seqpacket.receive(self._channel)
            except BlockingIOError:
                return True
            except ProtocolError as error:
                complain(f"zmsvcd: the fdstore process: {error}")
                continue
            if received is None:
                return False
            self._carry_out(*received)

    def _carry_out(self, body: Mapping[str, Any], fds: Mapping[str, int]) -> None:
        try:
            order = protocol.ORDERS.decode(body)
        except ProtocolError as error:
            # After an upgrade, the supervisor may be of a newer release than this process.
            complain(f"zmsvcd: the fdstore process: {error}")
            for fd in fds.values():
                self._closer.close("", fd)
            return
        match order:
            case protocol.Hold():
                self._hold({task: int(limit) for task, limit in order.limits.items()})
            case protocol.Serve():
                self._expect_request(socket.socket(fileno=fds["to"]), order.task)
            case protocol.Put():
                for entry, fd in zip(order.entries, fds.values(), strict=True):
                    self._put(entry, fd)
            case protocol.Remove():
                self._remove(
                    order.task, {each.fd for each in self._of(order.task) if each.name == order.name}
                )
            case _:
                assert_never(order)

    def _of(self, task: str) -> list[_Stored]:
        return self._stores.get(task, [])

    def _hold(self, limits: dict[str, int]) -> None:
        self._limits = limits
        for task in self._stores.keys() - limits.keys():
            self._remove(task, {each.fd for each in self._stores[task]})
        for task in self._refused.keys() - limits.keys():
            del self._refused[task]

    def _put(self, entry: protocol.StoredDescriptor, fd: int) -> None:
        own = self._of(entry.task)
        if any(linux.same_file(fd, each.fd) for each in own):
            # A new supervisor repeats what its predecessor has sent before it died.
            self._closer.close(entry.task, fd)
            return
        total = sum(map(len, self._stores.values()))
        if len(own) >= self._limits.get(entry.task, 0) or total >= self._most:
            self._refused[entry.task] += 1
            self._closer.close(entry.task, fd)
            return
        self._stores.setdefault(entry.task, []).append(_Stored(fd=fd, name=entry.name))
        if entry.poll and _has_other_end(fd):
            # epoll always reports EPOLLHUP and EPOLLERR. If the kernel can watch no more descriptors, this
            # one stays in the store.
            with contextlib.suppress(OSError):
                self._epoll.register(fd, 0)
                self._polled[fd] = entry.task

    def _other_end_closed(self, fd: int) -> None:
        self._remove(self._polled[fd], {fd})

    def _remove(self, task: str, gone: set[int]) -> None:
        kept = [each for each in self._of(task) if each.fd not in gone]
        if kept:
            self._stores[task] = kept
        else:
            self._stores.pop(task, None)
        for fd in gone:
            if self._polled.pop(fd, None) is not None:
                # The task has the same file, so close(2) here would not end the registration.
                self._epoll.unregister(fd)
            self._closer.close(task, fd)

    # --- tasks that start

    def _expect_request(self, sock: socket.socket, task: str) -> None:
        sock.setblocking(False)
        self._starting[sock.fileno()] = sock, task
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _serve(self, sock: socket.socket, task: str) -> None:
        """Send a process its descriptors, when it has asked for them. Before it asks, the zygote may still
        hold the other end of the connection. If it then closed that end last, it would close the descriptors
        in transit, and could hang in close(2).
        """
        own = self._of(task)
        self._epoll.unregister(sock.fileno())
        with sock:
            try:
                if sock.recv(1) != protocol.REQUEST:
                    return
                for at in range(0, len(own), seqpacket.MAX_FDS):
                    part = own[at : at + seqpacket.MAX_FDS]
                    given = protocol.Given(names=tuple(each.name for each in part))
                    fds = {str(number): each.fd for number, each in enumerate(part)}
                    seqpacket.send(sock, protocol.GIVEN.encode(given), fds)
            except ConnectionError:
                return  # the process has ended
            except OSError as error:
                complain(f"zmsvcd: cannot give {task} all its stored descriptors: {error.strerror}")

    # --- reports

    def _report(self) -> None:
        """Report the contents of the stores, if they have changed. This process does not wait for the keeper,
        which may be stopped.
        """
        counts = protocol.Counts(
            stored={task: len(own) for task, own in self._stores.items()},
            refused=dict(self._refused),
            closing=self._closer.waiting(),
        )
        events = select.EPOLLIN
        if counts != self._reported:
            try:
                seqpacket.send(self._channel, protocol.REPORTS.encode(counts))
                self._reported = counts
            except BlockingIOError:
                events |= select.EPOLLOUT
            except OSError:
                pass  # The keeper is gone; the next receive on the channel notices.
        if events != self._events:
            self._epoll.modify(self._channel.fileno(), events)
            self._events = events


def _has_other_end(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(_POLLED)
    except OSError:
        return False  # the path of a file may be too long
