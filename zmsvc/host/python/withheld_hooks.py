"""Withhold the fork hooks of threading and logging from the zygote, and register them in each task.

After a fork these hooks repair locks that another thread may have held, and forget the other threads. The
zygote has only one thread whenever it forks a task, so there is nothing to repair; yet the repair costs each
task 44 of 710 pages on Python 3.11, and 33 of 297 on 3.13. A fork that a task makes needs the hooks: another
thread of the task may hold a lock at that moment.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

MODULES = ("threading", "logging")

_withheld: list[dict[str, Callable[[], object]]] = []


@contextlib.contextmanager
def during_imports() -> Iterator[None]:
    """Withhold the hooks of these modules if they are first imported inside the block."""
    register_at_fork = os.register_at_fork

    def withhold(**hooks: Callable[[], object]) -> None:
        if any(getattr(hook, "__module__", "") in MODULES for hook in hooks.values()):
            _withheld.append(hooks)
        else:
            register_at_fork(**hooks)

    os.register_at_fork = withhold  # type: ignore[assignment]
    try:
        yield
    finally:
        os.register_at_fork = register_at_fork
    # Imported here, because it imports ctypes, which imports threading since Python 3.14.
    from zmsvc.host.python.interpreter import Switch, disabled

    if Switch.FORK_HOOKS in disabled():
        _register_all()
        _withheld.clear()


def register() -> None:
    """Register the hooks that were withheld. A task calls this once, before any code of the user."""
    _register_all()
    # All that a hook would have to change: the main thread has another native ID in each process. (That of
    # Python 3.11 forgets it.)
    set_native_id = getattr(sys.modules["threading"].main_thread(), "_set_native_id", None)
    if set_native_id is not None:
        set_native_id()


def _register_all() -> None:
    for hooks in _withheld:
        os.register_at_fork(**hooks)
