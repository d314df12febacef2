"""What is so now: the transactions of a context, their tasks, and who waits for an answer. Frozen; `step`
makes the next one.

Times are monotonic seconds of this boot. Everything but the waiters survives the supervisor in the state
file, row by row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from zmsvc.core.cause import Cause
from zmsvc.core.cause import as_json as cause_as_json
from zmsvc.core.cause import from_json as cause_from_json
from zmsvc.core.events import Ended, Key, Verb, ended_as_json
from zmsvc.core.lifecycle import LIVE, RESTING, STATE_OF, State, SubState
from zmsvc.core.model import Context, ServiceType, TaskService


class Reason(StrEnum):
    """Why a task ended. The first two are no failures."""

    EXITED = "exited"
    REQUESTED = "requested"
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    OOM_KILL = "oom-kill"
    WATCHDOG = "watchdog"
    NOT_READY = "not-ready"
    CANNOT_LAUNCH = "cannot-launch"
    START_LIMIT = "start-limit"
    LOST = "lost"
    """The keeper died, and all of the context with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a task ended last. `at` is monotonic."""

    code: int | None = None
    signal: str | None = None
    reason: Reason
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task of one transaction."""

    sub_state: SubState = SubState.WAITING
    since: float = 0.0
    """When it came into its state; one sub-state of it may have followed another since."""
    deadline: float | None = None
    """When it wants to be woken: READY, stop, watchdog or back-off, as its state says."""
    launch: int = 0
    """The number of its last launch; 0 before the first."""
    pid: int | None = None
    start_time: int = 0
    """Of the process, in clock ticks since boot, from /proc: with the PID and the boot it is the process's
    identity.
    """
    launched_at: float = 0.0
    restarts: int = 0
    action: str = ""
    """The last word about it on the wire."""
    exit: Exit | None = None
    status: str = ""
    """What it said last with STATUS=, or why it failed."""
    stop_reason: Reason | None = None
    """Why it is being ended, when it is."""
    restart_pending: bool = False
    """Start it again when it has stopped."""
    rules_suppressed: bool = False
    """Its end fires no rules."""
    stopped_by_operator: bool = False
    """The operator stopped it: no rule starts it until somebody orders it."""
    failures: int = 0
    """Failures in a row without a good uptime between them."""
    quick_starts: int = 0
    """Starts by rule that came too quickly after each other, in a row."""
    starts: tuple[float, ...] = ()
    """When rules started it, as far back as its start limit looks."""
    firings: int = 0
    """Rules that fired to start it since its last launch: what waits, is joined with what waits, or was
    refused.
    """
    cause: Cause = field(default_factory=Cause)
    """The cause of its last launch, or of the next one if that is pending."""
    update: Mapping[str, Any] | None = None
    """The items of its last update."""
    sequence: int = 0
    """The number of the last update that was taken, so that a repeated one is known."""
    dropped: int = 0
    """Updates that came faster than the limit and were not passed on."""
    tokens: float = 0.0
    """Updates it may report now; refilled with time up to the burst."""
    tokens_at: float = 0.0
    leftovers: tuple[Ended, ...] = ()
    """Processes that it left behind at its last end, and what ended each."""
    last_definition: Mapping[str, Any] | None = None
    """What the file said of it before a reload took it out: its messages tell that until it has ended."""

    @property
    def state(self) -> State:
        return STATE_OF[self.sub_state]

    @property
    def live(self) -> bool:
        return self.sub_state in LIVE

    @property
    def resting(self) -> bool:
        return self.sub_state in RESTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One run of the context. An open one is resumed when the context starts again."""

    id: str
    open: bool = True
    opened: float = 0.0
    closed: float = 0.0
    """When it was stopped; of an earlier boot a number not above 0, which is greater for what was stopped
    later.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRequest:
    """Somebody waits until an order was carried out. `request` 0 is the start of the context itself."""

    request: int
    verb: Verb
    transactions: tuple[str, ...]
    keys: tuple[Key, ...]
    remaining: frozenset[Key]
    ending: frozenset[Key] = frozenset()
    """Those of `keys` whose end is waited for; of the others it is the start."""
    later: frozenset[Key] = frozenset()
    """Those of `keys` whose launch of now has to end first: the start that is waited for is that of the
    next one.
    """
    stopped_by: Mapping[Key, str] = field(default_factory=dict)
    """Who has stopped which of `keys` before it had started."""
    failures: tuple[str, ...] = ()
    opened: bool = False
    """The order opened its transaction."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What its answer says beside what became of the tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that is known and decided of one context."""

    context: Context
    keeper_id: str = ""
    """The keeper that holds the processes; another one means that all of them are gone."""
    stopping: bool = False
    next_launch: int = 1
    keeper_can_ask: bool = True
    """The keeper can ask all processes of a launch to end."""
    transactions: Mapping[str, Transaction] = field(default_factory=dict)
    tasks: Mapping[Key, Task] = field(default_factory=dict)
    launches: Mapping[int, Key] = field(default_factory=dict)
    """Which task a live launch belongs to."""
    pending: tuple[PendingRequest, ...] = ()


