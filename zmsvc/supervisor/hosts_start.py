"""The start of the line to other hosts."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.supervisor.loop import Loop

if TYPE_CHECKING:
    from zmsvc.supervisor.hosts import Hosts

BIND = "hosts_bind"
"""The entry of the state file with the address that was bound last: tasks may still run on other hosts when
the context file names none any more.
"""
LINGER = 500
"""Milliseconds that the last orders have to reach the other hosts."""
TRY_AGAIN = 1.0
"""Seconds until the next attempt to listen."""

log = logging.getLogger(__name__)


class HostsStart:
    """The line of one supervisor, if its context has other hosts."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._running = asyncio.get_running_loop()
        self._hosts: Hosts | None = None
        self._again: asyncio.TimerHandle | None = None
        self._problem = ""

    def begin(self, *, takes_over: bool) -> None:
        """Listen, if the context has other hosts. Raises ZmsvcError if that fails, unless this supervisor
        takes over: then there are tasks to look after, and it tries again.
        """
        try:
            self._listen()
        except ZmsvcError as error:
            if not takes_over:
                raise
            self._cannot(error)

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._hosts is not None:
            self._hosts.close(linger=LINGER)

    def _listen(self) -> None:
        listed = self._loop.world.context.listed
        bind = listed.bind or (self._loop.store.meta(BIND) if self._loop.world.hosts else None)
        if self._hosts is not None or not bind:
            return
        # Imported here for start-up time: most contexts are on one host.
        from zmsvc.supervisor import hosts

        self._hosts = hosts.Hosts(self._loop, bind, self._loop.curve)
        self._loop.hosts = self._hosts
        self._loop.store.remember(BIND, bind)

    def _try(self) -> None:
        self._again = None
        if self._loop.world.hands_over:
            return
        try:
            self._listen()
        except ZmsvcError as error:
            self._cannot(error)

    def _cannot(self, error: ZmsvcError) -> None:
        text = "; ".join(error.faults) if isinstance(error, ConfigError) else str(error)
        if text != self._problem:
            log.error("%s; tasks on other hosts are not managed until it succeeds", text)
        self._problem = text
        if self._again is None:
            self._again = self._running.call_later(TRY_AGAIN, self._try)
