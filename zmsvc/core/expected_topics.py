"""The topics on which a task is expected to publish (`<expect>`), and when it has been silent for too long.
Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from zmsvc.core.frozen import frozen


@frozen
class ExpectedTopic:
    """One topic of a task."""

    topic: str
    within: float
    """The longest time in seconds between two messages, and until the first one."""

    def as_json(self) -> dict[str, Any]:
        """Return what the process that keeps the time needs. `from_json` reads it."""
        return {"topic": self.topic, "within": self.within}


@frozen
class ReadyTopic:
    """The task is ready when it has published its first message on this topic: `<ready topic="...">`."""

    topic: str


def make(**values: Any) -> ExpectedTopic:
    """Return the expectation of an `<expect>` with these attributes. Raises ValueError."""
    missing = [name for name in ("topic", "within") if name not in values]
    if missing:
        raise ValueError(f"has no {missing[0]}, expected the attributes topic and within")
    return ExpectedTopic(**values)


def from_json(values: Mapping[str, Any]) -> ExpectedTopic:
    """Return the expectation of `as_json`. Raises KeyError and TypeError."""
    return ExpectedTopic(topic=values["topic"], within=values["within"])


class Silences:
    """The topics that have become silent. The clock of all topics stands still until `begin`."""

    def __init__(self, expected: Iterable[ExpectedTopic]) -> None:
        self._within: dict[str, float] = {}
        for each in expected:
            self._within[each.topic] = min(each.within, self._within.get(each.topic, math.inf))
        self._due: dict[str, float] = {}

    @property
    def topics(self) -> frozenset[str]:
        return frozenset(self._within)

    def begin(self, now: float) -> None:
        """Start the clock of all topics, or start it again."""
        self._due = {topic: now + within for topic, within in self._within.items()}

    def suspend(self) -> None:
        """Stop the clock of all topics until the next `begin`."""
        self._due = {}

    def heard(self, topic: str, now: float) -> None:
        """Note a message on a topic."""
        if topic in self._due:
            self._due[topic] = now + self._within[topic]

    def silent(self, now: float) -> str | None:
        """Return a topic that has been silent for too long, each once."""
        for topic, due in self._due.items():
            if now >= due:
                del self._due[topic]
                return topic
        return None

    def pause(self, now: float) -> float:
        """Return the seconds until a topic may have been silent for too long; infinity while none can."""
        return max(0.0, min(self._due.values(), default=math.inf) - now)
