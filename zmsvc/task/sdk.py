"""The classes that users subclass. They hold what a task may ask for; the process around them is `life`'s business."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

log = logging.getLogger("task")


class Companion(Protocol):
    """What carries out the wishes of a task: the life of its process, or a terminal."""

    def update(self, items: Mapping[str, Any]) -> None: ...

    def publish(self, topic: str, body: Mapping[str, Any]) -> None: ...

    def wait(self, seconds: float) -> bool: ...


class Task:
    """The common part of LoopedTask and SingleTask. Do not override `__init__`: `setup` is for that."""

    config: Mapping[str, Any]
    """The task's own `<configuration>`: texts, lists and dicts of them."""
    context: str
    """The name of the context."""
    transaction: str
    service_id: str
    cause: Mapping[str, Any]
    """What started it: `by` is operator, context, bus or rule; `sources` has for each rule that fired the task, its trigger, its
    last exit and its last update; `depth` counts the rules in a chain."""
    log: logging.Logger
    """Its records carry the journal fields of this task."""

    def __init__(self, spec: Mapping[str, Any], companion: Companion) -> None:
        self.config = spec["configuration"]
        self.context = spec["context"]
        self.transaction = spec["transaction"]
        self.service_id = spec["task"]
        self.cause = spec["cause"]
        self.log = log
        self._companion = companion

    def setup(self) -> None:
        """Called once, before the service says that it is ready. An exception here makes it fail."""

    def close(self) -> None:
        """Called once at the end, also after an error."""

    def update(self, **items: Any) -> None:
        """Report a result: `control`/`updated` with these items on the bus, and the on_update rules.

        Raises TypeError for an item that is not JSON, ValueError for more than 1 MiB of it.
        """
        self._companion.update(items)

    def publish(self, topic: str, body: Mapping[str, Any]) -> None:
        """Send a message to whoever is subscribed to the topic. It may be lost; a result that counts is an `update`."""
        self._companion.publish(topic, body)

    def wait(self, seconds: float) -> bool:
        """Wait, but not longer than until the service is told to stop. True when it is time to stop."""
        return self._companion.wait(seconds)


class LoopedTask(Task):
    """A task that does its `step` again and again until it is told to stop."""

    interval: float = 1.0
    """Seconds from the start of one step to the start of the next; `<interval>` in the configuration overrides it."""

    def __init__(self, spec: Mapping[str, Any], companion: Companion) -> None:
        super().__init__(spec, companion)
        if "interval" in self.config:
            self.interval = float(self.config["interval"])

    def step(self) -> None:
        """One round of work. An exception ends the service as failed."""
        raise NotImplementedError(f"{type(self).__name__} has no step()")


class SingleTask(Task):
    """A task that runs once. When `run` returns, the service ends with status 0."""

    def run(self) -> None:
        """The work. When the service is told to stop meanwhile, `wait` returns True; anywhere else `run` is broken off."""
        raise NotImplementedError(f"{type(self).__name__} has no run()")


class TaskService:
    """The service around a task. A subclass `ServiceNAME` names the task's class; it may listen to the other services."""

    service_name: ClassVar[str] = ""
    task_class: ClassVar[type[Task]]

    def __init__(self, spec: Mapping[str, Any], companion: Companion) -> None:
        self.task = self.task_class(spec, companion)

    def on_control(self, message: Mapping[str, Any]) -> None:
        """Another service of this transaction reported. Only a class that overrides this is subscribed to `control`."""

    @classmethod
    def listens(cls) -> bool:
        return cls.on_control is not TaskService.on_control
