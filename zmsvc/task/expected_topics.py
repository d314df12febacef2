"""The topics on which a task in Python is expected to publish: report the first message for `<ready
topic="...">`, and a topic that is silent for too long for `<expect>`.

A thread of its own keeps the time, so a step that hangs makes no difference. It wakes up when a topic could
have become silent, and no message wakes it.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from zmsvc.core.expected_topics import Silences, from_json
from zmsvc.protocol.launch import LaunchSpec


class TopicReporter(Protocol):
    """A receiver of the reports."""

    def heard(self, topic: str) -> None: ...
    def silent(self, topic: str) -> None: ...


class ExpectedTopics:
    """The expected topics of one launch. Any thread may publish."""

    def __init__(self, spec: LaunchSpec, reporter: TopicReporter) -> None:
        self._reporter = reporter
        self._silences = Silences(map(from_json, spec.expect))
        self._topics = self._silences.topics | {spec.ready_topic}
        self._ready_topic = spec.ready_topic
        self._awaits_message, self._awaits_setup = bool(spec.ready_topic), True
        self._changed = threading.Condition()
        self._ended = False
        self._thread: threading.Thread | None = None

    def set_up(self) -> None:
        """Note that the setup of the task has ended."""
        with self._changed:
            self._awaits_setup = False
            self._begin()

    def published(self, topic: str) -> None:
        """Note that the task has published on a topic."""
        if topic not in self._topics:
            return
        with self._changed:
            self._silences.heard(topic, time.monotonic())
            if self._awaits_message and topic == self._ready_topic:
                self._awaits_message = False
                self._begin()

    def _begin(self) -> None:
        """Begin when the task is ready: its setup has ended, and the first message has been published."""
        if self._awaits_message or self._awaits_setup:
            return
        if self._ready_topic:
            self._reporter.heard(self._ready_topic)
        if self._silences.topics:
            self._silences.begin(time.monotonic())
            self._thread = threading.Thread(target=self._watch, name="expected topics", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        with self._changed:
            while not self._ended:
                while (topic := self._silences.silent(time.monotonic())) is not None:
                    self._reporter.silent(topic)
                pause = self._silences.pause(time.monotonic())
                self._changed.wait(min(pause, threading.TIMEOUT_MAX))

    def close(self) -> None:
        """End the thread: the task ends."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
