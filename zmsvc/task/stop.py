"""The wish that a task ends, and how it reaches a thread that waits or works. Set once, by SIGTERM or a
call; never taken back.
"""

from __future__ import annotations

import os
import select
import signal

_LONGEST = 86_400.0  # poll() takes milliseconds as a C int


class Stopped(SystemExit):
    """Breaks off the `run` of a SingleTask. A SystemExit, because asyncio and executors let that one
    through, and no others.
    """


class Stop:
    """The wish, for one task. Any thread may wait for it."""

    def __init__(self) -> None:
        self.requested = False
        self.interruptible = False
        """Whether the wish may break off what the main thread does now; only for SIGTERM."""
        # Readable for ever from the request on, so it wakes every thread that polls it, and nobody reads it.
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def listen(self) -> None:
        """From now on the wish may come from outside as well, where there is such a way."""

    def request(self) -> None:
        if not self.requested:
            self.requested = True
            os.eventfd_write(self.fd, 1)

    def poller(self, *fds: int) -> select.poll:
        """A poll object for `pause`: the wish, and these descriptors. Each thread needs its own."""
        poll = select.poll()
        for fd in (self.fd, *fds):
            poll.register(fd, select.POLLIN)
        return poll

    def pause(self, seconds: float, poll: select.poll) -> list[int]:
        """Sleep until the wish, a descriptor of the poll object, or the time; it may be shorter. Gives
        what is readable.
        """
        # Rounded up: a pause of 0.4 ms must not become a busy loop of pauses of 0 ms.
        return [fd for fd, _ in poll.poll(-(-min(seconds, _LONGEST) * 1000 // 1))]


class SignalStop(Stop):
    """SIGTERM is the wish; a second one changes nothing. To be used in the main thread, where Python
    delivers signals.
    """

    last = True
    """Whether the process ends with the task that is stopped, so that its threads are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._wakeup, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def also(self, number: int) -> None:
        """Take another signal for the same; one that no process can catch stays what it is."""
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            _SIGNALS.add(number)

    def listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._on_sigterm)
        # A process that the task forks shares the descriptors above: its SIGTERM is its own affair, from its
        # first moment on.
        os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        first = not self.requested
        self.request()
        if first and self.interruptible:
            raise Stopped(0)

    def poller(self, *fds: int) -> select.poll:
        return super().poller(self._wakeup, *fds)

    def pause(self, seconds: float, poll: select.poll) -> list[int]:
        # Without the descriptor a signal in the moment before poll() sleeps would be seen only after it. Only
        # while we sleep: an event loop of the user's may have its own at other times.
        before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            return [] if self.requested else super().pause(seconds, poll)
        finally:
            signal.set_wakeup_fd(before)
            try:
                os.read(self._wakeup, 4096)
            except BlockingIOError:
                pass


_SIGNALS: set[int] = {signal.SIGTERM}
"""What asks this process to end."""


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _let_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _forget() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    _let_go()
