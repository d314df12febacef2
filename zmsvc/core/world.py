"""The state of a context: its transactions, their tasks, and pending requests. It is frozen; `step` returns
the next one. The rows of the state file are made and read here; writing them is host/state_file.py's job.

Times are monotonic seconds of this boot. Everything but the pending requests survives the supervisor in the
state file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import field, fields, replace
from enum import StrEnum
from operator import attrgetter
from typing import Any

from zmsvc.core.access import Verb
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.cause import LaunchCause
from zmsvc.core.cause import as_json as cause_as_json
from zmsvc.core.cause import from_json as cause_from_json
from zmsvc.core.cause import summary as cause_summary
from zmsvc.core.facts import Leftover, leftover_as_json, leftovers_shown
from zmsvc.core.frozen import frozen
from zmsvc.core.hosts import Host
from zmsvc.core.lifecycle import LIVE, RESTING, STATE_OF, State, SubState
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.probing import Health
from zmsvc.core.service_options import ServiceType
from zmsvc.core.task_key import Key


class Reason(StrEnum):
    """The reason why a task ended. The first two are not failures."""

    EXITED = "exited"
    REQUESTED = "requested"
    EXIT_CODE = "exit-code"
    SIGNAL = "signal"
    OOM_KILL = "oom-kill"
    WATCHDOG = "watchdog"
    UNHEALTHY = "unhealthy"
    """The probe of `<health>` has failed as many times in a row as its `retries` says."""
    SILENT = "silent"
    """The task has published nothing on a topic of its `<expect>` for too long."""
    MEMORY_LIMIT = "memory-limit"
    """The task used more memory than its `memory_restart`."""
    NOT_READY = "not-ready"
    CANNOT_LAUNCH = "cannot-launch"
    START_LIMIT = "start-limit"
    LOST = "lost"
    """No exit status is known: the keeper died, and all processes of the context with it, or the keeper has
    neither a process nor an end of this launch.
    """


@frozen
class Exit:
    """The last end of a task. `at` is monotonic."""

    code: int | None = None
    signal: str | None = None
    reason: Reason
    at: float = 0.0


@frozen
class Auxiliary:
    """An auxiliary process of a live task, from the order to fork it until its end."""

    launch: int
    """The launch ID of this process."""
    name: AuxiliaryName
    command: tuple[str, ...] = ()
    since: float = 0.0
    """The time of the order."""


class Stage(StrEnum):
    """The place of a task at the barrier of a common start."""

    AWAITED = "awaited"
    """It has not sent READY=1."""
    WAITING = "waiting"
    """It has sent READY=1, and waits before its first step."""
    PASSED = "passed"
    """It has been told to go on."""


@frozen
class Barrier:
    """The barrier before the first step of a task that is started together with others."""

    start: int
    """The number of the common start."""
    stage: Stage = Stage.AWAITED
    topics: tuple[str, ...] | None = None
    """The topics that the task hears; None if it has not declared them."""
    publishes: tuple[str, ...] | None = None
    """The topics that it publishes; None if that may be any."""

    @property
    def is_awaited(self) -> bool:
        """True if another task may publish a message before this task hears its topic."""
        return self.stage is Stage.AWAITED and self.topics != ()


@frozen
class AwaitedCounts:
    """The number of tasks of a common start that others wait for, of those among them whose topics are
    unknown, and of those that hear each topic.
    """

    tasks: int = 0
    unknown: int = 0
    topics: Mapping[str, int] = field(default_factory=dict)

    def plus(self, barrier: Barrier, sign: int) -> AwaitedCounts:
        """Return the counts with a task more (`sign` is 1) or less (-1)."""
        if barrier.topics is None:
            return replace(self, tasks=self.tasks + sign, unknown=self.unknown + sign)
        topics = dict(self.topics)
        for topic in set(barrier.topics):
            if left := topics.pop(topic, 0) + sign:
                topics[topic] = left
        return replace(self, tasks=self.tasks + sign, topics=topics)


@frozen
class Task:
    """One task of one transaction."""

    sub_state: SubState = SubState.WAITING
    since: float = 0.0
    """The time at which the task entered its state. Its sub-state may have changed since."""
    deadline: float | None = None
    """The time at which the task needs `DeadlinePassed`: the end of the limit for READY=1, of the stop
    timeout, of the watchdog interval or of the back-off, depending on its sub-state.
    """
    launch: int = 0
    """The number of its last launch; 0 before the first."""
    pid: int | None = None
    start_time: int = 0
    """Start time of the process in clock ticks since boot, from /proc. PID, start time and boot ID together
    identify a process.
    """
    launched_at: float = 0.0
    restarts: int = 0
    action: str = ""
    """The last action that was published about the task."""
    exit: Exit | None = None
    status: str = ""
    """The task's last STATUS= text, or the reason why it failed."""
    stop_reason: Reason | None = None
    """The reason why the task is being stopped; None if it is not."""
    restart_pending: bool = False
    """True if the task is to be started again when it has stopped."""
    rules_suppressed: bool = False
    """True if the task's end fires no rules."""
    stopped_by_operator: bool = False
    """True if an operator stopped the task: no rule starts it until an operator, the context or the bus
    orders it.
    """
    failures: int = 0
    """Consecutive failures without a sufficiently long uptime between them."""
    quick_starts: int = 0
    """Consecutive starts by rules that followed each other too quickly."""
    starts: tuple[float, ...] = ()
    """Times at which rules started the task, as far back as its start limit counts."""
    reload_at: float = 0.0
    """The time at which the task was last sent its reload signal, while it has not answered it by READY=1."""
    firings: int = 0
    """Firings since the last launch of rules that start the task. Those that joined a pending start or were
    refused count, too.
    """
    counted: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The times of the events that rules with an `after` have counted, by the text of the rule."""
    has_failed: bool = False
    """True if the task has failed since it was last ready. Only a task with rules for on_recover has this."""
    cause: LaunchCause = field(default_factory=LaunchCause)
    """The cause of its last launch, or of the next one if that is pending."""
    update: Mapping[str, Any] | None = None
    """The items of the task's last update."""
    sequence: int = 0
    """The number of the last accepted update, which identifies a repeated one."""
    dropped: int = 0
    """Updates beyond the rate limit, which were not published."""
    missed: int = 0
    """Messages of the bus that the current or last launch has missed, as far as it knows."""
    poisoned: int = 0
    """Messages that the current or last launch could not handle."""
    poison_tokens: float = 0.0
    """Tokens of the rate limit of poison messages."""
    poison_tokens_at: float = 0.0
    tokens: float = 0.0
    """Tokens of the rate limit: updates that the task may report now. They refill with time up to the burst.
    """
    tokens_at: float = 0.0
    leftovers: tuple[Leftover, ...] = ()
    """The processes that the task left behind at its last end, and how each ended."""
    auxiliaries: tuple[Auxiliary, ...] = ()
    """The auxiliary processes of the current launch, in the order of their starts."""
    health: Health | None = None
    """The health of a running task that has `<health>`."""
    health_text: str = ""
    """The reason why the last probe has failed."""
    probe_at: float | None = None
    """The time at which a probe process that has ended is started again."""
    probe_ends: int = 0
    """The number of ends in a row of a probe process."""
    barrier: Barrier | None = None
    """The barrier of the start that the task has in common with others, until it has ended."""
    host: str = ""
    """The host of its live launch; empty: that of the supervisor."""
    last_definition: Mapping[str, Any] | None = None
    """The task's definition before a reload removed it. Messages about the task use it until the task has
    ended.
    """

    @property
    def state(self) -> State:
        return STATE_OF[self.sub_state]

    @property
    def alarm(self) -> float | None:
        """The next time at which the task needs `DeadlinePassed`."""
        due = [at for at in (self.deadline, self.probe_at) if at is not None]
        return min(due, default=None)

    @property
    def live(self) -> bool:
        return self.sub_state in LIVE

    @property
    def resting(self) -> bool:
        return self.sub_state in RESTING


