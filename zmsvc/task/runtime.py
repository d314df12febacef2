"""The life of a task: setup, READY, steps, stop, close. The watchdog is fed by this loop alone, so a hang
is not hidden.
"""

from __future__ import annotations

import logging
import math
import select
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from zmsvc.core import messages, prefixes
from zmsvc.core.errors import CANNOT_EXECUTE, LaunchError, ProtocolError, RefusedError, ZmsvcError
from zmsvc.core.values import seconds
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task.bus import Subscription
from zmsvc.task.keys import given
from zmsvc.task.sdk import LoopedTask, SingleTask, Task, TaskService, cause_of, made
from zmsvc.task.stop import Stop, Stopped
from zmsvc.task.updates import Updates

_BATCH = 64  # messages between two looks at the clock and at the wish to stop


class StatusSink(Protocol):
    """Whom a task tells how it is: a Notifier, or a terminal."""

    def ready(self) -> None: ...
    def status(self, text: str) -> None: ...
    def watchdog(self) -> None: ...
    def stopping(self) -> None: ...
    def fileno(self) -> int: ...
    def update(self, json_text: str, sequence: int) -> bool: ...


class BusSink(Protocol):
    """How a task speaks to others and hears them: the bus, or a terminal."""

    def publish(self, frame: bytes) -> bool: ...
    def ear(self, prefixes: Sequence[bytes]) -> Subscription | None: ...


