"""The input of `step`: what has happened, in the past tense. The output is in effects.py.

A fact names a process by its launch ID, never by a PID: the kernel reuses PIDs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from zmsvc.core.access import Verb
from zmsvc.core.carried import Carried
from zmsvc.core.frozen import frozen
from zmsvc.core.model import Context
from zmsvc.core.poison import Poison
from zmsvc.core.probing import Health
from zmsvc.core.task_key import Key


@frozen
class Origin:
    """The sender of an order: `by` is operator, bus, context or signal; `uid` is the sender's user ID, None
    if unknown.
    """

    by: str
    uid: int | None = None


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
    """Of the order `signal`: send it to every process of the tasks, not only to the main ones."""
    now: bool = False
    """Of a second `exit`: kill the tasks that have not ended."""
    home: bool = False
    """Of the order `exit`: leave the tasks on other hosts to the next supervisor."""


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
    acknowledged. If `keeper_id` has changed, no earlier process is alive.
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
    carried: Carried | None = None
    """The decisions that another host has written to a file. If the keeper is new, they replace those of this
    world.
    """
    generation: int = 0
    """The number of starts of the context on any host, as far as a cluster counts them. Each generation has
    launch IDs of its own, so none is used twice even if this supervisor does not have the state of its
    predecessor.
    """


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
    """The probe process of a task reports a change of the health of the task. The launch is that of the probe
    process.
    """

    launch: int
    health: Health
    text: str = ""
    """The reason of a failed probe."""


@frozen
class TopicHeard:
    """A task has published its first message on the topic of its `<ready>`. A task in Python says so itself,
    and the watcher process says it of a Command.
    """

    launch: int
    topic: str


@frozen
class TopicSilent:
    """A task has published nothing on an expected topic for too long. A task in Python says so itself, and
    the watcher process says it of a Command.
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


MAX_SHOWN = 100
"""The number of leftovers of a launch that status, answers and history name: the first ones. 30,000 would
have 3 MB, in each row of the history.
"""


def leftovers_shown(leftovers: Sequence[Leftover]) -> tuple[list[dict[str, Any]], int]:
    """Return the leftovers that are named, and the number of the others."""
    return [*map(leftover_as_json, leftovers[:MAX_SHOWN])], max(0, len(leftovers) - MAX_SHOWN)


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


TaskFact = (
    TaskLaunched
    | LaunchFailed
    | TaskExecuted
    | TaskDeclared
    | TaskReady
    | TaskReloading
    | TaskUpdated
    | ReadyLineSeen
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
)
"""A fact about one launch."""


@frozen
class OnHost:
    """A fact about a launch on another host, and the epoch of that host. The fact of an earlier epoch comes
    too late.
    """

    host: str
    epoch: str
    fact: TaskFact


@frozen
class HostJoined:
    """The keeper of a host has reported its children, and the ends that no supervisor has acknowledged. If
    the epoch has changed, no earlier process of the host is alive. `greeting` numbers these reports: a lower
    number within one epoch comes too late.
    """

    host: str
    epoch: str
    greeting: int
    children: tuple[Child, ...] = ()
    exits: frozenset[int] = frozenset()


@frozen
class HostSilent:
    """The host that has joined by this greeting does not answer any more. Its processes may be alive, so no
    task starts elsewhere.
    """

    host: str
    epoch: str
    greeting: int


@frozen
class HostLost:
    """A host is off for certain, and with it every process of this epoch. The epoch is the one that the world
    had when the cluster was asked; empty if it had none.
    """

    host: str
    epoch: str


@frozen
class DrainRequested:
    """An operator has ordered to move all tasks away from a host, or, if not `drained`, to let tasks run
    there again.
    """

    host: str
    drained: bool
    origin: Origin
    request: int | None = None
    block: bool = True


Fact = (
    Requested
    | SupervisorStarted
    | ContextReloaded
    | OrdersUnheard
    | TaskFact
    | DeadlinePassed
    | OnHost
    | HostJoined
    | HostSilent
    | HostLost
    | DrainRequested
)
