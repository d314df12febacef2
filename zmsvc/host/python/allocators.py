"""Fill the holes in this process's heaps, so that its forks allocate from new pages instead of copying ours.

A page with objects of ours and free memory is copied as soon as a fork allocates there, and most allocations
of a fork would be in such holes. The filling is never freed. docs/performance.md has the figures.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from zmsvc.host.python import interpreter

# From Include/internal/pycore_obmalloc.h, the same in 3.11 to 3.14 for 64 bits. If the sizes were others, no
# complete pool would be recognized, and each class would be filled up to MOST_POOLS.
_POOL = 16384
_POOL_HEADER = 48
_STEP, _LARGEST = 16, 512
MOST_POOLS = 8
"""The limit of pools of 16 KiB to allocate for one size, which is 4 MiB for 32 sizes. 0.8 MB were measured in
total, and 47 kB for one size.
"""

_HEAP_SIZES = (*range(24, 1100, 16), *(1 << n for n in range(10, 17)), *(3 << n for n in range(9, 16)))
"""Sizes to request from malloc(): one of each of glibc's bins for small blocks, and some of the larger
ones.
"""
_HEAP_SHARE = 1.5
"""The limit of bytes to request from malloc(), as a multiple of the bytes in its holes. It is needed only if
the heap ends elsewhere; 0.9 was measured.
"""
_HEAP_BLOCKS = 20_000
"""The limit of calls of malloc(); 600 were measured."""

_kept: list[object] = []


def fill() -> tuple[int, int]:
    """Fill the holes of Python's allocator and of the C library's.

    Returns the bytes allocated from Python's allocator, and the bytes allocated in holes of the C library's.

    An allocator without the needed interface is left out: pymalloc with PYTHONMALLOC=malloc and in
    free-threaded builds, and a C library without mallinfo2(), which glibc has since 2.33 and musl has not.
    """
    objects = _fill_pools() if _has_pymalloc() else 0
    return objects, _fill_heap()


# --- Python's allocator: pools of blocks of one size


def _has_pymalloc() -> bool:
    # getallocatedblocks() counts only blocks of pymalloc.
    return not interpreter.is_free_threaded() and sys.getallocatedblocks() > 0


def _fill_pools() -> int:
    """Allocate blocks of each size until they fill a complete pool in a row: then no other pool of that size
    has a free block.
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
    """Return a function that makes an object of this many bytes, rounded up to 16. No free list provides the
    object, and the collector ignores it.
    """
    if size == 16:
        return lambda _: object()
    if size == 32:
        return lambda number: 1_000_000 + number
    # Bytes objects of length 0 and 1 are singletons; this length is greater and fills the block.
    length = size - b"".__sizeof__()
    return lambda _: bytes(length)


# --- the C library's allocator: the heap, and lists of free blocks by size


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
    """Allocate blocks of each size until one lies behind the end of all earlier allocations: then no hole has
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
    # The free memory at the end of the heap, `keepcost`, is the only free part that is not a hole.
    behind = sbrk(0) - heap.keepcost
    filled, most, asked = 0, int((heap.fordblks - heap.keepcost) * _HEAP_SHARE), 0
    for size in sorted(_HEAP_SIZES, reverse=True):
        while filled + size <= most and asked < _HEAP_BLOCKS:
            asked += 1
            if (malloc(size) or behind) >= behind:
                break
            filled += size
    return filled
