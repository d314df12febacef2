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
from zmsvc.protocol.launch import LaunchSpec
from zmsvc.task.json_codec import codec

REPEATED = "sequence"
"""The action in the header of a repeated number."""
FIRST_PAUSE = 1.0
"""Seconds of silence before the first repetition. Each further pause is twice as long."""
REPETITIONS = 4
MAX_SILENT = 1000
"""The number of topics of a task that repeat their last number. A task may invent any number of topics."""


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
        self._sequences: dict[str, int] = {}
        """The number of the last message of each topic."""
        self._dropped: dict[str, int] = {}
        """The number of messages of a topic that were dropped in this process. A topic without any is left
        out.
        """
        self._silent: dict[str, tuple[float, int]] = {}
        """The topics whose last number is to be repeated, with the time of the next repetition and the number
        of repetitions so far. The time is 0 if a message was published on the topic after the last `repeat`.
        """

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool:
        """Publish a content, or unchanged a message that has a header of its own. Return False if it was
        dropped; a dropped message has its number, so that subscribers notice it.

        Raises TypeError and ValueError.
        """
        if topic not in self._sequences:
            messages.check_topic(topic)
        if "header" in content:
            return self._send(messages.encode(topic, content))
        if len(content) == 1 and "content" in content:
            text = codec().encode(content["content"])
        else:
            text = codec().encode(content if type(content) is dict else dict(content))
        # The lock keeps the messages of all threads in the order of their numbers.
        with self._lock:
            number = self._sequences[topic] = self._sequences.get(topic, 0) + 1
            if self._repeats and (len(self._silent) < MAX_SILENT or topic in self._silent):
                self._silent[topic] = 0.0, 0
            dropped = self._dropped.get(topic, 0)
            if self._send(messages.published(topic, self._header, number, text, dropped)):
                return True
            self._dropped[topic] = dropped + 1
            return False

    def repeat(self, now: float) -> float:
        """Repeat the numbers that are due. Return the seconds until the next time, infinity if there is
        none.
        """
        if not self._silent:
            return math.inf
        pause = math.inf
        with self._lock:
            for topic, (due, count) in list(self._silent.items()):
                if due and now >= due:
                    self._repeat(topic)
                    count += 1
                if count >= REPETITIONS:
                    del self._silent[topic]
                    continue
                if now >= due:
                    due = now + FIRST_PAUSE * 2**count
                    self._silent[topic] = due, count
                pause = min(pause, due - now)
        return pause

    def finish(self) -> None:
        """Repeat the last number of each topic that was published to lately: the task ends."""
        with self._lock:
            for topic in self._silent:
                self._repeat(topic)
            self._silent.clear()

    def _repeat(self, topic: str) -> None:
        number, dropped = self._sequences[topic], self._dropped.get(topic, 0)
        name = f"{messages.LAST_NUMBER}{topic}"
        self._send(messages.published(name, self._header_of_repeated, number, b"{}", dropped))
