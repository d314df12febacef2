"""The output of `step`: what the supervisor does after it has saved the world, in the imperative. The input
is in facts.py.

An effect names a process by its launch ID, never by a PID: the kernel reuses PIDs. `host` is the host whose
keeper carries out an order; empty: that of the supervisor. An order to a host that is not connected is not
sent: the core gives it again when the host has joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.expected_topics import ExpectedTopic
from zmsvc.core.frozen import frozen
from zmsvc.core.listening import ListenSocket
from zmsvc.core.model import TaskDefinition
from zmsvc.core.poison import Poison
from zmsvc.core.task_key import Key
from zmsvc.core.totals import Total


@frozen
class Launch:
    """Start the process of a task. A repeated order is harmless: the keeper forks one task for a launch ID.

    The cause is read from the world when the order is carried out, so it has all rules that fired at the same
    time.
    """

    launch: int
    key: Key
    host: str = ""


@frozen
class LaunchAuxiliary:
    """Fork an auxiliary process of the launch `of`. Its end is reported under a launch ID of its own."""

    launch: int
    of: int
    key: Key
    name: AuxiliaryName
    command: tuple[str, ...] = ()
    """The program that it executes, and its arguments."""
    host: str = ""


@frozen
class KeepWatches:
    """End the watch of each launch that is not one of these."""

    launches: frozenset[int]


@frozen
class WatchTopics:
    """Watch the topics of a launch of a Command in place of those that were watched before. Without topics,
    watch it no longer. A repeated order is harmless: what was reported is reported again.
    """

    launch: int
    key: Key
    ready: str = ""
    """The topic whose first message is to be reported, or nothing."""
    has_process: bool = False
    """False before the fork: a message that makes the task ready is then reported later."""
    expect: tuple[ExpectedTopic, ...] = ()
    """The topics on which the task must not be silent for too long, from now on."""


@frozen
class Terminate:
    """Ask the processes of a launch to end: send `signal` to the main one and `others` to its other ones.
    TaskGone follows when none is left.
    """

    launch: int
    key: Key
    signal: str
    others: str = ""
    host: str = ""


@frozen
class SendSignal:
    """Send an operator's signal to the main process of a launch, or to all its processes. This is an order of
    its own, because a process need not end from it.
    """

    launch: int
    key: Key
    signal: str
    all: bool
    host: str = ""


@frozen
class SetMain:
    """Make another process of a launch its main one. MainChanged follows if that process belongs to the
    launch.
    """

    launch: int
    pid: int
    start_time: int
    host: str = ""


@frozen
class KillAll:
    """SIGKILL every process of a launch; TaskGone follows."""

    launch: int
    key: Key
    stacks: bool = False
    """Have the main process first write the stacks of its threads to its log, if it can."""
    host: str = ""


@frozen
class OpenBarrier:
    """Let the tasks of these launches begin their first steps. A repeated order is harmless."""

    launches: tuple[int, ...]
    host: str = ""


@frozen
class HoldSockets:
    """Hold these sockets of tasks, and close every other one. A launch opens those that are not open yet."""

    sockets: frozenset[ListenSocket]


@frozen
class HoldStores:
    """Hold the descriptor stores of these tasks, and empty every other one. Each has a limit of
    descriptors.
    """

    stores: frozenset[tuple[Key, int]]


@frozen
class Forget:
    """Acknowledge the end of a launch to the keeper: it is in the state file."""

    launch: int
    host: str = ""


@frozen
class WakeAt:
    """Set the alarm of a task to `when` (monotonic seconds), or cancel it. It replaces the previous alarm."""

    key: Key
    when: float | None


@frozen
class PublishControl:
    """Publish an event of a task."""

    key: Key
    action: str
    success: bool
    pid: int | None
    items: Mapping[str, Any] = field(default_factory=dict)
    service: TaskDefinition | None = None
    """The definition of the task. It is in the effect because a reload may remove the task before this is
    published.
    """


@frozen
class PublishProcess:
    """Publish that a task is being started or stopped."""

    key: Key
    action: str
    service: TaskDefinition | None = None


@frozen
class PublishInfo:
    """Publish the state of the whole context under the header of this transaction: soon, and only once for
    many changes.
    """

    transaction: str


@frozen
class Record:
    """Write this into the lifecycle history and the journal."""

    transaction: str
    task: str
    event: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    instance: str = ""
    """The instance of the task; empty if the record has no task, or one that no context file ever had."""


@frozen
class Count:
    """Add to a total. It is saved together with the world."""

    total: Total
    task: str = ""
    """The task; empty for a total of the context."""
    detail: str = ""
    amount: float = 1


@frozen
class Quarantine:
    """Put a message of a task into the quarantine. It is saved together with the world."""

    key: Key
    launch: int
    number: int
    lost: int
    """The number of earlier poison messages that were not reported. If `message` is None, this one counts as
    well.
    """
    message: Poison | None


@frozen
class Reply:
    """Answer a request."""

    request: int
    ok: bool
    code: int = 0
    error: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


@frozen
class Ready:
    """Notify systemd that the start is complete: every entry task is ready or has failed. A failed task does
    not fail the context.
    """

    error: str = ""
    """The failed tasks with their reasons."""


@frozen
class Leave:
    """End the daemon of the context with this exit status: all tasks have ended."""

    status: int = 0


ProcessOrder = Launch | LaunchAuxiliary | Terminate | SendSignal | SetMain | KillAll | OpenBarrier
"""An order to the keeper of a host about processes."""

Effect = (
    ProcessOrder
    | KeepWatches
    | WatchTopics
    | HoldSockets
    | HoldStores
    | Forget
    | WakeAt
    | PublishControl
    | PublishProcess
    | PublishInfo
    | Record
    | Count
    | Quarantine
    | Reply
    | Ready
    | Leave
)
