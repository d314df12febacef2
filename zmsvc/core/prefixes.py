"""What a subscriber asks the device for in order to hear the `control` messages of one transaction, whoever wrote them. Pure.

Our own JSON is compact and begins with the transaction, so the device filters it. Clients of zmicroservices write theirs sorted,
indented and with `content` first. A subscription to every `control` message would hear those, and all that the supervisor says of other
transactions as well: with hundreds of transactions most of the bus. So a subscriber asks for each way in which a text can differ from
the beginning of ours: 4 kinds of white space between two words of JSON, or another letter in a key. These are 257 short prefixes, the
same ones for all subscribers, so that a publisher is told of them once.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator

from zmsvc.core import messages

_WHITE = " \t\r\n"
_KEY = string.ascii_letters + "_"
_HEADER, _TRANSACTION = "header", "service_transaction"
_DEEP = {_HEADER: (1,), _TRANSACTION: (1, 2, len("service_"), len("service_t"))}
"""Where a key that begins like one of ours is told from it. One that has more in common, as `heat` has, is not looked for: it must not
be the first key of a message."""


def control(transaction: str, *, ours_only: bool = False) -> list[bytes]:
    """Return the prefixes to subscribe to. What they let through beside the transaction's own messages has to be sorted out by the
    reader; `ours_only` is for one that wants nothing but what zmsvc writes.
    """
    topic, start = messages.prefix("control"), f'{{"{_HEADER}":{{"{_TRANSACTION}":'
    found = [topic + start.encode() + json.dumps(transaction).encode()]
    if not ours_only:
        found += [topic + other.encode() for other in _others()]
    return found


def _others() -> Iterator[str]:
    """Yield each shortest beginning of a JSON object that is not the beginning of ours."""
    words = ("{", f'"{_HEADER}"', ":", "{", f'"{_TRANSACTION}"', ":")
    before = ""
    for word in words:
        yield from (before + white for white in _WHITE)
        if word.startswith('"'):
            yield from (before + other for other in _other_keys(word.strip('"')))
        before += word
    yield from (before + white for white in _WHITE)


def _other_keys(key: str) -> Iterator[str]:
    yield from (f'"{letter}' for letter in _KEY if letter != key[0])
    for at in _DEEP[key]:
        yield from (f'"{key[:at]}{letter}' for letter in string.ascii_lowercase if letter != key[at])
