"""The Monitor service: publish the resource usage of the tasks of its transaction, at an endpoint of its own.

It learns about the tasks from the supervisor's `control` messages. When it may have missed a message it sends
a `state` request.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import zmq

from zmsvc.core import messages
from zmsvc.core.errors import ConfigError, ProtocolError
from zmsvc.core.monitoring import monitoring
from zmsvc.host import usage
from zmsvc.host.bus import endpoints, socket_monitor, socket_options, sockets
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.loopback_gate import GRACE_S, LoopbackGate
from zmsvc.host.bus.sockets import Context, Socket
from zmsvc.host.bus.zap import KeyHandler, ZapHandler
from zmsvc.host.kernel import linux, process_memory
from zmsvc.host.sparse_log import SparseLog
from zmsvc.task.keys import TaskKeys
from zmsvc.task.sdk import LoopedTask, TaskService

ANSWER_MS = 250
"""Milliseconds that the supervisor has to answer. Without an answer the sample covers the tasks known so
far.
"""
MAX_STALE = 1000
"""Stale messages that are skipped before a request. A client of the bus can send any number of them."""
AGAIN_S = 1.0
"""Seconds until the next step while the state of this task itself is not known."""
ATTEMPTS = 4
MAX_GROWTH = 32 << 20
"""Bytes by which this process may grow before its endpoint is reopened. libzmq limits neither the number of
subscriptions of a peer nor their memory, which is some 100 bytes for each byte of a prefix. An ordinary
subscriber has one subscription. libzmq processes subscriptions only while a sample is sent: eight flooding
peers made the process grow by 12 MB/s at 20 samples a second. A view of 5,000 tasks has 10 MB.
"""
BATCH = 100
"""Requests that are answered at once, before the next sample and a stop request have their turn."""
BATCH_BYTES = 16 << 20
"""The same limit for the answers, in bytes."""
REFRESH_S = 60.0
"""Seconds after which the view is requested in any case. This repairs the effect of a lost message."""

_STATES = {
    "started": ("success", "active"),
    "updated": ("success", "active"),
    "stopped": ("success", "inactive"),
    "failed": ("failure", "failed"),
}
"""The state of a task after each action, in the word of zmicroservices 1.0 and in that of systemd."""

Row = dict[str, Any]


class TransactionView:
    """The last known state of the tasks of one transaction, in the order of the file."""

    def __init__(self, transaction: str) -> None:
        self._transaction = transaction
        self._tasks: dict[str, Row] = {}
        self.complete = False
        """True if the view has all tasks. False after a sign of a lost message, until the next `replace`."""

    def apply(self, message: Mapping[str, Any]) -> None:
        """Apply a `control` message: the state of the whole context, or a change of one task."""
        head, content = _mapping(message, "header"), _mapping(message, "content")
        status = _mapping(content, "status")
        data = status.get("data")
        if status.get("device_action") == "context_info" and isinstance(data, list):
            for each in data:
                if self._transaction in _as_mapping(each):
                    self.replace(_as_mapping(each[self._transaction]))
        elif (action := head.get("action")) in _STATES and status.get("reason") != "refused":
            row = self._tasks.setdefault(str(head.get("service_id")), {})
            ended = action in ("stopped", "failed")
            state, active = _STATES[str(action)]
            row.update(
                action=action,
                state=state,
                active_state=active,
                pid=None if ended else _pid(status.get("pid")),
            )

    def replace(self, transaction: Mapping[str, Any]) -> None:
        """Replace the view by a whole transaction, in the form of `context_info` and `reply_context`."""
        tasks = [each for each in transaction.get("tasks") or () if isinstance(each, Mapping)]
        self._tasks = {
            str(each.get("service_id")): {
                "pid": _pid(each.get("pid")),
                "action": each.get("action"),
                "state": each.get("state"),
                "active_state": each.get("active_state"),
            }
            for each in tasks
        }
        self.complete = True

    def tasks(self) -> list[Row]:
        """Return the tasks in the form that `usage.rows` takes."""
        unknown = {"pid": None, "action": "", "state": "", "active_state": ""}
        return [{"service_id": name, **unknown, **row} for name, row in self._tasks.items()]


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return _as_mapping(value.get(key))


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pid(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


class StateClient:
    """A client that requests the state of the transaction from the supervisor, over the context's bus."""

    def __init__(
        self,
        context: Context,
        subscribe_endpoint: str,
        curve: Curve | None,
        transaction: str,
        service_id: str,
    ) -> None:
        reply = messages.encode("state", {"header": {"service_transaction": transaction}}).rstrip(b"}")
        self._subscriber = sockets.subscriber(context, subscribe_endpoint, [reply], curve)
        self._head = messages.header(
            transaction=transaction, service_id=service_id, action="request", service_name="state"
        )

    def ask(self, publish: Callable[[str, Mapping[str, Any]], object]) -> Mapping[str, Any] | None:
        """Return the transaction's state; None if no supervisor answers in time."""
        # Skip answers to earlier requests and to other clients, which may be older than the latest `control`
        # messages.
        for _ in range(MAX_STALE):
            if not self._subscriber.poll(0):
                break
            self._subscriber.recv()
        publish("state", {"header": self._head, "content": {}})
        until = time.monotonic() + ANSWER_MS / 1000
        while (left := until - time.monotonic()) > 0 and self._subscriber.poll(round(left * 1000) + 1):
            try:
                _, body = messages.decode(self._subscriber.recv())
            except ProtocolError:
                continue
            if body["header"].get("action") == "reply_context":
                return _mapping(body, "content")
        return None

    def close(self) -> None:
        self._subscriber.close(0)


