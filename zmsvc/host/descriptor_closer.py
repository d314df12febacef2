"""Close descriptors of tasks in threads, because close(2) may hang. Each task has a thread of its own, so it
delays only itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque


class DescriptorCloser:
    """The descriptors that are to be closed. `fileno` becomes readable when `waiting` has changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, deque[int]] = {}
        """The queues that are not empty. A descriptor that is being closed is still in its queue."""
        self._running: set[str] = set()
        """The tasks that have a thread."""
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._bell

    def acknowledge(self) -> None:
        """Make `fileno` unreadable until the next change."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def waiting(self) -> dict[str, int]:
        """Return the number of descriptors that wait, by task."""
        with self._lock:
            return {task: len(queue) for task, queue in self._queues.items()}

    def number(self) -> int:
        """Return the number of descriptors that wait."""
        return sum(self.waiting().values())

    def close(self, task: str, fd: int) -> None:
        """Close a descriptor of a task."""
        with self._lock:
            self._queues.setdefault(task, deque()).append(fd)
            if task in self._running:
                return
            self._running.add(task)
        try:
            threading.Thread(target=self._run, args=(task,), name=f"closer of {task}", daemon=True).start()
        except RuntimeError:
            # The machine allows no more threads. The next call tries again.
            with self._lock:
                self._running.discard(task)

    def _run(self, task: str) -> None:
        queue = self._queues[task]
        while True:
            with contextlib.suppress(OSError):
                os.close(queue[0])
            with self._lock:
                queue.popleft()
                if not queue:
                    del self._queues[task]
                    self._running.discard(task)
                more = bool(queue)
            os.eventfd_write(self._bell, 1)
            if not more:
                return
