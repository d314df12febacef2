"""The channel between the keeper and the supervisor: the supervisor sends orders, the keeper sends reports.

The keeper sends `Hello` first. The last report of a launch is `Exited`, or `Gone` if the supervisor has
ordered to signal or kill its remaining processes. The keeper repeats `Exited` to each new supervisor until
one acknowledges it; it sends `Gone` again after the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.protocol.codec import Codec
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.protocol.watching import TopicHeard, TopicSilent, WatchTopics

# --- orders of the supervisor


@frozen
class Introduce:
    """The protocol that the supervisor uses from here on, and the supervisor's version. This order is not
    sent to a keeper of protocol 0.
    """

    protocol: int
    version: str


@frozen
class SignalTask:
    """Send a signal to the main process of a launch, if it has not ended."""

    launch: int
    signal: str
    """Empty: signal only the other processes."""
    rest: str = ""
    """The signal that asks the other processes of the launch to end. `Gone` follows when no process is left.
    Since protocol 2.
    """
    all: bool = False
    """Send the signal to every process of the launch. The signal is not meant to end them, so `Gone` does not
    follow. Since protocol 4.
    """


@frozen
class SetMain:
    """Make another process of a launch its main one, if it belongs to the launch; then `MainProcess` follows.
    Since protocol 3.
    """

    launch: int
    pid: int
    start_time: int


@frozen
class KillTask:
    """Send SIGKILL to every process of a launch; `Gone` follows."""

    launch: int


@frozen
class OpenBarrier:
    """Let the tasks of these launches begin their first steps. Since protocol 5."""

    launches: tuple[int, ...]


@frozen
class HoldSockets:
    """Hold these sockets of tasks, and close every other one. Since protocol 5."""

    sockets: tuple[Mapping[str, Any], ...]
    """Each as `core.listening.ListenSocket.as_json`."""


@frozen
class HoldStores:
    """Hold the descriptor stores of these tasks, and empty every other one. Since protocol 5. The answer is
    `StoreContents`.
    """

    limits: Mapping[str, Any]
    """The number of descriptors that each may have, by `TRANSACTION:TASK`."""


@frozen
class KeepWatches:
    """End the watch of each launch that is not one of these. Since protocol 5."""

    launches: tuple[int, ...]


@frozen
class Acknowledge:
    """The end of this launch is in the state file, so the keeper may forget it."""

    launch: int


@frozen
class RunDevice:
    """Run the device with these settings, unless one runs already."""

    front: str
    """The endpoint that publishers connect to."""
    back: str
    """The endpoint that subscribers connect to."""
    hwm: int
    expect: int
    """Subscriptions for which a restarted device waits before it reads messages."""


@frozen
class RestartDevice:
    """Stop the device with SIGTERM and run another one. This ends each connection. A keeper of zmsvc 1.0
    ignores this order.
    """


@frozen
class ReplaceDevice:
    """The device with this PID hangs: kill it and start another one. A keeper of zmsvc 1.0 ignores this
    order.
    """

    pid: int


@frozen
class Leave:
    """All tasks have stopped: end the context with this exit status."""

    status: int


@frozen
class Reexec:
    """The supervisor ends in favor of another one, which the keeper starts at once."""


Order = (
    LaunchSpec
    | Introduce
    | SignalTask
    | SetMain
    | KillTask
    | OpenBarrier
    | HoldSockets
    | HoldStores
    | KeepWatches
    | WatchTopics
    | Acknowledge
    | RunDevice
    | RestartDevice
    | ReplaceDevice
    | Leave
    | Reexec
)

ORDERS = Codec[Order](
    {
        "launch": LaunchSpec,
        "introduce": Introduce,
        "signal": SignalTask,
        "set-main": SetMain,
        "kill": KillTask,
        "open-barrier": OpenBarrier,
        "hold-sockets": HoldSockets,
        "hold-stores": HoldStores,
        "keep-watches": KeepWatches,
        "watch-topics": WatchTopics,
        "ack": Acknowledge,
        "device": RunDevice,
        "restart-device": RestartDevice,
        "replace-device": ReplaceDevice,
        "leave": Leave,
        "reexec": Reexec,
    }
)

# --- reports of the keeper


@frozen
class Launched:
    """A launch was forked. In `Hello` it means also that the launch still runs."""

    launch: int
    pid: int
    start_time: int
    """Start time of the process in clock ticks since boot. With the PID it identifies the process."""
    executed: bool = False
    """True if the program of a Command runs."""
    tag: str = ""
    """The task's ID if several tasks share the process."""
    uid: int | None = None
    """User ID of the task, if it is not the daemon's own. It selects the task's `NotifySocket`."""
    auxiliary_of: int = 0
    """The launch ID of the task, if the process is an auxiliary process of it. Since protocol 5."""
    line_seen: bool = False
    """True if the task has written the line that its `ready_line` names. Since protocol 5."""


