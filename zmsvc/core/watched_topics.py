"""The topics of all Commands that the watcher process watches, and what it has to report. Pure.

The work for a message does not depend on the number of Commands: only the time of the message is noted. When
a topic may have become silent, the noted times decide.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from zmsvc.core.expected_topics import ExpectedTopic
from zmsvc.core.frozen import frozen
from zmsvc.core.message_origin import MessageOrigin

_Sender = tuple[str, str, str, int | None]
"""The topic of a message, and the transaction, the task and the launch that its header names; a text is empty
and the launch is None where it names none.
"""
SECOND_LOOK = 0.25
"""Seconds from the look that hears nothing in time to the one that decides. The process may have stood still,
and libzmq reads what has come meanwhile in a thread of its own, which needs a moment.
"""
_Name = TypeVar("_Name", bound=Hashable)
_SPARE = 64
"""The heap may have this many times more than there are clocks. Above that, the outdated ones are removed."""


@frozen
class LaunchWatch:
    """The topics of one launch."""

    launch: int
    transaction: str
    task: str
    ready: str = ""
    """The topic whose first message is to be reported, or nothing."""
    has_process: bool = False
    """False before the fork: the first message is reported when the launch has a process."""
    expect: tuple[ExpectedTopic, ...] = ()
    """The topics on which a silence is to be reported."""

    @property
    def topics(self) -> frozenset[str]:
        return frozenset([*([self.ready] if self.ready else []), *(each.topic for each in self.expect)])

    def senders(self, topic: str) -> Iterator[_Sender]:
        """Yield the headers with which a message on a topic counts. A header that names another launch does
        not count: the message may be the last one of the previous launch.
        """
        return itertools.product((topic,), (self.transaction, ""), (self.task, ""), (self.launch, None))

    def within(self, topic: str) -> float:
        """Return the time of an expected topic, the shortest one if it is named twice."""
        return min(each.within for each in self.expect if each.topic == topic)


@frozen
class Heard:
    """The launch has published its first message on the topic."""

    launch: int
    topic: str


@frozen
class Silent:
    """The launch has published nothing on the topic for too long."""

    launch: int
    topic: str


@dataclass(slots=True)
class _Clock:
    """The clock of one topic of one launch, until the topic is silent."""

    since: float
    due: float
    """The time in the heap, before which the topic cannot be silent for too long."""
    late: bool = False
    """True if the last message is too old, and the second look will tell."""


class WatchedTopics:
    """The watches of all launches. The clocks stand while there is no connection to the device."""

    def __init__(self, second_look: float = SECOND_LOOK) -> None:
        self._second_look = second_look
        self._connected = False
        self._watches: dict[int, LaunchWatch] = {}
        self._topics: Counter[str] = Counter()
        """The number of watches of each topic."""
        self._senders: Counter[_Sender] = Counter()
        """The number of watches for which a message with this header counts."""
        self._heard: dict[_Sender, float] = {}
        """The time of the last message with each of these headers."""
        self._awaited: dict[_Sender, set[int]] = {}
        """The launches whose first message such a message is."""
        self._first: set[int] = set()
        """The launches whose first message has come."""
        self._clocks: dict[tuple[int, str], _Clock] = {}
        self._due: list[tuple[float, int, str]] = []
        """A heap of the times of the clocks. An entry whose clock has another time is outdated."""
        self._reports: list[Heard | Silent] = []

    @property
    def topics(self) -> frozenset[str]:
        """The topics to subscribe to."""
        return frozenset(self._topics)

    # --- watches

    def watch(self, watch: LaunchWatch, now: float) -> None:
        """Watch these topics of a launch in place of the previous ones. If they are the same, repeat the
        reports about them, and let the clocks go on.
        """
        before = self._watches.get(watch.launch)
        if before is None or (before.ready, before.expect) != (watch.ready, watch.expect):
            self.end(watch.launch)
            self._add(watch, now)
        self._watches[watch.launch] = watch
        if watch.launch in self._first and watch.has_process:
            self._reports.append(Heard(launch=watch.launch, topic=watch.ready))
        for each in watch.expect if self._connected else ():
            if (watch.launch, each.topic) not in self._clocks:
                self._reports.append(Silent(launch=watch.launch, topic=each.topic))

    def end(self, launch: int) -> None:
        """Watch a launch no longer."""
        watch = self._watches.pop(launch, None)
        if watch is None:
            return
        self._first.discard(launch)
        self._await_no_longer(watch)
        for topic in watch.topics:
            self._clocks.pop((launch, topic), None)
            _count_down(self._topics, topic)
            for sender in watch.senders(topic):
                if _count_down(self._senders, sender):
                    self._heard.pop(sender, None)

    def _add(self, watch: LaunchWatch, now: float) -> None:
        for topic in watch.topics:
            self._topics[topic] += 1
            self._senders.update(watch.senders(topic))
        for sender in watch.senders(watch.ready) if watch.ready else ():
            self._awaited.setdefault(sender, set()).add(watch.launch)
        if self._connected:
            self._begin(watch, now)

    def _await_no_longer(self, watch: LaunchWatch) -> None:
        for sender in watch.senders(watch.ready) if watch.ready else ():
            waiting = self._awaited.get(sender, set())
            waiting.discard(watch.launch)
            if not waiting:
                self._awaited.pop(sender, None)

    # --- clocks

    def connected(self, now: float) -> None:
        """Start the clocks again: there is a connection to the device."""
        self.disconnected()
        self._connected = True
        for watch in self._watches.values():
            self._begin(watch, now)

    def disconnected(self) -> None:
        """Stop the clocks: no message can come."""
        self._connected = False
        self._clocks.clear()
        self._due.clear()

    def _begin(self, watch: LaunchWatch, now: float) -> None:
        for topic in {each.topic for each in watch.expect}:
            self._clocks[watch.launch, topic] = _Clock(now, 0.0)
            self._schedule(watch.launch, topic, now + watch.within(topic))

    def _schedule(self, launch: int, topic: str, due: float) -> None:
        self._clocks[launch, topic].due = due
        heapq.heappush(self._due, (due, launch, topic))
        if len(self._due) > 2 * len(self._clocks) + _SPARE:
            self._due = [(clock.due, *name) for name, clock in self._clocks.items()]
            heapq.heapify(self._due)

    def heard(self, topic: str, origin: MessageOrigin, now: float) -> None:
        """Note a message."""
        sender = (topic, origin.transaction, origin.sender, origin.launch)
        if sender not in self._senders:
            return
        self._heard[sender] = now
        for launch in [*self._awaited.get(sender, ())]:
            watch = self._watches[launch]
            self._await_no_longer(watch)
            self._first.add(launch)
            if watch.has_process:
                self._reports.append(Heard(launch=launch, topic=topic))

    def pause(self, now: float) -> float:
        """Return the seconds until a topic could be silent for too long; infinity while none can."""
        return max(0.0, self._due[0][0] - now) if self._due else math.inf

    def reports(self, now: float) -> list[Heard | Silent]:
        """Return what there is to report. All messages that had come at `now` have to be noted."""
        while self._due and self._due[0][0] <= now:
            due, launch, topic = heapq.heappop(self._due)
            clock = self._clocks.get((launch, topic))
            if clock is None or clock.due != due:
                continue
            watch = self._watches[launch]
            last = max(self._heard.get(sender, clock.since) for sender in watch.senders(topic))
            due = max(clock.since, last) + watch.within(topic)
            if due > now:
                clock.late = False
                self._schedule(launch, topic, due)
            elif not clock.late:
                clock.late = True
                self._schedule(launch, topic, now + self._second_look)
            else:
                del self._clocks[launch, topic]
                self._reports.append(Silent(launch=launch, topic=topic))
        found, self._reports = self._reports, []
        return found


def _count_down(counts: Counter[_Name], name: _Name) -> bool:
    """Decrease a count. Return True if it is now 0."""
    counts[name] -= 1
    if counts[name]:
        return False
    del counts[name]
    return True
