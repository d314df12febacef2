"""The channel to the fdstore process, which holds the stored descriptors of tasks: keeper and supervisor send
orders over it, and the keeper reads the reports.

The keeper has created both ends, and the supervisor has a copy of the keeper's end. So an order of the
supervisor that was sent before a launch arrives before the order by which the keeper serves that launch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.protocol.codec import Codec

REQUEST = b"\n"
"""The packet by which a task asks for its descriptors, over a connection of its own."""

# --- orders of the keeper


@frozen
class Hold:
    """Hold the stores of these tasks, and empty every other one."""

    limits: Mapping[str, Any]
    """The number of descriptors that each may have, by `TRANSACTION:TASK`."""


@frozen
class Serve:
    """Give the descriptors of a task to its next process, when that asks for them. The descriptor of the
    connection to it comes with the order.
    """

    task: str


# --- orders of the supervisor


@frozen
class StoredDescriptor:
    """One descriptor to store."""

    task: str
    name: str
    poll: bool = True
    """True if it is to be removed when its other end is closed."""


@frozen
class Put:
    """Store the descriptors that come with the order, one for each entry."""

    entries: tuple[StoredDescriptor, ...]


@frozen
class Remove:
    """Remove every descriptor with this name from the store of a task."""

    task: str
    name: str


Order = Hold | Serve | Put | Remove

ORDERS = Codec[Order]({"hold": Hold, "serve": Serve, "put": Put, "remove": Remove})

# --- reports


@frozen
class Counts:
    """The contents of the stores have changed. The fields are those of `supervision.StoreContents`."""

    stored: Mapping[str, Any]
    refused: Mapping[str, Any]
    closing: Mapping[str, Any]


Report = Counts

REPORTS = Codec[Report]({"counts": Counts})

# --- to a task


@frozen
class Given:
    """Some of the descriptors of the task, which come with the message. After the last message the connection
    is closed.
    """

    names: tuple[str, ...]


GIVEN = Codec[Given]({"given": Given})
