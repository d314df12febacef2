"""The notify socket of tasks that run as another user. A thread reads it, since reading may hang.

Such a user can send descriptors with a datagram. The thread that receives or discards the datagram closes
them, and that takes as long as the user likes (SO_LINGER, FUSE). So the event loop never touches the socket:
it takes copies from the thread. The thread discards a datagram when the loop reports that its consequences
are in the state file.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from typing import Protocol

from zmsvc.host.systemd import datagrams
from zmsvc.host.systemd.datagrams import Datagram

BATCH = 1024
"""The number of datagrams that are copied at once: more than the kernel queues (net.unix.max_dgram_qlen)."""
BATCH_BYTES = 8 << 20
BATCH_DESCRIPTORS = 256
"""After this many descriptors, further datagrams wait for the next batch."""


class Waker(Protocol):
    """The reader of `UserNotify.take`. The thread wakes it when there is news."""

    def wake(self) -> None: ...


class UserNotify:
    """The notify socket of one user."""

    def __init__(self, sock: socket.socket, uid: int, waker: Waker) -> None:
        self.uid = uid
        self._sock = sock
        self._waker = waker
        self._lock = threading.Lock()
        self._batch: list[Datagram] = []
        self._taken = False
        self._may_discard = threading.Event()
        self._passed = threading.Condition(self._lock)
        self._wanted = self._empty_since = 0
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        datagrams.peek_from_start(sock)
        threading.Thread(target=self._read, name=f"notify of uid {uid}", daemon=True).start()

    # --- in the loop

    def take(self) -> list[Datagram]:
        """Return the datagrams that came since `discard_peeked`. Each one is returned once."""
        with self._lock:
            if self._taken:
                return []
            self._taken = bool(self._batch)
            return self._batch

    def discard_peeked(self) -> None:
        """Let the thread discard the datagrams that were taken: their consequences are in the state file."""
        with self._lock:
            if self._taken:
                self._may_discard.set()

    def ask(self) -> int:
        """Ask the thread to note when all datagrams from before this call have been taken. Return the number
        of the question, for `said_all`.
        """
        with self._lock:
            self._wanted += 1
            wanted = self._wanted
        os.eventfd_write(self._bell, 1)
        return wanted

    def said_all(self, asked: int) -> bool:
        """Return True if all datagrams from before the question `asked` have been taken."""
        with self._lock:
            return self._empty_since >= asked

    def wait(self, asked: int, seconds: float) -> bool:
        """Wait until there are datagrams, or all have been taken. Return False after `seconds`: the thread
        hangs.
        """
        with self._passed:
            return self._passed.wait_for(
                lambda: self._empty_since >= asked or (bool(self._batch) and not self._taken), seconds
            )

    # --- in the thread

    def _read(self) -> None:
        poll = select.poll()
        for fd in (self._sock.fileno(), self._bell):
            poll.register(fd, select.POLLIN)
        while True:
            poll.poll()
            with self._lock:
                asked = self._wanted
            try:
                os.eventfd_read(self._bell)
            except BlockingIOError:
                pass
            batch = self._copy()
            with self._passed:
                self._batch = batch
                if not batch:
                    self._empty_since = asked
                self._passed.notify_all()
            self._waker.wake()
            if batch:
                self._may_discard.wait()
                datagrams.discard(self._sock, len(batch))
                with self._lock:
                    self._batch, self._taken = [], False
                    self._may_discard.clear()
                # If the task may store descriptors, the loop has passed them on.
                for fd in (fd for datagram in batch for fd in datagram.others):
                    with contextlib.suppress(OSError):
                        os.close(fd)
                # This starts another turn of the thread, which answers a question that came meanwhile.
                os.eventfd_write(self._bell, 1)

    def _copy(self) -> list[Datagram]:
        batch: list[Datagram] = []
        size = descriptors = 0
        while len(batch) < BATCH and size < BATCH_BYTES and descriptors < BATCH_DESCRIPTORS:
            datagram = datagrams.receive(self._sock, peek=True, keep_others=True)
            if datagram is None:
                break
            size += datagram.size()
            descriptors += len(datagram.others)
            batch.append(datagrams.inlined(datagram))
        return batch
