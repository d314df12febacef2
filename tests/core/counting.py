"""Count the calls of functions, as a measure of work that does not depend on the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable


def calls_in(act: Callable[[], object]) -> int:
    """Return the number of calls of functions, in Python and in C, while something is done."""
    count = 0

    def seen(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count
