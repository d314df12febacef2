"""The queues of `<queue>`: the messages that wait in the process of a task, with a mark and a policy for each
topic. Pure.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from zmsvc.core.frozen import frozen


class QueuePolicy(StrEnum):
    """The message that is dropped when the number of waiting messages is the mark."""

    DROP_NEWEST = "drop-newest"
    """The one that has just come, as ZeroMQ does."""
    DROP_OLDEST = "drop-oldest"
    LAST = "last"
    """Drop the previous message of the same sender, so that only the last message of each sender waits. The
    mark is the number of senders. Above it, the message that has waited longest is dropped.
    """


@frozen
class MessageQueue:
    """The queue of one topic of a task, or of all its topics without one of their own (`topic` is empty)."""

    mark: int
    topic: str = ""
    policy: QueuePolicy = QueuePolicy.DROP_NEWEST

    def as_json(self) -> dict[str, Any]:
        """Return what the task needs. `queue_from_json` reads it."""
        return {"mark": self.mark, "topic": self.topic, "policy": self.policy.value}


def queue_from_json(values: Mapping[str, Any]) -> MessageQueue:
    """Return the queue of `as_json`. Raises KeyError and ValueError."""
    return MessageQueue(mark=values["mark"], topic=values["topic"], policy=QueuePolicy(values["policy"]))


class WaitingMessages:
    """The messages that wait, in the order in which they came."""

    def __init__(self, queues: Iterable[MessageQueue], default: MessageQueue) -> None:
        self._queues = {each.topic: each for each in (default, *queues)}
        self._order = itertools.count()
        self._waiting: dict[str, OrderedDict[int | str, tuple[int, bytes]]] = {}
        """For each topic, the messages with their positions in the order of arrival. The key is the sender if
        the policy is `last`, otherwise that position. There are as many topics as the task subscribes to.
        """
        self._dropped: dict[str, int] = {}

    def policy(self, topic: str) -> QueuePolicy:
        """Return the policy of a topic."""
        return self._queues.get(topic, self._queues[""]).policy

    def put(self, topic: str, sender: str, frame: bytes) -> None:
        """Add a message, and drop one if the policy of its topic says so. `sender` is for `last`."""
        queue = self._queues.get(topic, self._queues[""])
        waiting = self._waiting.setdefault(topic, OrderedDict())
        place = next(self._order)
        key: int | str = place
        if queue.policy is QueuePolicy.LAST:
            key = sender
            if waiting.pop(key, None) is not None:
                self._drop(topic)
        if len(waiting) >= queue.mark:
            self._drop(topic)
            if queue.policy is QueuePolicy.DROP_NEWEST:
                return
            waiting.popitem(last=False)
        waiting[key] = place, frame

    def pop(self) -> bytes | None:
        """Return and remove the message that has waited longest, or None."""
        heads = [(next(iter(each.values()))[0], topic) for topic, each in self._waiting.items() if each]
        if not heads:
            return None
        _, (_, frame) = self._waiting[min(heads)[1]].popitem(last=False)
        return frame

    def take_dropped(self, topic: str) -> int:
        """Return how many messages of a topic were dropped since the last call."""
        return self._dropped.pop(topic, 0)

    def _drop(self, topic: str) -> None:
        self._dropped[topic] = self._dropped.get(topic, 0) + 1
