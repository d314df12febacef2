"""The input and output of `step`: facts are in the past tense, effects in the imperative.

A fact names a process by its launch ID, never by a PID: the kernel reuses PIDs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any

from zmsvc.core.access import Verb
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.frozen import frozen
from zmsvc.core.listening import ListenSocket
from zmsvc.core.model import Context, TaskService
from zmsvc.core.poison import Poison
from zmsvc.core.probing import Health
from zmsvc.core.totals import Total

Key = tuple[str, str]
"""A running task: (transaction, task id)."""


@frozen
class Origin:
    """The sender of an order: `by` is operator, bus, context or signal; `uid` is the sender's user ID, None
    if unknown.
    """

    by: str
    uid: int | None = None


# --- facts


@frozen
class Requested:
    """An order has arrived. `request` is the number by which its reply is found, or None if no client waits
    for a reply.
    """

    verb: Verb
    origin: Origin
    request: int | None = None
    transaction: str | None = None
    tasks: tuple[str, ...] = ()
    block: bool = True
    triggers: bool = True
    new: bool = False
    """True if the client has generated the ID of the transaction, so a transaction with this ID must not be
    open yet.
    """
    signal: str = ""
    """Of the order `signal`: the canonical name of the signal, such as SIGHUP."""
    all: bool = False
    """Of the order `signal`: send it to every process of the tasks, and not to the main ones alone."""
    now: bool = False
    """Of a second `exit`: kill the tasks that have not ended."""


@frozen
class Child:
    """A child process of the keeper."""

    launch: int
    pid: int
    start_time: int
    executed: bool = False
    """Of a Command: True if exec() has replaced the launcher by the program."""
    line_seen: bool = False
    """Of a Command: True if it has written the line that its `<ready>` names."""
    auxiliary: bool = False
    """True if this is an auxiliary process of a task."""


@frozen
class SupervisorStarted:
    """A supervisor has started, and the keeper has reported its children and the ends that no supervisor has
    acknowledged. If `keeper_id` is another one than before, no earlier process is alive.
    """

    keeper_id: str
    children: tuple[Child, ...] = ()
    exits: frozenset[int] = frozenset()
    autostart: bool = True
    transaction: str | None = None
    keeper_signals_others: bool = True
    """The keeper can ask all processes of a launch to end."""
    generated: str = ""
    """An unused transaction ID. The context starts this transaction if it resumes no other one."""


@frozen
class ContextReloaded:
    """The context file was read again. With `block` the reply waits until the tasks that differ have ended or
    started.
    """

    context: Context
    request: int | None = None
    block: bool = True


@frozen
class OrdersUnheard:
    """`count` orders came on the bus while no supervisor was there."""

    count: int


@frozen
class TaskLaunched:
    launch: int
    pid: int
    start_time: int


@frozen
class LaunchFailed:
    launch: int
    why: str


@frozen
class TaskExecuted:
    """exec() has replaced the launcher of a Command by the program."""

    launch: int


@frozen
class ReadyLineSeen:
    """A Command has written the line that its `<ready>` names."""

    launch: int


@frozen
class TaskReady:
    launch: int


@frozen
class TaskDeclared:
    """A task that is not ready yet has declared the topics that it hears and publishes."""

    launch: int
    topics: tuple[str, ...]
    publishes: tuple[str, ...] | None = None
    """None if it may publish any topic."""


@frozen
class TaskReloading:
    """RELOADING=1 of a task. `at` is its MONOTONIC_USEC in seconds; None if it sent none."""

    launch: int
    at: float | None = None


@frozen
class TaskUpdated:
    """`update(**items)` of a task. `sequence` numbers the updates of one launch from 1, so a repeated update
    is recognized.
    """

    launch: int
    items: Mapping[str, Any]
    sequence: int = 0


@frozen
class TaskSaid:
    """STATUS= of a task."""

    launch: int
    status: str


@frozen
class MessagesMissed:
    """The number of messages that the current launch of a task has missed so far, as the task has noticed."""

    launch: int
    count: int


@frozen
class MessagePoisoned:
    """A task could not handle a message. `number` counts such messages of one launch from 1, also those that
    were not reported.
    """

    launch: int
    number: int
    message: Poison


@frozen
class WatchdogFed:
    launch: int


@frozen
class HealthReported:
    """The probe process of a task has found another health than before. The launch is that of the probe
    process.
    """

    launch: int
    health: Health
    text: str = ""
    """The reason of a failed probe."""


@frozen
class TopicHeard:
    """A task has published its first message on the topic of its `<ready>`."""

    launch: int
    topic: str


@frozen
class TopicSilent:
    """A task has published nothing on an expected topic for too long. The launch is that of the task, or of
    the process that watches the topics of a Command.
    """

    launch: int
    topic: str


@frozen
class MemoryMeasured:
    """The processes of a launch use `used` bytes of memory; the machine has `machine`."""

    launch: int
    used: int
    machine: int


@frozen
class TimeoutExtended:
    launch: int
    seconds: float


@frozen
class MainNamed:
    """A process of the task has named another process of the same task as the main one (MAINPID=)."""

    launch: int
    pid: int
    start_time: int


@frozen
class MainChanged:
    """The keeper now treats another process as the main one."""

    launch: int
    pid: int
    start_time: int


@frozen
class TaskExited:
    """The main process of a task has ended. `others_left` is True if other processes of the task are still
    there.
    """

    launch: int
    code: int | None = None
    signal: str | None = None
    others_left: bool = False
    oom: bool = False
    why: str = ""
    """The reason if the program of a Command was not executed."""
    cpu: float = 0.0
    """The CPU seconds of the process, and of the children that it has waited for."""


@frozen
class Leftover:
    """A process of a task that outlived the main one or was signaled beside it, and the way it ended."""

    pid: int
    name: str = ""
    code: int | None = None
    signal: str | None = None
    asked: str = ""
    """The signal that was sent to end it."""
    killed: bool = False
    """SIGKILL was sent to it."""


def leftover_as_json(leftover: Leftover) -> dict[str, Any]:
    return {each.name: getattr(leftover, each.name) for each in fields(leftover)}


@frozen
class TaskGone:
    """No process of this launch is left."""

    launch: int
    leftovers: tuple[Leftover, ...] = ()


@frozen
class DeadlinePassed:
    """The deadline of a task has passed."""

    key: Key


Fact = (
    Requested
    | SupervisorStarted
    | ContextReloaded
    | OrdersUnheard
    | TaskLaunched
    | LaunchFailed
    | TaskExecuted
    | TaskDeclared
    | ReadyLineSeen
    | TaskReady
    | TaskReloading
    | TaskUpdated
    | TaskSaid
    | MessagesMissed
    | MessagePoisoned
    | WatchdogFed
    | HealthReported
    | TopicHeard
    | TopicSilent
    | MemoryMeasured
    | TimeoutExtended
    | MainNamed
    | MainChanged
    | TaskExited
    | TaskGone
    | DeadlinePassed
)

# --- effects


@frozen
class Launch:
    """Start the process of a task. A repeated order is harmless: the keeper forks one task for a launch ID.

    The cause is read from the world when the order is carried out, so it has all rules that fired at the same
    time.
    """

    launch: int
    key: Key


@frozen
class LaunchAuxiliary:
    """Fork an auxiliary process of the launch `of`. Its end is reported under a launch ID of its own."""

    launch: int
    of: int
    key: Key
    name: AuxiliaryName
    command: tuple[str, ...] = ()
    """The program that it executes, and its arguments."""


@frozen
class Signal:
    """Send `signal` to the main process of a launch and `others` to its other processes. TaskGone follows
    when no process of the launch is left.
    """

    launch: int
    key: Key
    signal: str
    others: str = ""


@frozen
class SendSignal:
    """Send an operator's signal to the main process of a launch, or to all its processes. This is an order of
    its own, because a process need not end from it.
    """

    launch: int
    key: Key
    signal: str
    all: bool


@frozen
class SetMain:
    """Make another process of a launch its main one. MainChanged follows if that process belongs to the
    launch.
    """

    launch: int
    pid: int
    start_time: int


@frozen
class KillAll:
    """SIGKILL every process of a launch; TaskGone follows."""

    launch: int
    key: Key
    stacks: bool = False
    """Have the main process write the stacks of its threads to its log before, if it can."""


@frozen
class OpenBarrier:
    """Let the tasks of these launches begin their first steps. A repeated order is harmless."""

    launches: tuple[int, ...]


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
    service: TaskService | None = None
    """The definition of the task. It is in the effect because a reload may remove the task before this is
    published.
    """


@frozen
class PublishProcess:
    """Publish that a task is being started or stopped."""

    key: Key
    action: str
    service: TaskService | None = None


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
    """The poison messages before this one that were not reported, and this one if `message` is None."""
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


Effect = (
    Launch
    | LaunchAuxiliary
    | Signal
    | SendSignal
    | SetMain
    | KillAll
    | OpenBarrier
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
