"""Fills the holes in what this process has allocated, so that its forks allocate from pages of their own
instead of copying ours.

A page that holds both our objects and free memory is copied as soon as a fork allocates there, and most of
what a fork allocates would fall into such holes. What fills them is never freed. It costs this process up to
1 MB and saves each fork 0.3 to 0.4 MB.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable

# From Include/internal/pycore_obmalloc.h, the same in 3.11 to 3.14 for 64 bits. With other sizes no pool is
# ever seen whole, so each class is filled as far as MOST_POOLS allows.
_POOL = 16384
_POOL_HEADER = 48
_STEP, _LARGEST = 16, 512
MOST_POOLS = 8
"""How much is allocated of one size at most, in pools of 16 KiB. Of 32 sizes this is 4 MiB; 0.8 MB were
seen, 47 kB of one size.
"""

_HEAP_SIZES = (*range(24, 1100, 16), *(1 << n for n in range(10, 17)), *(3 << n for n in range(9, 16)))
"""What is asked of malloc(): a size of each of glibc's bins for small blocks, and some of the larger ones."""
_HEAP_SHARE = 1.5
"""How much malloc() gives at most, by the size of its holes. It is a bound in case that the heap ends
elsewhere: 0.9 of them were seen.
"""
_HEAP_BLOCKS = 20_000
"""And how often it is asked at most; 600 times were seen."""

_kept: list[object] = []


def fill() -> tuple[int, int]:
    """Fill the holes of Python's allocator and of the C library's.

    Returns the bytes that were allocated of the former, and those in holes of the latter.

    What this interpreter or C library does not have is left out: pymalloc with PYTHONMALLOC=malloc and in
    free-threaded builds, and mallinfo2(), which is in glibc since 2.33, not in musl.
    """
    objects = _fill_pools() if _has_pymalloc() else 0
    return objects, _fill_heap()


# --- Python's own: pools of blocks of one size


def _has_pymalloc() -> bool:
    # Only blocks of pymalloc count.
    return not sysconfig.get_config_var("Py_GIL_DISABLED") and sys.getallocatedblocks() > 0


def _fill_pools() -> int:
    """Allocate of each size until a whole pool was given in a row: then no other pool with blocks of that
    size has a free one.
    """
    return sum(_fill_class(size) for size in range(_STEP, _LARGEST + 1, _STEP))


def _fill_class(size: int) -> int:
    whole = (_POOL - _POOL_HEADER) // size
    most = MOST_POOLS * _POOL // size
    make = _maker(size)
    pool, run = 0, 0
    for number in range(1, most + 1):
        block = make(number)
        _kept.append(block)
        run = run + 1 if id(block) // _POOL == pool else 1
        pool = id(block) // _POOL
        if run == whole:
            return number * size
    return most * size


def _maker(size: int) -> Callable[[int], object]:
    """Return what makes an object of this many bytes, rounded up to 16, that no list of free objects has
    and the collector ignores.
    """
    if size == 16:
        return lambda _: object()
    if size == 32:
        return lambda number: 1_000_000 + number
    # The length that fills the block: shorter ones of 0 and 1 exist once only.
    length = size - b"".__sizeof__()
    return lambda _: bytes(length)


# --- the C library's: the heap, and lists of free blocks by size


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def _fill_heap() -> int:
    """Allocate of each size until a block lies behind everything that was ever allocated: then no hole has
    room for another one.
    """
    libc = ctypes.PyDLL(None)
    try:
        malloc, mallinfo2, sbrk = libc.malloc, libc.mallinfo2, libc.sbrk
    except AttributeError:
        return 0
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    sbrk.restype, sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    mallinfo2.restype = _Mallinfo2
    heap = mallinfo2()
    # The free rest at the end of the heap, `keepcost`, is the only part that is not a hole.
    behind = sbrk(0) - heap.keepcost
    filled, most, asked = 0, int((heap.fordblks - heap.keepcost) * _HEAP_SHARE), 0
    for size in sorted(_HEAP_SIZES, reverse=True):
        while filled + size <= most and asked < _HEAP_BLOCKS:
            asked += 1
            if (malloc(size) or behind) >= behind:
                break
            filled += size
    return filled
