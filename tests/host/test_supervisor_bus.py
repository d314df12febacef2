"""The supervisor's connection to the device: it detects that it is attached, whatever other messages arrive
meanwhile, and publishes nothing that the device would not take.
"""

from __future__ import annotations

import asyncio
import select
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forwarder import Forwarder, received
from waiting import PATIENCE

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core import messages
from zmsvc.core.messages import MAX_FRAME
from zmsvc.core.model import Context, DeviceEndpoints, TaskDefinition
from zmsvc.core.world import World
from zmsvc.supervisor.bus import ECHO, Bus

_UNUSED = "ipc://unused"
ENDPOINTS = DeviceEndpoints(
    subscribe_endpoint=_UNUSED, publish_endpoint=_UNUSED, publish_bind=_UNUSED, subscribe_bind=_UNUSED
)
WORLD = World(context=Context(name="Live", id="context001", log_name="Live", endpoints=ENDPOINTS, tasks={}))


@dataclass
class Supervisor:
    world: World

    def order(self, request: ft.Requested | ft.OrdersUnheard) -> None:
        raise AssertionError(f"nothing was ordered: {request}")

    def device_hangs(self) -> None:
        raise AssertionError("it forwards")


@pytest.mark.parametrize(
    ("source", "published"),
    [
        pytest.param({"id": "t1", "Task": {"description": "x" * MAX_FRAME}}, True, id="it has no <Task>"),
        pytest.param({"id": "x" * MAX_FRAME}, False, id="nothing can be left out"),
    ],
)
def test_a_message_that_is_too_long_for_the_bus_is_shortened_or_counted(
    tmp_path: Path, source: dict[str, Any], published: bool
) -> None:
    """It is neither an error of the turn that publishes it nor a sign that the device hangs."""
    service = TaskDefinition(id="t1", instance="One", source=source)

    async def publish(device: Forwarder) -> None:
        bus = Bus((device.subscribe_endpoint, device.publish_endpoint), "0123", Supervisor(WORLD), None)
        try:
            assert await bus.attach(PATIENCE)
            bus.process(fx.PublishProcess(key=("T", "t1"), action="start", service=service))
            assert bus.dropped == (not published)
            assert (bus._echo is not None) == published, "an answer is due only to what was sent"
        finally:
            bus.close()

    with Forwarder(tmp_path) as device:
        device.start()
        subscriber = device.subscriber(messages.prefix("process"))
        device.connected_publisher(messages.prefix("process"))
        asyncio.run(publish(device))
        if published:
            _, body = messages.decode(received(subscriber))
            assert body["Task"]["message"]["header"]["action"] == "start"


def test_a_message_that_is_sent_before_the_bus_is_attached_does_not_hide_that_it_is(tmp_path: Path) -> None:
    """The send reads subscriptions of the device, and libzmq announces them only once."""
    refused = fx.PublishControl(key=("T", "t1"), action="failed", success=False, pid=None)

    async def attach(device: Forwarder) -> None:
        bus = Bus((device.subscribe_endpoint, device.publish_endpoint), "0123", Supervisor(WORLD), None)
        attached = asyncio.create_task(bus.attach(PATIENCE))
        for _ in range(10):
            await asyncio.sleep(0)
        # From here on this loop does not run, so only `control` reads the subscriptions.
        device.start()
        for _ in range(50):
            bus.control(refused)
            select.select([], [], [], 0.01)
        try:
            assert await attached
        finally:
            bus.close()

    with Forwarder(tmp_path) as device:
        asyncio.run(attach(device))


def test_a_supervisor_that_stood_still_gives_the_device_the_time_once_more(tmp_path: Path) -> None:
    """The device may have stood still with it. Nothing forwards here."""

    async def look(late: float) -> float | None:
        bus = Bus((f"ipc://{tmp_path}/sub", f"ipc://{tmp_path}/pub"), "0123", Supervisor(WORLD), None)
        try:
            bus._echo_due.begin(asyncio.get_running_loop().time() - ECHO - late, ECHO)
            bus._miss_echo()
            return bus._echo and bus._echo.when() - asyncio.get_running_loop().time()
        finally:
            bus.close()

    assert asyncio.run(look(late=2.0)) == pytest.approx(ECHO, abs=1.0)
    with pytest.raises(AssertionError, match="it forwards"):
        asyncio.run(look(late=0.0))
