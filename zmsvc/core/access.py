"""Which user may send which order or question to a supervisor, over the control socket and on the bus. The
control socket, the bus, zmsvcctl, conf_command.py and the device use this one table.

docs/access.md and zmsvcctl(1) show the same; a test compares them. The bus accepts an order only on the
topics in its column `bus`. zmsvcctl imports this module at each start, so it imports little.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verb(StrEnum):
    """The orders that change the world, as core/requests.py carries them out."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    EXIT = "exit"
    RESET_FAILED = "reset-failed"
    FORGET = "forget"
    ENABLE = "enable"
    DISABLE = "disable"
    SIGNAL = "signal"
    RELOAD = "reload"
    """The fact `ContextReloaded` carries this order, together with the context file. `Requested` carries the
    others.
    """
    RELOAD_TASKS = "reload-tasks"
    """`zmsvcctl reload TASK`: has tasks read their configuration again."""

    @property
    def word(self) -> str:
        """The verb of zmsvcctl that gives this order."""
        return "reload" if self is Verb.RELOAD_TASKS else self.value


class Who(StrEnum):
    """The users who may ask over the control socket. Root and the daemon's own user always may."""

    OWNER = "root and the daemon's user"
    GROUP = "root, the daemon's user and its group"


class BusAccess(StrEnum):
    """The users of this machine that may connect to the bus over loopback tcp without CURVE keys."""

    MEMBERS = "members"
    ANYONE = "anyone"


MAY_CONNECT = "root, the daemon's user, members of its group and the <user> of each task"
"""The users who may connect to the bus without CURVE keys, over ipc and over loopback tcp. Each of them may
give every order that the bus knows.
"""
ANYONE = "every user of this machine"
"""The users who may connect over loopback tcp with bus_access="anyone"."""


class OrderRule:
    """One order or question. Not a dataclass: without dataclasses zmsvcctl starts in less time."""

    __slots__ = ("bus", "control", "repeatable", "verb")

    def __init__(
        self, verb: str, *, control: Who | None = None, bus: tuple[str, ...] = (), repeatable: bool = False
    ) -> None:
        self.verb = verb
        self.control = control
        """The users who may ask over the control socket; None if this cannot be asked there."""
        self.bus = bus
        """The topics on which a client of the bus may ask."""
        self.repeatable = repeatable
        """True if a client may repeat the request when the supervisor has died before its answer. Such an
        order names a state to reach and no change, so a second one does no harm.
        """


ORDERS = (
    OrderRule("status", control=Who.GROUP, repeatable=True),
    OrderRule("events", control=Who.GROUP, repeatable=True),
    OrderRule("why", control=Who.GROUP, repeatable=True),
    OrderRule("stack", control=Who.GROUP, repeatable=True),
    OrderRule("wait", control=Who.GROUP, repeatable=True),
    OrderRule("quarantine", control=Who.GROUP, repeatable=True),
    OrderRule("quarantine-drop", control=Who.GROUP),
    OrderRule(Verb.START, control=Who.GROUP, bus=("context", "process"), repeatable=True),
    OrderRule(Verb.STOP, control=Who.GROUP, bus=("context", "process"), repeatable=True),
    OrderRule(Verb.RESTART, control=Who.GROUP, bus=("context", "process")),
    OrderRule(Verb.SIGNAL, control=Who.GROUP),
    OrderRule(Verb.RELOAD_TASKS, control=Who.GROUP, repeatable=True),
    OrderRule(Verb.RESET_FAILED, control=Who.GROUP, repeatable=True),
    OrderRule(Verb.FORGET, control=Who.GROUP),
    OrderRule(Verb.ENABLE, control=Who.GROUP, repeatable=True),
    OrderRule(Verb.DISABLE, control=Who.GROUP, repeatable=True),
    OrderRule("drain", control=Who.GROUP, repeatable=True),
    OrderRule("undrain", control=Who.GROUP, repeatable=True),
    OrderRule(Verb.RELOAD, control=Who.OWNER),
    OrderRule("reload-dry-run", control=Who.OWNER, repeatable=True),
    OrderRule("reexec", control=Who.OWNER),
    OrderRule("restart-device", control=Who.OWNER),
    OrderRule(Verb.EXIT, control=Who.OWNER, bus=("context",)),
    OrderRule("request", bus=("state",)),
    OrderRule("top", bus=("state",)),
)
TOPICS = ("context", "process", "state")
"""The topics that a supervisor subscribes to."""


def control(orders: Iterable[OrderRule] = ORDERS) -> dict[str, Who]:
    return {str(order.verb): order.control for order in orders if order.control is not None}


def bus(orders: Iterable[OrderRule] = ORDERS) -> dict[str, tuple[str, ...]]:
    known = list(orders)
    return {topic: tuple(str(order.verb) for order in known if topic in order.bus) for topic in TOPICS}


CONTROL = control()
"""The users who may send each request over the control socket. Any other request is refused."""
BUS = bus()
"""The orders and questions of the bus, by topic."""
REPEATABLE = frozenset(str(order.verb) for order in ORDERS if order.repeatable)
