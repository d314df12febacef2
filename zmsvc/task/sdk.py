"""The classes that users subclass. They hold what a task may ask for; the process around them is `life`'s
business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast

from zmsvc.task.keys import TaskKeys

M = TypeVar("M", bound="_Member")


class Cause(dict[str, Any]):
    """What started a task, as JSON-able items that are attributes as well (`self.cause.by`).

    `by` is operator, context, rule, restart or bus; `uid` the operator's; `depth` counts the rules in a
    chain. `sources` has for each rule that fired its `task`, `trigger`, `rule`, that task's last `exit`
    (code, signal, reason) and last `update`; the items of the last source stand beside `by` as well, None
    where no rule fired. `self.cause["update"]` has no attribute: each dict has that method.
    """

    by: str | None
    uid: int | None
    depth: int
    sources: list[dict[str, Any]]
    task: str | None
    trigger: str | None
    rule: str | None
    exit: dict[str, Any] | None

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def cause_of(told: Mapping[str, Any]) -> Cause:
    """The cause as the supervisor told it."""
    sources = list(told.get("sources") or [])
    last = dict.fromkeys(("task", "trigger", "rule", "exit", "update")) | (
        dict(sources[-1]) if sources else {}
    )
    return Cause(
        {
            "by": told.get("by"),
            "uid": told.get("uid"),
            "depth": told.get("depth", 0),
            **last,
            "sources": sources,
        }
    )


class Runtime(Protocol):
    """What a task knows about itself, and what carries out its wishes: the life of its process or thread."""

    config: dict[str, Any]
    context: str
    transaction: str
    service_id: str
    cause: Cause
    log: logging.Logger
    frontend: str
    """Where one subscribes to the bus."""
    keys: TaskKeys

    def update(self, items: Mapping[str, Any], wait: bool) -> bool: ...

    def publish(self, topic: str, body: Mapping[str, Any]) -> bool: ...

    def wait(self, seconds: float | None) -> bool: ...

    def unwatch(self, fd: int) -> None:
        """Look at this descriptor no longer; to be called before it is closed."""

    def watch(self, fd: int, answer: Callable[[], None]) -> None:
        """Call `answer` in `wait` whenever the descriptor is readable."""


class _Member:
    """What a task and the service around it have in common. All of it is there already when `__init__` of
    a subclass runs.
    """

    config: dict[str, Any]
    """The task's own `<configuration>`: texts, lists and dicts of them."""
    context: str
    """The name of the context."""
    transaction: str
    service_id: str
    """The task's id in the context file."""
    cause: Cause
    """What started it; also in the environment as ZMSVC_CAUSE_*."""
    log: logging.Logger
    """Its records carry the journal fields of this task."""
    _companion: Runtime

    def __new__(cls, *_arguments: Any, **_named: Any) -> Self:
        """Make an instance as a test does, by calling the class: a recorder takes the place of the process
        around it.
        """
        # Imported here for start-up time: no task that is launched needs it.
        from zmsvc.task.recorder import Recorder

        return _with(object.__new__(cls), Recorder(cls.__name__, cause_of({"by": "operator"})))

    def update(self, /, *, wait: bool = True, **items: Any) -> bool:
        """Report a result: `control`/`updated` with these items on the bus, and the on_update rules. It is
        never lost and never changed.

        The supervisor takes 1,000 a second for long (1,000 at once); for more, and while it is behind, this
        waits. The watchdog is fed meanwhile in the task's own thread. True when the result was reported;
        False when there was no room and `wait` is False, or when the task was told to stop while this waited.
        In the `run` of a SingleTask such an order breaks off here.

        The item `result` is the result of the message, "success" without one: say `result="failed"` for what
        went wrong.

        Raises TypeError for an item that is not JSON; ValueError for `pid` or `device_action`, which zmsvc
        itself says, for a `result` that is not a text, and for more than 1 MiB or a nesting of more than 64;
        OSError when there is no supervisor to be had.
        """
        return self._companion.update(items, wait)

    def publish(self, topic: str, body: Mapping[str, Any]) -> bool:
        """Send a message, as it is, to whoever is subscribed to the topic. A result that counts is an
        `update`.

        False when it was dropped because the queue is full. Raises TypeError for a body that is not JSON,
        ValueError for a topic that cannot be one.
        """
        return self._companion.publish(topic, body)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait (None: for ever), but not longer than until the service is told to stop. True when it is time
        to stop.

        In the thread of `step` and `run` this is also where the watchdog is fed and `on_control` is called.
        """
        return self._companion.wait(seconds)


class Task(_Member):
    """The common part of LoopedTask and SingleTask."""

    def setup(self) -> None:
        """Called once, before the service says that it is ready. An exception here makes it fail."""

    def close(self) -> None:
        """Called once at the end, also after an error in any of the others."""


class LoopedTask(Task):
    """A task that does its `step` again and again until it is told to stop. A step is always finished."""

    interval: float = 1.0
    """Seconds from the start of one step to the start of the next; `<interval>` in the configuration
    overrides it. After a step that took longer the next one follows at once, and what was missed is not made
    up for."""

    def step(self) -> None:
        """One round of work. An exception ends the service as failed."""
        raise NotImplementedError(f"{type(self).__name__} has no step()")


class SingleTask(Task):
    """A task that runs once. When `run` returns, the service ends with status 0."""

    def run(self) -> None:
        """The work. When the service is told to stop meanwhile, `wait` returns True; anywhere else a
        SystemExit breaks `run` off.

        Of tasks that share a process (`Thread`) none can be broken off: they have to look, by `wait`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run()")


class TaskService(_Member):
    """The service around a task. A subclass `ServiceNAME` names the task's class; it may listen to the
    other services.
    """

    service_name: ClassVar[str] = ""
    task_class: ClassVar[type[LoopedTask] | type[SingleTask]]
    task: Task
    """The task of this service, from before its `setup` on. A subclass may say which: `task: Sensor`."""
    _ours_only: ClassVar[bool] = False
    """Whether `on_control` wants nothing but what zmsvc itself writes."""

    def on_control(self, message: dict[str, Any]) -> None:
        """Another service of this transaction reported (`header` and `content` of the `control` message).

        Called between steps and in `wait`, in the same thread. Only a class that overrides this is
        subscribed.
        """

    @classmethod
    def listens(cls) -> bool:
        """Whether this class overrides on_control."""
        return cls.on_control is not TaskService.on_control


def made(cls: type[M], companion: Runtime) -> M:
    """An instance that has its companion before the user's own `__init__` runs, which need not know of it,
    nor call ours.
    """
    new = object.__new__ if cls.__new__ is _Member.__new__ else cls.__new__
    member = _with(new(cls), companion)
    cast(Any, cls).__init__(member)
    return member


def _with(member: M, companion: Runtime) -> M:
    member.config, member.cause, member.log = companion.config, companion.cause, companion.log
    member.context, member.transaction, member.service_id = (
        companion.context,
        companion.transaction,
        companion.service_id,
    )
    member._companion = companion
    return member
