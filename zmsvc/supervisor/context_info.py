"""Publish `context_info` once for all changes of a short time, which is longer for a large context."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from zmsvc.core import messages
from zmsvc.core.world import World
from zmsvc.supervisor import status_report

COALESCE = 0.05
"""Seconds for which changes are collected."""
RATE = 10 << 20
"""Bytes per second. After a large publication, changes are collected for longer: a large context would
otherwise do nothing but publish its state.
"""


class InfoPublisher(Protocol):
    """The part of bus.py that publishes."""

    @property
    def world(self) -> World: ...

    def wanted(self, head: Mapping[str, Any]) -> bool:
        """Return True if a subscriber may match a `control` message with this header."""

    def send(self, frame: bytes) -> object: ...


class Info:
    """The `context_info` messages that are due."""

    def __init__(self, publisher: InfoPublisher) -> None:
        self._publisher = publisher
        self._loop = asyncio.get_running_loop()
        self._changed: dict[str, None] = {}
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def changed(self, transaction: str) -> None:
        """Publish the state of this transaction soon."""
        self._changed[transaction] = None
        if self._timer is None:
            self._timer = self._loop.call_at(max(self._loop.time() + COALESCE, self._due), self._tell)

    def close(self) -> None:
        """Publish the pending changes. The end of the last task may be one of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()

    def _tell(self) -> None:
        """Publish under the header of each changed transaction, since a client may have subscribed to one
        transaction alone.
        """
        changed, self._changed, self._timer = [*self._changed], {}, None
        world = self._publisher.world
        ident = world.context.id
        heads = [
            messages.header(transaction=name, service_id=ident, action="update", service_name="context")
            for name in changed
        ]
        wanted = [head for head in heads if self._publisher.wanted(head)]
        if not wanted:
            return
        frames = messages.context_infos(wanted, status_report.pictures(world))
        for frame in frames:
            self._publisher.send(frame)
        self._due = self._loop.time() + sum(map(len, frames)) / RATE
