"""Run a task: setup, READY=1, steps, stop, close. Only the task's own thread feeds the watchdog, so that a
hang is noticed.
"""

from __future__ import annotations

import logging
import math
import select
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zmsvc.core import messages, prefixes, replicas
from zmsvc.core.errors import CANNOT_EXECUTE, LaunchError, ProtocolError, RefusedError, ZmsvcError
from zmsvc.core.values import seconds
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task.bus import Subscription
from zmsvc.task.keys import task_keys
from zmsvc.task.sdk import AsyncTask, LoopedTask, SingleTask, Task, TaskService, cause_of, instantiate
from zmsvc.task.stop import Stop, Stopped
from zmsvc.task.updates import Updates

if TYPE_CHECKING:
    from zmsvc.task.event_loop import EventLoop

_BATCH = 64  # messages between two checks of the clock and of the stop request


class StatusSink(Protocol):
    """The receiver of a task's status: a Notifier, or a terminal."""

    def ready(self) -> None: ...
    def status(self, text: str) -> None: ...
    def watchdog(self) -> None: ...
    def stopping(self) -> None: ...
    def fileno(self) -> int: ...
    def update(self, json_text: str, sequence: int) -> bool: ...


class BusSink(Protocol):
    """The operations of the bus that a task uses: the bus, or a terminal."""

    def publish(self, frame: bytes) -> bool: ...
    def subscribe(self, prefixes: Sequence[bytes]) -> Subscription | None: ...


