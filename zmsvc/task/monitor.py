"""The Monitor service: publishes what the tasks of its transaction use of the machine, at an endpoint of its
own.

What there is to look at it hears from the supervisor's `control` messages; when it may have missed one it
asks with a `state` request.
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
from zmsvc.host.bus.loopback_gate import LoopbackGate
from zmsvc.host.bus.sockets import Context, Socket
from zmsvc.host.bus.zap import KeyHandler, ZapHandler
from zmsvc.host.kernel import linux
from zmsvc.host.sparse_log import SparseLog
from zmsvc.task.keys import TaskKeys
from zmsvc.task.sdk import LoopedTask, TaskService

ANSWER_MS = 250
"""How long a supervisor has to answer. Without an answer the sample is of what has been heard."""
OLD = 1000
"""Messages that are passed over before a question; who may connect to the bus can send them without end."""
ATTEMPTS = 4
MAX_HELD = 32 << 20
"""Bytes by which this process may grow before its endpoint is opened anew. libzmq bounds neither the
subscriptions of a peer nor what they cost, some 100 bytes for a byte of a prefix; a subscriber of ours has
one. Subscriptions are taken in while a sample is sent and at no other time: eight peers that flooded made the
process grow by 12 MB/s at 20 samples a second. A picture of 5,000 tasks has 10 MB."""
ANSWERED = 100
"""Questions that are answered at once, before the next sample and the wish to stop have their turn
again.
"""
ANSWERED_BYTES = 16 << 20
"""The same in bytes of the answers."""
DOUBT = 60.0
"""Seconds after which the picture is asked for in any case, which repairs what a message that was lost has
left wrong.
"""

_STATES = {
    "started": ("success", "active"),
    "updated": ("success", "active"),
    "stopped": ("success", "inactive"),
    "failed": ("failure", "failed"),
}
"""What a report says about the state of a task, in 1.0's word and in systemd's."""

Row = dict[str, Any]


class TransactionView:
    """The tasks of one transaction as last heard of, in the order of the file."""

    def __init__(self, transaction: str) -> None:
        self._transaction = transaction
        self._tasks: dict[str, Row] = {}
        self.whole = False
        """Whether all of it has been told since somebody last had doubts."""

    def hear(self, message: Mapping[str, Any]) -> None:
        """A `control` message: the whole context, or what happened to a task."""
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

    def replace(self, told: Mapping[str, Any]) -> None:
        """The whole transaction, as `context_info` and `reply_context` have it."""
        tasks = [each for each in told.get("tasks") or () if isinstance(each, Mapping)]
        self._tasks = {
            str(each.get("service_id")): {
                "pid": _pid(each.get("pid")),
                "action": each.get("action"),
                "state": each.get("state"),
                "active_state": each.get("active_state"),
            }
            for each in tasks
        }
        self.whole = True

    def tasks(self) -> list[Row]:
        """As `usage.rows` wants them."""
        unknown = {"pid": None, "action": "", "state": "", "active_state": ""}
        return [{"service_id": name, **unknown, **row} for name, row in self._tasks.items()]


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return _as_mapping(value.get(key))


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pid(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


class StateClient:
    """Asks the supervisor for the picture of the transaction, over the bus of the context."""

    def __init__(
        self, context: Context, frontend: str, curve: Curve | None, transaction: str, service_id: str
    ) -> None:
        reply = messages.encode("state", {"header": {"service_transaction": transaction}}).rstrip(b"}")
        self._ear = sockets.subscriber(context, frontend, [reply], curve)
        self._head = messages.header(
            transaction=transaction, service_id=service_id, action="request", service_name="state"
        )

    def ask(self, publish: Callable[[str, Mapping[str, Any]], object]) -> Mapping[str, Any] | None:
        """The picture; None when nobody answers in time."""
        # An answer to an earlier question, or to somebody else's, may be older than what has been heard
        # since.
        for _ in range(OLD):
            if not self._ear.poll(0):
                break
            self._ear.recv()
        publish("state", {"header": self._head, "content": {}})
        until = time.monotonic() + ANSWER_MS / 1000
        while (left := until - time.monotonic()) > 0 and self._ear.poll(round(left * 1000) + 1):
            try:
                _, body = messages.decode(self._ear.recv())
            except ProtocolError:
                continue
            if body["header"].get("action") == "reply_context":
                return _mapping(body, "content")
        return None

    def close(self) -> None:
        self._ear.close(0)


class MonitorEndpoint:
    """The Monitor's own endpoint: `pub` sends every sample to all who listen, `rep` the last one to whoever
    asks.

    Where the context has CURVE keys it has the device's, so that one key of the server is all that a client
    must know. Without them the same users may connect over tcp that may connect to the bus. Peers whose
    subscriptions fill this process are cut off, with all others: those connect again by themselves.
    """

    def __init__(
        self, context: Context, endpoint: str, kind: str, keys: TaskKeys, report: Callable[[str], None]
    ) -> None:
        self._listening = endpoints.listen(endpoints.safe_bind(endpoint, curve=keys.server is not None))
        self._context, self._curve = context, socket_options.secured(endpoint, keys.server)
        self._handler = _handler(context, endpoint, keys, report)
        self.answers = kind == "rep"
        self._frame = messages.encode("monitor", {})
        self._opened_anew = SparseLog(report)
        self._rest = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable while a turn has left something, of which ZMQ's own descriptors tell only once."""
        self._open()

    def _open(self) -> None:
        kind = zmq.REP if self.answers else zmq.PUB
        self.socket: Socket = socket_options.public(
            self._context, kind, self._curve, gate=self._handler is not None
        )
        # Before the socket binds, or connections are missed.
        self._news = (
            socket_monitor.News(self.socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
            if self._handler
            else None
        )
        socket_options.bind(self.socket, self._listening)
        self._began_with = linux.own_memory()

    def _shut(self) -> None:
        if self._news:
            self.socket.disable_monitor()
            self._news.socket.close(0)
        self.socket.close(0)

    def is_full(self) -> bool:
        """Tell whether subscriptions, the only thing that a peer can add here, fill the process."""
        return not self.answers and linux.own_memory() - self._began_with > MAX_HELD

    def open_anew(self) -> None:
        """End all connections, and take new ones at the same listening socket. `sources` are others from
        here on.
        """
        self._opened_anew.add(
            "all connections are ended: the subscriptions of peers took more than %d MiB", MAX_HELD >> 20
        )
        self._shut()
        if self._handler:
            self._handler.forget()
        linux.give_back()
        self._open()

    def sources(self) -> list[int]:
        """Return the descriptors at whose change a `turn` is due."""
        sockets = [self._handler.socket, self._news.socket] if self._handler and self._news else []
        return [
            *(each.fileno() for each in sockets),
            *([self.socket.fileno()] if self.answers else []),
            self._rest,
        ]

    def turn(self) -> None:
        """Let in who waits and may come, and answer who has asked, as many as others can wait for. The
        rest has another turn.
        """
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._rest)
        left = self._judge()
        if self.answers:
            left = self._answer() or left
        if left:
            os.eventfd_write(self._rest, 1)

    def _judge(self) -> bool:
        """Return whether something is left."""
        if self._handler is None or self._news is None:
            return False
        if self._news.over:
            self._handler.receive()
            self._news.over = False
        for event, fd in self._news.take():
            if event == zmq.EVENT_ACCEPTED:
                self._handler.accepted("", fd)
            else:
                self._handler.ended("", fd)
        self._handler.answer(known=self._news.over)
        return socket_options.readable(self._handler.socket) or socket_options.readable(self._news.socket)

    def _answer(self) -> bool:
        """Return whether something is left."""
        for _ in range(max(1, min(ANSWERED, ANSWERED_BYTES // len(self._frame)))):
            try:
                self.socket.recv(zmq.DONTWAIT)
                self.socket.send(self._frame, zmq.DONTWAIT)
            except zmq.Again:
                return False
        return socket_options.readable(self.socket)

    def show(self, frame: bytes) -> None:
        self._frame = frame
        self.turn()
        if not self.answers:
            self.socket.send(frame, zmq.DONTWAIT)

    def close(self) -> None:
        self._shut()
        os.close(self._rest)
        if self._handler:
            self._handler.close()
        name = self._listening.getsockname()
        if self._listening.family == socket.AF_UNIX and not name.startswith("\0"):
            os.unlink(name)
        self._listening.close()


def _handler(
    context: Context, endpoint: str, keys: TaskKeys, report: Callable[[str], None]
) -> ZapHandler | None:
    """Return who judges connections: by key, by user over tcp, or nobody where a socket's file does."""
    if not endpoint.startswith("tcp://"):
        return None
    return (
        KeyHandler(context, keys.allow, report)
        if keys.server and keys.allow
        else LoopbackGate(context, keys.members, report)
    )


class MonitorTask(LoopedTask):
    """Samples every `frequency_s` seconds."""

    def __init__(self) -> None:
        self.picture = TransactionView(self.transaction)
        self._gauge = usage.ProcessSampler(usage.options(self.config.get("monitor_options")))
        self._zmq: Context | None = None
        self._counter: MonitorEndpoint | None = None
        self._questions: StateClient | None = None
        self._since = DOUBT

    def setup(self) -> None:
        try:
            settings = monitoring(self.config)
        except ValueError as error:
            raise ConfigError([f"cannot monitor: {error}"]) from None
        self.interval = settings.frequency
        self._zmq = sockets.context()
        keys = self._companion.keys
        self._counter = MonitorEndpoint(self._zmq, settings.endpoint, settings.kind, keys, self.log.warning)
        self._questions = StateClient(
            self._zmq, self._companion.frontend, keys.client, self.transaction, self.service_id
        )
        self._watch_sources()

    def _watch_sources(self) -> None:
        assert self._counter is not None
        for source in self._counter.sources():
            self._companion.watch(source, self._counter.turn)
        self._counter.turn()

    def _open_anew(self) -> None:
        assert self._counter is not None
        for source in self._counter.sources():
            self._companion.unwatch(source)
        self._counter.open_anew()
        self._watch_sources()

    def step(self) -> None:
        assert self._counter is not None
        self._since += self.interval
        if not self.picture.whole or self._since >= DOUBT:
            self._ask()
        told = self.picture.tasks()
        if not told:
            # There is at least this task, so nobody has told us anything yet; that there are none would be a
            # lie.
            return
        rows = usage.rows(self._gauge, told)
        # A process that is gone before we have heard of its end: the message is under way, or lost.
        self.picture.whole = self.picture.whole and all(
            row["pid"] == task["pid"] for row, task in zip(rows, told, strict=True)
        )
        # As in 1.0 a task without a process has no row: programs compute with its figures. What it is like is
        # in context_info.
        self._counter.show(
            messages.encode("monitor", {self.transaction: [row for row in rows if row["pid"] is not None]})
        )
        if self._counter.is_full():
            self._open_anew()

    def _ask(self) -> None:
        assert self._questions is not None
        # More than once only at the beginning: the device may not know our subscription yet, and an answer is
        # lost then.
        for _ in range(1 if self.picture.tasks() else ATTEMPTS):
            told = self._questions.ask(self.publish)
            if told is not None:
                self.picture.replace(told)
                self._since = 0.0
                return

    def close(self) -> None:
        for each in (self._counter, self._questions):
            if each is not None:
                each.close()
        if self._zmq is not None:
            self._zmq.term()


class ServiceMonitor(TaskService):
    """The service `Monitor` of every context that names it."""

    service_name = "monitor"
    task_class = MonitorTask
    _ours_only = True

    def on_control(self, message: Mapping[str, Any]) -> None:
        assert isinstance(self.task, MonitorTask)
        self.task.picture.hear(message)