def with_changes(task: Task, changes: Mapping[str, Any]) -> Task:
    """Return a copy of a task with other values in some fields.

    Each start and each end of a task makes several copies. `dataclasses.replace` takes twice as long: it
    looks each field up by its name.
    """
    made = object.__new__(Task)
    for set_field, value in zip(_SETTERS.values(), _VALUES(task), strict=True):
        set_field(made, value)
    for name, value in changes.items():
        _SETTERS[name](made, value)
    return made


_SETTERS: dict[str, Callable[[Task, Any], None]] = {
    each.name: Task.__dict__[each.name].__set__ for each in fields(Task)
}
_VALUES = attrgetter(*_SETTERS)


@frozen
class Transaction:
    """A transaction: one run of the context. An open one is resumed when the context starts again."""

    id: str
    open: bool = True
    opened: float = 0.0
    closed: float = 0.0
    """The time at which the transaction was stopped; after a reboot a number of 0 or less, which keeps only
    the order of the stops.
    """


@frozen
class PendingRequest:
    """A request whose client waits until the order is carried out. `request` 0 is the start of the context
    itself.
    """

    request: int
    verb: Verb
    transactions: tuple[str, ...]
    keys: tuple[Key, ...]
    remaining: frozenset[Key]
    ending: frozenset[Key] = frozenset()
    """The tasks whose end the request awaits. It awaits the start of the other `keys`."""
    later: frozenset[Key] = frozenset()
    """The tasks whose current launch has to end first. The request awaits the start of the next launch."""
    stopped_by: Mapping[Key, str] = field(default_factory=dict)
    """By key: the origin, in words, of the order that stopped a task before it had started."""
    failures: tuple[tuple[Key, str], ...] = ()
    """The tasks for which the request has failed, each with the reason."""
    opened: bool = False
    """True if the order has opened its transaction."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further items of the answer, beside the outcome of each task."""