class TaskRuntime:
    """One task's life, in one thread."""

    def __init__(
        self,
        spec: LaunchSpec,
        fds: Descriptors,
        *,
        voice: StatusSink,
        channel: BusSink,
        stop: Stop,
        log: logging.Logger,
    ) -> None:
        self.config: dict[str, Any] = dict(spec.configuration)
        self.context = spec.context
        self.transaction = spec.transaction
        self.service_id = spec.task
        self.frontend = spec.frontend
        self.cause = cause_of(spec.cause)
        self.keys = given(spec, fds)
        self.log = log
        self._voice, self._channel, self._stop = voice, channel, stop
        self._thread = threading.get_ident()
        self._watchdog = spec.watchdog
        self._fed_at = -math.inf
        self._updates = Updates(voice, stop)
        self._loaded = False
        self._service: TaskService | None = None
        self._ear: Subscription | None = None
        self._hearing = False
        self._watched: dict[int, Callable[[], None]] = {}
        self._awake = stop.poller()

    # --- what a task asks for

    def update(self, items: Mapping[str, Any], wait: bool) -> bool:
        own = threading.get_ident() == self._thread
        return self._updates.report(items, wait=wait, feed=self._feed_in_time if own else None)

    def _feed_in_time(self) -> None:
        self._feed(time.monotonic(), self._watchdog / 2)

    def publish(self, topic: str, body: Mapping[str, Any]) -> bool:
        messages.check_topic(topic)
        return self._channel.publish(messages.encode(topic, body))

    def wait(self, seconds: float | None) -> bool:
        until = math.inf if seconds is None else time.monotonic() + seconds
        if threading.get_ident() != self._thread:
            return self._wait_elsewhere(until)
        before, self._stop.interruptible = self._stop.interruptible, False
        try:
            while not self._stop.requested:
                more = self._hear()
                now = time.monotonic()
                if now >= until:
                    break
                pause = min(until - now, self._feed(now, self._watchdog / 2))
                if not more:
                    # Whoever waits while he is called hears only the wish to stop.
                    self._answer(
                        self._stop.pause(pause, self._stop.poller() if self._hearing else self._awake)
                    )
        finally:
            self._stop.interruptible = before
        # Looked at again: a signal since the last look in the loop has not broken off anything.
        return self._stop.requested

    def _wait_elsewhere(self, until: float) -> bool:
        """In a thread of the user's own: it neither hears nor feeds."""
        poll = self._stop.poller()
        while not self._stop.requested and (left := until - time.monotonic()) > 0:
            Stop.pause(self._stop, left, poll)
        return self._stop.requested

    def watch(self, fd: int, answer: Callable[[], None]) -> None:
        self._watched[fd] = answer
        self._awake.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._awake.unregister(fd)

    def _answer(self, readable: Iterable[int]) -> None:
        for fd in readable:
            if fd in self._watched and not self._hearing:
                self._hearing = True
                try:
                    self._watched[fd]()
                finally:
                    self._hearing = False

    def _feed(self, now: float, every: float) -> float:
        """Feed the watchdog when that was not done for so many seconds; gives the seconds until it is due."""
        if not self._watchdog:
            return math.inf
        if now - self._fed_at >= every:
            self._voice.watchdog()
            self._fed_at = now
        return self._fed_at + every - now

    def _hear(self) -> bool:
        """Hand on what other services have reported. True when there may be more of it."""
        if self._ear is None or self._service is None or self._hearing:
            return False
        self._hearing = True
        try:
            for _ in range(_BATCH):
                frame = self._ear.receive()
                if frame is None:
                    return False
                self._take(frame, self._service)
                if self._stop.requested:
                    return False
            return True
        finally:
            self._hearing = False

    def _take(self, frame: bytes, service: TaskService) -> None:
        try:
            _, body = messages.decode(frame)
        except ProtocolError as error:
            self.log.warning("Ignored a message on the bus: %s", error)
            return
        head = body.get("header", {})
        # Of what others write the device cannot tell the transaction: see core.prefixes.
        if head.get("service_transaction") == self.transaction and head.get("service_id") != self.service_id:
            service.on_control(body)

    # --- the life itself

    def live(self, load: Callable[[], type[TaskService]]) -> int:
        """From loading the service to close; gives the exit status.

        0: ended by itself or told to; 1: an exception, logged and told; 203: the service cannot be imported,
        logged and told.
        """
        self._thread = threading.get_ident()
        task: list[Task] = []
        status = self._guarded(lambda: self._until_end(load, task))
        if task:
            # What went wrong first is the reason; close may fail over nothing but what setup did not get to.
            closed = self._guarded(task[0].close, tell=status == 0)
            status = status or closed
        if status == 0:
            self._voice.stopping()
        if self._ear is not None:
            self._ear.close()
        return status

    def _until_end(self, load: Callable[[], type[TaskService]], made_task: list[Task]) -> None:
        service_class = load()
        self._loaded = True
        # Until here SIGTERM has its default action: an import that hangs needs no care, and would not get to
        # see a wish.
        self._stop.listen()
        service = made(service_class, self)
        task = service.task = made(service.task_class, self)
        if isinstance(task, LoopedTask):
            task.interval = interval_of(self.config, task.interval)
        ear = None
        if service.listens():
            ear = self._channel.ear(prefixes.control(self.transaction, ours_only=service_class._ours_only))
        try:
            self._stop.interruptible = isinstance(task, SingleTask)
            if self._stop.requested:
                return
            made_task.append(task)
            task.setup()
            if self._stop.requested:
                return
            # Only now: on_control may rely on setup, and a message before READY waits in the socket.
            if ear is not None:
                self._service, self._ear = service, ear
                self._awake.register(ear.fileno(), select.POLLIN)
            self._voice.ready()
            self._fed_at = time.monotonic()
            if isinstance(task, SingleTask):
                task.run()
            elif isinstance(task, LoopedTask):
                self._loop(task)
        finally:
            self._stop.interruptible = False
            if self._ear is None and ear is not None:
                ear.close()

    def _loop(self, task: LoopedTask) -> None:
        due = time.monotonic()
        while not self._stop.requested:
            # Not before each of a thousand steps a second, but so that a step always has nine tenths of the
            # watchdog's time.
            self._feed(time.monotonic(), self._watchdog / 10)
            task.step()
            # From the planned start, so that neither the step's time nor a late wake-up adds up; what was
            # missed is not made up for.
            due = max(due + task.interval, time.monotonic())
            self.wait(due - time.monotonic())

    def _guarded(self, act: Callable[[], None], *, tell: bool = True) -> int:
        # A broad except: whatever the user's code raises is this task's failure, and must be told as such.
        try:
            act()
        except (Stopped, KeyboardInterrupt):  # the latter reaches us in the foreground only: Ctrl-C
            return 0
        except BaseException as error:
            return self.failed(error, tell=tell)
        return 0

    def failed(self, error: BaseException, *, tell: bool = True) -> int:
        """Log a failure, and tell it as the task's status; gives the exit status, which is the given one for
        sys.exit().

        A service that could not be imported was never started, whatever kept it from that.
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
        if tell:
            self._voice.status(headline(error))
        return status


def headline(error: BaseException) -> str:
    """Return the type of an exception and the first line of its text. Our own errors say all in their text.

    The last line may be anything: SQLAlchemy and pydantic end with the address of a page, and notes (PEP 678)
    come last, too.
    """
    if isinstance(error, ZmsvcError):
        return str(error)
    if isinstance(error, SyntaxError):
        # The traceback names file and line above the line of the exception; the error's own text has both.
        return f"{type(error).__name__}: {error}"
    first, *more = [
        line.strip() for line in "".join(traceback.format_exception_only(error)).splitlines() if line.strip()
    ]
    # A text that begins with an empty line leaves the type alone on the first one.
    return f"{first} {more[0]}" if more and first.find(":") == len(first) - 1 else first


def interval_of(config: Mapping[str, Any], default: float) -> float:
    """Return the seconds between two steps: those of the configuration, or of the class. Raises
    LaunchError.
    """
    given = config.get("interval")
    if given is None:
        return default
    try:
        return seconds(given)
    except ValueError:
        raise LaunchError(
            f"cannot use interval {given!r}: expected a number of seconds, or a time span such as 500ms"
        ) from None
