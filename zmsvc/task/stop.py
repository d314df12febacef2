"""A stop request, and the ways in which it reaches a thread that waits or works. SIGTERM or a call makes the
request; it is never taken back.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_LONGEST = 86_400.0  # poll() takes milliseconds as a C int


class Stopped(SystemExit):
    """The exception that interrupts `run` of a SingleTask. It is a SystemExit because asyncio and executors
    propagate only that.
    """


class Stop:
    """The stop request of one task. Any thread may wait for it."""

    def __init__(self) -> None:
        self.requested = False
        self.interruptible = False
        """True while SIGTERM may interrupt the main thread."""
        # Readable for ever after the request, so it wakes every thread that polls it. No thread reads it.
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def listen(self) -> None:
        """Accept stop requests from outside the process from now on, if the subclass can receive any."""

    def request(self) -> None:
        if not self.requested:
            self.requested = True
            os.eventfd_write(self.fd, 1)

    def now(self) -> float:
        """Return the time in seconds. This method and the next two are the clock of the task. A test may have
        another one.
        """
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let the calling thread sleep for a moment, also after a stop request."""
        time.sleep(seconds)

    def new_event_loop(self) -> asyncio.AbstractEventLoop | None:
        """Return an event loop with this clock; None if asyncio's usual one has it."""
        return None

    def poller(self, *fds: int) -> select.poll:
        """Return a poll object for `pause` with the stop request and these descriptors. Each thread needs its
        own.
        """
        poll = select.poll()
        for fd in (self.fd, *fds):
            poll.register(fd, select.POLLIN)
        return poll

    @contextlib.contextmanager
    def signals_wake(self) -> Iterator[int | None]:
        """Yield a descriptor that each signal makes readable inside the block, for an event loop of another
        kind than `pause`. None if no signal can be a stop request.
        """
        yield None

    def pause(self, seconds: float, poll: select.poll) -> dict[int, int]:
        """Sleep until the stop request, a readable descriptor of `poll`, or the timeout. It may return
        earlier. Return the readable descriptors, each with its events.
        """
        # Round up: a pause of 0.4 ms must not become a busy loop of pauses of 0 ms.
        return dict(poll.poll(-(-min(seconds, _LONGEST) * 1000 // 1)))


class SignalStop(Stop):
    """A stop request by SIGTERM; a second SIGTERM changes nothing. Use it in the main thread, where Python
    delivers signals.
    """

    ends_process = True
    """True if the process ends with the task, so that the task's threads are joined."""

    def __init__(self) -> None:
        super().__init__()
        self._wakeup, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def add_signal(self, number: int) -> None:
        """Treat another signal as a stop request. SIGKILL and SIGSTOP cannot be caught and are ignored
        here.
        """
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            _SIGNALS.add(number)

    def listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._on_sigterm)
        # A process that the task forks shares the descriptors above, so SIGTERM to that process must never
        # write to them.
        os.register_at_fork(
            before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_reset_signals
        )

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        first = not self.requested
        self.request()
        if first and self.interruptible:
            raise Stopped(0)

    def poller(self, *fds: int) -> select.poll:
        return super().poller(self._wakeup, *fds)

    @contextlib.contextmanager
    def signals_wake(self) -> Iterator[int | None]:
        before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            yield self._wakeup
        finally:
            signal.set_wakeup_fd(before)

    def pause(self, seconds: float, poll: select.poll) -> dict[int, int]:
        # Without the wakeup descriptor, a signal just before poll() would be noticed only after the sleep.
        # The descriptor is set only while we sleep, since an event loop of the user may set its own at other
        # times.
        before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            readable = {} if self.requested else super().pause(seconds, poll)
        finally:
            signal.set_wakeup_fd(before)
        # A signal that comes after the poll is read by the next call, which returns at once then.
        if self._wakeup in readable:
            os.read(self._wakeup, 4096)
        return readable


_SIGNALS: set[int] = {signal.SIGTERM}
"""The signals that request a stop of this process."""


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _reset_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _unblock_signals()
