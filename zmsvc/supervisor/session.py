"""A supervisor's working life: from taking over what the keeper holds until it leaves. It hears the
keeper, tasks and clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from zmsvc.core.events import Fact, Origin, Requested, Verb
from zmsvc.host import crashpoint
from zmsvc.protocol.supervision import Hello, Leave, StopAll
from zmsvc.supervisor.loop import Loop, facts_of_start

PORTION = 0.02
"""Seconds between two hearings while launches wait for the keeper: what each task says, alone, would be
saved alone.
"""

log = logging.getLogger("zmsvc.supervisor")


class Clients(Protocol):
    """Those who ask over the control socket."""

    async def open(self) -> None:
        """Take them from now on."""

    async def close(self) -> None:
        """Take no more of them, and hang up."""


class Session:
    """One supervisor at work. `reload` has the context file read again."""

    def __init__(self, loop: Loop, control: Clients, reload: Callable[[], Awaitable[Any]]) -> None:
        self._loop, self._control, self._reload = loop, control, reload
        self._children = loop.children
        self._running = asyncio.get_running_loop()
        self._reloads: set[asyncio.Task[Any]] = set()

    async def live(
        self, hello: Hello, early: Iterable[Fact], *, autostart: bool, transaction: str | None
    ) -> None:
        """Take over, and work until the supervisor is to leave. `early` are facts that came before."""
        loop, children = self._loop, self._children
        children.on_backlog = self._backlog
        # All of it, since the ends that the keeper holds come after it.
        said = [*early, *children.facts(all_said=True)]
        loop.take(*facts_of_start(hello, autostart, transaction, said))
        if hello.stopping:
            loop.take(Requested(verb=Verb.EXIT, origin=Origin(by="signal")))
        self._listen(True)
        children.on_news = self._hear_from_thread
        self._hear()
        crashpoint.reached("open control")
        await self._control.open()
        if hello.restarts:
            log.warning("Supervisor %d takes over: %d tasks are running", os.getpid(), len(hello.children))
        await loop.over.wait()
        # What comes from here on is for the next supervisor, and the line to the keeper will block.
        self._listen(False)
        await self._control.close()
        if loop.bus is not None:
            loop.bus.close()
        if loop.leaving:
            children.tell(Leave(status=0))
        children.finish()

    def _backlog(self, there_is: bool) -> None:
        keeper = self._children.keeper.fileno()
        if there_is:
            self._running.add_writer(keeper, self._children.send_orders)
        else:
            self._running.remove_writer(keeper)

    def _hear(self) -> None:
        if self._loop.over.is_set():
            return
        self._loop.hear_children()
        words, self._children.asked = self._children.asked, []
        for word in words:
            if isinstance(word, StopAll):
                self._loop.take(Requested(verb=Verb.EXIT, origin=Origin(by="signal"), now=word.now))
            else:
                task = asyncio.ensure_future(self._reload())
                self._reloads.add(task)
                task.add_done_callback(self._reloads.discard)
        if self._children.crowded and not self._loop.over.is_set():
            self._listen(False)
            self._running.call_later(PORTION, self._listen, True)

    def _listen(self, on: bool) -> None:
        for source in (self._children.keeper, self._children.notify):
            if on and not self._loop.over.is_set():
                self._running.add_reader(source.fileno(), self._hear)
            else:
                self._running.remove_reader(source.fileno())

    def _hear_from_thread(self) -> None:
        # A thread may have news after the end of the loop.
        with contextlib.suppress(RuntimeError):
            self._running.call_soon_threadsafe(self._hear)