@frozen
class World:
    """The known and decided state of one context."""

    context: Context
    keeper_id: str = ""
    """The ID of the keeper that is the parent of the tasks. If a keeper has another ID, all these processes
    are gone.
    """
    stopping: bool = False
    exit_status: int = 0
    """The exit status of the daemon when all tasks have ended, if it is stopping."""
    hands_over: bool = False
    """True if it is stopping, and the tasks on other hosts run on for the next supervisor."""
    next_launch: int = 1
    disabled: frozenset[str] = frozenset()
    """IDs of tasks that an operator has disabled: they do not start with a transaction. An ID stays here when
    a reload removes the task, and has its effect again when the file has the task again.
    """
    keeper_signals_others: bool = True
    """True if the keeper can ask all processes of a launch to end (protocol 2)."""
    transactions: Mapping[str, Transaction] = field(default_factory=dict)
    tasks: Mapping[Key, Task] = field(default_factory=dict)
    launches: Mapping[int, Key] = field(default_factory=dict)
    """The task that each live launch belongs to."""
    auxiliaries: Mapping[int, Key] = field(default_factory=dict)
    """The task that each auxiliary process belongs to, by the launch ID of that process."""
    starts: Mapping[int, AwaitedCounts] = field(default_factory=dict)
    """The common starts of which some tasks are awaited."""
    hosts: Mapping[str, Host] = field(default_factory=dict)
    """The other hosts that the supervisor has heard of."""
    load: Mapping[str, int] = field(default_factory=dict)
    """The number of live tasks on each other host that has any."""
    pending: tuple[PendingRequest, ...] = ()


def service_of(context: Context, task_id: str, task: Task | None) -> TaskDefinition | None:
    """Return the definition of a task in the context file, or the last one before a reload removed it. Return
    None if neither is known.
    """
    service = context.tasks.get(task_id)
    if service is not None or task is None or task.last_definition is None:
        return service
    return _kept_definition(task_id, task.last_definition)


_KEPT_FIELDS = ("instance", "topic", "service_type", "description", "service_name", "device_action", "source")


def definition_to_keep(service: TaskDefinition) -> dict[str, Any]:
    """Return the part of a definition that survives its removal by a reload (`Task.last_definition`), as
    plain JSON values.
    """
    return {name: getattr(service, name) for name in _KEPT_FIELDS}


def _kept_definition(task_id: str, kept: Mapping[str, Any]) -> TaskDefinition:
    values = {name: kept[name] for name in _KEPT_FIELDS}
    return TaskDefinition(id=task_id, **{**values, "service_type": ServiceType(kept["service_type"])})


