"""The classes that service authors subclass, and the operations that a task may call.

The task's process, its life cycle and its connections are in process.py, runtime.py and bus.py.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar, cast

from zmsvc.task.endpoints import Endpoints
from zmsvc.task.inbox import Message
from zmsvc.task.keys import TaskKeys

if TYPE_CHECKING:
    from zmsvc.task.bus import Subscription

M = TypeVar("M", bound="_TaskAttributes")


class Cause(dict[str, Any]):
    """The reason why a task was started: a JSON-able dict whose items are attributes as well.

    `by` is `operator`, `context`, `rule` or `bus`: an order by a command, the start of the transaction, a
    rule of the context file, an order from the bus. `uid` is the operator's user ID, None for the others.
    `depth` is the number of rules in the chain that led to this start, 0 without a rule.

    `sources` has an item for each rule that fired, oldest first, of the latest 64 and of those whose updates
    have at most 1 MiB: a dict with `task` (the ID of the task whose
    event fired the rule), `trigger` (such as `on_fail`), `rule`, `exit` (that task's last end as a dict of
    `code`, `signal` and `reason`, or None) and `update` (the items of its last update, or None). The items of
    the last source are also items of the cause itself; they are None if no rule fired.

    `update` is an item only (`self.cause["update"]`): the attribute of that name is the method of dict.
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


def cause_of(message: Mapping[str, Any]) -> Cause:
    """Return the cause that a launch message describes."""
    sources = list(message.get("sources") or [])
    last = dict.fromkeys(("task", "trigger", "rule", "exit", "update")) | (
        dict(sources[-1]) if sources else {}
    )
    return Cause(
        {
            "by": message.get("by"),
            "uid": message.get("uid"),
            "depth": message.get("depth", 0),
            **last,
            "sources": sources,
        }
    )


