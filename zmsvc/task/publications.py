"""The messages that a task publishes: the standard header around a content without one, with a number that
shows a subscriber what it has missed.

After the last message on a topic no number follows that would show its loss. So a topic that has fallen
silent repeats its last number a few times, and then costs nothing any more.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from zmsvc.core import messages
from zmsvc.core.errors import UsageError
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.task.json_codec import codec

REPEATED = "sequence"
"""The action in the header of a repeated number."""
FIRST_PAUSE = 1.0
"""Seconds of silence before the first repetition. Each further pause is twice as long."""
REPETITIONS = 4
MAX_SILENT = 1000
"""The number of topics of a task that repeat their last number. A task may invent any number of topics."""


class _Topic:
    """The messages of this launch on one topic."""

    __slots__ = ("dropped", "due", "head", "number", "repetitions")

    def __init__(self, head: bytes) -> None:
        self.number = 0
        """The number of the last message."""
        self.dropped = 0
        """The number of messages that were dropped in this process."""
        self.head = head
        """The frame of each message up to its number."""
        self.due = 0.0
        """The time of the next repetition of the last number. It is 0 if a message was published on the topic
        after the last `repeat`.
        """
        self.repetitions = 0


class Publications:
    """The publications of one launch of a task, from any of its threads. `send` returns False if it drops a
    frame.
    """

    def __init__(self, spec: LaunchSpec, send: Callable[[bytes], bool], *, repeats: bool) -> None:
        header = messages.header(
            transaction=spec.transaction,
            service_id=spec.task,
            action=messages.PUBLISHED,
            service_name=spec.service_name or spec.instance,
            launch=spec.launch,
        )
        # The header is encoded once, since that takes a third of the time of a message.
        self._header = messages.encoded(header)
        self._header_of_repeated = messages.encoded(header | {"action": REPEATED})
        self._send, self._repeats = send, repeats
        self._lock = threading.Lock()
        self._encode: Callable[[Any], bytes] = self._encode_first
        self._topics: dict[str, _Topic] = {}
        self._silent: dict[str, _Topic] = {}
        """The topics whose last number is to be repeated."""

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool:
        """Publish a content, or unchanged a message that has a header of its own. Return False if it was
        dropped; a dropped message has its number, so that subscribers notice it.

        Raises TypeError and ValueError.
        """
        # The delay of a message includes this code. After a pause no cache of the processor has it, and each
        # call costs about 1 us.
        if topic not in self._topics:
            messages.check_topic(topic)
        if "header" in content:
            return self._send(messages.encode(topic, content))
        if len(content) == 1 and "content" in content:
            text = self._encode(content["content"])
        else:
            text = self._encode(content if type(content) is dict else dict(content))
        # The lock keeps the messages of all threads in the order of their numbers.
        with self._lock:
            of_topic = self._topics.get(topic) or self._new(topic)
            of_topic.number += 1
            of_topic.due = 0.0
            of_topic.repetitions = 0
            if self._repeats and topic not in self._silent and len(self._silent) < MAX_SILENT:
                self._silent[topic] = of_topic
            frame = messages.published(of_topic.head, of_topic.number, text, of_topic.dropped)
            try:
                sent = self._send(frame)
            except UsageError:
                # The task knows that this message is too long: subscribers have not missed it.
                of_topic.number -= 1
                raise
            if sent:
                return True
            of_topic.dropped += 1
            return False

    def repeat(self, now: float) -> float:
        """Repeat the numbers that are due. Return the seconds until the next time, infinity if there is
        none.
        """
        if not self._silent:
            return math.inf
        pause = math.inf
        with self._lock:
            for topic, each in list(self._silent.items()):
                if each.due and now >= each.due:
                    self._repeat(topic, each)
                    each.repetitions += 1
                if each.repetitions >= REPETITIONS:
                    del self._silent[topic]
                    continue
                if now >= each.due:
                    each.due = now + FIRST_PAUSE * 2**each.repetitions
                pause = min(pause, each.due - now)
        return pause

    def finish(self) -> None:
        """Repeat the last number of each topic that was published to lately: the task ends."""
        with self._lock:
            for topic, each in self._silent.items():
                self._repeat(topic, each)
            self._silent.clear()

    def _encode_first(self, value: Any) -> bytes:
        # The codec is imported when it is needed.
        self._encode = codec().encode
        return self._encode(value)

    def _new(self, topic: str) -> _Topic:
        new = self._topics[topic] = _Topic(messages.published_head(topic, self._header))
        return new

    def _repeat(self, topic: str, of_topic: _Topic) -> None:
        head = messages.published_head(f"{messages.LAST_NUMBER}{topic}", self._header_of_repeated)
        self._send(messages.published(head, of_topic.number, b"{}", of_topic.dropped))
