"""The channel between the keeper and a process that tasks share: the keeper starts and stops members, and the
process reports their ends.

A closed channel is the order to end.
"""

from __future__ import annotations

from zmsvc.core.frozen import frozen
from zmsvc.protocol.codec import Codec
from zmsvc.protocol.launch import LaunchSpec


@frozen
class StartMember:
    """Start a task in a thread of the shared process."""

    spec: LaunchSpec


@frozen
class StopMember:
    """Ask the task of this launch to end, as SIGTERM would ask a process."""

    launch: int


Order = StartMember | StopMember

ORDERS = Codec[Order]({"start": StartMember, "stop": StopMember})


@frozen
class MemberEnded:
    """The thread of a task has ended. `status` is the exit status that the task would have in a process of
    its own.
    """

    launch: int
    status: int


Report = MemberEnded

REPORTS = Codec[Report]({"ended": MemberEnded})