class MonitorEndpoint:
    """The Monitor's own endpoint: `pub` sends every sample to all subscribers, `rep` answers each request
    with the last sample.

    In a context with CURVE keys the endpoint uses the device's key pair, so a client needs only one server
    key. Without keys, the users that may connect to the bus by tcp may connect here. When subscriptions fill
    this process, it closes all connections. Well-behaved peers lose theirs as well, but libzmq connects them
    again.
    """

    def __init__(
        self,
        context: Context,
        endpoint: str,
        kind: str,
        keys: TaskKeys,
        report: Callable[[str], None],
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        self._listening = endpoints.listen(endpoints.safe_bind(endpoint, curve=keys.server is not None))
        self._context, self._curve = context, socket_options.secured(endpoint, keys.server)
        self._handler = _handler(context, endpoint, keys, report, grace_s)
        self.answers = kind == "rep"
        self._frame = messages.encode("monitor", {})
        self._reopened = SparseLog(report)
        self._work_left = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable while a turn has left work. ZMQ's own descriptors announce waiting messages only once."""
        self._open()

    def _open(self) -> None:
        kind = zmq.REP if self.answers else zmq.PUB
        self.socket: Socket = socket_options.public(
            self._context, kind, self._curve, gate=self._handler is not None
        )
        # The handler has to exist before the socket binds, since it would otherwise miss connections.
        self._events = (
            socket_monitor.MonitorEvents(self.socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
            if self._handler
            else None
        )
        socket_options.bind(self.socket, self._listening)
        self._initial_memory = process_memory.own_memory()

    def _shut(self) -> None:
        if self._events:
            self.socket.disable_monitor()
            self._events.socket.close(0)
        self.socket.close(0)

    def is_full(self) -> bool:
        """Return True if subscriptions fill this process. Peers can fill it with nothing else."""
        return not self.answers and process_memory.own_memory() - self._initial_memory > MAX_GROWTH

    def reopen(self) -> None:
        """Close all connections, and accept new ones on the same listening socket. `sources` changes."""
        self._reopened.add(
            "all connections are closed: the subscriptions of peers took more than %d MiB", MAX_GROWTH >> 20
        )
        self._shut()
        if self._handler:
            self._handler.forget()
        linux.trim_heap()
        self._open()

    def sources(self) -> list[int]:
        """Return the descriptors to poll; call `turn` when one is readable."""
        sockets = [self._handler.socket, self._events.socket] if self._handler and self._events else []
        return [
            *(each.fileno() for each in sockets),
            *([self.socket.fileno()] if self.answers else []),
            self._work_left,
        ]

    def turn(self) -> None:
        """Check a batch of new connections and answer a batch of requests. The rest waits for the next
        turn.
        """
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._work_left)
        left = self._check_connections()
        if self.answers:
            left = self._answer() or left
        if left:
            os.eventfd_write(self._work_left, 1)

    def _check_connections(self) -> bool:
        """Return True if events or ZAP requests are left."""
        if self._handler is None or self._events is None:
            return False
        if self._events.drained:
            self._handler.receive()
            self._events.drained = False
        for event, fd in self._events.take():
            if event == zmq.EVENT_ACCEPTED:
                self._handler.accepted("", fd)
            else:
                self._handler.ended("", fd)
        self._handler.answer(complete=self._events.drained)
        return socket_options.is_readable(self._handler.socket) or socket_options.is_readable(
            self._events.socket
        )

    def _answer(self) -> bool:
        """Return True if requests are left."""
        for _ in range(max(1, min(BATCH, BATCH_BYTES // len(self._frame)))):
            try:
                self.socket.recv(zmq.DONTWAIT)
                self.socket.send(self._frame, zmq.DONTWAIT)
            except zmq.Again:
                return False
        return socket_options.is_readable(self.socket)

    def show(self, frame: bytes) -> None:
        self._frame = frame
        self.turn()
        if not self.answers:
            self.socket.send(frame, zmq.DONTWAIT)

    def close(self) -> None:
        self._shut()
        os.close(self._work_left)
        if self._handler:
            self._handler.close()
        name = self._listening.getsockname()
        if self._listening.family == socket.AF_UNIX and not name.startswith("\0"):
            os.unlink(name)
        self._listening.close()


def _handler(
    context: Context, endpoint: str, keys: TaskKeys, report: Callable[[str], None], grace_s: float
) -> ZapHandler | None:
    """Return the ZAP handler of the endpoint: by key, or by user for tcp. None for ipc, where the file's mode
    controls access.
    """
    if not endpoint.startswith("tcp://"):
        return None
    return (
        KeyHandler(context, keys.allow, report)
        if keys.server and keys.allow
        else LoopbackGate(context, keys.members, report, grace_s=grace_s)
    )


class MonitorTask(LoopedTask):
    """A task that samples every `frequency_s` seconds."""

    def __init__(self) -> None:
        self.view = TransactionView(self.transaction)
        self._sampler = usage.ProcessSampler(usage.options(self.config.get("monitor_options")))
        self._zmq: Context | None = None
        self._endpoint: MonitorEndpoint | None = None
        self._state_client: StateClient | None = None
        self._age = REFRESH_S
        self._frequency = 0.0

    def setup(self) -> None:
        try:
            settings = monitoring(self.config)
        except ValueError as error:
            raise ConfigError([f"cannot monitor: {error}"]) from None
        self._frequency = settings.frequency
        self._zmq = sockets.context()
        keys = self._runtime.keys
        self._endpoint = MonitorEndpoint(self._zmq, settings.endpoint, settings.kind, keys, self.log.warning)
        self._state_client = StateClient(
            self._zmq, self.endpoints.subscribe, keys.client, self.transaction, self.service_id
        )
        self._watch_sources()

    def _watch_sources(self) -> None:
        assert self._endpoint is not None
        for source in self._endpoint.sources():
            self._runtime.watch(source, self._endpoint.turn)
        self._endpoint.turn()

    def _reopen(self) -> None:
        assert self._endpoint is not None
        for source in self._endpoint.sources():
            self._runtime.unwatch(source)
        self._endpoint.reopen()
        self._watch_sources()

    def step(self) -> None:
        assert self._endpoint is not None
        self._age += self.interval
        if not self.view.complete or self._age >= REFRESH_S:
            self._ask()
        tasks = self.view.tasks()
        known = any(task["service_id"] == self.service_id and task["pid"] is not None for task in tasks)
        # A busy supervisor answers late, or does not know our process yet. The next sample may be hours away.
        self.interval = self._frequency if known else min(self._frequency, AGAIN_S)
        self.view.complete = self.view.complete and known
        if not tasks:
            # The view lacks even this task, so no state has arrived yet. Do not publish an empty sample.
            return
        rows = usage.rows(self._sampler, tasks)
        # A process has gone, and no message has reported its end. The message is on its way, or lost.
        self.view.complete = self.view.complete and all(
            row["pid"] == task["pid"] for row, task in zip(rows, tasks, strict=True)
        )
        # As in zmicroservices 1.0, a task without a process has no row, because programs compute with the
        # figures. context_info has its state.
        self._endpoint.show(
            messages.encode("monitor", {self.transaction: [row for row in rows if row["pid"] is not None]})
        )
        if self._endpoint.is_full():
            self._reopen()

    def _ask(self) -> None:
        assert self._state_client is not None
        # Ask several times only at the start: the device may not have our subscription yet, and would lose
        # the answer.
        for _ in range(1 if self.view.tasks() else ATTEMPTS):
            transaction = self._state_client.ask(self.publish)
            if transaction is not None:
                self.view.replace(transaction)
                self._age = 0.0
                return

    def close(self) -> None:
        for each in (self._endpoint, self._state_client):
            if each is not None:
                each.close()
        if self._zmq is not None:
            self._zmq.term()


class ServiceMonitor(TaskService):
    """The service `Monitor`."""

    service_name = "monitor"
    task_class = MonitorTask
    _ours_only = True

    def on_control(self, message: Mapping[str, Any]) -> None:
        assert isinstance(self.task, MonitorTask)
        self.task.view.apply(message)
