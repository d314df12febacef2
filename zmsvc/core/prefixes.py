"""What a subscriber asks the device for in order to hear the `control` messages of one transaction, whoever
wrote them. Pure.

Our own JSON is compact and begins with the transaction, so the device filters it. Clients of zmicroservices
write theirs sorted, indented and with `content` first. A subscription to every `control` message would hear
those, and all that the supervisor says of other transactions as well: with hundreds of transactions most of
the bus. So a subscriber asks for each way in which a text can differ from the beginning of ours: white space
between two words of JSON, or another key in the first place.

These are 81 short prefixes, the same ones for all subscribers, so that a publisher is told of them once. It
takes them in within half a millisecond when it connects; a prefix for every letter at every place of a key
would be 800.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator

from zmsvc.core import messages

_BEFORE, _BETWEEN = " \t\r\n", " \n"
"""White space before the first word, and what writers of JSON put between others."""
_FIRST = [letter for letter in f"{string.ascii_lowercase}T" if letter != "h"]
"""What another first key of a message begins with: `content` for example, or `Task`."""
_FIRST_OF_HEADER = [
    *(letter for letter in string.ascii_lowercase if letter != "s"),
    "sa", "sc", "si", "so", "st", "su", "sen", "seq", "ses", "service_i", "service_n", "service_ty",
]  # fmt: skip
"""The same for the first key of a header, of which our own begins with `service_tr`."""


def control(transaction: str, *, ours_only: bool = False) -> list[bytes]:
    """Return the prefixes to subscribe to. What they let through beside the transaction's own messages has to
    be sorted out by the reader; `ours_only` is for one that wants nothing but what zmsvc writes.
    """
    topic = messages.prefix("control")
    found = [topic + b'{"header":{"service_transaction":' + json.dumps(transaction).encode()]
    if not ours_only:
        found += [topic + other.encode() for other in _others()]
    return found


def _others() -> Iterator[str]:
    """Yield the beginnings of JSON objects that are not the beginning of ours."""
    yield from _BEFORE
    yield from (f"{{{white}" for white in _BEFORE)
    yield from (f'{{"{first}' for first in _FIRST)
    yield from (f'{{"header"{between}' for between in _BETWEEN)
    yield from (f'{{"header":{between}' for between in _BETWEEN)
    yield from (f'{{"header":{{{between}' for between in _BETWEEN)
    yield from (f'{{"header":{{"{first}' for first in _FIRST_OF_HEADER)
    yield from (f'{{"header":{{"service_transaction"{between}' for between in _BETWEEN)
    yield from (f'{{"header":{{"service_transaction":{between}' for between in _BETWEEN)
