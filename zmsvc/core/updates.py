"""What a task may report: how often, how deep, and under which names. The SDK keeps to it, and the engine
drops what does not. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RATE = 1000.0
"""Updates a second that one task may report for long; more are dropped, and counted."""
BURST = 2000.0
"""Updates that it may report at once."""
OWN_BURST = 1000.0
"""The same for the SDK, which waits instead. What lies in the socket while the supervisor is busy comes at
once: the kernel keeps 512 datagrams there (net.unix.max_dgram_qlen of Debian), and this and those together
are less than BURST."""
MAX_NESTING = 64
"""Lists and objects in each other in an update."""
RESULT = "result"
"""The item that is the result of the whole message, which old services set to `failed`."""
RESERVED = ("pid", "device_action")
"""What a `control` message says of every task beside its items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judgment of one update. `tokens` are those that are left in the bucket."""

    tokens: float
    refusal: str = ""
    """The reason to drop the update; empty if it is passed on."""
    too_fast: bool = False


def judge(tokens: float, since: float | None, items: Mapping[str, Any]) -> Judged:
    """Judge an update by a token bucket that had `tokens` before `since` seconds; None for a bucket that is
    still full.
    """
    tokens = BURST if since is None else min(BURST, tokens + since * RATE)
    if tokens < 1.0:
        return Judged(tokens=tokens, refusal=f"more than {RATE:g} updates a second", too_fast=True)
    if too_deep(items):
        return Judged(tokens=tokens - 1.0, refusal=f"an update is nested more than {MAX_NESTING} deep")
    return Judged(tokens=tokens - 1.0)


def too_deep(items: Mapping[str, Any]) -> bool:
    """Tell whether items could break a reader that writes them down: JSON that can just be read may be too
    deep with more around it.
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
    """Return the result of an `updated` message: what the task says, if it is a word."""
    given = items.get(RESULT)
    return given if isinstance(given, str) else "success"
