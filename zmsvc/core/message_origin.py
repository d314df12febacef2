"""The sender and the number of a message, as its header says them, without decoding the whole message if the
SDK wrote it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.frozen import frozen

_OF_SDK = re.compile(
    rb'\{"header":\{"service_transaction":"([^"\\]*)","service_id":"([^"\\]*)","action":"[^"\\]*",'
    rb'"service_name":"[^"\\]*"(?:,"launch":(\d{1,18}))?(?:,"sequence":(\d{1,18}))?(?:,"dropped":\d+)?\}'
)
"""The header as the SDK writes it. To decode the JSON of a message takes ten times as long."""


@frozen
class MessageOrigin:
    """The origin of a message. Each text is empty if the message does not say it."""

    transaction: str = ""
    sender: str = ""
    launch: int | None = None
    sequence: int | None = None
    recipient: str = ""


def origin_of(text: bytes, read: Callable[[bytes], Any] = messages.decoded) -> MessageOrigin | None:
    """Return the origin of the message with this text after the separator; None if the text cannot be that of
    a message. `read` reads JSON.
    """
    if match := _OF_SDK.match(text):
        transaction, sender, launch, sequence = match.groups()
        return MessageOrigin(
            transaction=transaction.decode(errors="replace"),
            sender=sender.decode(errors="replace"),
            launch=None if launch is None else int(launch),
            sequence=None if sequence is None else int(sequence),
        )
    try:
        header = messages.body_of(text, read).get("header", {})
    except ProtocolError:
        return None
    return MessageOrigin(
        transaction=_text(header, "service_transaction"),
        sender=_text(header, "service_id"),
        launch=_number(header, "launch"),
        sequence=_number(header, "sequence"),
        recipient=_text(header, messages.RECIPIENT),
    )


def _text(header: Mapping[str, Any], key: str) -> str:
    value = header.get(key)
    return value if isinstance(value, str) else ""


def _number(header: Mapping[str, Any], key: str) -> int | None:
    value = header.get(key)
    return value if type(value) is int else None
