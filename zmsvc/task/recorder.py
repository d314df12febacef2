"""Take the place of process, supervisor and bus of one task in a unit test: record the calls of the task, and
let no time pass.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from zmsvc.core import messages, replicas
from zmsvc.core.updates import as_json
from zmsvc.task.endpoints import Endpoints
from zmsvc.task.inbox import Message, named_topics
from zmsvc.task.keys import TaskKeys
from zmsvc.task.settings import settings_of


class Recorder:
    """The record of the calls of a task. For invalid arguments it raises the same exceptions as the real
    runtime.
    """

    updates: list[dict[str, Any]]
    """The items of each `update`, after JSON."""
    published: list[tuple[str, dict[str, Any]]]
    """Topic and content of each `publish`, after JSON."""
    incoming: list[Message[Any]]
    """The messages that `self.messages()` of the task returns, in this order."""
    waited: list[float | None]
    """The seconds that each call of `wait` was given. `wait` itself returns at once."""
    stopping: bool
    """Set this to True to make `wait` return True, which asks the task to stop. `wait` sets it after `waits`
    calls."""

    def __init__(
        self,
        cls: type,
        cause: Any,
        *,
        settings: Any = None,
        config: Mapping[str, Any] | None = None,
        context: str = "test",
        transaction: str = "TEST",
        service_id: str = "",
        waits: int = 100,
    ) -> None:
        self.updates, self.published, self.incoming, self.waited = [], [], [], []
        self.stopping = False
        self.config: dict[str, Any] = dict(config or {})
        self.context = context
        self.transaction = transaction
        self.service_id = service_id or cls.__name__
        self.replica = replicas.number(self.service_id)
        self.cause = cause
        self.log = logging.getLogger(cls.__name__)
        self.settings = self._converted(cls) if settings is None else settings
        self.endpoints = Endpoints("", "")
        self.keys = TaskKeys()
        self._waits = waits

    def _converted(self, cls: type) -> Any:
        """Return the settings of a task, or of the task of a service. Raises LaunchError."""
        settings_class = getattr(getattr(cls, "task_class", cls), "settings_class", None)
        return settings_class and settings_of(settings_class, self.config, file="", task=self.service_id)

    def update(self, items: Mapping[str, Any], wait: bool) -> bool:
        self.updates.append(json.loads(as_json(items)))
        return True

    def publish(self, topic: str, content: Mapping[str, Any]) -> bool:
        messages.check_topic(topic)
        self.published.append(messages.decode(messages.encode(topic, content)))
        return True

    def messages(
        self, task: object, topics: tuple[str, ...], seconds: float | None
    ) -> Iterator[Message[Any]]:
        """Return the messages of `incoming` on these topics, and remove them from it."""
        named = topics or named_topics(type(task), self.config.get("subscribe"))
        while (message := next((each for each in self.incoming if each.topic in named), None)) is not None:
            self.incoming.remove(message)
            yield message

    async def messages_async(
        self, task: object, topics: tuple[str, ...], seconds: float | None
    ) -> AsyncIterator[Message[Any]]:
        for message in self.messages(task, topics, seconds):
            yield message

    def wait(self, seconds: float | None) -> bool:
        """Return at once. A wait without limit ends only when the task is asked to stop, so this sets
        `stopping`.
        """
        self.waited.append(seconds)
        self.stopping = self.stopping or seconds is None or len(self.waited) > self._waits
        return self.stopping

    async def update_async(self, items: Mapping[str, Any]) -> bool:
        return self.update(items, wait=True)

    async def publish_async(self, topic: str, content: Mapping[str, Any]) -> bool:
        return self.publish(topic, content)

    async def wait_async(self, seconds: float | None) -> bool:
        """Let the other tasks of the event loop run for one turn."""
        # Imported here for start-up time: only a test of an AsyncTask needs it, and that has imported it.
        import asyncio

        await asyncio.sleep(0)
        return self.wait(seconds)

    def unwatch(self, fd: int) -> None:
        """Do nothing: `watch` does nothing."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Do nothing: no descriptor becomes readable."""