class TaskRuntime:
    """The runtime of one task: runs it in one thread, and implements the methods that it calls."""

    def __init__(
        self,
        spec: LaunchSpec,
        fds: Descriptors,
        *,
        status_sink: StatusSink,
        bus: BusSink,
        stop: Stop,
        log: logging.Logger,
    ) -> None:
        self.config: dict[str, Any] = dict(spec.configuration)
        self.context = spec.context
        self.transaction = spec.transaction
        self.service_id = spec.task
        self.replica = replicas.number(spec.task)
        self.subscribe_endpoint = spec.frontend
        self.cause = cause_of(spec.cause)
        self.keys = task_keys(spec, fds)
        self.log = log
        self.settings: Any = None
        self._file = spec.file
        self._status_sink, self._bus, self._stop = status_sink, bus, stop
        self._thread = threading.get_ident()
        self._watchdog = spec.watchdog
        self._fed_at = -math.inf
        self._updates = Updates(status_sink, stop)
        self._loaded = False
        self._service: TaskService | None = None
        """The service, when it receives messages."""
        self._subscription: Subscription | None = None
        self._in_callback = False
        self._watched: dict[int, Callable[[], None]] = {}
        self._poller = stop.poller()
        self._event_loop: EventLoop | None = None
        """The event loop of an AsyncTask."""

    # --- methods for the task

    def update(self, items: Mapping[str, Any], wait: bool) -> bool:
        own = threading.get_ident() == self._thread
        return self._updates.report(items, wait=wait, feed=self._feed_if_due if own else None)

    def _feed_if_due(self) -> None:
        self._feed(self._stop.now(), self._watchdog / 2)

    def publish(self, topic: str, body: Mapping[str, Any]) -> bool:
        messages.check_topic(topic)
        return self._bus.publish(messages.encode(topic, body))

    def wait(self, seconds: float | None) -> bool:
        until = math.inf if seconds is None else self._stop.now() + seconds
        if threading.get_ident() != self._thread:
            return self._wait_in_other_thread(until)
        if self._event_loop is not None:
            raise RuntimeError("cannot wait: it would block the event loop, use `await self.wait_async(...)`")
        before, self._stop.interruptible = self._stop.interruptible, False
        try:
            while not self._stop.requested:
                more = self._deliver()
                now = self._stop.now()
                if now >= until:
                    break
                pause = min(until - now, self._feed(now, self._watchdog / 2))
                if not more:
                    # A wait inside a callback ends only by time or by the stop request.
                    self._call_watchers(
                        self._stop.pause(pause, self._stop.poller() if self._in_callback else self._poller)
                    )
        finally:
            self._stop.interruptible = before
        # Check again: a signal after the last check of the loop has not interrupted anything.
        return self._stop.requested

    def _wait_in_other_thread(self, until: float) -> bool:
        """Wait in a thread of the user: it neither calls callbacks nor feeds the watchdog."""
        poll = self._stop.poller()
        while not self._stop.requested and (left := until - self._stop.now()) > 0:
            Stop.pause(self._stop, left, poll)
        return self._stop.requested

    async def update_async(self, items: Mapping[str, Any]) -> bool:
        # In most cases there is room, and no thread is needed.
        return self._updates.report(items, wait=False, feed=None) or await self._own_event_loop().in_thread(
            lambda: self._updates.report(items, wait=True, feed=None)
        )

    async def publish_async(self, topic: str, body: Mapping[str, Any]) -> bool:
        return await self._own_event_loop().in_thread(lambda: self.publish(topic, body))

    async def wait_async(self, seconds: float | None) -> bool:
        return await self._own_event_loop().wait(seconds)

    def _own_event_loop(self) -> EventLoop:
        if self._event_loop is None:
            raise RuntimeError("cannot await: only an AsyncTask has an event loop")
        return self._event_loop

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self._watched[fd] = callback
        self._poller.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._poller.unregister(fd)

    def _call_watchers(self, readable: Iterable[int]) -> None:
        for fd in readable:
            if fd in self._watched and not self._in_callback:
                self._in_callback = True
                try:
                    self._watched[fd]()
                finally:
                    self._in_callback = False

    def _feed(self, now: float, every: float) -> float:
        """Feed the watchdog if the last time was `every` seconds ago. Return the seconds until the next
        time.
        """
        if not self._watchdog:
            return math.inf
        if now - self._fed_at >= every:
            self._status_sink.watchdog()
            self._fed_at = now
        return self._fed_at + every - now

    def _deliver(self) -> bool:
        """Pass the messages of other services to on_control. Return True if more may wait."""
        if self._subscription is None or self._service is None or self._in_callback:
            return False
        self._in_callback = True
        try:
            for _ in range(_BATCH):
                frame = self._subscription.receive()
                if frame is None:
                    return False
                self._handle(frame, self._service)
                if self._stop.requested:
                    return False
            return True
        finally:
            self._in_callback = False

    def _handle(self, frame: bytes, service: TaskService) -> Awaitable[None] | None:
        try:
            _, body = messages.decode(frame)
        except ProtocolError as error:
            self.log.warning("Ignored a message on the bus: %s", error)
            return None
        head = body.get("header", {})
        # The device cannot filter messages of other publishers by transaction: see core.prefixes.
        if head.get("service_transaction") == self.transaction and head.get("service_id") != self.service_id:
            return service.on_control(body)
        return None

    # --- the phases of a task

    def run(self, load: Callable[[], type[TaskService]]) -> int:
        """Run the task from loading the service to close, and return the exit status.

        0: the task ended by itself or by a stop request. 1: an exception, which is logged and reported. 203:
        the service cannot be imported, which is logged and reported.
        """
        self._thread = threading.get_ident()
        tasks: list[Task] = []
        status = self._guarded(lambda: self._run_until_end(load, tasks))
        if tasks:
            # The first failure is the reason; close may fail only because setup did not finish.
            closed = self._guarded(lambda: self._call(tasks[0].close, closing=True), report=status == 0)
            status = status or closed
        if self._event_loop is not None:
            ended = self._guarded(self._event_loop.close, report=status == 0)
            status = status or ended
        if status == 0:
            self._status_sink.stopping()
        if self._subscription is not None:
            self._subscription.close()
        return status

    def _run_until_end(self, load: Callable[[], type[TaskService]], tasks: list[Task]) -> None:
        service_class = load()
        self._read_settings(service_class.task_class)
        self._loaded = True
        # Until here SIGTERM has its default action: an import that hangs has nothing to release, and could
        # not see a stop request.
        self._stop.listen()
        service = instantiate(service_class, self)
        self.made(service)
        task = service.task = instantiate(service.task_class, self)
        if isinstance(task, LoopedTask):
            task.interval = interval_of(self.config, task.interval)
        if isinstance(task, AsyncTask):
            # Imported here for start-up time: only an AsyncTask needs asyncio.
            from zmsvc.task.event_loop import EventLoop

            self._event_loop = EventLoop(self._stop, lambda: self._feed(self._stop.now(), self._watchdog / 2))
        subscription = None
        if service.listens():
            subscription = self._bus.subscribe(
                prefixes.control(self.transaction, ours_only=service_class._ours_only)
            )
        try:
            self._stop.interruptible = isinstance(task, SingleTask)
            if self._stop.requested:
                return
            tasks.append(task)
            self._call(task.setup)
            if self._stop.requested:
                return
            # This comes after setup, because on_control may rely on that. Until then messages wait in the
            # socket.
            if subscription is not None:
                self._service, self._subscription = service, subscription
                if self._event_loop is not None:
                    self._event_loop.read(subscription, lambda frame: self._handle(frame, service))
                else:
                    self._poller.register(subscription.fileno(), select.POLLIN)
            self._status_sink.ready()
            self._fed_at = self._stop.now()
            if isinstance(task, SingleTask):
                task.run()
            elif isinstance(task, LoopedTask):
                self._loop(task)
            elif isinstance(task, AsyncTask):
                self._call(task.run)
        finally:
            self._stop.interruptible = False
            if self._subscription is None and subscription is not None:
                subscription.close()

    def made(self, service: TaskService) -> None:
        """Do nothing. A simulation keeps the service. Here a reference would make a cycle, and the
        descriptors of the stop request would stay open until a collection.
        """

    def _read_settings(self, task_class: type[Task]) -> None:
        if task_class.settings_class is not None:
            # Imported here for start-up time: few tasks have a settings class.
            from zmsvc.task.settings import settings_of

            self.settings = settings_of(
                task_class.settings_class, self.config, file=self._file, task=self.service_id
            )

    def _call(self, act: Callable[[], Awaitable[None] | None], *, closing: bool = False) -> None:
        if self._event_loop is None:
            act()
        else:
            self._event_loop.run(act, cancel=not closing)

    def _loop(self, task: LoopedTask) -> None:
        due = self._stop.now()
        while not self._stop.requested:
            # Feed the watchdog once in a tenth of its time and not before each step, since there may be a
            # thousand steps a second. So a step has nine tenths of that time.
            self._feed(self._stop.now(), self._watchdog / 10)
            task.step()
            # Count from the planned start, since otherwise the durations of steps and late wake-ups would add
            # up. Missed steps are left out.
            due = max(due + task.interval, self._stop.now())
            self.wait(due - self._stop.now())

    def _guarded(self, act: Callable[[], None], *, report: bool = True) -> int:
        # A broad except: any exception of the user's code is this task's failure, and must be reported.
        try:
            act()
        except (Stopped, KeyboardInterrupt):  # KeyboardInterrupt occurs only in the foreground: Ctrl-C
            return 0
        except BaseException as error:
            return self.failed(error, report=report)
        return 0

    def failed(self, error: BaseException, *, report: bool = True) -> int:
        """Log a failure, report it as the task's status, and return the exit status. After sys.exit() that is
        its argument.

        A service that cannot be imported has not been started, whatever the exception.
        """
        if not self._loaded:
            status = CANNOT_EXECUTE
        elif isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = (error.code or 0) & 0xFF
            if status == 0:
                return 0
        else:
            status = error.status if isinstance(error, RefusedError) else 1
        self.log.error(
            "Failed: %s", headline(error), exc_info=None if isinstance(error, ZmsvcError) else error
        )
        if report:
            self._status_sink.status(headline(error))
        return status


def headline(error: BaseException) -> str:
    """Return the type of an exception and the first line of its text. For zmsvc's own errors, return the text
    alone.

    The last line would not help: SQLAlchemy and pydantic end with the address of a web page, and notes (PEP
    678) come last, too.
    """
    if isinstance(error, ZmsvcError):
        return str(error)
    if isinstance(error, SyntaxError):
        # The text of the error has only the last part of the path, and each service may have such a file.
        where = f" ({error.filename}, line {error.lineno})" if error.filename else ""
        return f"{type(error).__name__}: {error.msg}{where}"
    first, *more = [
        line.strip() for line in "".join(traceback.format_exception_only(error)).splitlines() if line.strip()
    ]
    # The first line has only the type if the text begins with an empty line.
    return f"{first} {more[0]}" if more and first.find(":") == len(first) - 1 else first


def interval_of(config: Mapping[str, Any], default: float) -> float:
    """Return the seconds between two steps: those of the configuration, or of the class. Raises
    LaunchError.
    """
    configured = config.get("interval")
    if configured is None:
        return default
    try:
        return seconds(configured)
    except ValueError:
        raise LaunchError(
            f"cannot use interval {configured!r}: expected a number of seconds, or a time span such as 500ms"
        ) from None
