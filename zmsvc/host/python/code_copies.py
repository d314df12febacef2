"""Copy the code that tasks run to one place, so that its caches, which each task writes to, lie on few pages.

CPython has a cache behind an instruction for what it learns about it (PEP 659). Functions lie where their
import has put them, so a start wrote to 77 pages for the caches of 66 kB of code. The copies lie on 33 pages.
With the code around the fork, which the rehearsal does not run, a start writes to 58 pages.
"""

from __future__ import annotations

import gc
from types import CodeType, FunctionType

from zmsvc.host.python import allocators

_TEXT = "_co_code_adaptive"
"""The attribute of a code object with its instructions and caches."""


class RunDetector:
    """A detector of functions that have run. It recognizes them by a change of their code."""

    def __init__(self) -> None:
        known = (each.__code__ for each in _functions())
        self._before = [(code, text) for code in known if (text := getattr(code, _TEXT, None)) is not None]

    def gather(self) -> int:
        """Replace the code of each function that has run since this object was created by a copy; the copies
        are adjacent. Returns their number.

        The caches of a copy are empty. On a Python without the attribute of the caches nothing is copied.
        """
        # By identity: code objects of two files may be equal.
        ran = {id(code): code for code, text in self._before if getattr(code, _TEXT) != text}
        self._before.clear()
        _copies(ran)
        # Without this the copies would lie in holes, scattered as before.
        gc.collect()
        allocators.fill()
        copies = _copies(ran)
        for function in _functions():
            if (copy := copies.get(id(function.__code__))) is not None:
                function.__code__ = copy
        return len(copies)


def _copies(codes: dict[int, CodeType]) -> dict[int, CodeType]:
    """Return a copy of each code object. The first call makes each code create and keep several objects,
    which would otherwise lie between the copies.
    """
    return {key: code.replace() for key, code in codes.items()}


def _functions() -> list[FunctionType]:
    return [each for each in gc.get_objects() if type(each) is FunctionType]
