"""The JSON of a task's messages: by orjson if it is installed, which is several times as fast, otherwise by
the standard library. orjson is imported when the first message is published or received.

Both write and read the same, and what orjson refuses is left to the standard library. There are two
exceptions, which zmsvc-task(7) names: orjson also writes members of enumerations and UUIDs, and reads
integers of more than 64 bits as floats.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from zmsvc.core import messages
from zmsvc.core.json_depth import is_shallow
from zmsvc.host.python.interpreter import Switch, disabled


class JsonCodec(NamedTuple):
    """The two directions."""

    encode: Callable[[Any], bytes]
    """Return a value as compact JSON. Raises TypeError and ValueError."""
    decode: Callable[[bytes], Any]
    """Return the value of a JSON text. Raises ValueError, RecursionError and ProtocolError."""


STANDARD = JsonCodec(messages.encoded, messages.decoded)


@functools.cache
def codec() -> JsonCodec:
    """Return the codec of this process."""
    if Switch.ORJSON in disabled():
        return STANDARD
    try:
        import orjson  # an optional requirement, which takes time and memory
    except ImportError:
        return STANDARD
    return _of_orjson(orjson)


def _of_orjson(orjson: Any) -> JsonCodec:
    # The standard library refuses these, so a task must not rely on them.
    options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    dumps, loads = orjson.dumps, orjson.loads

    def encode(value: Any) -> bytes:
        try:
            text: bytes = dumps(value, None, options)
        except TypeError:
            # Keys that are no texts, integers of more than 64 bits, halves of surrogate pairs.
            return messages.encoded(value)
        # orjson writes null for NaN and infinity.
        return messages.encoded(value) if b"null" in text else text

    def decode(text: bytes) -> Any:
        if is_shallow(text):
            try:
                return loads(text)
            except ValueError:
                pass  # NaN, halves of surrogate pairs, or no JSON at all
        return messages.decoded(text)

    return JsonCodec(encode, decode)
