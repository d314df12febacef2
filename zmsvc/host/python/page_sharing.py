"""Prepares the memory of this process for its forks, so that as much as possible stays shared with them:
see docs/performance.md.
"""

from __future__ import annotations

import gc

from zmsvc.host.complain import complain
from zmsvc.host.python import allocators, immortal, interpreter
from zmsvc.host.python.interpreter import Shortcut


def share() -> None:
    """Do it, once and right before the first fork: what is allocated or freed later makes new holes. It takes
    0.1 to 0.2 s.

    The collector is off afterwards: a fork switches it on again.
    """
    gc.disable()
    gc.collect()
    if Shortcut.IMMORTAL not in interpreter.disabled():
        try:
            immortal.make_all()
        except immortal.Unproven as error:
            complain(f"zmsvcd: cannot make objects immortal: {error}; tasks will take more memory")
        # The collector empties the lists of free objects. The walk has filled them with objects that lie
        # between those it has marked.
        gc.collect()
    if Shortcut.FILL not in interpreter.disabled():
        allocators.fill()
    interpreter.freeze()
