"""A limit for the nesting of received JSON. Python's own limit depends on its version: about 1,000 levels
before 3.12, 10,000 in 3.13. A text just below that limit can be read, but not written again as part of a
message, and readers in other languages may refuse it. So this limit is the same for every Python, and far
lower.
"""

from __future__ import annotations

import re
from itertools import accumulate

from zmsvc.core.errors import ProtocolError

MAX_DEPTH = 500

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BUT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


_FEW = 16
_LEAST_DEEP = MAX_DEPTH + 1
"""Bytes of the shortest text that is nested deeper than MAX_DEPTH. A text that was cut may have no closing
bracket.
"""
_OBJECT, _ARRAY = b"{["


def is_shallow(text: bytes) -> bool:
    """Return True if a JSON text cannot be nested deeper than MAX_DEPTH, without a look at its structure."""
    if len(text) < _LEAST_DEEP:
        return True
    # Finding a few brackets is several times as fast as counting those of the whole text.
    find = text.find
    for bracket in (_OBJECT, _ARRAY):
        at, left = find(bracket), _FEW
        while at >= 0:
            if not left:
                return _brackets(text) <= MAX_DEPTH
            at, left = find(bracket, at + 1), left - 1
    return True


def _brackets(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")


def check_depth(text: str) -> None:
    """Raise ProtocolError if a JSON text is nested deeper than MAX_DEPTH."""
    # Most texts have fewer brackets in total. Counting takes 1 us for 10 kB.
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    brackets = _BUT_BRACKETS.sub("", _STRING.sub("", text))
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise ProtocolError(f"JSON is nested deeper than {MAX_DEPTH} levels")
