"""Count the calls of functions and the lines that run, as measures of work that do not depend on the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


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


def lines_in(act: Callable[[], object]) -> int:
    """Return the number of lines of Python that run in this thread while something is done. Other than calls, they
    show a loop that only compares; neither shows the work inside of a function in C.
    """
    count = 0

    def seen(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return seen

    before = sys.gettrace()
    sys.settrace(seen)
    try:
        act()
    finally:
        sys.settrace(before)
    return count
