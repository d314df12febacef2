"""Make the objects of this process immortal, so that its forks do not write to them: a page without writes
stays shared.

CPython counts the references to an object inside the object, so reading an object writes to it, and a fork
copies each such page. Since Python 3.12 the count of an object with a special value is left alone (PEP 683).
`make_all` gives that value to all objects.

An immortal object is never freed: not after its last reference, and not by the collector. So close objects
that hold a descriptor explicitly.
"""

from __future__ import annotations

import ctypes
import gc
import struct
import sys
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zmsvc.host.python import immortal_constants, interpreter

_IN_FLIGHT = frozenset({types.FrameType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType})
"""The types of running code. Such an object releases others and runs its `finally` blocks only when it is
freed.
"""
_OF_CODE = (
    "co_consts",
    "co_names",
    "co_filename",
    "co_name",
    "co_qualname",
    "co_linetable",
    "co_exceptiontable",
)
"""The attributes of a code object that gc.get_referents() does not return, except the names of variables: to
read those makes new tuples.
"""
_IMMORTAL = 1 << 31
"""The bit of the reference count by which CPython recognizes an immortal object."""

_word = ctypes.c_uint64.from_address


class Unproven(Exception):
    """An object that was made immortal on trial did not behave as one."""


@dataclass(frozen=True, slots=True)
class ImmortalMark:
    """The mark of an immortal object in its first eight bytes: a count in the low 32 bits, a flag in the high
    16.
    """

    count: int
    flag: int = 0

    def put(self, address: int) -> bool:
        """Mark the object at this address. Return False if it is immortal already."""
        word = _word(address)
        # An object that CPython made immortal stays unchanged: other bits mark its static objects.
        if word.value & _IMMORTAL:
            return False
        word.value = word.value & ~0xFFFFFFFF | self.count | self.flag
        return True


def mark() -> ImmortalMark | None:
    """Return this interpreter's mark; None for an interpreter without immortal objects, and for builds with
    other counts.

    3.12 and 3.13 (Include/object.h): Py_INCREF leaves a count of exactly 0xFFFFFFFF alone, and Py_DECREF a
    count with bit 31 set. 3.14 (Include/refcount.h): Py_INCREF leaves a count from 3 << 30 on alone, and
    Py_DECREF a count with bit 31 set. The evaluation loop checks flag 1 of `ob_flags` instead
    (pycore_stackref.h); without that flag it writes to the count, and a task takes 2.0 MB instead of 1.4 MB.
    A later version is tried with the mark of 3.14, and `prove` decides.
    """
    known = sys.implementation.name == "cpython" and sys.version_info >= (3, 12)
    # Builds with other counts: free-threaded, debug, 32 bits.
    other = interpreter.is_free_threaded() or hasattr(sys, "gettotalrefcount") or struct.calcsize("P") != 8
    if not known or other:
        return None
    return ImmortalMark(0xFFFFFFFF) if sys.version_info < (3, 14) else ImmortalMark(3 << 30, 1 << 48)


def make_all() -> int:
    """Make the objects immortal that `reachable` returns. Return the number of those that were not immortal
    before.

    In an interpreter without immortal objects (see `mark`) this is 0. Raises Unproven, and changes nothing,
    if immortal objects do not behave as expected. The collector must be off.
    """
    chosen = mark()
    if chosen is None:
        return 0
    prove(chosen)
    # The list keeps each object alive until it is marked. When the list itself is freed, it drops its
    # references by Py_DECREF, which checks the mark.
    found = reachable()
    loads = [
        address
        for each in found
        if type(each) is types.CodeType
        for address in immortal_constants.counting(each)
    ]
    marked_count = sum(map(chosen.put, map(id, found)))
    immortal_constants.stop_counting(loads)
    return marked_count


def reachable() -> list[Any]:
    """Return the objects that the collector knows and those that they refer to, except running code
    (`_IN_FLIGHT`).
    """
    left = gc.get_objects()
    # These are created after the snapshot, so it does not have them.
    found: list[Any] = []
    seen: set[int] = set()
    while left:
        each = left.pop()
        if id(each) in seen or type(each) in _IN_FLIGHT:
            continue
        seen.add(id(each))
        found.append(each)
        if type(each) is types.CodeType:
            left += [getattr(each, name) for name in _OF_CODE]
        left += gc.get_referents(each)
    return found


# --- the proof


class _Throwaway:
    """An object whose end can be noticed, by a weak reference."""


_LOADER = "def load(into):\n    into[0] = (1.5, 2.5)\n"
_TIMES = 20
"""More than the interpreter needs to specialize an instruction."""


def prove(chosen: ImmortalMark) -> None:
    """Mark throwaway objects, use them, and raise Unproven unless their counts stay unchanged."""
    _prove_object(chosen)
    _prove_constant(chosen)


def _prove_object(chosen: ImmortalMark) -> None:
    # Have the reference in a list: one from before the mark, which 3.14 counts down, could otherwise be
    # dropped after the mark.
    box = [_Throwaway()]
    alive, word = weakref.ref(box[0]), _word(id(box[0]))
    before = word.value
    held: list[object] = [*box, *box, *box]
    if before >= 100 or word.value != before + 3:
        raise Unproven("the count of references is not where it is expected")
    held.clear()
    chosen.put(id(box[0]))
    marked = word.value
    for _ in range(_TIMES):
        held = [box[0], (box[0],), {"made": box[0]}, _same(box[0])]
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(box[0]))
        if word.value != marked:
            raise Unproven("the references to an immortal object are counted")
        held.clear()
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(box[0]))
    box.clear()
    if word.value != marked or alive() is None:
        raise Unproven("an immortal object is counted down or freed")


def _same(value: object) -> object:
    return value


def _prove_constant(chosen: ImmortalMark) -> None:
    """Prove the mark for a constant of code that has run before: 3.14 counts the references to it differently
    (see zmsvc.host.python.immortal_constants).
    """
    scope: dict[str, Any] = {}
    exec(_LOADER, scope)
    load: Callable[[dict[int, object]], None] = scope["load"]
    into: dict[int, object] = {}
    for _ in range(_TIMES):
        load(into)
    address = id(into.pop(0))
    loads = [*immortal_constants.counting(load.__code__)]
    chosen.put(address)
    immortal_constants.stop_counting(loads)
    marked = _word(address).value
    for _ in range(_TIMES):
        load(into)
    into.clear()
    if _word(address).value != marked:
        raise Unproven("a constant that is immortal is counted")
