"""Task services that share one process (`serviceType="Thread"`): a thread for each, with its own life, voice and journal fields.

A member that fails or finishes is told of by `X_ZMSVC_EXIT`, and the others live on. SIGTERM is the wish that all of them end; the wish
for one is its `Stop.request()`, for which there is no way in from outside.
"""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from zmsvc.host import journal
from zmsvc.host.notify import Notifier
from zmsvc.task import loader
from zmsvc.task.bus import Bus
from zmsvc.task.life import Life
from zmsvc.task.sdk import TaskService
from zmsvc.task.stop import SignalStop, Stop

Spec = Mapping[str, Any]


class _Member:
    """One task of the process."""

    def __init__(self, spec: Spec, channel: Bus, ended: Callable[[], None]) -> None:
        self.stop = Stop()
        self.status = 1
        self._ended = ended
        self._fields = {
            "SYSLOG_IDENTIFIER": spec["instance"],
            "ZMSVC_TASK": spec["task"],
            "ZMSVC_INSTANCE": spec["instance"],
        }
        self._spec = spec
        self._notifier = Notifier(spec["notify"], spec["task"])
        log = logging.getLogger(f"{spec['instance']}.{spec['task']}")
        log.addFilter(self._stamp)
        self._life = Life(spec, voice=self._notifier, channel=channel, stop=self.stop, log=log)
        self.thread = threading.Thread(target=self._live, name=spec["task"], daemon=True)

    def _stamp(self, record: logging.LogRecord) -> bool:
        """What is logged by `self.log` is this task's, also from a thread of the user's own."""
        record.journal = {**self._fields, **getattr(record, "journal", {})}
        return True

    def _live(self) -> None:
        journal.scope(self._fields)
        try:
            self.status = self._life.live(self._load)
        finally:
            self._notifier.notify(f"X_ZMSVC_EXIT={self.status}")
            self._notifier.close()
            self._ended()

    def _load(self) -> type[TaskService]:
        return loader.load(self._spec["instance"], self._spec["search"])


def live(spec: Spec, channel: Bus) -> int:
    """Run all members until the last has ended. 0 when all ended well."""
    stop, end = SignalStop(), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    stop.listen()
    members = [_Member({**spec, **member}, channel, lambda: os.eventfd_write(end, 1)) for member in spec["members"]]
    for member in members:
        member.thread.start()
    poll = stop.poller(end)
    while not stop.requested:
        stop.pause(math.inf, poll)
        if _count(end) and not any(member.thread.is_alive() for member in members):
            break
    for member in members:
        member.stop.request()
    for member in members:
        member.thread.join()
    return int(any(member.status for member in members))


def _count(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0
