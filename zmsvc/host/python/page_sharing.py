"""Prepare the memory of this process for its forks, so that as many pages as possible stay shared: see
docs/performance.md.
"""

from __future__ import annotations

import gc

from zmsvc.host.complain import complain
from zmsvc.host.python import allocators, immortal, interpreter
from zmsvc.host.python.interpreter import Switch


def share() -> None:
    """Prepare the memory once, right before the first fork, because later allocations make new holes. This
    takes 0.1 to 0.2 s.

    The collector is off afterwards; each fork switches it on again.
    """
    gc.disable()
    gc.collect()
    if Switch.IMMORTAL not in interpreter.disabled():
        try:
            immortal.make_all()
        except immortal.Unproven as error:
            complain(f"zmsvcd: cannot make objects immortal: {error}; tasks will take more memory")
        # A collection empties the free lists, which the walk has filled with objects that lie between the
        # marked ones.
        gc.collect()
    if Switch.FILL not in interpreter.disabled():
        allocators.fill()
    interpreter.freeze()
