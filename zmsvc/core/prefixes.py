"""The subscriptions for the `control` messages of one transaction, from any publisher. Pure.

zmsvc's own JSON is compact and begins with the transaction, so the device can filter it. Clients of
zmicroservices write JSON that is sorted, indented and begins with `content`. A subscription to every
`control` message would receive those, but also all that the supervisor publishes about other transactions.
With hundreds of transactions that is most of the traffic of the bus. So a subscriber has a prefix for each
way in which a text can differ from the beginning of zmsvc's own: white space between two tokens of JSON, or
another first key.

These are 81 short prefixes, the same for all subscribers, so the device passes each of them to a publisher
only once. A publisher processes them within half a millisecond when it connects. With a prefix for every
letter at every position of a key there would be 800.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator

from zmsvc.core import messages

_BEFORE, _BETWEEN = " \t\r\n", " \n"
"""White space before the first token, and between other tokens as JSON writers use it."""
_FIRST = [letter for letter in f"{string.ascii_lowercase}T" if letter != "h"]
"""The letters with which another first key of a message can begin, for example `content` or `Task`."""
_FIRST_OF_HEADER = [
    *(letter for letter in string.ascii_lowercase if letter != "s"),
    "sa", "sc", "si", "so", "st", "su", "sen", "seq", "ses", "service_i", "service_n", "service_ty",
]  # fmt: skip
"""The letters with which another first key of a header can begin. zmsvc's own begins with `service_tr`."""


def control(transaction: str, *, ours_only: bool = False) -> list[bytes]:
    """Return the prefixes to subscribe to. Some messages of other transactions match them, too, so the reader
    has to drop those. With `ours_only` the prefixes match only messages that zmsvc itself writes.
    """
    topic = messages.prefix("control")
    found = [topic + b'{"header":{"service_transaction":' + json.dumps(transaction).encode()]
    if not ours_only:
        found += [topic + other.encode() for other in _others()]
    return found


def _others() -> Iterator[str]:
    """Yield the beginnings of JSON objects that differ from the beginning of zmsvc's own."""
    yield from _BEFORE
    yield from (f"{{{white}" for white in _BEFORE)
    yield from (f'{{"{first}' for first in _FIRST)
    yield from (f'{{"header"{between}' for between in _BETWEEN)
    yield from (f'{{"header":{between}' for between in _BETWEEN)
    yield from (f'{{"header":{{{between}' for between in _BETWEEN)
    yield from (f'{{"header":{{"{first}' for first in _FIRST_OF_HEADER)
    yield from (f'{{"header":{{"service_transaction"{between}' for between in _BETWEEN)
    yield from (f'{{"header":{{"service_transaction":{between}' for between in _BETWEEN)