def transaction_state(world: World, transaction: str, tasks: Collection[Task]) -> State:
    """Return the state of a transaction, derived from its tasks.

    The caller passes the tasks of the transaction, because a search for each of many transactions would take
    quadratic time.
    """
    if not world.transactions[transaction].open or world.stopping:
        return State.DEACTIVATING if any(task.live for task in tasks) else State.INACTIVE
    if any(task.state is State.FAILED for task in tasks):
        return State.FAILED
    return State.ACTIVATING if any(is_starting(task) for task in tasks) else State.ACTIVE


def is_starting(task: Task) -> bool:
    """Return True if a task is on its way to READY=1. This includes a task that stops in order to start
    again, or because it was not ready in time.
    """
    if task.state is not State.DEACTIVATING:
        return task.state is State.ACTIVATING
    was_ready = task.action in ("started", "updated")
    return task.restart_pending or not (was_ready or task.stop_reason is Reason.REQUESTED)


def task_to_row(task: Task) -> dict[str, Any]:
    """Return a task as plain JSON values, without the fields that have their default.

    A supervisor of an earlier zmsvc does not know `final-sigterm`. It reads the nearest sub-state,
    `final-sigkill`.
    """
    row = {
        _IN_ROW.get(name, name): value
        for name, default in _DEFAULTS.items()
        if (value := getattr(task, name)) != default
    }
    if task.sub_state is SubState.FINAL_SIGTERM:
        row["sub"] = SubState.FINAL_SIGKILL
    if "cause" in row:
        row["cause"] = cause_as_json(task.cause)
    if task.leftovers:
        row["ended"] = list(map(leftover_as_json, task.leftovers))
    if task.counted:
        row["counted"] = {name: list(times) for name, times in task.counted.items()}
    if task.auxiliaries:
        row["auxiliaries"] = [{name: getattr(each, name) for name in _AUXILIARY} for each in task.auxiliaries]
    if task.exit is not None:
        row["exit"] = {name: getattr(task.exit, name) for name in _EXIT}
    return row


_DEFAULTS = {f.name: getattr(Task(), f.name) for f in fields(Task) if f.name != "barrier"}
_EXIT = tuple(f.name for f in fields(Exit))
_BARRIER = tuple(f.name for f in fields(Barrier))
_AUXILIARY = tuple(f.name for f in fields(Auxiliary))
_AUXILIARY_NAMES = frozenset(map(str, AuxiliaryName))
"""A process with another name is one that only another release has. The keeper is then told to kill it."""
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
"""The names in the state file of fields that have another name here. Files of earlier releases use them."""
_FROM_ROW = {kept: name for name, kept in _IN_ROW.items()}


def task_from_row(row: Mapping[str, Any], sub: str | None = None) -> Task:
    """Return the task of a row that `task_to_row` made; `sub` is stored beside it. Raises KeyError, TypeError
    or ValueError for any other row.
    """
    values = dict(row)
    if sub == SubState.FINAL_SIGTERM:
        values["sub"] = sub
    if "sub" in values:
        values["sub"] = SubState(values["sub"])
    if values.get("health") is not None:
        values["health"] = Health(values["health"])
    if values.get("verdict") is not None:
        values["verdict"] = Reason(values["verdict"])
    if values.get("exit") is not None:
        end = values["exit"]
        values["exit"] = Exit(
            code=end["code"], signal=end["signal"], reason=Reason(end["reason"]), at=end["at"]
        )
    if values.get("removed") is not None:
        _kept_definition("", values["removed"])
    if "cause" in values:
        values["cause"] = cause_from_json(values["cause"])
    if "starts" in values:
        values["starts"] = tuple(values["starts"])
    if "counted" in values:
        values["counted"] = {name: tuple(times) for name, times in dict(values["counted"]).items()}
    if "ended" in values:
        values["ended"] = tuple(Leftover(**entry) for entry in values["ended"])
    if "auxiliaries" in values:
        known = (row for row in values["auxiliaries"] if row["name"] in _AUXILIARY_NAMES)
        values["auxiliaries"] = tuple(map(_auxiliary, known))
    return Task(**{_FROM_ROW.get(name, name): value for name, value in values.items()})


