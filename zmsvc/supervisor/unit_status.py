"""Notify systemd of the status of the unit: READY=1, STOPPING=1 and the status line. The keeper passes this
on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Protocol

from zmsvc.core import effects as fx
from zmsvc.core.effects import Effect
from zmsvc.core.world import World
from zmsvc.host import crashpoint
from zmsvc.supervisor import records, status_report

INTERVAL = 0.1
"""Seconds between two status lines."""
MAX_ERROR = 2000
"""The number of characters of the error after a failed start, about a page of a terminal: a thousand tasks
may fail for the same reason.
"""


class UnitNotifier(Protocol):
    """The methods of `Notifier` (host/systemd/notify.py) that the supervisor uses."""

    def notify(self, *lines: str) -> None: ...
    def ready(self) -> None: ...
    def reloading(self) -> None: ...
    def stopping(self) -> None: ...
    def status(self, text: str) -> None: ...
    def watchdog(self) -> None: ...


class UnitStatus:
    """The status line. A turn that changes it renews it, but not more often than once in an INTERVAL."""

    def __init__(self, notifier: UnitNotifier) -> None:
        self._notifier = notifier
        self._loop = asyncio.get_running_loop()
        self._world: World | None = None
        self._unsaved = ""
        self._stale = False
        self._sent = ""
        self._stopping_sent = False
        self._next: asyncio.TimerHandle | None = None

    def ready(self, world: World, error: str, notes: Sequence[str] = ()) -> None:
        """Complete the start of the context. Only the keeper reads the error and the notes: it passes them on
        to the client that started the context.
        """
        error = records.shortened(" ".join(error.split()), MAX_ERROR)
        lines = [f"X_ZMSVC_ERROR={error}"] if error else []
        lines += [f"X_ZMSVC_NOTES={json.dumps(notes, ensure_ascii=False)}"] if notes else []
        self._notifier.notify("READY=1", f"STATUS={status_report.line(world)}", *lines)

    def turn(self, world: World, unsaved: str, effects: Iterable[Effect]) -> None:
        """Note the world after a turn, and the reason why the state file could not be written."""
        self._world = world
        if world.stopping and not self._stopping_sent:
            self._stopping_sent = True
            self._notifier.stopping()
        if unsaved == self._unsaved and not any(isinstance(effect, fx.PublishInfo) for effect in effects):
            return
        self._unsaved = unsaved
        self._stale = True
        if self._next is None:
            self._renew()

    def _renew(self) -> None:
        """Send the status line if it has changed, at most once in INTERVAL seconds. So a thousand changes of
        tasks cost neither a thousand lines nor a thousand notifications of systemd.
        """
        self._next = None
        if not self._stale or self._world is None:
            return
        self._stale = False
        self._next = self._loop.call_later(INTERVAL, self._renew)
        line = self._unsaved or status_report.line(self._world)
        if line != self._sent:
            self._sent = line
            crashpoint.reached("say status")
            self._notifier.status(line)
