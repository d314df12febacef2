"""The supervisor's connection to the device detects that it is attached, whatever other messages arrive
meanwhile.
"""

from __future__ import annotations

import asyncio
import select
from dataclasses import dataclass
from pathlib import Path

from forwarder import Forwarder
from waiting import PATIENCE

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.model import Context, DeviceEndpoints
from zmsvc.core.world import World
from zmsvc.supervisor.bus import Bus


@dataclass
class Supervisor:
    world: World

    def order(self, request: ft.Requested | ft.OrdersUnheard) -> None:
        raise AssertionError(f"nothing was ordered: {request}")

    def device_hangs(self) -> None:
        raise AssertionError("it forwards")


def test_a_message_that_is_sent_before_the_bus_is_attached_does_not_hide_that_it_is(tmp_path: Path) -> None:
    """The send reads subscriptions of the device, and libzmq announces them only once."""
    endpoints = DeviceEndpoints(
        subscribe_endpoint="ipc://unused",
        publish_endpoint="ipc://unused",
        publish_bind="ipc://unused",
        subscribe_bind="ipc://unused",
    )
    world = World(
        context=Context(name="Live", id="context001", log_name="Live", endpoints=endpoints, tasks={})
    )
    refused = fx.PublishControl(key=("T", "t1"), action="failed", success=False, pid=None)

    async def attach(device: Forwarder) -> None:
        bus = Bus((device.subscribe_endpoint, device.publish_endpoint), "0123", Supervisor(world), None)
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
