"""The connection of the supervisor to the device: it receives orders and questions, and publishes events of
tasks.

A message may come from any client of the bus. It can only name tasks of the loaded file; refused messages are
counted, and few of them are logged. An event is encoded only if it has a subscriber.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import zmq

from zmsvc.core import effects as fx
from zmsvc.core import messages
from zmsvc.core.access import BUS, TOPICS, Verb
from zmsvc.core.deadline import Deadline
from zmsvc.core.errors import ProtocolError, UsageError
from zmsvc.core.facts import OrdersUnheard, Origin, Requested
from zmsvc.core.messages import Order
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.world import World
from zmsvc.host.bus import socket_options, sockets
from zmsvc.host.sparse_log import SparseLog
from zmsvc.supervisor import status_report
from zmsvc.supervisor.context_info import Info
from zmsvc.supervisor.top_answers import Top

ECHO = 3.0
"""Seconds in which the device has to forward our own messages to us. Usually it takes 1 ms, after a restart
of the device 150 ms.
"""
HEARD = 256
"""The number of messages that are received at once, before tasks and the control socket get a turn."""
HEARD_BYTES = 256 << 10
"""The number of bytes that are received at once. Any client may send orders of a megabyte, and 256 of those
take longer than the watchdog waits.
"""
MAX_MARK = 4096
"""The bytes of a message in which its `origin` is, if it is one of a supervisor."""
MAX_NAMED = 150
"""The bytes of a message that is too long which a log entry shows: the topic and most of the header."""
MAX_ORDER = 4 << 20
"""The limit in bytes for a message that is decoded, which takes 50 ms. An order with the whole file of 5,000
tasks has 2.4 MB.
"""

log = logging.getLogger(__name__)


class Supervisor(Protocol):
    """The part of the supervisor that decides: loop.py."""

    @property
    def world(self) -> World: ...

    def order(self, request: Requested | OrdersUnheard) -> None:
        """Carry out an order that may be meant for this context. Its sender gets no reply."""

    def device_hangs(self) -> None:
        """Have the device replaced: it forwards nothing any more."""


class Bus:
    """The subscriber and the publisher of the supervisor, which connect to the device at `endpoints`."""

    def __init__(
        self, endpoints: tuple[str, str], origin: str, supervisor: Supervisor, curve: sockets.Curve | None
    ) -> None:
        self._origin = origin
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._zmq = sockets.context()
        subscribe_endpoint, publish_endpoint = endpoints
        self._unheard_topic = messages.UNHEARD_ORDERS.decode() + origin
        topics = [messages.prefix(topic) for topic in (*TOPICS, self._unheard_topic)]
        self._subscriber = sockets.subscriber(
            self._zmq, subscribe_endpoint, topics, curve, hwm=socket_options.SUPERVISOR_HWM
        )
        self._publisher = sockets.Publisher(sockets.publisher(self._zmq, publish_endpoint, curve))
        self._own_subscription = messages.prefix(self._unheard_topic)
        self._publisher.expect_subscription(self._own_subscription)
        self._info = Info(self)
        self._top = Top(self)
        self.refused = SparseLog(log.warning)
        self._long = SparseLog(log.warning)
        self.dropped = 0
        self.unheard_orders = 0
        """Orders that came while there was no supervisor, as the device has counted them."""
        self._pause: asyncio.TimerHandle | None = None
        self._attach_pause: asyncio.TimerHandle | None = None
        self._echo_due = Deadline()
        """The time by which our own message has to come back, unless another message comes."""
        self._echo: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._subscriber.fileno(), self._receive)
        self._attached = asyncio.Event()
        self._loop.add_reader(sockets.fileno(self._publisher.socket), self._attach)

    async def attach(self, timeout_s: float) -> bool:
        """Wait until our own subscription has come back through the device, so that both directions are open.
        Return False if that takes longer than this time.
        """
        self._attach()
        try:
            async with asyncio.timeout(timeout_s):
                await self._attached.wait()
        except TimeoutError:
            self._attach()
            if not self._attached.is_set():
                return False
            log.warning(
                "libzmq did not announce the subscriptions of the device, which have arrived: going on"
            )
        self._receive()
        return True

    def progress(self) -> str:
        """Return how far `attach` has come, for a message."""
        return self._publisher.progress()

    def _attach(self) -> None:
        if self._attach_pause is not None:
            return
        began = self._loop.time()
        # Our subscription to the topic on which the device counts orders comes last, and no other process has
        # it.
        if not self._attached.is_set() and self._publisher.has_expected_subscription(self._own_subscription):
            self._attached.set()
        self._publisher.drain()
        if self._publisher.behind:
            # As in `_receive`, an endless flood of subscriptions gets at most half of our time.
            self._attach_pause = self._loop.call_later(self._loop.time() - began, self._attach_on)

    def _attach_on(self) -> None:
        self._attach_pause = None
        self._attach()

    def _attach_first(self) -> None:
        # libzmq also processes subscriptions when we send and when we call `has_subscriber`, and its
        # descriptor does not announce those again.
        if not self._attached.is_set():
            self._attach()

    @property
    def world(self) -> World:
        return self._supervisor.world

    @property
    def forgotten(self) -> int:
        """Subscriptions that were not remembered because there were too many."""
        return self._publisher.forgotten

    def close(self) -> None:
        self._top.close()
        for timer in (self._pause, self._attach_pause, self._echo):
            if timer is not None:
                timer.cancel()
        self._info.close()
        self._loop.remove_reader(self._subscriber.fileno())
        self._loop.remove_reader(sockets.fileno(self._publisher.socket))
        self._subscriber.close(0)
        self._publisher.socket.close(500)
        self._zmq.term()

    # --- messages in

    def _receive(self) -> None:
        """Receive the waiting messages. ZMQ's descriptor announces a change only once, so a timer has to
        continue with the rest.

        The timer waits for as long as this turn took, so a flood gets at most half of our time.
        """
        if self._pause is not None:
            return
        began, size = self._loop.time(), 0
        for _ in range(HEARD):
            try:
                frame = self._subscriber.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._note_echo()
            if len(frame) <= MAX_ORDER:
                self._take(frame)
            elif not self._is_own(frame):
                self.refused.add(
                    "A message on the bus is refused: it has %d bytes, and an order at most %d",
                    len(frame),
                    MAX_ORDER,
                )
            size += len(frame)
            if size >= HEARD_BYTES:
                break
        self._pause = self._loop.call_later(self._loop.time() - began, self._receive_on)

    def _receive_on(self) -> None:
        self._pause = None
        self._receive()

    def _is_own(self, frame: bytes) -> bool:
        """Return True for a long message that a supervisor of this context has published itself."""
        return f'"origin":"{self._origin}"'.encode() in frame[:MAX_MARK]

    def _take(self, frame: bytes) -> None:
        try:
            topic, body = messages.decode(frame)
            if body.get("header", {}).get("origin") == self._origin:
                return
            if topic == self._unheard_topic:
                count = messages.unheard_orders_in(body)
                self.unheard_orders += count
                self._supervisor.order(OrdersUnheard(count=count))
            elif topic == "state":
                self._asked(body)
            else:
                self._ordered(messages.order(topic, body))
        except (ProtocolError, UsageError) as error:
            self.refused.add("A message on the bus is refused: %s", error)

    def _ordered(self, order: Order) -> None:
        context = self.world.context
        if order.action not in BUS.get(order.topic, ()):
            if order.topic == "process" or order.action in ("update", "started", "stopped"):
                return
            raise UsageError(f"{order.topic} message with unknown action {order.action!r}")
        verb = Verb(order.action)
        problem = _why_not_this_context(context, order) or _difference_from_file(context, order)
        if problem:
            self._refuse(order, problem)
            return
        self._supervisor.order(
            Requested(
                verb=verb,
                origin=Origin(by="bus"),
                transaction=order.transaction or None,
                tasks=_addressed_tasks(context, order),
            )
        )

    def _refuse(self, order: Order, why: str) -> None:
        for task in order.tasks or (order.service_id,):
            items = {"reason": "refused", "message": f"cannot {order.action} {task}: {why}"}
            key = (order.transaction, task)
            service = _definition(self.world.context, task)
            self.control(
                fx.PublishControl(
                    key=key, action="failed", success=False, pid=None, items=items, service=service
                )
            )
        raise UsageError(why)

    def _asked(self, body: Mapping[str, Any]) -> None:
        """Answer a `state` message. It asks for the state of a transaction, or for the resources that the
        tasks of the transaction use.
        """
        head, content = body.get("header", {}), body.get("content")
        action, name = head.get("action"), head.get("service_transaction")
        if action not in BUS["state"]:
            return
        world = self.world
        if not isinstance(name, str) or name not in world.transactions:
            raise UsageError(f"state {action} for unknown transaction {name!r}")
        if action == "top":
            configuration = content.get("configuration") if isinstance(content, Mapping) else None
            self._top.ask(name, configuration, messages.reply(head, "reply_top"))
        else:
            head, content = messages.reply(head, "reply_context"), status_report.picture(world, name)
            self._say(
                "state",
                {"header": head, "content": content},
                lambda: {"header": head, "content": messages.without_configurations(content)},
            )

    def publish_top(self, head: Mapping[str, Any], rows: list[Any]) -> None:
        context = self.world.context
        about = {"contextId": context.id, "contextName": context.name, "contextLogName": context.log_name}
        self._say("state", {"header": head, "content": {**about, "tasks": rows}})

    # --- messages out

    def _say(
        self, topic: str, body: Mapping[str, Any], shorten: Callable[[], Mapping[str, Any]] | None = None
    ) -> bool:
        """Publish a message, or what `shorten` returns if it is too long. Return False if that is too long as
        well.
        """
        frame = messages.encode(topic, body)
        if shorten is not None and len(frame) > messages.MAX_FRAME:
            self._long.add(
                "A message is published without configurations: %s... has %d bytes with them, and the bus "
                "takes %d (make the configuration shorter: a task can read a file)",
                frame[:MAX_NAMED].decode(errors="replace"),
                len(frame),
                messages.MAX_FRAME,
            )
            frame = messages.encode(topic, shorten())
        return self.send(frame)

    def send(self, frame: bytes) -> bool:
        """Publish a frame. Return False if it is too long for the bus."""
        fits = len(frame) <= messages.MAX_FRAME
        if not fits:
            self._long.add(
                "A message is not published: %s... has %d bytes, and the bus takes %d",
                frame[:MAX_NAMED].decode(errors="replace"),
                len(frame),
                messages.MAX_FRAME,
            )
        if not (fits and self._publisher.send(frame)):
            self.dropped += 1
        self._attach_first()
        return fits

    def control(self, effect: fx.PublishControl) -> None:
        """Publish an event of a task as `control`."""
        transaction, task = effect.key
        service = effect.service
        head = messages.header(
            transaction=transaction,
            service_id=task,
            action=effect.action,
            service_name=service.service_name if service else "context",
        )
        if not self.wanted(head):
            return
        action = service.device_action if service else ""
        body = messages.control(
            head, success=effect.success, device_action=action, pid=effect.pid, items=effect.items
        )
        self._say("control", body)

    def process(self, effect: fx.PublishProcess) -> None:
        """Publish as `process` that a task is being started or stopped."""
        transaction, task = effect.key
        service = effect.service
        if service is None:
            return
        body = partial(
            messages.process,
            transaction=transaction,
            action=effect.action,
            service_id=task,
            service_name=service.service_name,
            origin=self._origin,
        )
        # We subscribe to `process` ourselves, so it always has a subscriber.
        if self._say("process", body(service.source), lambda: body(messages.bare_service(service.source))):
            self._expect_echo()

    def _expect_echo(self) -> None:
        """Expect our own message to come back. If no message at all comes for ECHO seconds, the
        device hangs.
        """
        if self._echo_due.due is None:
            self._echo_due.begin(self._loop.time(), ECHO)
        if self._echo is None:
            self._echo = self._loop.call_later(ECHO, self._miss_echo)

    def _note_echo(self) -> None:
        self._echo_due.clear()
        if self._echo is not None:
            self._echo.cancel()
            self._echo = None

    def _miss_echo(self) -> None:
        self._echo = None
        self._receive()
        if self._echo_due.is_over(self._loop.time()):
            self._echo_due.clear()
            self._supervisor.device_hangs()
        elif self._echo_due.due is not None:
            self._echo = self._loop.call_at(self._echo_due.due, self._miss_echo)

    def wanted(self, head: Mapping[str, Any]) -> bool:
        """Return True if there may be a subscriber for a `control` message with this header."""
        start = messages.encode("control", {"header": head})[: -len("}}")]
        wanted = self._publisher.has_subscriber(start)
        self._attach_first()
        return wanted

    def info(self, effect: fx.PublishInfo) -> None:
        """Publish the whole context as `control`/`update`: soon, and only once for all changes until then."""
        self._info.changed(effect.transaction)


def _addressed_tasks(context: Context, order: Order) -> tuple[str, ...]:
    """Return the tasks of an order, or none if it is for the whole context. A message with the whole file
    names all tasks, and so is for the context.
    """
    if order.topic == "context" and set(order.tasks) in (set(context.tasks), set(context.as_written)):
        return ()
    return order.tasks


def _why_not_this_context(context: Context, order: Order) -> str:
    """Return the reason why an order is not for this context; empty if it is."""
    if order.topic != "context" or order.service_id in (context.id, *messages.LOADED):
        return ""
    return f"the ContextID of this context is {context.id}"


def _difference_from_file(context: Context, order: Order) -> str:
    """Return how a configuration in an order differs from the loaded file; empty if it does not, or if the
    order has only an ID.
    """
    for task, given in order.configurations.items():
        loaded = _definition(context, task)
        if loaded is None:
            return f"no such task in {context.path or context.name}"
        if not isinstance(given, Mapping):
            continue
        if _configured(given) not in (None, _configured(loaded.source)):
            return "its configuration is not that of the loaded file (zmsvcctl reload reads the file again)"
        for name in ("instance", "serviceType"):
            if given.get(name, loaded.source.get(name)) != loaded.source.get(name):
                return f"its {name} is not that of the loaded file"
    return ""


def _definition(context: Context, task: str) -> TaskDefinition | None:
    """Return the definition of a task, or of a task with replicas by its ID in the file."""
    return context.tasks.get(task) or context.as_written.get(task)


def _configured(source: Mapping[str, Any]) -> Any:
    value: Any = source
    for name in ("Task", "message", "content", "configuration"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
