"""The contents of one context file, frozen. host/config makes them. The options of a task are in
`service_options.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from enum import StrEnum
from typing import Any

from zmsvc.core import replicas
from zmsvc.core.access import BusAccess
from zmsvc.core.frozen import frozen
from zmsvc.core.placement import ListedHosts, apart_from, together_with
from zmsvc.core.service_options import ServiceOptions, ServiceType

TRANSACTION_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""The allowed names of a transaction (match with `fullmatch`). A generated name is 20 of A-Z0-9."""


class Action(StrEnum):
    """An action that a rule or an order asks of a task."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


class Trigger(StrEnum):
    """A change of a task on which rules fire."""

    ON_START = "on_start"
    ON_UPDATE = "on_update"
    ON_FAIL = "on_fail"
    ON_EXIT = "on_exit"
    ON_RECOVER = "on_recover"
    """The task is ready, and it has failed since it was ready before."""
    ON_ANY_FAIL = "on_any_fail"
    """A failure of any task. Only the context has rules with this trigger."""


FIRST_TRIGGERS = (Trigger.ON_START, Trigger.ON_UPDATE, Trigger.ON_FAIL, Trigger.ON_EXIT)
"""The triggers of zmicroservices. `zmsvcctl create` writes rules of these."""
TRIGGERS_OF_TASK = (*FIRST_TRIGGERS, Trigger.ON_RECOVER)
"""The triggers that the `<state>` of a task may name."""
TRIGGERS_OF_ENDS = (Trigger.ON_EXIT, Trigger.ON_FAIL, Trigger.ON_ANY_FAIL)
"""The triggers of events that have a reason, an exit status or a signal."""


class Only(StrEnum):
    """The ends that a rule is about, if these are not all ends of its trigger."""

    ABNORMAL = "on-abnormal"
    WATCHDOG = "on-watchdog"
    MEMORY_LIMIT = "memory-limit"


@frozen
class EndCondition:
    """The ends for which a rule fires: all ends with this reason or, if `detail` is given, only those with
    this exit status or signal.
    """

    reason: str
    """A word of `world.Reason`."""
    detail: int | str | None = None
    """An exit status, or the name of a signal as the keeper reports it."""

    def __str__(self) -> str:
        return self.reason if self.detail is None else f"{self.reason}:{self.detail}"


@frozen
class Threshold:
    """The number of events within a time at which a rule fires."""

    count: int
    within: float
    """Seconds."""

    def __str__(self) -> str:
        return f"{self.count} in {self.within:.10g}s"


@frozen
class Rule:
    """A rule of a task: when `trigger` happens to it, the supervisor does `action` to the task `call`."""

    trigger: Trigger
    action: Action
    call: str
    when: tuple[EndCondition, ...] = ()
    """The ends for which this rule fires; empty for all ends of its trigger."""
    after: Threshold | None = None
    """None: the rule fires at each event."""
    only: Only | None = None
    """Like `when`, for the rules that the options `restart` and `memory_restart` stand for. None for the
    rules of `<state>`.
    """

    @property
    def conditions(self) -> str:
        """The conditions as records and messages show them; empty for a rule without any."""
        words = [f"when {' '.join(map(str, self.when))}"] if self.when else []
        return " ".join([*words, *([f"after {self.after}"] if self.after else [])])


@frozen
class TaskDefinition(ServiceOptions):
    """The definition of a task: its `<TaskService>` element with its options.

    `source` is that element as JSON: attributes are keys, repeated children are lists. It is
    published on the bus, so the environment of the task is left out: it may hold secrets.
    """

    id: str
    instance: str
    topic: str = "process"
    service_type: ServiceType = ServiceType.PROCESS
    description: str = ""
    service_name: str = ""
    device_action: str = ""
    location: str | None = None
    """An absolute directory that holds `INSTANCE/ServiceINSTANCE.py`. None: a launch searches the service
    path.
    """
    entry: bool = True
    """True if the task starts with its transaction (state type on_start or start_now). Other tasks wait for a
    rule.
    """
    rules: tuple[Rule, ...] = ()
    command: tuple[str, ...] = ()
    """The program of a Command and its arguments."""
    notify: bool = False
    """True if the program of a Command sends READY=1 itself. Otherwise the task is ready when the program has
    been executed.
    """
    notify_reload: bool = False
    """True if the program of a Command also sends RELOADING=1 and READY=1 when it reloads."""
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """The `<configuration>` of the task: strings, lists and dicts of them."""
    source: Mapping[str, Any] = field(default_factory=dict)
    retains: bool = False
    """True if it is the service LastValue of zmsvc itself, which keeps the last messages."""

    @property
    def predecessors(self) -> tuple[str, ...]:
        """The tasks for which a start of this one waits."""
        return tuple(dict.fromkeys((*self.after, *self.requires)))

    @property
    def reports_reload(self) -> bool:
        """True if the end of a reload is known, so an order to reload waits for it."""
        return self.notify_reload or bool(self.reload_command)

    @property
    def signal_to_reload(self) -> str:
        """The signal that has the task read its configuration again; empty if it has none."""
        return self.reload_signal or ("SIGHUP" if self.notify_reload and not self.reload_command else "")


@frozen
class DeviceEndpoints:
    """The endpoints of the device. Clients publish to `publish_endpoint`, which the device binds as
    `publish_bind`. They subscribe at `subscribe_endpoint`, which the device binds as `subscribe_bind`. The
    context file, the messages and zmsvcctl have older names; docs/protocols.md lists them.
    """

    subscribe_endpoint: str
    """The endpoint at which subscribers connect a SUB socket (zmicroservices calls it sub_port)."""
    publish_endpoint: str
    """The endpoint at which publishers connect a PUB socket (zmicroservices calls it pub_port)."""
    publish_bind: str
    """The address at which the device binds its XSUB socket, which receives from publishers."""
    subscribe_bind: str
    """The address at which the device binds its XPUB socket, which sends to subscribers."""


MAX_TRANSACTIONS = 1000
"""The default limit of transactions that are open at once."""


@frozen
class ContextPart:
    """A file of the directory `Context-NAME.d`, which adds tasks to those of `Context-NAME.xml`."""

    path: str
    text: bytes = field(repr=False)
    passed_over: tuple[tuple[int, str], ...] = ()
    """As in `Context`, with line numbers of this file."""


@frozen
class ContextFiles:
    """The bytes of a context file and of the files in its directory."""

    text: bytes = field(repr=False)
    parts: tuple[ContextPart, ...] = ()


@frozen
class Context:
    """One context file, with the tasks that the files of its directory add."""

    name: str
    id: str
    log_name: str
    endpoints: DeviceEndpoints
    tasks: Mapping[str, TaskDefinition]
    """By task ID, in the file's order, each replica of a task on its own."""
    path: str = ""
    bus_access: BusAccess = BusAccess.MEMBERS
    max_transactions: int = MAX_TRANSACTIONS
    record: bool = False
    """True if the supervisor records the facts that it takes."""
    listed: ListedHosts = ListedHosts()
    """The hosts that the file lists."""
    on_any_fail: tuple[Rule, ...] = ()
    """The rules that every task has beside those of its own `on_fail`."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """The whole Context element as JSON, with the tasks of all its files."""
    passed_over: tuple[tuple[int, str], ...] = ()
    """Warnings about parts of the file that zmsvc does not know or does not read: line number and text."""
    text: bytes = field(default=b"", repr=False)
    """The bytes of the file at the time of reading. A supervisor that takes over uses these even if the file
    has changed since.
    """
    parts: tuple[ContextPart, ...] = ()
    """The files of its directory, as they were read."""
    written: Mapping[str, TaskDefinition] = field(default_factory=dict)
    """The tasks as the file has them, those with replicas once. Empty if there was no file."""
    successors: Mapping[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)
    """The tasks that start after a task and stop before it, by its ID. A task without any is left out."""
    requirers: Mapping[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)
    """The tasks that require a task, by its ID."""
    retaining: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The tasks that keep the last messages."""
    placed: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The tasks that have a placement."""
    hosts: tuple[str, ...] = field(init=False, compare=False, repr=False)
    """The hosts that the file lists; if it lists none, those that placements name, in the order of the file.
    """
    apart: Mapping[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)
    """The tasks that share no host with a task, by its ID."""
    together: Mapping[str, tuple[str, ...]] = field(init=False, compare=False, repr=False)
    """The tasks that run on the same host as a task, by its ID."""

    def __post_init__(self) -> None:
        tasks = self.tasks.values()
        object.__setattr__(self, "successors", _inverted((task.id, task.predecessors) for task in tasks))
        object.__setattr__(self, "requirers", _inverted((task.id, task.requires) for task in tasks))
        object.__setattr__(self, "retaining", tuple(task.id for task in tasks if task.retains))
        placements = {task.id: task.placement for task in tasks if task.placement is not None}
        named = dict.fromkeys(host for each in placements.values() for host in each.hosts)
        object.__setattr__(self, "placed", tuple(placements))
        object.__setattr__(self, "hosts", self.listed.names or tuple(named))
        object.__setattr__(self, "apart", apart_from(placements, self.named))
        object.__setattr__(self, "together", together_with(placements, self.named))

    def element_of_bind(self, name: str) -> str:
        """Return the element of the file that names the bind `name`, FrontBind or BackendBind. If the file
        lacks that element, it is the element of the endpoint to which clients connect; if the file lacks that
        too, `Context`.
        """
        connected = {"FrontBind": "BackendEndpoint", "BackendBind": "FrontEndEndpoint"}[name]
        return next((each for each in (name, connected) if self.source.get(each)), "Context")

    @property
    def as_written(self) -> Mapping[str, TaskDefinition]:
        """The tasks by their IDs in the file: one for all replicas of a task."""
        return self.written or self.tasks

    def named(self, name: str) -> tuple[str, ...]:
        """Return the IDs of the tasks that a name means: one task, or all replicas of a task of the file.
        Empty if the context has none of this name.
        """
        if name in self.tasks:
            return (name,)
        if name not in self.written:
            return ()
        return tuple(task for task in self.tasks if replicas.base(task) == name)


def at_home(context: Context) -> Context:
    """Return a context whose tasks all run on the host of the supervisor."""
    if not context.placed:
        return context
    tasks = {name: replace(task, placement=None) for name, task in context.tasks.items()}
    return replace(context, tasks=tasks)


def _inverted(named: Iterable[tuple[str, Iterable[str]]]) -> dict[str, tuple[str, ...]]:
    """Return the tasks that name a task, by its ID."""
    found: dict[str, dict[str, None]] = {}
    for task, others in named:
        for other in others:
            found.setdefault(other, {})[task] = None
    return {task: tuple(others) for task, others in found.items()}
