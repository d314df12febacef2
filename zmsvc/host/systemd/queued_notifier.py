"""A notifier that never waits for its receiver: for the event loops of supervisor and envoy, whose keeper may
be stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from zmsvc.host.systemd.notification_queue import NotificationQueue
from zmsvc.host.systemd.notify import Notifier

log = logging.getLogger(__name__)


class QueuedNotifier(Notifier):
    """A notifier of the running asyncio loop. It keeps what the receiver has no room for, and sends it
    later.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(path)
        self.never_wait()
        self._loop = asyncio.get_running_loop()
        self._queue = NotificationQueue()
        self._waits = False

    def notify(self, *lines: str, fds: Sequence[int] = ()) -> bool:
        """Send the lines as one datagram, after those that wait. Return False without a socket."""
        assert not fds, "a descriptor that waits would have to be copied"
        if self.socket is None:
            return False
        self._queue.add("\n".join(lines))
        self._flush()
        return True

    def close(self) -> None:
        """Close the socket; what waits is lost."""
        self._queue.clear()
        self._flush()
        super().close()

    def _flush(self) -> None:
        waits = self._queue.send(self.offer)
        if not waits and self._queue.dropped:
            log.warning("%d notifications were dropped while the keeper did not read", self._queue.dropped)
            self._queue.dropped = 0
        if waits and not self._waits:
            self._loop.add_writer(self.fileno(), self._flush)
        elif self._waits and not waits:
            self._loop.remove_writer(self.fileno())
        self._waits = waits