def barrier_to_row(task: Task) -> dict[str, Any] | None:
    """Return the barrier of a task as plain JSON values. It has a row of its own, because a supervisor of an
    earlier zmsvc would refuse a task with an unknown field.
    """
    if task.barrier is None:
        return None
    return {"launch": task.launch, **{name: getattr(task.barrier, name) for name in _BARRIER}}


def with_barrier(task: Task, row: Mapping[str, Any]) -> Task:
    """Return a task with the barrier of a row if the row is of its present launch: a supervisor that knows no
    barriers leaves the rows. Raises KeyError, TypeError or ValueError for a row of another form.
    """
    if row["launch"] != task.launch or not (task.live or task.sub_state is SubState.START_AFTER):
        return task
    topics, publishes = (
        None if names is None else tuple(names) for names in (row["topics"], row["publishes"])
    )
    barrier = Barrier(start=row["start"], stage=Stage(row["stage"]), topics=topics, publishes=publishes)
    return with_changes(task, {"barrier": barrier})


def _auxiliary(row: Mapping[str, Any]) -> Auxiliary:
    return Auxiliary(**{**row, "name": AuxiliaryName(row["name"]), "command": tuple(row["command"])})


def launches_of(tasks: Mapping[Key, Task]) -> tuple[dict[int, Key], dict[int, Key]]:
    """Return the values of `World.launches` and `World.auxiliaries` for these tasks."""
    auxiliaries = {each.launch: key for key, task in tasks.items() for each in task.auxiliaries}
    return {task.launch: key for key, task in tasks.items() if task.live}, auxiliaries


def load_of(tasks: Mapping[Key, Task]) -> dict[str, int]:
    """Return the value of `World.load` for these tasks."""
    return dict(Counter(task.host for task in tasks.values() if task.host))


def starts_of(tasks: Mapping[Key, Task]) -> dict[int, AwaitedCounts]:
    """Return the value of `World.starts` for these tasks."""
    awaited = [each.barrier for each in tasks.values() if each.barrier and each.barrier.is_awaited]
    topics: dict[int, Counter[str]] = {each.start: Counter() for each in awaited}
    for each in awaited:
        topics[each.start].update(set(each.topics or ()))
    unknown = Counter(each.start for each in awaited if each.topics is None)
    counts = Counter(each.start for each in awaited)
    return {
        start: AwaitedCounts(tasks=count, unknown=unknown[start], topics=dict(topics[start]))
        for start, count in counts.items()
    }


def status_at(task: Task, now: float) -> str:
    """Return the status text of a task at this time. For a task in back-off it is a countdown."""
    if task.sub_state is not SubState.BACK_OFF or task.deadline is None:
        return task.status
    slowed = ", slowed: its rules start it too quickly" if task.quick_starts > task.failures else ""
    return f"starts again in {max(0.0, round(task.deadline - now, 3)):g} s{slowed}"


def task_as_json(
    task_id: str,
    task: Task,
    service: TaskDefinition | None,
    time_text: Callable[[float], str | None],
    *,
    disabled: bool = False,
) -> dict[str, Any]:
    """Return the entry of a task in `status`. Its status text is the saved one, and its control group is left
    out. `time_text` converts the monotonic times.
    """
    end = task.exit
    ended, more = leftovers_shown(task.leftovers)
    return {
        "id": task_id,
        "name": service.service_name if service else "",
        "instance": service.instance if service else "",
        "description": service.description if service else "",
        "pid": task.pid,
        "host": task.host or None,
        "launch": task.launch,
        "state": task.state.value,
        "sub": task.sub_state.value,
        "action": task.action,
        "since": time_text(task.since),
        "restarts": task.restarts,
        "exit": {"code": end.code, "signal": end.signal, "reason": end.reason.value, "at": time_text(end.at)}
        if end
        else None,
        "status": task.status,
        "ended": ended,
        "ended_more": more,
        "user": service.user if service else None,
        "entry": bool(service and service.entry),
        "requires": list(service.requires) if service else [],
        "held": task.stopped_by_operator,
        "disabled": disabled,
        "dropped": task.dropped,
        "missed": task.missed,
        "poisoned": task.poisoned,
        "stored_descriptors": 0,
        "health": task.health.value if task.health else None,
        "health_text": task.health_text,
        "cause": cause_summary(task.cause),
        "cgroup": None,
    }
