"""The work of one supervisor, from the moment when it takes over the processes of the keeper until it leaves:
it reads the sockets of keeper, tasks and clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable
from typing import Any, Protocol

from zmsvc.core.access import Verb
from zmsvc.core.carried import Carried
from zmsvc.core.facts import Fact, Origin, Requested
from zmsvc.host import crashpoint
from zmsvc.host.systemd import journal
from zmsvc.protocol.supervision import Hello, Leave, StopAll
from zmsvc.supervisor.loop import Loop, facts_of_start

PORTION = 0.02
"""Seconds between two reads while launches wait for the keeper. Without this pause there would be a write of
the state file for each message of a task.
"""

log = logging.getLogger("zmsvc.supervisor")


class Clients(Protocol):
    """The clients of the control socket."""

    async def open(self) -> None:
        """Accept clients from now on."""

    async def close(self) -> None:
        """Accept no more clients, and hang up."""


class Reloads(Protocol):
    """The reload that SIGHUP asks for."""

    async def reload_by_signal(self) -> None: ...


class Session:
    """The work of one supervisor. It is the listener of its `Children`."""

    def __init__(self, loop: Loop, control: Clients, reloads: Reloads) -> None:
        self._loop, self._control, self._reload = loop, control, reloads.reload_by_signal
        self._children = loop.children
        self._running = asyncio.get_running_loop()
        self._reloads: set[asyncio.Task[Any]] = set()

    async def run(
        self,
        hello: Hello,
        early: Iterable[Fact],
        *,
        autostart: bool,
        transaction: str | None,
        carried: Carried | None = None,
    ) -> None:
        """Take over, and work until the supervisor has to leave. `early` has the facts that have come
        before, `carried` what another host has written down.
        """
        loop, children = self._loop, self._children
        # Read all waiting messages of tasks: the ends of tasks, which `hello` has, must come after them.
        notification_facts = [*early, *children.facts(all_said=True)]
        loop.take(*facts_of_start(hello, autostart, transaction, notification_facts, carried))
        if hello.stopping:
            loop.take(Requested(verb=Verb.EXIT, origin=Origin(by="signal")))
        self._listen(True)
        children.listener = self
        self.backlog(children.waiting)
        self._read()
        crashpoint.reached("open control")
        await self._control.open()
        if hello.restarts:
            log.warning(
                "Supervisor %d takes over: %d tasks are running",
                os.getpid(),
                len(hello.children),
                extra={"journal": {"MESSAGE_ID": journal.MESSAGE_ID["supervisor"]}},
            )
        await loop.over.wait()
        # Later messages are for the next supervisor.
        self._listen(False)
        await self._control.close()
        if loop.bus is not None:
            loop.bus.close()
        if loop.leaving is not None:
            children.tell(Leave(status=loop.leaving))
        children.finish()

    def backlog(self, waiting: bool) -> None:
        keeper = self._children.keeper.fileno()
        if waiting:
            self._running.add_writer(keeper, self._children.send_orders)
        else:
            self._running.remove_writer(keeper)

    def _read(self) -> None:
        if self._loop.over.is_set():
            return
        self._loop.read_children()
        for request in self._children.take_requests():
            if isinstance(request, StopAll):
                self._loop.take(Requested(verb=Verb.EXIT, origin=Origin(by="signal"), now=request.now))
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
                self._running.add_reader(source.fileno(), self._read)
            else:
                self._running.remove_reader(source.fileno())

    def wake(self) -> None:
        # A thread may call this after the end of the loop.
        with contextlib.suppress(RuntimeError):
            self._running.call_soon_threadsafe(self._read)
