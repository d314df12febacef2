"""Copy the code that tasks run to one place, so that its caches, which each task writes to, lie on few pages.

CPython has a cache behind an instruction for what it learns about it (PEP 659). Functions lie where their
import has put them, so a start wrote to 77 pages for the caches of 66 kB of code. The copies lie on 33 pages.
Together with the code around the fork, which the rehearsal does not run, a start now writes to 58 pages for
caches.
"""

from __future__ import annotations

import gc
import marshal
import os
import signal
import sys
from collections.abc import Callable, Collection
from types import CodeType, FrameType, FunctionType
from typing import Any

from zmsvc.host.python import allocators

_TEXT = "_co_code_adaptive"
"""The attribute of a code object with its instructions and caches."""


class RunDetector:
    """A detector of functions that have run. It recognizes them by a change of their code, which is in the
    attribute `text`.
    """

    def __init__(self, text: str = _TEXT) -> None:
        known = (each.__code__ for each in _functions())
        self._text = text
        self._before = [(code, seen) for code in known if (seen := getattr(code, text, None)) is not None]

    def gather(self, also: Collection[int] = ()) -> int:
        """Replace the code of each function that has run since this object was created by a copy; the copies
        are adjacent. `also` has the IDs of further code. Returns the number of copies.

        The caches of a copy are empty. On a Python without the attribute of the caches nothing is copied.
        """
        # Compare by identity: code objects of two files may be equal.
        ran = {
            id(code): code
            for code, seen in self._before
            if id(code) in also or getattr(code, self._text) != seen
        }
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


def run_in_fork(call: Callable[[], object], patience_s: int) -> Collection[int]:
    """Return the IDs of the code that runs when this process forks and its fork calls `call`. In a fork the
    interpreter runs functions that no rehearsal in this process can run. The result is empty if the fork
    takes longer than `patience_s` seconds, and with Python 3.12 and later.
    """
    ran: set[int] = set()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            ran.add(id(frame.f_code))

    if sys.version_info >= (3, 12):
        # Only 3.11 counts the first calls inside the code object, and profiling has other costs since 3.12.
        return frozenset()
    reader, writer = os.pipe()
    sys.setprofile(note)
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(patience_s)
            call()
        finally:
            sys.setprofile(None)
            with open(writer, "wb") as pipe:
                pipe.write(marshal.dumps([*ran]))
            os._exit(0)
    sys.setprofile(None)
    os.close(writer)
    with open(reader, "rb") as answer:
        told = answer.read()
    os.waitpid(pid, 0)
    return frozenset(marshal.loads(told)) if told else frozenset()


def _copies(codes: dict[int, CodeType]) -> dict[int, CodeType]:
    """Return a copy of each code object, with copies of its lambdas and comprehensions.

    The first call makes each code object create several objects that stay with it. So call it once before
    and drop the result: otherwise these objects would lie between the copies.
    """
    return {key: _copy(code) for key, code in codes.items()}


def _copy(code: CodeType) -> CodeType:
    return code.replace(
        co_consts=tuple(_copy(each) if type(each) is CodeType else each for each in code.co_consts)
    )


def _functions() -> list[FunctionType]:
    return [each for each in gc.get_objects() if type(each) is FunctionType]
