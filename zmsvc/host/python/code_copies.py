"""Copies the code that tasks run to one place, so that the caches in it, which each task writes to, share a
few pages.

CPython keeps what it learns of an instruction behind the instruction (PEP 659). Functions lie where they were
imported, so a start wrote to 77 pages for the caches of 66 kB of code. The copies lie on 33 pages; with the
code around the fork, which no rehearsal runs, it is 58.
"""

from __future__ import annotations

import gc
from types import CodeType, FunctionType

from zmsvc.host.python import allocators

_TEXT = "_co_code_adaptive"
"""The attribute of code that has its caches in it."""


class RunDetector:
    """Sees which functions run, by what changes in their code."""

    def __init__(self) -> None:
        known = (each.__code__ for each in _functions())
        self._before = [(code, text) for code in known if (text := getattr(code, _TEXT, None)) is not None]

    def gather(self) -> int:
        """Give each function that has run since this was made a copy of its code, one behind the other.
        Returns how many copies there are.

        A copy has learned nothing yet. Without the attribute in which that can be seen there are none.
        """
        # By identity: codes of two files may be equal.
        ran = {id(code): code for code, text in self._before if getattr(code, _TEXT) != text}
        self._before.clear()
        _copies(ran)
        # Otherwise they would lie in holes, scattered as before.
        gc.collect()
        allocators.fill()
        copies = _copies(ran)
        for function in _functions():
            if (copy := copies.get(id(function.__code__))) is not None:
                function.__code__ = copy
        return len(copies)


def _copies(codes: dict[int, CodeType]) -> dict[int, CodeType]:
    """Return a copy of each. The first time each code makes, and keeps, several objects that would lie
    between the copies.
    """
    return {key: code.replace() for key, code in codes.items()}


def _functions() -> list[FunctionType]:
    return [each for each in gc.get_objects() if type(each) is FunctionType]