class Runtime(Protocol):
    """The implementation of a task's attributes and methods: TaskRuntime in a service, Recorder in a unit
    test.
    """

    config: dict[str, Any]
    context: str
    transaction: str
    service_id: str
    replica: int | None
    cause: Cause
    log: logging.Logger
    settings: Any
    """None for a task without a settings class."""
    endpoints: Endpoints
    keys: TaskKeys

    def update(self, items: Mapping[str, Any], wait: bool) -> bool: ...

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool: ...

    def messages(
        self, task: Task, topics: tuple[str, ...], seconds: float | None
    ) -> Iterator[Message[Any]]: ...

    def wait(self, seconds: float | None) -> bool: ...

    async def update_async(self, items: Mapping[str, Any]) -> bool: ...

    async def publish_async(self, topic: str, content: Mapping[str, Any]) -> bool: ...

    def messages_async(
        self, task: Task, topics: tuple[str, ...], seconds: float | None
    ) -> AsyncIterator[Message[Any]]: ...

    async def wait_async(self, seconds: float | None) -> bool: ...

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` in `wait` whenever the descriptor is readable."""

    def unwatch(self, fd: int) -> None:
        """Stop watching the descriptor. Call this before closing it."""


class _TaskAttributes:
    """The attributes and methods that a task and its service share.

    All of them are set before `__init__` of a subclass runs. Both share one `config`, `cause` and `log`.
    """

    config: dict[str, Any]
    """The task's `<configuration>`: a value is a str (`""` for an empty element), a list (of a repeated
    element) or a dict (of an element with attributes or children). No value is converted to a number. A
    change of the dict affects this process only.
    """
    settings: Any
    """An instance of the task's `settings_class`, made from its `<configuration>`. Not set without such a
    class. A subclass may narrow the type: `settings: SensorSettings`.
    """
    context: str
    """The name of the context, as in `zmsvcctl -c NAME`."""
    transaction: str
    """The ID of the transaction."""
    service_id: str
    """The task's ID in the context file; for a replica with its number: `ts_100@2`."""
    replica: int | None
    """The number of this replica, from 1; None for a task without `<replicas>`."""
    cause: Cause
    """The reason why the task was started; also in the environment as ZMSVC_CAUSE_*."""
    log: logging.Logger
    """A logger whose records carry this task's journal fields. `extra={"order_id": 17}` adds the field
    ORDER_ID. Any thread may use it."""
    _runtime: Runtime

    def __new__(cls, *_arguments: Any, **_named: Any) -> Self:
        """Return an instance for a unit test, which calls the class: a Recorder replaces the process."""
        # Imported here for start-up time: no task that is launched needs it.
        from zmsvc.task.recorder import Recorder

        return _attach(object.__new__(cls), Recorder(cls, cause_of({"by": "operator"})))

    def update(self, /, *, wait: bool = True, **items: Any) -> bool:
        """Report a result: publish the items in a `control`/`updated` message and fire the on_update rules.

        Return True once the supervisor's queue has the update; the supervisor then handles it exactly once
        and unchanged. Return False if the update was not reported: with `wait=False`, if there is no room
        now; otherwise, if the task is asked to stop during the wait. When that happens in `run` of a
        SingleTask, a SystemExit ends `run` instead.

        Rate: 1,000 updates at once, then 1,000 per second and task. A call above that rate, or while the
        supervisor's queue is full, blocks. A call after the stop request (such as in `close`) waits for at
        most 1 s, then returns False. Any thread may call this; only in the task's own thread does a blocked
        call feed the watchdog.

        The item `result`, a str, becomes the result of the message; without it the result is `success`. To
        report a failure without ending, pass `result="failed"`.

        Raises TypeError if an item is not JSON (NaN and infinity are not). Raises ValueError for the items
        `pid` and `device_action`, which zmsvc sets, for a `result` that is not a str, for more than 1 MiB of
        JSON, and for lists and dicts nested more than 64 deep. Raises OSError if the supervisor's socket
        cannot be reached.
        """
        return self._runtime.update(items, wait)

    @functools.cached_property
    def endpoints(self) -> Endpoints:
        """The endpoints of the bus: `self.endpoints.subscribe` and `self.endpoints.publish`."""
        return self._runtime.endpoints

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool:
        """Publish a message to the current subscribers of the topic.

        The message is `{"header": {...}, "content": content}` with the standard header:
        `service_transaction`, `service_id`, `action` (published), `service_name`, `launch` and `sequence`,
        the number of the message among those of this launch and topic. If the only key of `content` is
        `content`, its value becomes the content of the message. If `content` has a key `header`, it is the
        whole message, and is published unchanged, without a number.

        Delivery is not guaranteed: a subscriber that connects later, or whose queue is full, does not receive
        it. Use `update` for results. Return False if the queue to the device (20,000 messages) is full: the
        message is dropped, and a warning is logged now and then.

        The first call connects, and waits for the device for at most 2 s. Later calls do not block: while the
        device restarts, messages wait in the queue. Any thread may call this.

        Raises TypeError if the content is not JSON, ValueError if the topic is empty or contains ` @@@ `,
        zmsvc.core.errors.UsageError for a message of more than 16 MiB, and zmsvc.core.errors.RefusedError if
        the device does not let the task's user connect.
        """
        return self._runtime.publish(topic, content)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for `seconds` (None: without limit) or until the task is asked to stop. Return True if it is
        asked to stop.

        In the task's own thread (that of `setup`, `step`, `run`, `on_message` and `on_control`) this call
        also feeds the watchdog and calls `on_message` and `on_control`. During one of these it does not call
        them again. In another thread it only waits.
        """
        return self._runtime.wait(seconds)


class Task(_TaskAttributes):
    """The common base of LoopedTask, SingleTask, MessageTask and AsyncTask. Subclass one of those.

    zmsvc calls `setup`, then `step` or `run`, then `close`, all in one thread. An exception in any of them is
    logged and ends the task as failed, with exit status 1. `sys.exit(N)` ends it with status N. `setup` and
    `close` may be `async def` in an AsyncTask only.
    """

    settings_class: ClassVar[type | None] = None
    """A dataclass for the task's `<configuration>`. Each field is the element of its name, without a final
    underscore; a field without a default is required. The types are str, int, float, bool, Path, timedelta
    (a time span such as 500ms), an Enum or a Literal (one of its values), another dataclass (of the children
    and attributes), `list[T]` and `tuple[T, ...]` (of an element that may be repeated), `dict[str, T]` (of
    children of any name), `T | None` (None for an empty element), and Any (str, list or dict).

    An element without a field is a fault, except those that zmsvc itself reads (location, device_action,
    interval, subscribe, notify). A value with a fault is reported by `zmsvcctl check`, which reads the class
    from its source and does not run it. At a start the task fails with the reason cannot-launch. A ValueError
    of `__post_init__` is such a fault, but only at a start.
    """

    topics: ClassVar[str | list[str] | tuple[str, ...]] = ()
    """The topics that the task hears. `<subscribe>` elements in the configuration replace them. The service
    reports READY once the device has confirmed the subscriptions.
    """
    every_transaction: ClassVar[bool] = False
    """True if the task hears all transactions of the context. Otherwise it hears its own one, and messages
    that belong to none. No task hears itself.
    """

    publishes: ClassVar[str | list[str] | tuple[str, ...] | None] = None
    """The topics that the task publishes; None if that may be any. Tasks that are started together wait for
    each other after READY: the first `step`, `run` or `on_message` begins when every task that hears one of
    these topics is READY or has failed, so none misses the first message. `()` waits for no task. `setup`
    should not publish.
    """

    def on_message(self, message: Message[Any]) -> Awaitable[None] | None:
        """Handle a message on one of the `topics`.

        The annotation `message: Message[Reading]` converts the content to the dataclass `Reading`, with the
        types of a `settings_class`: str, int, float and bool are those of JSON, a timedelta is a number of
        seconds. Names without a field are ignored.

        Called between steps and in `wait`, in the task's thread, after `setup`; of an AsyncTask in its event
        loop, one message after the other, during `run`. An exception, and a content that does not fit, ends
        the service as failed, unless `<poison_action>` is set-aside; either way the quarantine has the
        message (`zmsvcctl quarantine`). 20,000 unread messages wait in the process and 100,000 in the
        device, which then drops more; `message.missed` counts them.
        """

    @classmethod
    def handles_messages(cls) -> bool:
        """Return True if this class overrides on_message."""
        return cls.on_message is not Task.on_message

    def on_reload(self) -> Awaitable[None] | None:
        """Read the configuration again, or whatever else `zmsvcctl reload TASK` means to this task.

        Called when the task gets the signal of its `<reload_signal>`, between steps and in `wait`, in the
        task's thread, after `setup`; of an AsyncTask in its event loop during `run`. RELOADING=1 is sent
        before the call and READY=1 after it: with `<notify>reload</notify>` in the configuration,
        `zmsvcctl reload TASK` waits for that. Signals that come meanwhile are one further call. An exception
        ends the service as failed. `self.config` and `self.settings` stay those of the start: a change of the
        context file is applied by `zmsvcctl reload`, which restarts the task. A task of
        `serviceType="Thread"` gets no signals.
        """

    def setup(self) -> Awaitable[None] | None:
        """Prepare the task. Called once, before the service reports READY; `<start_timeout>` limits it."""

    def close(self) -> Awaitable[None] | None:
        """Release what the task holds. Called once at the end if `setup` was called, also after an exception.

        It is not called if the process dies by a signal or `os._exit`. After `<stop_timeout>` from the stop
        request the keeper kills the task with SIGKILL.
        """


class LoopedTask(Task):
    """A task that calls `step` repeatedly until it is asked to stop. A stop request does not interrupt a
    step: the task ends after it.

    The watchdog is fed between steps and in `wait`. A step that takes more than nine tenths of `<watchdog>`
    must call `wait`, with 0 for instance.
    """

    interval: float = 1.0
    """Seconds from the start of one step to the start of the next, 0 for no pause. `<interval>` in the
    configuration, a number or a time span such as 500ms, overrides it. A step that takes longer is followed
    by the next one at once; missed steps are not made up for.
    """

    def step(self) -> None:
        """Do one round of work. An exception ends the service as failed."""
        raise NotImplementedError(f"{type(self).__name__} has no step()")


class SingleTask(Task):
    """A task that runs once. When `run` returns, the service ends with status 0."""

    def run(self) -> None:
        """Do the work.

        When the task is asked to stop, `wait` returns True; elsewhere SIGTERM raises a SystemExit in `run`,
        which ends the service with status 0. With `<watchdog>`, call `wait` at least that often.

        Tasks of `serviceType="Thread"` share a process and cannot be interrupted: `run` must check the result
        of `wait`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    def messages(self, *topics: str, timeout: float | None = None) -> Iterator[Message[Any]]:
        """Iterate over the messages on these topics, by default those that the class or the configuration
        names. The iteration ends when the task is asked to stop, and when no message comes within `timeout`
        seconds.

        The topics of the class are subscribed to before READY, others by the first call that names them; the
        call waits until the device has confirmed them. An exception that leaves the body of the loop, and
        `run`, puts the message into the quarantine and ends the service as failed. They stay subscribed until
        the task ends, and each message is returned once by the calls with the same topics. While it waits for
        a message it feeds the watchdog and calls `on_control`. Call it in the task's own thread. Raises
        RuntimeError elsewhere, and if there are no topics.
        """
        return self._runtime.messages(self, topics, timeout)


class FrameTask(SingleTask):
    """A task of zmsvc itself that gets each message as the frame that was published."""

    def heard(self) -> tuple[str, ...]:
        """Return the topics that it hears; () if these are all."""
        raise NotImplementedError

    def prefixes(self) -> list[bytes]:
        """Return the prefixes to subscribe to."""
        raise NotImplementedError

    def begin(self, subscription: Subscription) -> None:
        """Take the subscription. Called before `setup`, unless the bus has no messages."""

    def on_frame(self, frame: bytes) -> None:
        """Handle a frame. Called in `wait`, after `setup`."""

    def run(self) -> None:
        self.wait()


class MessageTask(Task):
    """A task that lives on messages: it has no step, and zmsvc calls `on_message` until it is asked to stop.
    While no message comes it does not wake up.
    """


class AsyncTask(Task):
    """A task whose `run` is a coroutine. When `run` returns, the service ends with status 0.

    One event loop of asyncio runs `setup`, `run`, `close`, `on_message` and `on_control`, each of which may
    be `async def`. It feeds the watchdog, so a call that blocks the loop for half of `<watchdog>` or longer
    can make the supervisor end the task. After `close`, asyncio cancels the tasks that are left and ends the
    loop.

    An AsyncTask starts more slowly than other tasks and takes more memory, because it imports asyncio.
    """

    async def run(self) -> None:
        """Do the work.

        A stop request cancels `setup` or `run` once, as `asyncio.Task.cancel` does; the service then ends
        with status 0, or fails by the exception that the cancellation leads to. It does not cancel while
        `run` itself awaits `wait_async`, which returns True instead. `<stop_timeout>` limits the work after
        it. A cancellation without a stop request is a failure.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    async def update_async(self, /, **items: Any) -> bool:
        """Report a result as `update` does, but let the event loop run while there is no room. If the call is
        canceled, the result may have been reported or not.
        """
        return await self._runtime.update_async(items)

    async def publish_async(self, topic: str, content: Mapping[str, Any]) -> bool:
        """Publish a message as `publish` does, but let the event loop run while the first call connects."""
        return await self._runtime.publish_async(topic, content)

    def messages(self, *topics: str, timeout: float | None = None) -> AsyncIterator[Message[Any]]:
        """Iterate over messages by `async for`, as `messages` of a SingleTask does."""
        return self._runtime.messages_async(self, topics, timeout)

    async def wait_async(self, seconds: float | None = None) -> bool:
        """Wait for `seconds` (None: without limit) or until the task is asked to stop. Return True if it is
        asked to stop. This replaces `wait`, which raises RuntimeError in the thread of the event loop.
        """
        return await self._runtime.wait_async(seconds)


class TaskService(_TaskAttributes):
    """The service that manages a task. A subclass `ServiceNAME` sets `task_class`, and may override
    `on_control` to follow the other services of its transaction.
    """

    service_name: ClassVar[str] = ""
    """A name for readers of the class. The name on the bus is `service_name` of the context file."""
    task_class: ClassVar[type[LoopedTask] | type[SingleTask] | type[MessageTask] | type[AsyncTask]]
    """The class of the task."""
    task: Task
    """The task of this service, set before its `setup` is called, but after `__init__` of the service. A
    subclass may narrow the type: `task: Sensor`."""
    _ours_only: ClassVar[bool] = False
    """True if `on_control` needs only the messages that zmsvc itself publishes."""

    def on_control(self, message: dict[str, Any]) -> Awaitable[None] | None:
        """Handle a `control` message of another task of this transaction.

        `message["header"]` has `service_transaction`, `service_id`, `action` (such as `started`, `updated`,
        `stopped` or `failed`) and `service_name`; `message["content"]["status"]` has `result`,
        `device_action`, `pid` and the items of an update. Any client of the bus can publish such a message.

        Called between steps and in `wait`, in the task's thread, after `setup`; of an AsyncTask in its event
        loop, one message after the other, during `run`. An exception ends the service as failed. Only a class
        that overrides this method subscribes. 20,000 unread messages wait in the process and 100,000 in the
        device, which then drops more.
        """

    @classmethod
    def listens(cls) -> bool:
        """Return True if this class overrides on_control."""
        return cls.on_control is not TaskService.on_control


def instantiate(cls: type[M], runtime: Runtime) -> M:
    """Return an instance whose runtime is set before the user's `__init__` runs. That `__init__` need not
    know of it, nor call super().
    """
    new = object.__new__ if cls.__new__ is _TaskAttributes.__new__ else cls.__new__
    member = _attach(new(cls), runtime)
    cast(Any, cls).__init__(member)
    return member


def _attach(member: M, runtime: Runtime) -> M:
    member.config, member.cause, member.log = runtime.config, runtime.cause, runtime.log
    member.context, member.transaction, member.service_id, member.replica = (
        runtime.context,
        runtime.transaction,
        runtime.service_id,
        runtime.replica,
    )
    if runtime.settings is not None:
        member.settings = runtime.settings
    member._runtime = runtime
    return member
