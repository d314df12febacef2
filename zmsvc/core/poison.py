"""The poison messages of tasks: messages at which `on_message` raises, or whose content does not fit. Their
form between a task and the supervisor, and the bounds of the quarantine. Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Any

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.frozen import frozen

MAX_FRAME = 256 << 10
"""The largest message that is kept, in bytes. Of a larger one only the report is kept."""
MAX_TRACEBACK = 16 << 10
"""Characters of a traceback that are kept: its end, which names the place of the fault."""
MAX_TEXT = 256
"""Characters of each other text that are kept."""
MAX_OF_TASK = 100
"""The messages in the quarantine that one task may have. A new one takes the place of the oldest."""
MAX_BYTES_OF_TASK = 4 << 20
MAX_MESSAGES = 1000
"""The messages in the quarantine of a context."""
MAX_BYTES = 32 << 20
RATE = 10.0
"""Poison messages that one task may report in a second, for any time. Those beyond it are only counted."""
OWN_BURST = 20.0
"""Poison messages that the SDK reports at once."""
BURST = 40.0
"""Poison messages that the supervisor accepts at once. While it is busy, reports queue up and then arrive
together.
"""
_REPORT_SIZE = 200
"""The size of a report without its texts, as the bound counts it."""


class PoisonAction(StrEnum):
    """The reaction of a task to a poison message."""

    FAIL = "fail"
    """The task fails."""
    SET_ASIDE = "set-aside"
    """The task goes on with the next message."""


@frozen
class Poison:
    """One poison message, and the exception that it led to."""

    topic: str
    sender: str
    """The ID of its sender, as the message says; empty if it does not."""
    sender_transaction: str
    sequence: int | None
    """The number that its sender gave it."""
    error: str
    """The exception in one line."""
    traceback: str
    bytes: int
    """The size of the message."""
    frame: str | None
    """The message; None if it is too large to be kept. It is text, in which a lone surrogate stands for bytes
    that only a JSON escape can express.
    """

    @property
    def size(self) -> int:
        """The bytes that the message takes in the quarantine, approximately."""
        texts = (
            self.topic,
            self.sender,
            self.sender_transaction,
            self.error,
            self.traceback,
            self.frame or "",
        )
        return _REPORT_SIZE + sum(map(len, texts))


def poison(frame: bytes, error: str, traceback: str) -> Poison:
    """Return the report about a message that `messages.decode` can read."""
    topic, body = messages.decode(frame)
    header = body.get("header", {})
    sequence = header.get("sequence")
    return Poison(
        topic=topic[:MAX_TEXT],
        sender=_text(header.get("service_id")),
        sender_transaction=_text(header.get("service_transaction")),
        sequence=sequence if _is_number(sequence) else None,
        error=error[:MAX_TEXT],
        traceback=traceback[-MAX_TRACEBACK:],
        bytes=len(frame),
        frame=frame.decode("utf-8", "surrogatepass") if len(frame) <= MAX_FRAME else None,
    )


def as_json(number: int, found: Poison) -> str:
    """Return the text that `from_json` reads. `number` counts the poison messages of one launch from 1."""
    values = {each.name: getattr(found, each.name) for each in fields(found)}
    return messages.encoded({"number": number, **values}).decode()


def from_json(text: str) -> tuple[int, Poison]:
    """Return the number and the report of a text from any process. Raises ProtocolError."""
    try:
        values = json.loads(text)
        number, sequence, size, frame = (values[name] for name in ("number", "sequence", "bytes", "frame"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"cannot read a report about a message: {error!r}") from error
    known = _is_number(number) and _is_number(size) and (sequence is None or _is_number(sequence))
    if not known or number < 1 or not (frame is None or isinstance(frame, str)):
        raise ProtocolError("cannot read a report about a message: a value has a wrong type")
    return number, Poison(
        topic=_text(values.get("topic")),
        sender=_text(values.get("sender")),
        sender_transaction=_text(values.get("sender_transaction")),
        sequence=sequence,
        error=_text(values.get("error")),
        traceback=_text(values.get("traceback"), MAX_TRACEBACK),
        bytes=size,
        frame=frame if frame is not None and len(frame) <= MAX_FRAME else None,
    )


def _text(value: Any, most: int = MAX_TEXT) -> str:
    return value[-most:] if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def refilled(tokens: float, since: float | None, burst: float) -> float:
    """Return the number of tokens in the bucket of the rate limit. It had `tokens` of them `since` seconds
    ago; None means that the bucket is full.
    """
    return burst if since is None else min(burst, tokens + since * RATE)


def excess(entries: Iterable[tuple[int, str, int]]) -> dict[int, str]:
    """Return the entries to remove so that the bounds hold: the oldest of each task that has too many, and
    then the oldest of all. `entries` has the number, the task and the size of each message in the quarantine,
    oldest first; the result has the number and the task of each.
    """
    newest_first = list(entries)[::-1]
    count: Counter[str] = Counter()
    size: Counter[str] = Counter()
    gone: dict[int, str] = {}
    messages_kept = bytes_kept = 0
    for number, task, bytes_of in newest_first:
        count[task] += 1
        size[task] += bytes_of
        of_task = count[task] <= MAX_OF_TASK and size[task] <= MAX_BYTES_OF_TASK
        if of_task and messages_kept < MAX_MESSAGES and bytes_kept + bytes_of <= MAX_BYTES:
            messages_kept += 1
            bytes_kept += bytes_of
        else:
            gone[number] = task
    return gone


def republished(frame: str, recipient: str, transaction: str | None) -> bytes:
    """Return the frame that publishes a message again, for the task `recipient` alone. The frame has no
    sequence number: its sender has published later messages, so a subscriber would take the old number for a
    loss. `transaction` replaces that of its sender. Raises ProtocolError.
    """
    topic, body = messages.decode(frame.encode("utf-8", "surrogatepass"))
    header: Mapping[str, Any] = body.get("header", {})
    kept = {name: value for name, value in header.items() if name not in ("launch", "sequence")}
    if transaction is not None:
        kept["service_transaction"] = transaction
    content = {"header": {}, **body} if "header" not in body else body
    return messages.encode(topic, {**content, "header": kept | {messages.RECIPIENT: recipient}})
