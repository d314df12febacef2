"""The line of its output by which a Command is ready: `<ready line="PATTERN"/>`. Pure.

The output process searches the lines (output/line_search.py).
"""

from __future__ import annotations

import re

from zmsvc.core.frozen import frozen
from zmsvc.core.values import quote

SEARCHED = 4096
"""Bytes at the beginning of a line in which the pattern is searched."""
MOST_PATTERN = 1000
"""Characters that a pattern may have."""


@frozen
class ReadyLine:
    """The task is ready when it has written a line in which this pattern occurs."""

    pattern: str
    """A regular expression of Python's `re`."""


def pattern(text: str) -> str:
    """Return the text if it is a pattern. Raises ValueError."""
    if not text or len(text) > MOST_PATTERN:
        raise ValueError(f"{quote(text)} has {len(text)} characters, expected 1 to {MOST_PATTERN}")
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{quote(text)} is not a regular expression ({error}), expected one of Python's re"
        ) from error
    return text
