"""The messages that a task receives: from the frames of a subscription to objects of `Message`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, NamedTuple, TypeVar

from zmsvc.core import messages, topics
from zmsvc.core.errors import LaunchError, ProtocolError
from zmsvc.core.frozen import frozen
from zmsvc.host.sparse_log import SparseLog
from zmsvc.task.bus import Subscription
from zmsvc.task.json_codec import codec

T = TypeVar("T")

_Key = tuple[str, str, str]
MAX_SENDERS = 10_000
"""The number of senders and topics whose last number is remembered. Any client can invent senders."""

_HEADER = b'{"header":{"service_transaction":'
_SEQUENCE, _CONTENT = b',"sequence":', b'},"content":'
"""The parts of a frame of the SDK before and after the number; see `core.messages.published`."""
_MAX_HEAD = 1024
"""Bytes of a frame in which its number is looked for."""
_ZERO, _CLOSING = b"0}"
_MAX_DIGITS = 18
_MAX_KNOWN = 1000
"""The number of starts of frames that are remembered. Any client can invent them."""


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


class _OpenMessage(Generic[T]):
    """A message that is being made: setting the fields of a frozen one takes three times as long."""

    __slots__ = tuple(each.name for each in fields(Message))
    topic: str
    content: T
    header: Mapping[str, Any]
    sender: str
    transaction: str
    sequence: int | None
    missed: int
    retained: bool


@dataclass(slots=True)
class _Last:
    """The last message of a sender on a topic."""

    launch: int
    sequence: int
    known: int
    """The highest number of this launch that is known to exist."""
    dropped: int = 0
    """The number of those that the sender itself has dropped."""


class _Known(NamedTuple):
    """The header of the messages of one launch on one topic, which differ only by their numbers."""

    header: dict[str, Any]
    """The header without the number."""
    key: _Key
    launch: int


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
        self._decode: Callable[[bytes], Any] = self._decode_first
        self._known: dict[bytes, _Known] = {}
        """The starts of frames up to the number, with the header that they have."""
        self._ignored, self._missed = SparseLog(log.warning), SparseLog(log.warning)
        self._last: dict[_Key, _Last] = {}
        """The last message of each transaction, sender and topic."""
        self._latest_key: _Key | None = None
        self._latest: _Last | None = None
        """The last one of them, and its key: many messages in a row may have one sender."""
        self.missed = 0
        """The number of messages that were lost, except those that a queue with the policy `last` drops."""
        self.frame = b""
        """The frame of the last message that `next` has returned."""
        self.convert: Callable[[Any], Any] | None = None
        """The conversion of the content."""
        self.take_dropped: Callable[[str], int | None] = _none_dropped
        """Return how many messages of a topic the queues of this task have dropped since the last call; None
        if such messages do not count as lost.
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
        # The SDK writes the number last in the header. The bytes up to it are the same as in the previous
        # message.
        end = frame.find(_SEQUENCE, 0, _MAX_HEAD)
        known = self._known.get(frame[:end]) if type(frame) is bytes else None
        if known is not None and (found := self._after_known(known, frame, end + len(_SEQUENCE))) is not None:
            return found
        of_topic, _, text = frame.partition(messages.SEPARATOR)
        topic = self._names.get(of_topic)
        if not self._every_transaction and text.startswith(_HEADER) and not text.startswith(self._own):
            return None  # This is decided here for speed: a context may have many transactions.
        try:
            body = messages.body_of(text, self._decode)
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
        key = transaction, sender, topic
        content = body["content"] if "content" in body else _without_header(body)
        if type(frame) is RetainedFrame:
            return self._made(key, header, content, _number(header), 0, retained=True)
        if end > 0:
            self._remember(frame[:end], header, key)
        return self._made(key, header, content, *self._numbered(header, key))

    def _decode_first(self, text: bytes) -> Any:
        self._decode = codec().decode
        return self._decode(text)

    def _remember(self, start: bytes, header: Mapping[str, Any], key: _Key) -> None:
        """Note that a frame has this header if it begins with these bytes and continues with a number."""
        before = {name: value for name, value in header.items() if name != "sequence"}
        if type(before.get("launch")) is not int or before.keys() & {messages.RECIPIENT, "dropped"}:
            return
        try:
            # Without the number, these bytes have to be the start of the header itself.
            alone = self._decode(start.partition(messages.SEPARATOR)[2] + b"}}")
        except (ValueError, RecursionError, ProtocolError):
            return
        if alone == {"header": before}:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[start] = _Known(before, key, before["launch"])

    def _after_known(self, known: _Known, frame: bytes, at: int) -> Message[Any] | None:
        """Return the message of a frame with a known start, whose number is at `at`. None if the rest does
        not have the form of the SDK.
        """
        stop = frame.find(_CONTENT, at, at + _MAX_DIGITS + len(_CONTENT))
        number = frame[at:stop]
        if stop < 0 or not number.isdigit() or number[0] == _ZERO or frame[-1] != _CLOSING:
            return None
        try:
            content = self._decode(frame[stop + len(_CONTENT) : -1])
        except (ValueError, RecursionError, ProtocolError):
            return None
        sequence = int(number)
        header = {**known.header, "sequence": sequence}
        last, missed = self._latest, 0
        # Most messages follow the one before; `_count` does the same for them.
        if (
            last is not None
            and sequence == last.sequence + 1
            and last.launch == known.launch
            and known.key == self._latest_key
        ):
            last.sequence = last.known = sequence
        else:
            missed = self._count(known.launch, sequence, header, known.key)
        return self._made(known.key, header, content, sequence, missed)

    def _made(
        self,
        key: _Key,
        header: Mapping[str, Any],
        content: Any,
        sequence: int | None,
        missed: int,
        *,
        retained: bool = False,
    ) -> Message[Any]:
        made: Any = _OpenMessage.__new__(_OpenMessage)
        made.transaction, made.sender, made.topic = key
        made.header = header
        made.content = content if self.convert is None else self._converted(content, key[2], key[1], sequence)
        made.sequence, made.missed, made.retained = sequence, missed, retained
        made.__class__ = Message
        message: Message[Any] = made
        return message

    def _converted(self, content: Any, topic: str, sender: str, sequence: int | None) -> Any:
        assert self.convert is not None
        try:
            return self.convert(content)
        except (TypeError, ValueError) as error:
            which = "a message" if sequence is None else f"message {sequence}"
            raise ProtocolError(
                f"cannot use {which} on {topic} from {sender or 'an unknown sender'}: {error}"
            ) from error

    def _numbered(self, header: Mapping[str, Any], key: _Key) -> tuple[int | None, int]:
        """Return the number of a message, and how many of the same sender and topic were lost before it."""
        launch, sequence = header.get("launch"), header.get("sequence")
        if type(launch) is not int or type(sequence) is not int:
            return None, 0
        return sequence, self._count(launch, sequence, header, key)

    def _count(self, launch: int, sequence: int, header: Mapping[str, Any], key: _Key) -> int:
        """Note the number of a message. Return how many of the same sender and topic were lost before it."""
        last = self._latest if key == self._latest_key else self._last_of(key)
        if last is None:
            first = _Last(launch, sequence, sequence, _dropped_by_sender(header))
            self._last[key], self._latest_key, self._latest = first, key, first
            if len(self._last) > MAX_SENDERS:
                del self._last[next(iter(self._last))]
            return 0
        if last.launch != launch:
            last.launch, last.sequence, last.known, last.dropped = launch, 0, 0, 0
        before, known = last.sequence, last.known
        last.sequence = last.known = sequence
        if sequence == before + 1:
            return 0
        self._log_missed(sequence - 1 - known, key, self._newly_dropped(last, header))
        return max(0, sequence - 1 - before)

    def _last_of(self, key: _Key) -> _Last | None:
        """Return the last message of a sender and topic, and move it to the end of all."""
        # A dict keeps the order of insertion: the first key is that of the sender that has been silent
        # longest.
        if (last := self._last.pop(key, None)) is not None:
            self._last[key] = last
            self._latest_key, self._latest = key, last
        return last

    def _take_last_number(self, header: Mapping[str, Any], key: _Key) -> None:
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

    def _log_missed(self, count: int, key: _Key, by_sender: int) -> None:
        if count <= 0 or (dropped := self.take_dropped(key[2])) is None:
            return
        self.missed += count
        reasons = []
        if dropped:
            reasons.append(f"the queue of this task has dropped {dropped} of this topic")
        if by_sender > 0:
            reasons.append(f"the sender has dropped {by_sender}, because its queue to the device was full")
        # Messages are lost only in the device. Its two reasons for that could be told apart only by a monitor
        # of the connection, which takes 85 kB.
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
