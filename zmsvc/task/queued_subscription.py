"""A subscription whose messages wait in the queues of `<queue>`. Imported only for a task that has queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.message_queues import MessageQueue, QueuePolicy, WaitingMessages, queue_from_json
from zmsvc.host.bus.socket_options import CLIENT_HWM
from zmsvc.task.bus import Subscription

_BATCH = 1000
"""Messages that are read from the socket before one is handled. A sender may be faster than the reader."""


class QueuedSubscription(Subscription):
    """A subscription that reads what has come, and keeps it by the rules of `queues`."""

    def __init__(self, subscription: Subscription, queues: Iterable[Mapping[str, Any]]) -> None:
        self._subscription = subscription
        self._waiting = WaitingMessages(map(queue_from_json, queues), MessageQueue(mark=CLIENT_HWM))

    def is_confirmed(self) -> bool:
        return self._subscription.is_confirmed()

    def confirmation_fileno(self) -> int:
        return self._subscription.confirmation_fileno()

    def fileno(self) -> int:
        return self._subscription.fileno()

    def receive(self) -> bytes | None:
        for _ in range(_BATCH):
            frame = self._subscription.receive()
            if frame is None:
                break
            topic = frame.partition(messages.SEPARATOR)[0].decode(errors="replace")
            sender = _sender(frame) if self._waiting.policy(topic) is QueuePolicy.LAST else ""
            self._waiting.put(topic, sender, frame)
        return self._waiting.pop()

    def take_dropped(self, topic: str) -> int | None:
        """Return how many messages of a topic these queues have dropped since the last call. None if that is
        meant to be: only the last message of each sender is wanted.
        """
        dropped = self._waiting.take_dropped(topic)
        return None if self._waiting.policy(topic) is QueuePolicy.LAST else dropped

    def close(self) -> None:
        self._subscription.close()


def _sender(frame: bytes) -> str:
    try:
        header = messages.decode(frame)[1].get("header", {})
    except ProtocolError:
        return ""
    return f"{header.get('service_transaction')} {header.get('service_id')}"
