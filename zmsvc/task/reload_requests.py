"""The reload signal of a task whose class has `on_reload`: the signal only notes the request, and the task's
own thread calls the method.
"""

from __future__ import annotations

import os
import signal


class ReloadRequests:
    """The requests to reload that have not been answered yet. Requests that come together count as one."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable while there is a request, to wake the thread that waits."""

    def listen(self, number: int) -> None:
        """Take this signal for a request from now on. Call it in the main thread."""
        signal.signal(number, lambda _number, _frame: self.add())
        # A process that the task forks shares the descriptor, and must not write to it.
        os.register_at_fork(after_in_child=lambda: signal.signal(number, signal.SIG_DFL))

    def add(self) -> None:
        os.eventfd_write(self.fd, 1)

    def take(self) -> bool:
        """Return True if there is a request, which counts as answered from now on."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return False
        return True
