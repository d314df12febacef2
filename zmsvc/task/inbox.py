"""The messages that a task receives: from the frames of a subscription to objects of `Message`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from zmsvc.core import messages, topics
from zmsvc.core.errors import LaunchError, ProtocolError
from zmsvc.core.frozen import frozen
from zmsvc.host.sparse_log import SparseLog
from zmsvc.task.bus import Subscription
from zmsvc.task.json_codec import JsonCodec, codec

T = TypeVar("T")

MAX_SENDERS = 10_000
"""The number of senders and topics whose last number is remembered. Any client can invent senders."""

_HEADER = b'{"header":{"service_transaction":'


class RetainedFrame(bytes):
    """The frame of a retained message, as its sender has published it."""

    __slots__ = ()


@frozen
class Message(Generic[T]):
    """A message of the bus. `Message[Reading]` has the dataclass `Reading` as its content."""

    topic: str
    content: T
    """The content of the message; of a message without `content`, all of it but the header."""
    header: Mapping[str, Any] = field(default_factory=dict)
    """The header, empty if the message has none."""
    sender: str = ""
    """The ID of the task that published it, as the message says; empty if it does not."""
    transaction: str = ""
    """The ID of the sender's transaction, empty if the message does not say."""
    sequence: int | None = None
    """The number of the message among those of its sender's launch and topic, from 1. None if its sender does
    not number them."""
    missed: int = 0
    """The number of messages of the same sender and topic that were lost since the previous one."""
    retained: bool = False
    """True if it was published before the task subscribed, and comes from a LastValue."""


@dataclass(slots=True)
class _Last:
    """The last message of a sender on a topic."""

    launch: int
    sequence: int
    known: int
    """The highest number of this launch that is known to exist."""
    dropped: int = 0
    """The number of those that the sender itself has dropped."""


