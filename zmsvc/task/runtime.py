"""Run a task: setup, READY=1, steps, stop, close. Only the task's own thread feeds the watchdog, so that a
hang is noticed.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import select
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Protocol

from zmsvc.core import messages, prefixes, replicas
from zmsvc.core.errors import CANNOT_EXECUTE, LaunchError, ProtocolError, RefusedError, ZmsvcError
from zmsvc.core.poison import PoisonAction
from zmsvc.core.values import seconds
from zmsvc.host.kernel import signals
from zmsvc.protocol.launch import RELOAD_SIGNAL, Descriptors, LaunchSpec
from zmsvc.task.bus import ATTACH, Subscription
from zmsvc.task.endpoints import Endpoints
from zmsvc.task.headline import headline
from zmsvc.task.inbox import Message, RetainedFrame, named_topics, topics_of
from zmsvc.task.keys import task_keys
from zmsvc.task.publications import Publications
from zmsvc.task.sdk import (
    AsyncTask,
    FrameTask,
    LoopedTask,
    MessageTask,
    SingleTask,
    Task,
    TaskService,
    cause_of,
    instantiate,
)
from zmsvc.task.stop import Stop, Stopped
from zmsvc.task.subscriptions import Subscriptions, TopicMessages, published_topics, topics_before_ready
from zmsvc.task.updates import Updates

if TYPE_CHECKING:
    from zmsvc.task.asyncio_loop import AsyncioLoop
    from zmsvc.task.expected_topics import ExpectedTopics
    from zmsvc.task.poison_reports import PoisonReports
    from zmsvc.task.reload_requests import ReloadRequests

_REPORT_S = 1.0
"""Seconds between two reports of the number of missed messages."""
_PATIENCE = 5.0
"""Seconds of the wait before the first step after which the task logs that it waits."""
_BATCH = 64  # messages between two checks of the clock and of the stop request

Handle = Callable[[bytes], Awaitable[None] | None]


class StatusSink(Protocol):
    """The receiver of a task's status: a Notifier, or a terminal."""

    def ready(self) -> None: ...
    def status(self, text: str) -> None: ...
    def watchdog(self) -> None: ...
    def missed(self, count: int) -> None: ...
    def poison(self, json_text: str) -> bool: ...
    def declare(self, topics: Sequence[str], publishes: Sequence[str] | None) -> None: ...
    def heard(self, topic: str) -> None: ...
    def silent(self, topic: str) -> None: ...
    def stopping(self) -> None: ...
    def reloading(self) -> None: ...
    def fileno(self) -> int: ...
    def update(self, json_text: str, sequence: int) -> bool: ...


