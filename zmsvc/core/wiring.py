"""The topics of a context with their publishers and subscribers: as the classes of tasks declare them, and as
a subscriber to all topics sees them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zmsvc.core import access, messages, replicas
from zmsvc.core.frozen import frozen
from zmsvc.core.message_origin import MessageOrigin, origin_of

MAX_SENDERS = 10_000
"""The number of pairs of sender and topic that are counted separately. Any client can invent senders."""
MAX_LIES = 100

_OWN = {*access.TOPICS, "control"}
"""The topics of zmsvc itself."""
_OWN_PREFIXES = ("zmsvc.", messages.UNHEARD_ORDERS.decode())


@frozen
class Declared:
    """The messages of a task by its class and configuration."""

    hears: tuple[str, ...] = ()
    publishes: tuple[str, ...] | None = None
    """None if the class does not say."""
    expected: tuple[str, ...] = ()
    """The topics of its `<expect>` and its `<ready>`: it publishes on them, and zmsvc watches that."""


@frozen
class Running:
    """A task of a transaction at one moment."""

    launch: int | None
    """The number of its last launch; None if the supervisor does not say."""
    process: bool


Tasks = Mapping[tuple[str, str], Running]
"""Tasks by transaction and ID."""


@frozen
class Sender:
    """One publisher of a topic: a task by its ID in the file, or a client without one (empty)."""

    task: str
    declared: bool = False
    count: int = 0
    """The messages that were received, and those that are missing, as the numbers of the others show."""
    size: int = 0
    """The average size in bytes of the messages that were received."""


@frozen
class Topic:
    """One topic, its publishers and its subscribers."""

    name: str
    senders: tuple[Sender, ...] = ()
    hearers: tuple[str, ...] = ()
    """The tasks whose class or configuration names it."""
    subscribed: bool = False
    """True if the device has a subscription to it, of any client."""
    expected: bool = False
    """True if zmsvc watches that a task publishes on it (`<expect>`, `<ready>`)."""

    @property
    def heard(self) -> bool:
        return bool(self.hearers) or self.subscribed or self.expected


@dataclass(slots=True)
class _Count:
    count: int = 0
    came: int = 0
    size: int = 0
    launches: dict[int, int] = field(default_factory=dict)
    """The highest number of each launch."""


class Traffic:
    """The messages that a subscriber to all topics receives: of one transaction, or of all if `transaction`
    is empty. At most `max_senders` senders are counted separately.
    """

    def __init__(self, transaction: str = "", max_senders: int = MAX_SENDERS) -> None:
        self._transaction, self._max_senders = transaction, max_senders
        self._counts: dict[tuple[str, str, str], _Count] = {}
        self._twice: set[tuple[str, str, str]] = set()
        self.others = 0
        """Messages of senders that are not counted separately, because there are too many."""

    def add(self, frame: bytes) -> None:
        """Count a message. Those of zmsvc itself are left out."""
        topic, _, text = frame.partition(messages.SEPARATOR)
        name = topic.decode(errors="replace").strip()
        if not text or is_own(name):
            return
        origin = origin_of(text) or MessageOrigin()
        if self._transaction and origin.transaction not in ("", self._transaction):
            return
        key = origin.transaction, origin.sender, name
        if key not in self._counts and len(self._counts) >= self._max_senders:
            self.others += 1
            return
        counted = self._counts.setdefault(key, _Count())
        counted.came += 1
        counted.size += len(frame)
        counted.count += self._step(key, counted, origin.launch, origin.sequence)

    def _step(
        self, key: tuple[str, str, str], counted: _Count, launch: int | None, sequence: int | None
    ) -> int:
        """Return how many messages the sender has published since the previous one that was received."""
        if launch is None or sequence is None:
            return 1
        last = counted.launches.get(launch)
        if last is None:
            # Only the first launches are remembered. Any client can invent numbers.
            if len(counted.launches) < MAX_LIES:
                counted.launches[launch] = sequence
            return 1
        if sequence <= last:
            self._twice.add(key)
            return 1
        counted.launches[launch] = sequence
        return sequence - last

    def senders(self) -> dict[str, list[Sender]]:
        """Return the senders of each topic, by the IDs of tasks in the file."""
        sums: dict[tuple[str, str], _Count] = {}
        for (_, task, topic), counted in self._counts.items():
            total = sums.setdefault((topic, replicas.base(task)), _Count())
            total.count += counted.count
            total.came += counted.came
            total.size += counted.size
        found: dict[str, list[Sender]] = {}
        for (topic, task), each in sums.items():
            found.setdefault(topic, []).append(
                Sender(task=task, count=each.count, size=round(each.size / each.came))
            )
        return found

    def lies(self, before: Tasks, after: Tasks) -> list[str]:
        """Return the senders that are named in messages but cannot have sent them, because the transaction,
        the task or the launch did not exist before or after the messages. A client that uses the ID of a
        running task is found only by its launch numbers.
        """
        found: dict[str, None] = {}
        transactions = {transaction for transaction, _ in (*before, *after)}
        for (transaction, task, topic), counted in self._counts.items():
            if not task or not transaction:
                continue
            told = f"a sender on {topic} says that it is {task} of {transaction}"
            first, last = before.get((transaction, task)), after.get((transaction, task))
            if transaction not in transactions:
                found[f"{told}, a transaction that the context does not have"] = None
            elif first is None and last is None:
                found[f"{told}, which has no such task"] = None
            elif why := _impossible(first, last, counted.launches):
                found[f"{told}, {why}"] = None
            elif (transaction, task, topic) in self._twice:
                found[f"two senders on {topic} say that they are {task} of {transaction}"] = None
        return [*found][:MAX_LIES]


def _impossible(first: Running | None, last: Running | None, launches: Iterable[int]) -> str:
    lowest = first.launch if first else 0
    highest = last.launch if last else None
    process = any(each is not None and each.process for each in (first, last))
    if not process and (lowest is None or lowest == highest):
        return "which has no process"
    for launch in launches:
        if (lowest and launch < lowest) or (highest is not None and launch > highest):
            return f"and that this is launch {launch}, which it is not"
    return ""


def is_own(topic: str) -> bool:
    """Return True for the topics of zmsvc itself."""
    return topic in _OWN or topic.startswith(_OWN_PREFIXES)


def topics_of(
    declared: Mapping[str, Declared], traffic: Traffic | None = None, subscriptions: Iterable[bytes] = ()
) -> list[Topic]:
    """Return by name the topics that tasks declare, that messages were received on, or that a client
    subscribes to. `subscriptions` are the prefixes that the device has. A subscription to all topics is that
    of an observer, and does not count as a subscriber of each topic.
    """
    flowing = {} if traffic is None else traffic.senders()
    prefixes = [each for each in subscriptions if each]
    names = {name for each in declared.values() for name in (*each.hears, *_published(each))}
    names |= {*flowing, *_named_by(prefixes)}
    return [
        Topic(
            name=name,
            senders=tuple(_senders(name, declared, flowing.get(name, []))),
            hearers=tuple(task for task, each in declared.items() if name in each.hears),
            subscribed=_matches(name, prefixes),
            expected=any(name in each.expected for each in declared.values()),
        )
        for name in sorted(names)
    ]


def _senders(name: str, declared: Mapping[str, Declared], flowing: Iterable[Sender]) -> Iterator[Sender]:
    seen = {each.task: each for each in flowing}
    says = [task for task, each in declared.items() if name in _published(each)]
    for task in dict.fromkeys([*says, *seen]):
        found = seen.get(task, Sender(task=task))
        yield Sender(task=task, declared=task in says, count=found.count, size=found.size)


def _published(task: Declared) -> tuple[str, ...]:
    return (*(task.publishes or ()), *task.expected)


def _named_by(prefixes: Iterable[bytes]) -> Iterator[str]:
    """Yield the topics that subscriptions name in full."""
    for each in prefixes:
        topic, separator, _ = each.partition(messages.SEPARATOR)
        name = topic.decode(errors="replace")
        if separator and name.isprintable() and not is_own(name):
            yield name


def _matches(name: str, prefixes: Iterable[bytes]) -> bool:
    start = messages.prefix(name)
    return any(start.startswith(each) or each.startswith(start) for each in prefixes)


def unheard(topics: Iterable[Topic]) -> list[Topic]:
    """Return the topics with a publisher that no task and no client hears."""
    return [each for each in topics if each.senders and not each.heard]


def unfed(topics: Iterable[Topic]) -> list[Topic]:
    """Return the topics that a task or a client hears, and that have no publisher."""
    return [each for each in topics if each.heard and not each.senders]


def as_json(topics: Iterable[Topic], seconds: float) -> list[dict[str, Any]]:
    """Return the topics as JSON. Rates are None if nothing was measured."""
    return [
        {
            "topic": each.name,
            "senders": [
                {
                    "task": sender.task or None,
                    "declared": sender.declared,
                    "messages_per_second": round(sender.count / seconds, 3) if seconds else None,
                    "bytes": sender.size or None,
                }
                for sender in each.senders
            ],
            "hearers": [*each.hearers],
            "subscribed": each.subscribed,
            "expected": each.expected,
        }
        for each in topics
    ]


def sentences(topics: Iterable[Topic]) -> list[str]:
    """Return a line about each declared topic, for `check`."""
    lines = []
    for each in topics:
        senders, hearers = ", ".join(sender.task for sender in each.senders), ", ".join(each.hearers)
        if senders and hearers:
            lines.append(f"topic {each.name}: {senders} to {hearers}")
        elif senders and each.expected:
            lines.append(f"topic {each.name}: {senders}, watched by zmsvc")
        elif senders:
            lines.append(f"topic {each.name}: {senders}, and no task hears it")
        else:
            lines.append(f"topic {each.name}: heard by {hearers}, and no task declares that it publishes it")
    return lines