class Inbox:
    """The messages of one subscription to topics, of one task."""

    def __init__(
        self,
        names: Collection[str],
        *,
        transaction: str,
        service_id: str,
        every_transaction: bool,
        log: logging.Logger,
    ) -> None:
        self.topics = frozenset(names)
        self._transaction, self._service_id = transaction, service_id
        self._every_transaction = every_transaction
        self._own = _HEADER + messages.encoded(transaction)
        self._names = {topic.encode(): topic for topic in self.topics}
        self._codec: JsonCodec | None = None
        self._ignored, self._missed = SparseLog(log.warning), SparseLog(log.warning)
        self._last: dict[tuple[str, str, str], _Last] = {}
        """The last message of each transaction, sender and topic."""
        self.missed = 0
        """The number of messages that were lost, except those that a queue with the policy `last` drops."""
        self.frame = b""
        """The frame of the last message that `next` has returned."""
        self.convert: Callable[[Any], Any] | None = None
        """The conversion of the content."""
        self.take_dropped: Callable[[str], int | None] = _none_dropped
        """Return how many messages of a topic the queues of this task have dropped since the last call; None
        if that is not a loss.
        """

    @property
    def prefixes(self) -> list[bytes]:
        """The prefixes to subscribe to. The device cannot filter by transaction, because a client may write
        its JSON in any form (core/prefixes.py has the forms for one topic).
        """
        numbers = (f"{messages.LAST_NUMBER}{topic}" for topic in self.topics)
        return [messages.prefix(topic) for topic in sorted((*self.topics, *numbers))]

    def next(self, subscription: Subscription) -> Message[Any] | None:
        """Return the next message for this task, or None if none waits. Raises ProtocolError for a content
        that cannot be converted.
        """
        while (frame := subscription.receive()) is not None:
            self.frame = frame
            if (message := self.message(frame)) is not None:
                return message
        return None

    def message(self, frame: bytes) -> Message[Any] | None:
        """Return the message of a frame; None if it is not for this task. Raises ProtocolError for a content
        that cannot be converted.
        """
        of_topic, _, text = frame.partition(messages.SEPARATOR)
        topic = self._names.get(of_topic)
        if not self._every_transaction and text.startswith(_HEADER) and not text.startswith(self._own):
            return None  # This is decided here for speed: a context may have many transactions.
        if self._codec is None:
            self._codec = codec()
        try:
            body = messages.body_of(text, self._codec.decode)
        except ProtocolError as error:
            self._ignored.add("Ignored a message on %s: %s", of_topic.decode(errors="replace"), error)
            return None
        header = body.get("header", {})
        transaction, sender = header.get("service_transaction", ""), header.get("service_id", "")
        if type(transaction) is not str or type(sender) is not str:
            transaction, sender = _text(header, "service_transaction"), _text(header, "service_id")
        if transaction != self._transaction:
            if transaction and not self._every_transaction:
                return None
        elif sender == self._service_id:
            return None
        if messages.RECIPIENT in header and _text(header, messages.RECIPIENT) not in ("", self._service_id):
            return None
        if topic is None:
            number_of = of_topic.decode(errors="replace").removeprefix(messages.LAST_NUMBER)
            self._take_last_number(header, (transaction, sender, number_of))
            return None
        retained = type(frame) is RetainedFrame
        if retained:
            sequence, missed = _number(header), 0
        else:
            sequence, missed = self._numbered(header, (transaction, sender, topic))
        content = body["content"] if "content" in body else _without_header(body)
        return Message(
            topic=topic,
            content=content if self.convert is None else self._converted(content, topic, sender, sequence),
            header=header,
            sender=sender,
            transaction=transaction,
            sequence=sequence,
            missed=missed,
            retained=retained,
        )

    def _converted(self, content: Any, topic: str, sender: str, sequence: int | None) -> Any:
        assert self.convert is not None
        try:
            return self.convert(content)
        except (TypeError, ValueError) as error:
            which = "a message" if sequence is None else f"message {sequence}"
            raise ProtocolError(
                f"cannot use {which} on {topic} from {sender or 'an unknown sender'}: {error}"
            ) from error

    def _numbered(self, header: Mapping[str, Any], key: tuple[str, str, str]) -> tuple[int | None, int]:
        """Return the number of a message, and how many of the same sender and topic were lost before it."""
        launch, sequence = header.get("launch"), header.get("sequence")
        if type(launch) is not int or type(sequence) is not int:
            return None, 0
        # A dict keeps the order of insertion: the first key is that of the sender that has been silent
        # longest.
        last = self._last.pop(key, None)
        if last is None:
            self._last[key] = _Last(launch, sequence, sequence, _dropped_by_sender(header))
            if len(self._last) > MAX_SENDERS:
                del self._last[next(iter(self._last))]
            return sequence, 0
        self._last[key] = last
        if last.launch != launch:
            last.launch, last.sequence, last.known, last.dropped = launch, 0, 0, 0
        before, known = last.sequence, last.known
        last.sequence = last.known = sequence
        if sequence == before + 1:
            return sequence, 0
        self._log_missed(sequence - 1 - known, key, self._newly_dropped(last, header))
        return sequence, max(0, sequence - 1 - before)

    def _take_last_number(self, header: Mapping[str, Any], key: tuple[str, str, str]) -> None:
        """Note the number that a sender repeats: the messages up to it that have not come are lost."""
        sequence, last = header.get("sequence"), self._last.get(key)
        if type(sequence) is not int or last is None or last.launch != header.get("launch"):
            return
        self._log_missed(sequence - last.known, key, self._newly_dropped(last, header))
        last.known = max(last.known, sequence)

    @staticmethod
    def _newly_dropped(last: _Last, header: Mapping[str, Any]) -> int:
        before, last.dropped = last.dropped, _dropped_by_sender(header)
        return last.dropped - before

    def _log_missed(self, count: int, key: tuple[str, str, str], by_sender: int) -> None:
        if count <= 0 or (dropped := self.take_dropped(key[2])) is None:
            return
        self.missed += count
        reasons = []
        if dropped:
            reasons.append(f"the queue of this task has dropped {dropped} of this topic")
        if by_sender > 0:
            reasons.append(f"the sender has dropped {by_sender}, because its queue to the device was full")
        # A message is lost nowhere else but in the device. Only a monitor of the connection, for 85 kB, could
        # tell its two reasons apart.
        reason = ", ".join(reasons) or "the queue of the device for this task was full, or it was restarted"
        self._missed.add("Missed %d messages on %s from %s: %s", count, key[2], key[1], reason)


def _number(header: Mapping[str, Any]) -> int | None:
    sequence = header.get("sequence")
    return sequence if type(sequence) is int else None


def _dropped_by_sender(header: Mapping[str, Any]) -> int:
    dropped = header.get("dropped", 0)
    return dropped if type(dropped) is int else 0


def _none_dropped(_topic: str) -> int:
    return 0


def named_topics(cls: type, configured: Any) -> tuple[str, ...]:
    """Return the topics of the `<subscribe>` elements, or of the class of a task. Raises LaunchError."""
    if configured is None:
        return topics_of(getattr(cls, "topics", ()), f"topics of {cls.__name__}")
    return topics_of(configured or (), "<subscribe>")


def topics_of(value: Any, source: str) -> tuple[str, ...]:
    """Return the topics of a text, or of a list or tuple of texts. Raises LaunchError."""
    for _, fault in topics.faults(value):
        raise LaunchError(f"cannot subscribe: {source}: {fault}, {topics.EXPECTED}")
    return topics.unique(topics.as_list(value))


def _text(header: Mapping[str, Any], key: str) -> str:
    value = header.get(key)
    return value if isinstance(value, str) else ""


def _without_header(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "header"}