def service_of(context: Context, task_id: str, task: Task | None) -> TaskService | None:
    """What the file says of a task, or said before a reload took it out; None when neither is known."""
    service = context.tasks.get(task_id)
    if service is not None or task is None or task.last_definition is None:
        return service
    return _recalled(task_id, task.last_definition)


_TOLD = ("instance", "topic", "service_type", "description", "service_name", "device_action", "source")


def remembered(service: TaskService) -> dict[str, Any]:
    """What is kept of a task that a reload takes out (`Task.removed`), as plain JSON values."""
    return {name: getattr(service, name) for name in _TOLD}


def _recalled(task_id: str, kept: Mapping[str, Any]) -> TaskService:
    values = {name: kept[name] for name in _TOLD}
    return TaskService(id=task_id, **{**values, "service_type": ServiceType(kept["service_type"])})


def transaction_state(world: World, transaction: str, tasks: Collection[Task]) -> State:
    """The state of a transaction, from that of its tasks.

    They are given, because to look for them anew for each of many transactions takes the square of their
    number.
    """
    if not world.transactions[transaction].open or world.stopping:
        return State.DEACTIVATING if any(task.live for task in tasks) else State.INACTIVE
    if any(task.state is State.FAILED for task in tasks):
        return State.FAILED
    return State.ACTIVATING if any(coming_up(task) for task in tasks) else State.ACTIVE


def coming_up(task: Task) -> bool:
    """Tell whether a task is on its way to READY=1: also while it stops to start again, or because it was
    not ready in time.
    """
    if task.state is not State.DEACTIVATING:
        return task.state is State.ACTIVATING
    was_ready = task.action in ("started", "updated")
    return task.restart_pending or not (was_ready or task.stop_reason is Reason.REQUESTED)


def task_to_row(task: Task) -> dict[str, Any]:
    """A task as plain JSON values; fields that have their default are left out.

    A supervisor of an earlier zmsvc knows no `final-sigterm`: for it what was left behind is about to be
    killed.
    """
    row = {
        _IN_ROW.get(name, name): value
        for name, fresh in _FRESH.items()
        if (value := getattr(task, name)) != fresh
    }
    if task.sub_state is SubState.FINAL_SIGTERM:
        row["sub"] = SubState.FINAL_SIGKILL
    if "cause" in row:
        row["cause"] = cause_as_json(task.cause)
    if task.leftovers:
        row["ended"] = list(map(ended_as_json, task.leftovers))
    if task.exit is not None:
        row["exit"] = {name: getattr(task.exit, name) for name in _EXIT}
    return row


_FRESH = {f.name: getattr(Task(), f.name) for f in fields(Task)}
_EXIT = tuple(f.name for f in fields(Exit))
_IN_ROW = {
    "sub_state": "sub",
    "stop_reason": "verdict",
    "restart_pending": "again",
    "rules_suppressed": "quiet",
    "stopped_by_operator": "held",
    "quick_starts": "laps",
    "firings": "fired",
    "leftovers": "ended",
    "last_definition": "removed",
}
"""The names of fields in the state file, where they differ: files of earlier releases have them."""
_FROM_ROW = {kept: name for name, kept in _IN_ROW.items()}


def task_from_row(row: Mapping[str, Any], sub: str | None = None) -> Task:
    """The reverse of `task_to_row`; `sub` is kept beside it. Raises KeyError, TypeError or ValueError for
    what was not written by it.
    """
    values = dict(row)
    if sub == SubState.FINAL_SIGTERM:
        values["sub"] = sub
    if "sub" in values:
        values["sub"] = SubState(values["sub"])
    if values.get("verdict") is not None:
        values["verdict"] = Reason(values["verdict"])
    if values.get("exit") is not None:
        end = values["exit"]
        values["exit"] = Exit(
            code=end["code"], signal=end["signal"], reason=Reason(end["reason"]), at=end["at"]
        )
    if values.get("removed") is not None:
        _recalled("", values["removed"])
    if "cause" in values:
        values["cause"] = cause_from_json(values["cause"])
    if "starts" in values:
        values["starts"] = tuple(values["starts"])
    if "ended" in values:
        values["ended"] = tuple(Ended(**entry) for entry in values["ended"])
    return Task(**{_FROM_ROW.get(name, name): value for name, value in values.items()})


def status_at(task: Task, now: float) -> str:
    """Return the status of a task as it is shown at this time: of one that waits for its next start it is
    a count-down.
    """
    if task.sub_state is not SubState.BACK_OFF or task.deadline is None:
        return task.status
    slowed = ", slowed: its rules start it too quickly" if task.quick_starts > task.failures else ""
    return f"starts again in {max(0.0, round(task.deadline - now, 3)):g} s{slowed}"
