"""When `context_info` is told, and under which headers: once for all changes of a moment, and less often
the more there is to tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from zmsvc.core import messages
from zmsvc.core.world import World
from zmsvc.supervisor import report

COALESCE = 0.05
"""Seconds for which changes are gathered."""
RATE = 10 << 20
"""Bytes a second: after a large round changes are gathered for longer, or a large context would do nothing
but tell how it is.
"""


class Info:
    """`wanted` says whether somebody may want a `control` message with such a header; `send` takes the
    frames.
    """

    def __init__(
        self,
        world: Callable[[], World],
        wanted: Callable[[Mapping[str, Any]], bool],
        send: Callable[[bytes], None],
    ) -> None:
        self._world, self._wanted, self._send = world, wanted, send
        self._loop = asyncio.get_running_loop()
        self._changed: dict[str, None] = {}
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def changed(self, transaction: str) -> None:
        """Something of this transaction is to be told, soon."""
        self._changed[transaction] = None
        if self._timer is None:
            self._timer = self._loop.call_at(max(self._loop.time() + COALESCE, self._due), self._tell)

    def close(self) -> None:
        """Tell what waits: the end of the last task is a change like any other."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()

    def _tell(self) -> None:
        """Under the header of each transaction that has changed, since one may be subscribed to one of
        them alone.
        """
        changed, self._changed, self._timer = [*self._changed], {}, None
        world = self._world()
        ident = world.context.id
        heads = [
            messages.header(transaction=name, service_id=ident, action="update", service_name="context")
            for name in changed
        ]
        wanted = [head for head in heads if self._wanted(head)]
        if not wanted:
            return
        frames = messages.context_infos(wanted, report.pictures(world))
        for frame in frames:
            self._send(frame)
        self._due = self._loop.time() + sum(map(len, frames)) / RATE
