"""Who may give which order, and over which way: the one table that the control socket, the bus,
conf_command.py and the device use.

The README and zmsvcctl(1) show the same; a test compares them. A verb that is added here for the control
socket is not thereby accepted on the bus, which has a vocabulary of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Who(StrEnum):
    """Who may ask for something over the control socket; root and the daemon's own user always may."""

    OWNER = "root and the daemon's user"
    GROUP = "root, the daemon's user and its group"


MAY_CONNECT = "root, the daemon's user, members of its group and the <user> of each task"
"""Who may connect without CURVE keys to the bus, over ipc and over loopback tcp, and so give each order
that the bus knows.
"""
ANYONE = "every user of this machine"
"""Who may connect over loopback tcp with bus_access="anyone"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One thing that may be asked. `bus`: the topics on which it may be asked by those who may connect to
    the bus.
    """

    verb: str
    control: Who | None = None
    bus: tuple[str, ...] = ()


ORDERS = (
    Order(verb="status", control=Who.GROUP),
    Order(verb="events", control=Who.GROUP),
    Order(verb="start", control=Who.GROUP, bus=("context", "process")),
    Order(verb="stop", control=Who.GROUP, bus=("context", "process")),
    Order(verb="restart", control=Who.GROUP, bus=("context", "process")),
    Order(verb="reset-failed", control=Who.GROUP),
    Order(verb="forget", control=Who.GROUP),
    Order(verb="reload", control=Who.OWNER),
    Order(verb="reexec", control=Who.OWNER),
    Order(verb="restart-device", control=Who.OWNER),
    Order(verb="exit", control=Who.OWNER, bus=("context",)),
    Order(verb="request", bus=("state",)),
    Order(verb="top", bus=("state",)),
)

CONTROL: Mapping[str, Who] = {order.verb: order.control for order in ORDERS if order.control is not None}
"""Who may ask for what over the control socket. What is not in it cannot be asked for."""

BUS: Mapping[str, tuple[str, ...]] = {
    topic: tuple(order.verb for order in ORDERS if topic in order.bus)
    for topic in ("context", "process", "state")
}
"""What may be asked on the bus, by topic."""
