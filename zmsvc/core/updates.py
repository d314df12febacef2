"""The limits of the updates of a task: rate, nesting and names. The SDK respects them, and the engine drops
updates beyond them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from zmsvc.core.frozen import frozen

RATE = 1000.0
"""Updates that one task may report in a second, for any time. Those beyond it are dropped and counted."""
BURST = 2000.0
"""Updates that one task may report at once."""
OWN_BURST = 1000.0
"""The same limit in the SDK, which waits instead of dropping. While the supervisor is busy, the kernel queues
512 datagrams (net.unix.max_dgram_qlen on Debian), and they then arrive together. OWN_BURST plus these is less
than BURST.
"""
MAX_NESTING = 64
"""Levels of nested lists and objects in an update."""
RESULT = "result"
"""The name of the item that becomes the result of the message. Old services set it to `failed`."""
RESERVED = ("pid", "device_action")
"""The names that a `control` message uses beside the items."""


@frozen
class Judged:
    """The judgment of one update. `tokens` is the number that is left in the bucket."""

    tokens: float
    refusal: str = ""
    """The reason to drop the update; empty if it is accepted."""
    too_fast: bool = False


def judge(tokens: float, since: float | None, items: Mapping[str, Any]) -> Judged:
    """Judge an update by a token bucket, which had `tokens` tokens `since` seconds ago. If `since` is None,
    the bucket is full.
    """
    tokens = BURST if since is None else min(BURST, tokens + since * RATE)
    if tokens < 1.0:
        return Judged(tokens=tokens, refusal=f"more than {RATE:g} updates a second", too_fast=True)
    if too_deep(items):
        return Judged(tokens=tokens - 1.0, refusal=f"an update is nested more than {MAX_NESTING} deep")
    return Judged(tokens=tokens - 1.0)


def as_json(items: Mapping[str, Any]) -> str:
    """Return the compact JSON of an update.

    Raises TypeError, which names the item, for an item that is not JSON, and ValueError for an item that the
    message cannot hold.
    """
    for name in RESERVED:
        if name in items:
            raise ValueError(
                f"cannot update: zmsvc itself sets {name} in each message, give the item another name"
            )
    if not isinstance(items.get(RESULT, ""), str):
        raise ValueError(
            "cannot update: result must be a str, the result of the message such as success or failed; give "
            "another value another name"
        )
    try:
        text = json.dumps(items, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        for name, value in items.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError, RecursionError) as reason:
                raise TypeError(f"cannot update: {name} is not JSON: {reason}") from error
        raise TypeError(f"cannot update: {error}") from error
    if too_deep(items):
        raise ValueError(f"cannot update: lists and objects are nested more than {MAX_NESTING} deep")
    return text


def too_deep(items: Mapping[str, Any]) -> bool:
    """Return True if items are nested so deeply that a reader could fail to write them as part of a larger
    message.
    """
    level: list[Any] = [items]
    for _ in range(MAX_NESTING):
        inner = (
            value.values() if isinstance(value, Mapping) else value
            for value in level
            if isinstance(value, Mapping | list | tuple)
        )
        level = [value for values in inner for value in values]
        if not level:
            return False
    return True


def result_of(items: Mapping[str, Any]) -> str:
    """Return the result of an `updated` message: the item `result` if it is a string."""
    given = items.get(RESULT)
    return given if isinstance(given, str) else "success"