class BusSink(Protocol):
    """The operations of the bus that a task uses: the bus, or a terminal."""

    lossy: bool
    """True if a message may be lost."""

    def publish(self, frame: bytes) -> bool: ...
    def expect_subscribers(self) -> None: ...
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
        self.endpoints = Endpoints(spec.frontend, spec.backend)
        self.cause = cause_of(spec.cause)
        self.keys = task_keys(spec, fds)
        self.log = log
        self.settings: Any = None
        self._file = spec.file
        self._status_sink, self._bus, self._stop = status_sink, bus, stop
        self._barrier = fds.barrier
        """The pipe at which the task waits before its first step."""
        self._thread = threading.get_ident()
        self._watchdog = spec.watchdog
        self._fed_at = -math.inf
        self._updates = Updates(status_sink, stop)
        self._publications = Publications(spec, bus.publish, repeats=bus.lossy)
        self._loaded = False
        self._subscriptions = Subscriptions(bus, stop, spec, log)
        self._handled: list[tuple[Subscription, Handle]] = []
        """The subscriptions whose messages are passed to on_control and on_message."""
        self._missed, self._missed_at = 0, -math.inf
        """The number of missed messages that was reported last, and when."""
        self._sets_aside = spec.poison_action == PoisonAction.SET_ASIDE
        self._poison: PoisonReports | None = None
        """The reports about messages that the task could not handle, from the first one on."""
        expects = spec.expect or spec.ready_topic
        self._expected = _expected_topics(spec, status_sink) if expects else None
        self._in_loops: dict[tuple[CodeType, int], bytes] = {}
        """The last message of each loop over messages, by the function and the line of the loop."""
        self._in_callback = False
        self._reload_signal = spec.environment.get(RELOAD_SIGNAL, "")
        self._reloads: ReloadRequests | None = None
        """The requests to reload, of a task that has on_reload."""
        self._on_reload: Callable[[], Awaitable[None] | None] | None = None
        self._watched: dict[int, Callable[[], None]] = {}
        self._poller = stop.poller()
        self._event_loop: AsyncioLoop | None = None
        """The event loop of an AsyncTask."""

    # --- methods for the task

    def update(self, items: Mapping[str, Any], wait: bool) -> bool:
        own = threading.get_ident() == self._thread
        return self._updates.report(items, wait=wait, feed=self._feed_if_due if own else None)

    def _feed_if_due(self) -> None:
        self._feed(self._stop.now(), self._watchdog / 2)

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool:
        sent = self._publications.publish(topic, content)
        if self._expected is not None and sent:
            self._expected.published(topic)
        if self._event_loop is not None:
            self._event_loop.begin_chores()
        return sent

    def _chores(self, now: float) -> float:
        """Do what is due: repeat numbers of messages, and report how many were missed. Return the seconds
        until the next time.
        """
        pause = self._publications.repeat(now)
        if self._poison is not None:
            pause = min(pause, self._poison.flush(now))
        missed = self._subscriptions.missed
        if missed == self._missed:
            return pause
        if now < self._missed_at + _REPORT_S:
            return min(pause, self._missed_at + _REPORT_S - now)
        self._missed, self._missed_at = missed, now
        self._status_sink.missed(missed)
        return pause

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
                self._reload_if_asked()
                now = self._stop.now()
                if now >= until:
                    break
                pause = min(until - now, self._feed(now, self._watchdog / 2), self._chores(now))
                if not more:
                    # A wait inside a callback ends only by time or by the stop request.
                    poller = self._stop.poller() if self._in_callback else self._poller
                    readable = self._stop.pause(pause, poller)
                    if self._watched:
                        self._call_watchers(readable)
        finally:
            self._stop.interruptible = before
        # Check again: a signal that came after the last check of the loop has interrupted nothing.
        return self._stop.requested

    def _wait_in_other_thread(self, until: float) -> bool:
        """Wait in a thread of the user: it neither calls callbacks nor feeds the watchdog."""
        poll = self._stop.poller()
        while not self._stop.requested and (left := until - self._stop.now()) > 0:
            Stop.pause(self._stop, left, poll)
        return self._stop.requested

    def messages(self, task: Task, topics: tuple[str, ...], seconds: float | None) -> Iterator[Message[Any]]:
        if threading.get_ident() != self._thread:
            raise RuntimeError("cannot iterate over messages: this is not the task's own thread")
        source = self._confirmed_source(task, self._named(task, topics), feed=self._feed_if_due)
        return self._iterate(source, seconds)

    def _named(self, task: Task, topics: tuple[str, ...]) -> tuple[str, ...]:
        named = topics_of(topics, "messages()") or named_topics(type(task), self.config.get("subscribe"))
        if not named:
            raise RuntimeError("cannot iterate over messages: no topics are named")
        return named

    def _confirmed_source(
        self, task: Task, topics: tuple[str, ...], *, feed: Callable[[], None] | None = None
    ) -> TopicMessages:
        source = self._subscriptions.source(topics, every_transaction=task.every_transaction)
        self._subscriptions.confirm(feed=feed)
        return source

    def _iterate(self, source: TopicMessages, seconds: float | None) -> Iterator[Message[Any]]:
        fds = [] if source.subscription is None else [source.subscription.fileno()]
        if not self._in_callback:
            fds += [*(each.fileno() for each, _ in self._handled), *self._watched]
            if self._reloads is not None:
                fds.append(self._reloads.fd)
        poller = self._stop.poller(*fds)
        while True:
            until = math.inf if seconds is None else self._stop.now() + seconds
            message = self._next(source, until, poller)
            if message is None:
                return
            place = _place(sys._getframe(1))
            self._in_loops[place] = source.inbox.frame
            yield message
            self._in_loops.pop(place, None)

    def _next(self, source: TopicMessages, until: float, poller: select.poll) -> Message[Any] | None:
        """Return the next message; None after the timeout or a stop request."""
        before, self._stop.interruptible = self._stop.interruptible, False
        try:
            while not self._stop.requested:
                more = self._deliver()
                self._reload_if_asked()
                now = self._stop.now()
                pause = min(self._feed(now, self._watchdog / 2), self._chores(now))
                if (message := self._usable(source)) is not None:
                    return message
                if now >= until:
                    return None
                if not more:
                    readable = self._stop.pause(min(until - now, pause), poller)
                    if self._watched:
                        self._call_watchers(readable)
        finally:
            self._stop.interruptible = before
        return None

    def _usable(self, source: TopicMessages) -> Message[Any] | None:
        """Return the next message whose content can be converted, None if none waits."""
        while True:
            try:
                return source.next()
            except ProtocolError as error:
                if not self._set_aside(source.inbox.frame, error):
                    raise

    async def messages_async(
        self, task: Task, topics: tuple[str, ...], seconds: float | None
    ) -> AsyncIterator[Message[Any]]:
        loop = self._own_event_loop()
        named = self._named(task, topics)
        source = self._subscriptions.confirmed(named)
        if source is None:
            source = await loop.in_thread(lambda: self._confirmed_source(task, named))
        take = functools.partial(self._usable, source)
        while (message := await loop.next(source, take, seconds)) is not None:
            if self._subscriptions.missed != self._missed:
                loop.begin_chores()
            place = _place(sys._getframe(1))
            self._in_loops[place] = source.inbox.frame
            yield message
            self._in_loops.pop(place, None)

    async def update_async(self, items: Mapping[str, Any]) -> bool:
        # In most cases there is room, and no thread is needed.
        return self._updates.report(items, wait=False, feed=None) or await self._own_event_loop().in_thread(
            lambda: self._updates.report(items, wait=True, feed=None)
        )

    async def publish_async(self, topic: str, content: Mapping[str, Any]) -> bool:
        return await self._own_event_loop().in_thread(lambda: self.publish(topic, content))

    async def wait_async(self, seconds: float | None) -> bool:
        return await self._own_event_loop().wait(seconds)

    def _own_event_loop(self) -> AsyncioLoop:
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

    def _reload_if_asked(self) -> None:
        """Call on_reload if the task was asked to reload."""
        if self._reloads is None or self._in_callback or self._stop.requested or not self._reloads.take():
            return
        assert self._on_reload is not None
        self._in_callback = True
        try:
            self._status_sink.reloading()
            self._on_reload()
            self._status_sink.ready()
        finally:
            self._in_callback = False
        self._fed_at = self._stop.now()

    async def _reload_async(self) -> None:
        assert self._reloads is not None
        assert self._on_reload is not None
        if not self._reloads.take():
            return
        self._status_sink.reloading()
        if (result := self._on_reload()) is not None:
            await result
        self._status_sink.ready()

    def _listen_for_reloads(self, task: Task) -> None:
        """Have the reload signal of the task call its on_reload. Without that method the signal has its
        default action, or that of the task's own handler.
        """
        if type(task).on_reload is Task.on_reload or (requests := self.reload_requests()) is None:
            return
        self._on_reload, self._reloads = task.on_reload, requests
        if self._event_loop is None:
            self._poller.register(self._reloads.fd, select.POLLIN)
        else:
            self._event_loop.watch(self._reloads.fd, self._reload_async)

    def reload_requests(self) -> ReloadRequests | None:
        """Return the requests that the reload signal makes, None if the task has no such signal."""
        if not self._reload_signal:
            return None
        # Imported here for start-up time: few tasks have such a method.
        from zmsvc.task.reload_requests import ReloadRequests

        requests = ReloadRequests()
        requests.listen(signals.number(self._reload_signal))
        return requests

    def _deliver(self) -> bool:
        """Pass waiting messages to on_control and on_message. Return True if more may wait."""
        if not self._handled or self._in_callback:
            return False
        self._in_callback = True
        try:
            more = False
            for subscription, handle in self._handled:
                for _ in range(_BATCH):
                    if self._stop.requested or (frame := subscription.receive()) is None:
                        break
                    handle(frame)
                else:
                    more = True
            return more
        finally:
            self._in_callback = False

    def _handle_control(self, frame: bytes, service: TaskService) -> Awaitable[None] | None:
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

    def _handle_message(self, task: Task, source: TopicMessages, frame: bytes) -> Awaitable[None] | None:
        try:
            message = source.inbox.message(frame)
            if self._event_loop is not None and self._subscriptions.missed != self._missed:
                self._event_loop.begin_chores()
            result = None if message is None else task.on_message(message)
        except Exception as error:  # the method is the user's code
            if not self._set_aside(frame, error):
                raise
            return None
        return None if result is None else self._awaited(result, frame)

    async def _awaited(self, result: Awaitable[None], frame: bytes) -> None:
        try:
            await result
        except Exception as error:  # the method is the user's code
            if not self._set_aside(frame, error):
                raise

    def _set_aside(
        self, frame: bytes, error: Exception, *, where: str = "on_message", goes_on: bool | None = None
    ) -> bool:
        """Report a message that the task could not handle. Return True if the task goes on, as `goes_on` or
        its `<poison_action>` says.
        """
        if self._poison is None:
            # Imported here for start-up time: few tasks ever receive such a message.
            from zmsvc.task.poison_reports import PoisonReports

            self._poison = PoisonReports(self._status_sink, self._stop, self.log)
        # A LastValue sends a retained message to each next process of the task, so each would fail as well.
        if goes_on is None:
            goes_on = self._sets_aside or type(frame) is RetainedFrame
        self._poison.add(frame, error, goes_on=goes_on, where=where)
        if self._event_loop is not None:
            self._event_loop.begin_chores()
        return goes_on

    def _set_aside_iterated(self, error: Exception) -> None:
        """Report the message at which the body of a loop over messages has raised an exception. The task
        fails: a loop that an exception has left cannot go on.
        """
        if not self._in_loops:
            return
        # Imported here for start-up time: few tasks ever fail in such a loop.
        from zmsvc.task.loop_bodies import raised_in_body

        for (code, line), frame in [*self._in_loops.items()]:
            if raised_in_body(error, code, line):
                self._set_aside(frame, error, where="the loop over messages", goes_on=False)

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
        self._close_barrier()
        self._missed_at = -math.inf
        if self._poison is not None:
            self._poison.finish()
        if self._expected is not None:
            self._expected.close()
        self._chores(self._stop.now())
        self._subscriptions.close()
        self._publications.finish()
        return status

    def _run_until_end(self, load: Callable[[], type[TaskService]], tasks: list[Task]) -> None:
        service_class = load()
        self._read_settings(service_class.task_class)
        self._loaded = True
        # Until here SIGTERM has its default action: an import that hangs has nothing to release, and could
        # not notice a stop request.
        self._stop.listen()
        service = instantiate(service_class, self)
        self.made(service)
        task = service.task = instantiate(service.task_class, self)
        if isinstance(task, LoopedTask):
            task.interval = interval_of(self.config, task.interval)
        if isinstance(task, AsyncTask):
            # Imported here for start-up time: only an AsyncTask needs asyncio.
            from zmsvc.task.asyncio_loop import AsyncioLoop

            self._event_loop = AsyncioLoop(
                self._stop,
                lambda: self._feed(self._stop.now(), self._watchdog / 2),
                lambda: self._chores(self._stop.now()),
            )
        handled = self._subscribe(service, task)
        if not self._subscriptions.confirm(feed=lambda: None):
            return
        try:
            self._stop.interruptible = isinstance(task, SingleTask)
            if self._stop.requested:
                return
            tasks.append(task)
            self._call(task.setup)
            if self._stop.requested:
                return
            self._listen_for_reloads(task)
            self._status_sink.ready()
            self._fed_at = self._stop.now()
            if not self._pass_barrier():
                return
            if self._expected is not None:
                self._expected.set_up()
            # This comes after setup, because on_control and on_message may rely on that, and after the
            # barrier, because they may publish. Until then messages wait in the socket.
            self._handle(handled)
            if isinstance(task, SingleTask | AsyncTask):
                self._run_once(task)
            elif isinstance(task, LoopedTask):
                self._loop(task)
            elif isinstance(task, MessageTask):
                self.wait(None)
        finally:
            self._stop.interruptible = False

    def _run_once(self, task: SingleTask | AsyncTask) -> None:
        try:
            self._call(task.run)
        except Exception as error:  # the method is the user's code
            self._set_aside_iterated(error)
            raise

    def _subscribe(self, service: TaskService, task: Task) -> list[tuple[Subscription, Handle]]:
        """Subscribe to all that the task hears from its start on. Return the subscriptions whose messages are
        passed to a method. Raises LaunchError and RefusedError.
        """
        handled: list[tuple[Subscription, Handle]] = []
        if isinstance(task, FrameTask):
            return self._subscribe_to_frames(task)
        topics = topics_before_ready(task, self.config.get("subscribe"))
        self._declare(service, task, topics)
        if service.listens():
            wanted = prefixes.control(self.transaction, ours_only=type(service)._ours_only)
            # Without a device there is nothing to hear, and the task starts without it.
            control = self._subscriptions.add(wanted, patience=ATTACH)
            if control is not None:
                handled.append((control, lambda frame: self._handle_control(frame, service)))
        if topics:
            source = self._subscriptions.source(topics, every_transaction=task.every_transaction)
            if task.handles_messages() and source.subscription is not None:
                source.inbox.convert = _conversion(task)
                handled.append((source.subscription, functools.partial(self._handle_message, task, source)))
        return handled

    def _subscribe_to_frames(self, task: FrameTask) -> list[tuple[Subscription, Handle]]:
        if topics := task.heard():
            self._status_sink.declare(topics, published_topics(task))
        # Without this declaration, others have to assume until READY that it may hear anything.
        self._close_barrier()
        if (subscription := self._subscriptions.add(task.prefixes())) is None:
            return []
        task.begin(subscription)
        return [(subscription, task.on_frame)]

    def _declare(self, service: TaskService, task: Task, topics: tuple[str, ...]) -> None:
        """Declare what the task hears and publishes, if others wait for that. READY, which follows at once if
        there is nothing to do before it, says the same as a declaration without topics.
        """
        publishes = published_topics(task)
        if self._barrier is None:
            return
        if publishes == ():
            self._close_barrier()
        prepares = type(task).setup is not Task.setup or service.listens()
        if topics or publishes or prepares:
            self._status_sink.declare(topics, publishes)

    def _pass_barrier(self) -> bool:
        """Wait until every task of the same start that hears what this task publishes is ready or has failed.
        Return False if the task is asked to stop.
        """
        if self._barrier is None:
            return True
        if self._event_loop is not None:
            loop, fd = self._event_loop, self._barrier
            loop.run(lambda: loop.readable(fd, _PATIENCE, self._report_wait), cancel=True)
            if self._reloads is not None:
                loop.watch(self._reloads.fd, self._reload_async)
        else:
            self._await_barrier(self._barrier)
        self._close_barrier()
        self._bus.expect_subscribers()
        return not self._stop.requested

    def _close_barrier(self) -> None:
        if self._barrier is not None:
            os.close(self._barrier)
            self._barrier = None

    def _await_barrier(self, fd: int) -> None:
        before, self._stop.interruptible = self._stop.interruptible, False
        poller = self._stop.poller(fd, *([] if self._reloads is None else [self._reloads.fd]))
        until = self._stop.now() + _PATIENCE
        while not self._stop.requested:
            self._reload_if_asked()
            now = self._stop.now()
            if now >= until:
                until = math.inf
                self._report_wait()
            pause = min(until - now, self._feed(now, self._watchdog / 2), self._chores(now))
            if fd in self._stop.pause(pause, poller):
                break
        self._stop.interruptible = before

    def _report_wait(self) -> None:
        self.log.info(
            "Waits before its first step for tasks that were started with it and may hear what it publishes "
            "(zmsvcctl status shows which are not ready; `publishes` on the class names what it publishes)"
        )

    def _handle(self, handled: list[tuple[Subscription, Handle]]) -> None:
        """Pass the messages of these subscriptions to their methods from now on."""
        if self._event_loop is not None:
            for subscription, handle in handled:
                self._event_loop.read(subscription, handle)
            return
        self._handled = handled
        for subscription, _ in handled:
            self._poller.register(subscription.fileno(), select.POLLIN)

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


def _place(caller: FrameType | None) -> tuple[CodeType, int]:
    """Return the function and the line of the loop that gets the next message."""
    assert caller is not None
    return caller.f_code, caller.f_lineno


def _expected_topics(spec: LaunchSpec, status_sink: StatusSink) -> ExpectedTopics:
    # Imported here for start-up time: few tasks have such topics.
    from zmsvc.task.expected_topics import ExpectedTopics

    return ExpectedTopics(spec, status_sink)


def _conversion(task: Task) -> Callable[[Any], Any] | None:
    """Return the conversion of messages that the annotation of on_message asks for. Raises LaunchError."""
    method = type(task).on_message
    try:
        if not method.__annotations__:
            return None
    except NameError:
        pass  # Python 3.14 evaluates annotations here; the import below reports the unknown name.
    # Imported here for start-up time: few tasks have typed messages.
    from zmsvc.task.message_types import conversion

    return conversion(method)


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
