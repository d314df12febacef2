"""A bound for the depth of JSON from others. Python's own differs: about 1,000 levels before 3.12, 10,000 in
3.13.

A text just below that bound can be read, but no longer written once it is part of a message, and readers in
other languages may refuse it. So the bound is the same on every Python, and far below.
"""

from __future__ import annotations

import re
from itertools import accumulate

from zmsvc.core.errors import ProtocolError

MAX_DEPTH = 500

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BUT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def check_depth(text: str) -> None:
    """Raise ProtocolError when a JSON text is nested deeper than MAX_DEPTH."""
    # Most texts do not even have that many brackets, and to count them costs 1 us for 10 kB.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _BUT_BRACKETS.sub("", _STRING.sub("", text))
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ProtocolError(f"JSON is nested deeper than {MAX_DEPTH} levels")
