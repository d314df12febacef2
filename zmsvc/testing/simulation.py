"""Run services in a test, in one process, with a clock and a bus of the test.

The runtime of each task is the real one, in a thread of its own. The simulation lets only one thread run at a
time: when it waits, the thread whose time comes next goes on, and the clock moves there. So a minute takes
milliseconds, and a run gives the same results each time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import json
import logging
import math
import os
import select
import selectors
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from zmsvc.core import messages
from zmsvc.core.poison import PoisonAction
from zmsvc.protocol.launch import Descriptors, LaunchSpec
from zmsvc.task import loader
from zmsvc.task.bus import Subscription
from zmsvc.task.last_value import ServiceLastValue
from zmsvc.task.reload_requests import ReloadRequests
from zmsvc.task.runtime import TaskRuntime
from zmsvc.task.sdk import Task, TaskService
from zmsvc.task.stop import Stop

PATIENCE = 10.0
"""Seconds of real time for which a task may compute without a wait."""
_BUSY = 1000
"""The number of readings of the clock that take no time while a task does not wait. Each further reading adds
_TICK to the clock, so that a task that never waits comes to the end of the run.
"""
_TICK = 0.001


class Simulation:
    """Several tasks of one transaction, on one bus and with one clock. Use it as a context manager:

    with testing.Simulation() as simulation:
        sensor = simulation.start(ServiceSensor, config={"interval": "10"})
        simulation.run(60)
        assert sensor.updates == [{"celsius": 20.0}] * 7

    The end of the block asks all tasks to stop. No process, daemon or ZMQ socket is involved. There are no
    rules and no watchdog. Threads that a task starts, and sockets that it reads in an event loop, have no
    part in the simulated time. `start(testing.ServiceLastValue)` keeps the last messages for tasks that are
    started later.
    """

    messages: list[tuple[str, dict[str, Any]]]
    """Topic and body of every message on the bus, in order: those of the tasks, those of `publish`, and the
    `control` messages that the supervisor would publish.
    """
    now: float
    """The simulated time in seconds. It begins with 0."""

    def __init__(self, *, context: str = "test", transaction: str = "TEST") -> None:
        self.context, self.transaction = context, transaction
        self.messages, self.now = [], 0.0
        self._until = 0.0
        self._tasks: list[SimulatedTask] = []
        self._waiting: dict[SimulatedTask, float] = {}
        self._back = threading.Semaphore(0)

    def start(
        self,
        cls: type[TaskService] | type[Task],
        *,
        config: Mapping[str, Any] | None = None,
        service_id: str = "",
        cause: Mapping[str, Any] | None = None,
        may_fail: bool = False,
        sets_aside: bool = False,
    ) -> SimulatedTask:
        """Start a service, or a task in a service of its own, and let it come to its first wait. `config` is
        its `<configuration>`, `service_id` by default the name of the class. An exception of the task is
        raised here, or in `run`, unless it `may_fail`. With `sets_aside` the task goes on after a message
        that it cannot handle, as with `<poison_action>set-aside</poison_action>`.
        """
        task = SimulatedTask(
            self,
            cls,
            config or {},
            service_id or cls.__name__,
            cause,
            may_fail=may_fail,
            sets_aside=sets_aside,
        )
        self._tasks.append(task)
        self._waiting[task] = self.now
        self.run(0)
        return task

    def run(self, seconds: float) -> None:
        """Let this time pass: run everything that is due until then. Raises the exception of a task that
        fails, and AssertionError for a task that computes for more than 10 s without a wait.
        """
        self._until = self.now + seconds
        while self._waiting:
            # min() takes the first of equals, which is the one that has waited longest.
            task = min(self._waiting, key=lambda each: self._waiting[each])
            due = self._waiting[task]
            if due > self._until:
                break
            self.now = max(self.now, due)
            del self._waiting[task]
            task._go.release()
            if not self._back.acquire(timeout=PATIENCE):
                raise AssertionError(
                    f"{task.service_id} computes for more than {PATIENCE:g} s without a wait"
                )
            task._raise()
        self.now = self._until

    def publish(self, topic: str, body: Mapping[str, Any]) -> None:
        """Publish a message of another client of the bus, unchanged. Tasks receive it in the next `run`. One
        without a `service_transaction` in its header belongs to no transaction.
        """
        messages.check_topic(topic)
        self._send(messages.encode(topic, body))

    def _send(self, frame: bytes) -> None:
        topic, body = messages.decode(frame)
        self.messages.append((topic, body))
        for each in self._tasks:
            each._receive(frame)

    def _retaining(self) -> tuple[str, ...] | None:
        """Return the tasks that keep the last messages; None if there are none."""
        found = [each for each in self._tasks if issubclass(each._class, ServiceLastValue)]
        return tuple(each.service_id for each in found if each.exit_status is None) if found else None

    def _prefixes(self) -> list[bytes]:
        """Return all subscriptions of tasks that have not ended."""
        queues = (each for task in self._tasks for each in task._subscriptions)
        return [prefix for each in queues if each._event >= 0 for prefix in each._prefixes]

    def _sleep(self, task: SimulatedTask, until: float) -> None:
        """Let the other tasks run until this time, or until `_wake`. Called in the thread of the task."""
        self._waiting[task] = until
        self._back.release()
        task._go.acquire()

    def _wake(self, task: SimulatedTask) -> None:
        if task in self._waiting:
            self._waiting[task] = min(self._waiting[task], self.now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for each in self._tasks:
            each.stop()
        failures = [failure for _ in range(len(self._tasks) + 1) if (failure := self._failure_of_run(3600))]
        left = [each.service_id for each in self._tasks if each.exit_status is None]
        for each in self._tasks:
            each._close()
        # The first failure is the one to report.
        if kind is None and failures:
            raise failures[0]
        if kind is None and left:
            raise AssertionError(f"{', '.join(left)} did not end within an hour after the stop request")

    def _failure_of_run(self, seconds: float) -> BaseException | None:
        try:
            self.run(seconds)
        except (Exception, SystemExit) as error:  # the tasks are the code of the test's author
            return error
        return None


class SimulatedTask:
    """One task of a simulation."""

    updates: list[dict[str, Any]]
    """The items of each `update`."""
    published: list[tuple[str, dict[str, Any]]]
    """Topic and content of each `publish`, as the task passed them."""
    quarantined: list[dict[str, Any]]
    """The entries of the quarantine, one for each message that the task could not handle. An entry has among
    others `topic`, `sender`, `error` and `traceback`.
    """
    state: str
    """The state that `zmsvcctl status` would show: activating, active, reloading, inactive or failed."""
    exit_status: int | None
    """The exit status of its process; None while the task runs."""
    error: BaseException | None
    """The exception by which it failed."""

    def __init__(
        self,
        simulation: Simulation,
        cls: type[TaskService] | type[Task],
        config: Mapping[str, Any],
        service_id: str,
        cause: Mapping[str, Any] | None,
        *,
        may_fail: bool,
        sets_aside: bool,
    ) -> None:
        self.service_id = service_id
        self.updates, self.published, self.quarantined = [], [], []
        self.state, self.exit_status, self.error = "activating", None, None
        self._simulation, self._may_fail, self._raised = simulation, may_fail, False
        self._class = _service_class(cls)
        self._go = threading.Semaphore(0)
        self._stop = _SimulatedStop(simulation, self)
        self._subscriptions: list[_Queue] = []
        self._runtime = _Runtime(
            self.published,
            _launch(simulation, cls.__name__, config, service_id, cause, sets_aside=sets_aside),
            Descriptors(),
            status_sink=_Status(self),
            bus=_Bus(self),
            stop=self._stop,
            log=logging.getLogger(cls.__name__),
        )
        # A daemon thread: a task that never ends must not keep the test process from ending.
        self._thread = threading.Thread(target=self._run, name=service_id, daemon=True)
        self._thread.start()

    @property
    def service(self) -> TaskService:
        """The instance of the service. Raises AttributeError before it exists."""
        service = self._runtime.service
        if service is None:
            raise AttributeError(f"{self.service_id} has no service yet")
        return service

    @property
    def task(self) -> Any:
        """The instance of the task. Raises AttributeError before it exists."""
        return self.service.task

    def stop(self) -> None:
        """Ask the task to stop. It ends in the next `run`."""
        self._stop.request()
        self._simulation._wake(self)

    def reload(self) -> None:
        """Ask the task to reload, as `zmsvcctl reload TASK` does. It calls its `on_reload` in the next `run`.
        Raises AttributeError if its class has no `on_reload`.
        """
        if self._runtime.requests is None:
            raise AttributeError(f"{self._class.task_class.__name__} has no on_reload")
        self._runtime.requests.add()
        self._simulation._wake(self)

    def _run(self) -> None:
        self._go.acquire()
        try:
            self.exit_status = self._runtime.run(self._load)
            self.error = self._runtime.error
            self.state = "failed" if self.exit_status else "inactive"
            self._report("failed" if self.exit_status else "stopped", self._how())
        finally:
            self._simulation._back.release()

    def _load(self) -> type[TaskService]:
        loader.check_methods(self._class.__name__, self._class)
        return self._class

    def _how(self) -> dict[str, Any]:
        if self.exit_status:
            return {"reason": "exit-code", "exit_code": self.exit_status}
        return {"reason": "requested" if self._stop.requested else "exited", "exit_code": 0}

    def _report(self, action: str, items: Mapping[str, Any]) -> None:
        """Publish the `control` message that the supervisor would publish."""
        head = messages.header(
            transaction=self._simulation.transaction,
            service_id=self.service_id,
            action=action,
            service_name=self._class.service_name or self._class.__name__,
        )
        body = messages.control(
            head, success=action != "failed", device_action="", pid=os.getpid(), items=items
        )
        self._simulation._send(messages.encode("control", body))

    def _receive(self, frame: bytes) -> None:
        wanted = [each.put(frame) for each in self._subscriptions]
        if any(wanted):
            self._simulation._wake(self)

    def _raise(self) -> None:
        if self.error is not None and not self._may_fail and not self._raised:
            self._raised = True
            raise self.error

    def _close(self) -> None:
        if self.exit_status is None:
            return  # the thread still uses the descriptors
        self._thread.join()
        os.close(self._stop.fd)
        if self._runtime.requests is not None:
            os.close(self._runtime.requests.fd)


def _service_class(cls: type[TaskService] | type[Task]) -> type[TaskService]:
    if issubclass(cls, TaskService):
        return cls
    made: type[TaskService] = type(f"Service{cls.__name__}", (TaskService,), {"task_class": cls})
    return made


def _launch(
    simulation: Simulation,
    instance: str,
    config: Mapping[str, Any],
    service_id: str,
    cause: Mapping[str, Any] | None,
    *,
    sets_aside: bool,
) -> LaunchSpec:
    return LaunchSpec(
        launch=1,
        context=simulation.context,
        context_id="",
        transaction=simulation.transaction,
        task=service_id,
        instance=instance,
        service_name="",
        service_type="Thread",
        device_action="",
        description="",
        configuration=dict(config),
        search=(),
        command=(),
        frontend="",
        backend="",
        notify="",
        log="stderr",
        poison_action=PoisonAction.SET_ASIDE if sets_aside else PoisonAction.FAIL,
        cause=cause or {"by": "operator", "uid": os.getuid(), "depth": 0, "sources": []},
        retained=simulation._retaining(),
    )


class _Runtime(TaskRuntime):
    """The runtime of a task, which keeps its exception and what it publishes."""

    error: BaseException | None = None
    service: TaskService | None = None
    requests: ReloadRequests | None = None

    def __init__(self, published: list[tuple[str, dict[str, Any]]], *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._published = published

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool:
        self._published.append(messages.decode(messages.encode(topic, content)))
        return super().publish(topic, content)

    def made(self, service: TaskService) -> None:
        self.service = service

    def reload_requests(self) -> ReloadRequests:
        self.requests = ReloadRequests()
        return self.requests

    def failed(self, error: BaseException, *, report: bool = True) -> int:
        status = super().failed(error, report=report)
        if status and self.error is None:
            self.error = error
        return status


class _Status:
    """A replacement for the supervisor."""

    def __init__(self, task: SimulatedTask) -> None:
        self._task = task

    def ready(self) -> None:
        before, self._task.state = self._task.state, "active"
        if before == "activating":
            self._task._report("started", {})

    def status(self, text: str) -> None:
        """Do nothing: the exception has the text."""

    def missed(self, count: int) -> None:
        """Do nothing: no message is lost here, except those of a sender that a test has invented."""

    def heard(self, topic: str) -> None:
        """Do nothing: no topic is expected."""

    def silent(self, topic: str) -> None:
        """Do nothing: no topic is expected."""

    def poison(self, json_text: str) -> bool:
        self._task.quarantined.append(json.loads(json_text))
        return True

    def declare(self, topics: Sequence[str], publishes: Sequence[str] | None) -> None:
        """Do nothing: the test decides when each task starts."""

    def watchdog(self) -> None:
        """Do nothing: there is no watchdog."""

    def reloading(self) -> None:
        self._task.state = "reloading"

    def stopping(self) -> None:
        """Do nothing: the end of the task follows."""

    def fileno(self) -> int:
        return self._task._stop.fd

    def update(self, json_text: str, sequence: int) -> bool:
        items = json.loads(json_text)
        self._task.updates.append(items)
        self._task._report("updated", items)
        return True


class _Bus:
    """The connection of one task to the bus of its simulation."""

    lossy = False

    def __init__(self, task: SimulatedTask) -> None:
        self._task = task

    def publish(self, frame: bytes) -> bool:
        self._task._simulation._send(frame)
        return True

    def expect_subscribers(self) -> None:
        """Do nothing: the bus of a simulation forwards at once."""

    def subscribe(self, prefixes: Sequence[bytes]) -> Subscription:
        self._task._subscriptions.append(queue := _Queue(prefixes, self._task._simulation))
        return queue


class _Queue(Subscription):
    """The messages that wait for one subscriber."""

    def __init__(self, prefixes: Sequence[bytes], simulation: Simulation) -> None:
        self._prefixes = tuple(prefixes)
        self._simulation = simulation
        self._frames: collections.deque[bytes] = collections.deque()
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def put(self, frame: bytes) -> bool:
        """Queue a message if it is subscribed to, and return True if it is."""
        if self._event < 0 or not frame.startswith(self._prefixes):
            return False
        self._frames.append(frame)
        os.eventfd_write(self._event, 1)
        return True

    def is_confirmed(self) -> bool:
        return True

    def unsubscribe(self, prefix: bytes) -> None:
        self._prefixes = tuple(each for each in self._prefixes if each != prefix)

    def is_subscribed(self, prefix: bytes) -> bool:
        return prefix in self._simulation._prefixes()

    def subscriptions(self, start: bytes) -> list[bytes]:
        return [each for each in self._simulation._prefixes() if each.startswith(start)]

    def offer(self, frame: bytes) -> bool:
        self._simulation._send(frame)
        return True

    def fileno(self) -> int:
        return self._event

    def receive(self) -> bytes | None:
        if self._frames:
            return self._frames.popleft()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        return None

    def close(self) -> None:
        if self._event >= 0:
            os.close(self._event)
        self._event = -1


class _SimulatedStop(Stop):
    """The stop request and the clock of a simulated task."""

    def __init__(self, simulation: Simulation, task: SimulatedTask) -> None:
        super().__init__()
        self._simulation, self._task = simulation, task
        self._looks = itertools.count(1)

    def now(self) -> float:
        if next(self._looks) > _BUSY and threading.current_thread() is self._task._thread:
            self._simulation._sleep(self._task, self._simulation.now + _TICK)
        return self._simulation.now

    def sleep(self, seconds: float) -> None:
        self._pause(seconds)

    def pause(self, seconds: float, poll: select.poll) -> dict[int, int]:
        found = dict(poll.poll(0))
        if not found:
            self._pause(seconds)
            found = dict(poll.poll(0))
        return found

    def _pause(self, seconds: float) -> None:
        self._looks = itertools.count(1)
        self._simulation._sleep(self._task, self._simulation.now + max(0.0, seconds))

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _EventLoop(self, self._pause)


class _EventLoop(asyncio.SelectorEventLoop):
    """An event loop with simulated time."""

    def __init__(self, stop: Stop, pause: Callable[[float], None]) -> None:
        self._stop_request = stop
        super().__init__(_Selector(pause))

    def time(self) -> float:
        return self._stop_request.now()


class _Selector(selectors.DefaultSelector):
    """A selector that lets simulated time pass where it would wait."""

    def __init__(self, pause: Callable[[float], None]) -> None:
        super().__init__()
        self._pause = pause

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and (timeout is None or timeout > 0):
            self._pause(math.inf if timeout is None else timeout)
            found = super().select(0)
        return found
