"""The messages that a task publishes: the standard header around a content without one, with a number that
shows a subscriber what it has missed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from zmsvc.core import messages
from zmsvc.protocol.launch import LaunchSpec

ACTION = "published"
"""The action in the standard header."""


class Publications:
    """The publications of one launch of a task, from any of its threads. `send` returns False if it drops a
    frame.
    """

    def __init__(self, spec: LaunchSpec, send: Callable[[bytes], bool]) -> None:
        self._header = messages.header(
            transaction=spec.transaction,
            service_id=spec.task,
            action=ACTION,
            service_name=spec.service_name or spec.instance,
            launch=spec.launch,
        )
        self._send = send
        self._lock = threading.Lock()
        self._sequences: dict[str, int] = {}
        """The number of the last message of each topic."""

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool:
        """Publish a content, or unchanged a message that has a header of its own. Return False if it was
        dropped; a dropped message has its number, so that subscribers notice it.

        Raises TypeError and ValueError.
        """
        messages.check_topic(topic)
        if "header" in content:
            return self._send(messages.encode(topic, content))
        text = messages.encoded(content["content"] if content.keys() == {"content"} else dict(content))
        # The lock keeps the messages of all threads in the order of their numbers.
        with self._lock:
            number = self._sequences[topic] = self._sequences.get(topic, 0) + 1
            return self._send(messages.published(topic, self._header, number, text))
