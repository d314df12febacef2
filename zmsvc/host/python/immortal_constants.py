"""Find and replace instructions of Python 3.14 that count references to a constant without checking that it
is immortal.

When an instruction LOAD_CONST runs first, 3.14 replaces it by LOAD_CONST_MORTAL or LOAD_CONST_IMMORTAL, by
the constant's count at that moment (Python/bytecodes.c). If the constant is made immortal later,
LOAD_CONST_MORTAL still counts up, and nothing counts down again. After 2**30 times, which is a day at 12,000
a second, the count would be that of a mortal object, and the constant would be freed.
"""

from __future__ import annotations

import ctypes
import opcode
from collections.abc import Iterable, Iterator
from types import CodeType

_byte = ctypes.c_uint8.from_address
_specialized: dict[str, int] = getattr(opcode, "_specialized_opmap", {})
_families: dict[str, list[str]] = getattr(opcode, "_specializations", {})
_caches: dict[str, int] = getattr(opcode, "_inline_cache_entries", {})
_MORTAL = _specialized.get("LOAD_CONST_MORTAL")
_IMMORTAL = _specialized.get("LOAD_CONST_IMMORTAL")


def _widths() -> dict[int, int]:
    """Return the size in bytes of each instruction with its caches.

    Instructions that a debugger or a JIT puts in place of others are left out, since they have the sizes of
    the instructions that they replace.
    """
    others = ("INSTRUMENTED_", "ENTER_EXECUTOR")
    plain = {
        name: number for name, number in opcode.opmap.items() if number < 256 and not name.startswith(others)
    }
    found = {number: 2 + 2 * _caches.get(name, 0) for name, number in plain.items()}
    for family, names in _families.items():
        found |= dict.fromkeys((_specialized[name] for name in names), 2 + 2 * _caches.get(family, 0))
    return found


_WIDTHS = _widths() if _MORTAL is not None else {}


def counting(code: CodeType) -> Iterator[int]:
    """Yield the address of each instruction in `code` that counts references to a constant. Before 3.14 there
    are none.
    """
    if _MORTAL is None or _IMMORTAL is None:
        return
    text: bytes = code._co_code_adaptive  # type: ignore[attr-defined]
    # Only code that has run can have such an instruction, which is one code object in twenty. The others need
    # not be read.
    if _MORTAL not in text:
        return
    # In memory, the instructions follow the fields of the PyCodeObject.
    start = id(code) + CodeType.__basicsize__
    if ctypes.string_at(start, len(text)) != text:
        return
    at = 0
    while at < len(text) and (width := _WIDTHS.get(text[at])) is not None:
        if text[at] == _MORTAL:
            yield start + at
        at += width


def stop_counting(loads: Iterable[int]) -> None:
    """Replace the instructions at these addresses by LOAD_CONST_IMMORTAL. Their constants must be
    immortal.
    """
    if _IMMORTAL is not None:
        for address in loads:
            _byte(address).value = _IMMORTAL
