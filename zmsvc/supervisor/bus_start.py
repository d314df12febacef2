"""The start of the bus: the keeper runs the device, and the supervisor connects to it."""

from __future__ import annotations

import asyncio
import logging

from zmsvc.core import access
from zmsvc.core.errors import ZmsvcError, reason
from zmsvc.core.facts import Fact
from zmsvc.host import crashpoint
from zmsvc.host.bus import bus_permissions, sockets
from zmsvc.host.config import preflight, separate_reader
from zmsvc.protocol.supervision import ReplaceDevice, RunDevice
from zmsvc.supervisor.bus import Bus
from zmsvc.supervisor.launch_spec import own_endpoints
from zmsvc.supervisor.loop import Loop

START_TIMEOUT = 60.0
"""Seconds in which the device has to come up and to answer when the context starts. At the boot of a slow
machine many contexts start at once. systemd's own limit for the whole start is 90 s.
"""
ANSWER_TIMEOUT = 4.0
"""Seconds in which a device that is ready has to forward the supervisor's own subscription. Usually this
takes 1 ms. After the limit the keeper replaces the device, which also renews every connection.
"""
TAKEOVER_TIMEOUT = 0.5
"""Seconds that a supervisor which takes over waits for the device."""

log = logging.getLogger("zmsvc.supervisor")


class BusStart:
    """The start of the bus of one supervisor. `early` has the facts that came meanwhile.

    The first supervisor of a context raises ZmsvcError if the device does not come up, because there is no
    context without a bus. A supervisor that takes over has tasks to look after, so it waits only a moment;
    the keeper restarts the device in any case.
    """

    def __init__(self, loop: Loop, *, takes_over: bool) -> None:
        self._loop = loop
        self._takes_over = takes_over
        self.early: list[Fact] = []

    async def run(self) -> None:
        self._write_members()
        self._run_device()
        limit = TAKEOVER_TIMEOUT if self._takes_over else START_TIMEOUT
        try:
            async with asyncio.timeout(limit):
                await self._device_ready()
                await self._attach(self._connect())
        except TimeoutError:
            if not self._takes_over:
                missing = "answer" if self._loop.children.device.ready else "come up"
                raise ZmsvcError(
                    f"{self._cannot_start}: the device does not {missing} within {limit:g} s"
                ) from None
            log.warning("The device does not answer yet: events are not published until it does")
        if self._loop.bus is None:
            # The keeper has the listening sockets even if the device does not answer.
            self._connect()

    @property
    def _cannot_start(self) -> str:
        return f"cannot start {self._loop.places.name}"

    def _write_members(self) -> None:
        try:
            bus_permissions.write(self._loop.places.members_file, self._loop.world.context)
        except OSError as error:
            # A full disk must not keep a supervisor from its tasks. The file that its predecessor wrote
            # stays.
            log.warning(
                "Cannot write %s, so tasks of other users may not reach the bus by tcp: %s",
                self._loop.places.members_file,
                reason(error),
            )

    def _run_device(self) -> None:
        endpoints, curve = self._loop.world.context.endpoints, self._loop.curve is not None
        crashpoint.reached("tell device")
        self._loop.children.tell(
            RunDevice(
                front=sockets.safe_bind(endpoints.publish_bind, curve=curve),
                back=sockets.safe_bind(endpoints.subscribe_bind, curve=curve),
                hwm=sockets.DEVICE_HWM,
                # The number of the supervisor's own subscriptions, for which the device waits after a
                # restart. The last one is to the topic on which the device counts orders. Tasks subscribe at
                # the same moment.
                expect=len(access.TOPICS) + 1,
            )
        )

    async def _attach(self, bus: Bus) -> None:
        while not await bus.attach(ANSWER_TIMEOUT):
            pid = self._loop.children.device.pid
            log.warning(
                "The device (PID %s) does not answer (%s), and the keeper replaces it", pid, bus.progress()
            )
            if pid is not None:
                self._loop.children.tell(ReplaceDevice(pid=pid))
            await self._device_ready(after=pid)

    async def _device_ready(self, after: int | None = None) -> None:
        """Wait until a device is ready whose PID is not `after`."""
        children, running = self._loop.children, asyncio.get_running_loop()
        news = asyncio.Event()
        running.add_reader(children.keeper.fileno(), news.set)
        try:
            while not children.device.ready or children.device.pid == after:
                problem = children.device.problem
                if problem and not self._takes_over:
                    raise self._failed(problem)
                await news.wait()
                news.clear()
                self.early += children.facts()
                if children.lost:
                    raise ZmsvcError("the keeper is gone")
        finally:
            running.remove_reader(children.keeper.fileno())

    def _failed(self, problem: str) -> ZmsvcError:
        """Return the error for a device that does not come up, with FILE:LINE if it cannot bind."""
        context = self._loop.world.context
        if warning := preflight.failed_bind(context, problem):
            (placed,) = separate_reader.placed(context, [warning])
            problem = placed.in_file(context.path)
        return ZmsvcError(f"{self._cannot_start}: {problem}")

    def _connect(self) -> Bus:
        loop = self._loop
        loop.granted, problems = bus_permissions.open_sockets(loop.places, loop.world.context)
        for problem in problems:
            log.warning("%s: %s", loop.world.context.path, problem)
        endpoints = own_endpoints(loop.world.context, loop.places)
        loop.bus = Bus(endpoints, loop.store.origin(), loop, loop.curve)
        return loop.bus
