"""The subscriptions of one task: open them, and wait until the device has confirmed them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from zmsvc.core.errors import LaunchError
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.task.bus import Subscription
from zmsvc.task.inbox import Inbox, Message, named_topics, topics_of
from zmsvc.task.sdk import LoopedTask, MessageTask, Task
from zmsvc.task.stop import Stop

if TYPE_CHECKING:
    from zmsvc.task.snapshot import PrecededSubscription

_LOOK = 0.1
"""Seconds after which a thread looks again for the confirmation, because another thread may have read the
event that announces it.
"""


class Subscribing(Protocol):
    """The part of the bus that subscribes; None if it has no messages."""

    def subscribe(self, prefixes: Sequence[bytes]) -> Subscription | None: ...


class TopicMessages:
    """The messages of one subscription to topics."""

    def __init__(self, inbox: Inbox, subscription: Subscription | None) -> None:
        self.inbox = inbox
        self.subscription = subscription
        self.busy = False
        """True while an `async for` waits for a message."""

    def next(self) -> Message[Any] | None:
        """Return the next message, or None if none waits."""
        return None if self.subscription is None else self.inbox.next(self.subscription)


class Subscriptions:
    """All subscriptions of a task."""

    def __init__(self, bus: Subscribing, stop: Stop, spec: LaunchSpec, log: logging.Logger) -> None:
        self._bus, self._stop, self._log = bus, stop, log
        self._transaction, self._task, self._queues = spec.transaction, spec.task, spec.queue
        self._sources: dict[frozenset[str], TopicMessages] = {}
        self._spec = spec
        self._snapshots: list[PrecededSubscription] = []
        """The subscriptions whose retained messages have not been taken."""
        self._open: list[tuple[Subscription, float]] = []
        """Each subscription with the time until which to wait for its confirmation."""

    def add(self, prefixes: Sequence[bytes], *, patience: float = math.inf) -> Subscription | None:
        """Subscribe. `confirm` waits for this subscription for `patience` seconds. Raises RefusedError."""
        until = self._stop.now() + patience
        subscription = self._bus.subscribe(prefixes)
        if subscription is not None:
            self._open.append((subscription, until))
        return subscription

    def source(self, topics: Collection[str], *, every_transaction: bool) -> TopicMessages:
        """Return the messages on these topics. The first call subscribes. Raises RefusedError."""
        key = frozenset(topics)
        if key not in self._sources:
            inbox = Inbox(
                key,
                transaction=self._transaction,
                service_id=self._task,
                every_transaction=every_transaction,
                log=self._log,
            )
            subscription = self._queued(self._preceded(inbox, every_transaction), inbox)
            self._sources[key] = TopicMessages(inbox, subscription)
        return self._sources[key]

    def _preceded(self, inbox: Inbox, every_transaction: bool) -> Subscription | None:
        """Subscribe. In a context with a LastValue, the retained messages come first."""
        if self._spec.retained is None:
            return self.add(inbox.prefixes)
        # Imported here for start-up time: few contexts have a LastValue.
        from zmsvc.task.snapshot import PrecededSubscription

        preceded = PrecededSubscription(
            self._spec, inbox.topics, every_transaction=every_transaction, log=self._log
        )
        subscription = self.add([*inbox.prefixes, *preceded.prefixes])
        if subscription is None:
            return None
        preceded.attach(subscription)
        self._snapshots.append(preceded)
        return preceded

    def _queued(self, subscription: Subscription | None, inbox: Inbox) -> Subscription | None:
        if subscription is None or not self._queues:
            return subscription
        # Imported here for start-up time: few tasks have queues of their own.
        from zmsvc.task.queued_subscription import QueuedSubscription

        queued = QueuedSubscription(subscription, self._queues)
        inbox.take_dropped = queued.take_dropped
        return queued

    def confirmed(self, topics: Collection[str]) -> TopicMessages | None:
        """Return the messages on these topics if the device has confirmed that subscription already."""
        source = self._sources.get(frozenset(topics))
        known = source is not None and (source.subscription is None or source.subscription.is_confirmed())
        return source if known else None

    def confirm(self, *, feed: Callable[[], object] | None) -> bool:
        """Wait until the device has confirmed every subscription. Return False if the task is asked to stop.

        In the task's own thread `feed` feeds the watchdog when that is due; in other threads it is None.
        """
        for each, until in self._open:
            while not each.is_confirmed() and self._stop.now() < until:
                if self._stop.requested:
                    return False
                poller = self._stop.poller(each.confirmation_fileno())
                if feed is None:
                    Stop.pause(self._stop, _LOOK, poller)
                else:
                    feed()
                    self._stop.pause(_LOOK, poller)
        while self._snapshots:
            if not self._take_snapshot(self._snapshots[0], feed):
                return False
            del self._snapshots[0]
        return True

    def _take_snapshot(self, preceded: PrecededSubscription, feed: Callable[[], object] | None) -> bool:
        """Wait for the retained messages. Return False if the task is asked to stop."""
        # Imported here for start-up time: few contexts have a LastValue.
        from zmsvc.task import snapshot

        now = self._stop.now()
        until, again = now + snapshot.PATIENCE, now
        poller = self._stop.poller(preceded.fileno())
        preceded.begin(now)
        while preceded.read(now) and now < until:
            if self._stop.requested:
                return False
            if now >= again:
                preceded.ask()
                again = now + snapshot.AGAIN
            if feed is None:
                Stop.pause(self._stop, again - now, poller)
            else:
                feed()
                self._stop.pause(again - now, poller)
            now = self._stop.now()
        preceded.finish()
        return True

    @property
    def missed(self) -> int:
        """The number of messages that were lost, as far as the task knows."""
        return sum(each.inbox.missed for each in self._sources.values())

    def close(self) -> None:
        for each, _ in self._open:
            each.close()
        self._open.clear()
        self._sources.clear()


def published_topics(task: Task) -> tuple[str, ...] | None:
    """Return the topics that the class of a task says it publishes; None if that may be any. Raises
    LaunchError.
    """
    cls = type(task)
    return None if cls.publishes is None else topics_of(cls.publishes or (), f"publishes of {cls.__name__}")


def topics_before_ready(task: Task, configured: Any) -> tuple[str, ...]:
    """Return the topics that a task subscribes to before READY: those of its `<subscribe>` elements, or of
    its class. Raises LaunchError.
    """
    cls = type(task)
    hears = cls.handles_messages()
    topics: tuple[str, ...] = ()
    # A class that names no topics and handles no messages may have a <subscribe> of its own.
    if cls.topics or hears:
        topics = named_topics(cls, configured)
    if isinstance(task, MessageTask) and not (topics and hears):
        raise LaunchError(f"cannot start {cls.__name__}: a MessageTask needs topics and on_message")
    if topics and isinstance(task, LoopedTask) and not hears:
        task.log.warning("%s hears no messages, because it has topics but no on_message", cls.__name__)
        return ()
    return topics