@frozen
class Executed:
    """The program of a Command runs."""

    launch: int


@frozen
class LineSeen:
    """A task has written the line that its `ready_line` names. Since protocol 5."""

    launch: int


@frozen
class MainProcess:
    """Another process is the main one of a launch from here on. Since protocol 3."""

    launch: int
    pid: int
    start_time: int


@frozen
class LaunchFailed:
    """A launch could not be forked."""

    launch: int
    why: str


@frozen
class Exited:
    """The main process of a launch ended, by exit code or by signal."""

    launch: int
    pid: int
    tag: str = ""
    left: bool
    """True if other processes of the launch still exist."""
    code: int | None
    signal: str | None
    core: bool = False
    oom: bool = False
    """True if the kernel killed the process because memory ran out."""
    why: str = ""
    """The reason, if the program of a Command was not executed."""
    cpu: float = 0.0
    """The CPU seconds of the process and of the children that it has waited for; 0 from a keeper of an
    earlier release, and for a task that shares its process.
    """


@frozen
class Leftover:
    """A process of a launch other than the main one, and how it ended, if the keeper has reaped it."""

    pid: int
    name: str
    code: int | None
    signal: str | None
    core: bool = False
    asked: str = ""
    """The signal that asked the process to end."""
    killed: bool = False
    """True if SIGKILL was sent to the process."""


@frozen
class Gone:
    """No process of this launch is left."""

    launch: int
    ended: tuple[Leftover, ...] = ()


@frozen
class DeviceState:
    """The current state of the device."""

    pid: int | None = None
    restarts: int = 0
    ready: bool = False
    problem: str = ""
    """The reason why the device could not be started."""
    dropped: Mapping[str, Any] = field(default_factory=dict)
    """How many connections this device and the devices before it refused or ended, by reason."""


@frozen
class ZygoteState:
    """The zygote, which forks tasks, has started or was replaced."""

    version: str


@frozen
class NotifySocket:
    """The socket for notifications of tasks that run as this user. Its descriptor is sent with the
    message.
    """

    uid: int


@frozen
class StoreContents:
    """The contents of the descriptor stores have changed. If a descriptor comes with the message, it is the
    channel to the fdstore process, which replaces the earlier one.
    """

    stored: Mapping[str, Any] = field(default_factory=dict)
    """The number of descriptors in each store that has some, by `TRANSACTION:TASK`."""
    refused: Mapping[str, Any] = field(default_factory=dict)
    """How many descriptors were refused because the store was full."""
    closing: Mapping[str, Any] = field(default_factory=dict)
    """How many descriptors of each task wait to be closed."""


@frozen
class Hello:
    """The keeper's first message: the processes, ends and settings that it has."""

    epoch: str
    """The ID of the keeper. If it has changed, no earlier process is alive."""
    restarts: int
    """Number of supervisors before this one."""
    stopping: bool
    children: tuple[Launched, ...]
    ends: tuple[Exited, ...]
    device: DeviceState
    cgroup: str | None
    """Directory of the tasks' control groups."""
    curve: tuple[str, ...] | None
    protocol: int = 0
    version: str = ""
    zygote_version: str = ""
    """Empty until the zygote has greeted the keeper; `ZygoteState` follows then."""
    users: int = 0
    """Number of `NotifySocket` messages that follow."""


@frozen
class StopAll:
    """The keeper got this signal, by which a person or systemd ends the context."""

    signal: str = "SIGTERM"
    now: bool = False
    """True if Ctrl-C was pressed again: tasks that have not ended are killed."""


@frozen
class Reload:
    """The keeper got SIGHUP."""


Report = (
    Hello
    | Launched
    | Executed
    | LineSeen
    | TopicHeard
    | TopicSilent
    | MainProcess
    | LaunchFailed
    | Exited
    | Gone
    | DeviceState
    | ZygoteState
    | NotifySocket
    | StoreContents
    | StopAll
    | Reload
)

REPORTS = Codec[Report](
    {
        "hello": Hello,
        "launched": Launched,
        "executed": Executed,
        "line-seen": LineSeen,
        "topic-heard": TopicHeard,
        "topic-silent": TopicSilent,
        "main": MainProcess,
        "launch-failed": LaunchFailed,
        "exited": Exited,
        "gone": Gone,
        "device": DeviceState,
        "zygote": ZygoteState,
        "notify-socket": NotifySocket,
        "stores": StoreContents,
        "stop": StopAll,
        "reload": Reload,
    }
)
