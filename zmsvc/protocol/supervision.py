"""The line between the keeper and the supervisor: the supervisor orders, the keeper reports.

The keeper sends `Hello` first. The last report of a launch is `Exited`, or `Gone` when the supervisor ordered
to kill what was left. The keeper repeats an end to each new supervisor until one acknowledges it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zmsvc.protocol.codec import Codec
from zmsvc.protocol.launch import LaunchSpec

# --- orders of the supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduce:
    """The supervisor says which protocol it uses from here on, and its version. A keeper of protocol 0 is
    not told.
    """

    protocol: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalTask:
    """Send a signal to the main process of a launch, if it is there."""

    launch: int
    signal: str
    rest: str = ""
    """Signal that asks the other processes of the launch to end; `Gone` follows when it has no process any
    more. Of protocol 2.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMain:
    """Take another process of a launch for its main one, if it is one; `MainProcess` follows when it
    is. Of protocol 3.
    """

    launch: int
    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KillTask:
    """SIGKILL every process of a launch; `Gone` follows."""

    launch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """The end of this launch is in the state file: the keeper may forget it."""

    launch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDevice:
    """Run the device with these settings, if it does not run yet."""

    front: str
    """Endpoint that takes messages."""
    back: str
    """Endpoint that gives messages to subscribers."""
    hwm: int
    expect: int
    """Subscriptions that a device which was started again waits for before it reads messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartDevice:
    """End the device in order and run another one, which ends each connection.

    A keeper that does not know this order complains, and the device stays.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceDevice:
    """The device with this PID hangs: kill it and start another one. A keeper of before zmsvc 1.1
    complains and does nothing.
    """

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Every task is stopped: end the context with this exit status."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reexec:
    """The supervisor is about to leave for another one, which is to be started at once."""


Order = (
    LaunchSpec
    | Introduce
    | SignalTask
    | SetMain
    | KillTask
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
        "ack": Acknowledge,
        "device": RunDevice,
        "restart-device": RestartDevice,
        "replace-device": ReplaceDevice,
        "leave": Leave,
        "reexec": Reexec,
    }
)

# --- reports of the keeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A launch was forked; or, in `Hello`, is there."""

    launch: int
    pid: int
    start_time: int
    """Of the process, in clock ticks since boot; with the PID its identity."""
    executed: bool = False
    """Of a Command: its program runs."""
    tag: str = ""
    """The task's id where several tasks share the process."""
    uid: int | None = None
    """Of the user, where that is not the daemon's own: which `NotifySocket` the task has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """The program of a Command runs."""

    launch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MainProcess:
    """Another process is the main one of a launch from here on. Sent to supervisors of protocol 3."""

    launch: int
    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFailed:
    """A launch could not be forked."""

    launch: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """The main process of a launch ended, by exit code or by signal."""

    launch: int
    pid: int
    tag: str = ""
    left: bool
    """Other processes of the launch are still there."""
    code: int | None
    signal: str | None
    core: bool = False
    oom: bool = False
    """The kernel killed it for want of memory. zmsvc 0.9 did not tell."""
    why: str = ""
    """Of a Command whose program was not executed: the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOver:
    """A process of a launch beside its main one, and how it ended, where the keeper has reaped it."""

    pid: int
    name: str
    code: int | None
    signal: str | None
    core: bool = False
    asked: str = ""
    """The signal that asked it to end."""
    killed: bool = False
    """SIGKILL was sent to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """No process of this launch is left."""

    launch: int
    ended: tuple[LeftOver, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """The device as it is now."""

    pid: int | None = None
    restarts: int = 0
    ready: bool = False
    problem: str = ""
    """Why it could not be started."""
    dropped: Mapping[str, Any] = field(default_factory=dict)
    """How many connections this device and those before it refused or ended, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteState:
    """The process out of which tasks are forked is there, or is another one now."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySocket:
    """The socket on which tasks that run as this user send notifications; its descriptor comes beside the
    message.
    """

    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message: what the keeper holds."""

    epoch: str
    """Names the keeper: another one means that no process of before is alive."""
    restarts: int
    """How many supervisors it has had before this one."""
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
    """Empty until the zygote has said it; `ZygoteState` follows."""
    users: int = 0
    """So many `NotifySocket` follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAll:
    """A person or systemd asked the keeper by this signal to end the context."""

    signal: str = "SIGTERM"
    now: bool = False
    """Asked again by Ctrl-C: what has not ended is to be killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reload:
    """The keeper got SIGHUP."""


Report = (
    Hello
    | Launched
    | Executed
    | MainProcess
    | LaunchFailed
    | Exited
    | Gone
    | DeviceState
    | ZygoteState
    | NotifySocket
    | StopAll
    | Reload
)

REPORTS = Codec[Report](
    {
        "hello": Hello,
        "launched": Launched,
        "executed": Executed,
        "main": MainProcess,
        "launch-failed": LaunchFailed,
        "exited": Exited,
        "gone": Gone,
        "device": DeviceState,
        "zygote": ZygoteState,
        "notify-socket": NotifySocket,
        "stop": StopAll,
        "reload": Reload,
    }
)
