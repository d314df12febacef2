"""The last message of each sender and topic, as the service LastValue keeps it: which messages are kept,
which are dropped, and how a subscriber asks for them. Pure: the messages themselves are stored elsewhere.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from zmsvc.core import messages, topics
from zmsvc.core.errors import ProtocolError
from zmsvc.core.frozen import frozen
from zmsvc.core.message_origin import MessageOrigin
from zmsvc.core.values import RUNNING_ID, TASK_ID, amount, quote, whole

INSTANCE = "LastValue"
"""The name of the service."""
STORED = 2
"""The number of descriptors that it stores."""
REQUEST = "zmsvc.snapshot."
"""The prefix of the topic on which a LastValue is asked; its transaction and ID follow, with a colon between
them.
"""
ANSWER = "zmsvc.retained."
"""The prefix of the topic on which it answers; the address that the request names follows."""
RETAINED, END = "retained", "end"
"""The actions in the headers of answers: with a message, and after the last one."""
MAX_TOPICS = 1000
"""The number of topics that a request may name."""
MAX_ADDRESS = 256
MAX_ASKED = 1000
"""The number of LastValues of other transactions that a subscriber asks."""
MAX_ASKED_OF_TRANSACTION = 8
MAX_MESSAGES, MAX_BYTES = 20_000, 64 << 20
"""The highest limits that a configuration may set, and the number of messages that may wait in the process of
a subscriber.
"""
MAX_MESSAGE = 15 << 20
"""The largest message in bytes that is kept. The answer that contains it is larger."""

_MESSAGE = b',"message":'

Key = tuple[str, str, str]
"""The transaction, the sender and the topic of a message."""


@frozen
class Retention:
    """The limits of one LastValue."""

    max_messages: int = 10_000
    max_bytes: int = 16 << 20


def retention(configuration: Mapping[str, Any]) -> Retention:
    """Read a configuration. Raises ValueError if a LastValue cannot start with it."""
    found = {}
    for name, read in READERS.items():
        if (text := configuration.get(name)) is not None:
            try:
                found[name] = read(text if isinstance(text, str) else "")
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
    return Retention(**found)


def _messages(text: str) -> int:
    return whole(text, 1, MAX_MESSAGES)


def _bytes(text: str) -> int:
    expected = f"expected bytes from 1K to {MAX_BYTES >> 20}M, such as 16M"
    try:
        found = amount(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not a number of bytes, {expected}") from None
    if not 1 << 10 <= found <= MAX_BYTES:
        raise ValueError(f"{quote(text)} is out of range, {expected}")
    return found


READERS = {"max_messages": _messages, "max_bytes": _bytes}
"""The elements of the configuration with the functions that read them. Each raises ValueError."""


class LogPosition(NamedTuple):
    """The place of a message in the log that holds it, with its size in bytes there."""

    offset: int
    size: int


class LastValues:
    """The places of the messages that are kept, within limits. When a limit is reached, the message that was
    replaced least recently is dropped.
    """

    def __init__(self, limits: Retention) -> None:
        self._limits = limits
        self._places: dict[Key, LogPosition] = {}
        """In the order in which the messages came."""
        self.size = 0
        """The bytes of all messages."""

    def __len__(self) -> int:
        return len(self._places)

    def fits(self, size: int) -> bool:
        """Return True if a message of this size can be kept."""
        return size <= min(self._limits.max_bytes, MAX_MESSAGE)

    def put(self, key: Key, place: LogPosition) -> int:
        """Keep a message that `fits`. Return how many others were dropped because of the limits."""
        self.remove(key)
        self._places[key] = place
        self.size += place.size
        before = len(self._places)
        while len(self._places) > self._limits.max_messages or self.size > self._limits.max_bytes:
            self.remove(next(iter(self._places)))
        return before - len(self._places)

    def place(self, key: Key) -> LogPosition | None:
        """Return the place of the message of this sender and topic, None if there is none."""
        return self._places.get(key)

    def remove(self, key: Key) -> None:
        """Forget the message of this sender and topic, if there is one."""
        if (old := self._places.pop(key, None)) is not None:
            self.size -= old.size

    def move(self, places: Mapping[Key, LogPosition]) -> None:
        """Note that the messages have been moved to other places."""
        self._places = {**places}
        self.size = sum(each.size for each in places.values())

    def items(self) -> list[tuple[Key, LogPosition]]:
        """Return all messages, in the order in which they came."""
        return [*self._places.items()]


@frozen
class Request:
    """The request of a subscriber."""

    topics: tuple[str, ...]
    address: str
    recipient: str
    """The ID of the task that asks."""

    def body(self, header: Mapping[str, Any]) -> messages.Body:
        """Return the body of the message."""
        return {"header": header, "content": {"topics": [*self.topics], "answer_to": self.address}}


def request_of(body: Mapping[str, Any]) -> Request:
    """Return the request in the body of a message from any sender. Raises ProtocolError."""
    content, header = body.get("content"), body.get("header", {})
    wanted = content.get("topics") if isinstance(content, Mapping) else None
    address = content.get("answer_to") if isinstance(content, Mapping) else None
    recipient = header.get("service_id", "")
    if not isinstance(wanted, list) or len(wanted) > MAX_TOPICS or topics.faults(wanted):
        raise ProtocolError("cannot read request for last values: no topics in it")
    if not isinstance(address, str) or len(address) > MAX_ADDRESS or topics.faults(address):
        raise ProtocolError("cannot read request for last values: no answer_to in it")
    if not isinstance(recipient, str):
        raise ProtocolError("cannot read request for last values: its service_id is not a text")
    return Request(topics=topics.unique(wanted), address=address, recipient=recipient[:MAX_ADDRESS])


def answer(address: str, header: Mapping[str, Any], frame: bytes) -> bytes:
    """Return the frame that passes on a message. `header` has the action RETAINED."""
    topic, _, text = frame.partition(messages.SEPARATOR)
    start = messages.encoded({"header": header, "topic": topic.decode(errors="replace")})
    return messages.prefix(f"{ANSWER}{address}") + start[:-1] + _MESSAGE + text + b"}"


def end(address: str, header: Mapping[str, Any], count: int) -> bytes:
    """Return the frame after the last message. `header` has the action END."""
    return messages.encode(f"{ANSWER}{address}", {"header": header, "content": {"messages": count}})


@frozen
class Answer:
    """An answer: the frame of a retained message as it was published, or the end."""

    sender: str
    """The transaction and the ID of the LastValue that answers, with a colon between them."""
    frame: bytes | None


def chosen(names: Iterable[str]) -> list[str]:
    """Return the LastValues to ask, chosen from these names: each is a transaction and an ID with a colon
    between them. Any client can invent such names. So at most MAX_ASKED are asked, and each transaction gets
    its first turn before any other gets its second.
    """
    turns: Counter[str] = Counter()
    found: list[tuple[int, str]] = []
    for name in names:
        transaction, _, task = name.partition(":")
        if TASK_ID.fullmatch(transaction) and RUNNING_ID.fullmatch(task):
            found.append((turns[transaction], name))
            turns[transaction] += 1
    return [name for turn, name in heapq.nsmallest(MAX_ASKED, found) if turn < MAX_ASKED_OF_TRANSACTION]


def answer_of(text: bytes) -> Answer:
    """Return the answer in the text after the separator, from any sender. Raises ProtocolError."""
    # The message is not decoded here: it need not even be JSON.
    start, separator, message = text.partition(_MESSAGE)
    body = messages.body_of(start + b"}" if separator else text)
    header = body.get("header", {})
    sender = f"{header.get('service_transaction')}:{header.get('service_id')}"
    if not separator:
        return Answer(sender=sender, frame=None)
    topic = body.get("topic")
    if not isinstance(topic, str) or topics.faults(topic):
        raise ProtocolError("cannot read last value: no topic in it")
    return Answer(sender=sender, frame=messages.prefix(topic) + message[:-1])


class RetainedSnapshot:
    """The retained messages that a starting subscriber has received, and the messages that were published
    meanwhile. Both have bounds.
    """

    def __init__(
        self, asked: Iterable[str], *, most: int = 2 * MAX_MESSAGES, most_bytes: int = 2 * MAX_BYTES
    ) -> None:
        self.pending = set(asked)
        """The LastValues that have not sent all, each by its transaction and ID."""
        self._most, self._most_bytes = most, most_bytes
        self._retained: dict[Key, tuple[MessageOrigin, bytes]] = {}
        self._live: list[tuple[Key, MessageOrigin, bytes]] = []
        self._count = self._size = 0

    @property
    def full(self) -> bool:
        """True if no more may be added."""
        return self._count >= self._most or self._size >= self._most_bytes

    def end(self, sender: str) -> None:
        """Note that a LastValue has sent all."""
        self.pending.discard(sender)

    def add(self, topic: str, origin: MessageOrigin, frame: bytes, *, retained: bool) -> None:
        """Add a message."""
        self._count += 1
        self._size += len(frame)
        key = origin.transaction, origin.sender, topic
        if not retained:
            self._live.append((key, origin, frame))
        elif key not in self._retained or not _is_newer(self._retained[key][0], origin):
            self._retained[key] = origin, frame

    def retained(self) -> list[bytes]:
        """Return the retained messages. A message without a number is left out if its sender has published
        another one meanwhile, because nothing tells which of them is older.
        """
        published = {key for key, _, _ in self._live}
        return [
            frame
            for key, (origin, frame) in self._retained.items()
            if origin.sequence is not None or key not in published
        ]

    def live(self) -> list[bytes]:
        """Return the messages that were published meanwhile and are newer than the retained ones."""
        return [
            frame
            for key, origin, frame in self._live
            if key not in self._retained or _is_newer(origin, self._retained[key][0])
        ]


def _is_newer(one: MessageOrigin, other: MessageOrigin) -> bool:
    """Return True if a message is newer than another one of its sender and topic, or if that is unknown."""
    numbers = [
        (each.launch, each.sequence) if each.launch is not None and each.sequence is not None else None
        for each in (one, other)
    ]
    first, second = numbers
    return first is None or second is None or first > second


def selected(values: LastValues, wanted: Collection[str]) -> list[tuple[Key, LogPosition]]:
    """Return the messages on these topics, in the order in which they came."""
    return [(key, place) for key, place in values.items() if key[2] in wanted]
