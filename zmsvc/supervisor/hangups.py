"""Who waits for an answer may hang up meanwhile, and then nobody need be kept for him. asyncio hears of it only when it reads or writes."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Iterator


class Hangups:
    """One epoll for all who wait; the kernel tells it of a hang-up without being asked for anything else."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], object]] = {}
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._tell)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()

    @contextlib.contextmanager
    def of(self, fd: int, call: Callable[[], object]) -> Iterator[None]:
        """Call this once when the peer of this stream hangs up inside the block. Who only has nothing more to say is still there."""
        self._epoll.register(fd, 0)
        self._calls[fd] = call
        try:
            yield
        finally:
            if self._calls.pop(fd, None) is not None:
                self._epoll.unregister(fd)

    def _tell(self) -> None:
        for fd, _ in self._epoll.poll(0):
            self._epoll.unregister(fd)
            self._calls.pop(fd)()
