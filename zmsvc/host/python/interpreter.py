"""Wrap internals of the Python interpreter that the language does not promise. Each is a shortcut with a
fallback.

A shortcut saves time or memory and changes nothing else. Each is tried before it is used, so a Python without
it only starts tasks more slowly. The larger ones are modules of their own: immortal, constants, allocators.
`ZMSVC_DISABLE` switches shortcuts off by name, for a comparison or if one is suspected of a fault.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
from collections.abc import Callable, MutableMapping
from enum import StrEnum

from zmsvc.core.errors import ConfigError

VARIABLE = "ZMSVC_DISABLE"


class Switch(StrEnum):
    """A part of zmsvc that `ZMSVC_DISABLE` switches off by this name. docs/performance.md says how much time
    or memory each shortcut saves.
    """

    SIBLING_FORK = "sibling-fork"
    """A task is forked as a child of the keeper by one clone(2). Without it: fork(2) twice."""
    REHEARSAL = "rehearsal"
    """The zygote runs the start of a task before the first one. Without it each task copies more pages."""
    FREEZE = "freeze"
    """gc.freeze(): the collector of a task does not touch the zygote's objects. Without it a collection
    copies them.
    """
    ENVIRON = "environ"
    """On Python 3.11 a task's variables are written to the dict behind os.environ. Without it the methods of
    os.environ write them, which copies pages.
    """
    BYTECODE = "bytecode"
    """A service's compiled code is read without importlib. Without it importlib calls 20 functions."""
    IMMORTAL = "immortal"
    """References to shared objects are not counted (immortal.py), on Python 3.12 and later. Without it a task
    copies each page with an object that it uses.
    """
    GATHER = "gather"
    """The code that a start runs is copied to one place (code_copies.py), if `fill` is on. Without it a task
    copies the pages around each function that it runs.
    """
    FILL = "fill"
    """The holes in the zygote's memory are filled (allocators.py). Without it a task allocates from pages of
    the zygote, and so copies them.
    """
    FORK_HOOKS = "fork-hooks"
    """A fork of the zygote does not run the fork hooks of threading and logging (withheld_hooks.py). Without
    it they copy pages.
    """
    SPARES = "spares"
    """The first supervisor, device and output process are forks of the keeper (keeper/spares.py). Without it
    each is an interpreter of its own from the beginning, as every later one is.
    """
    SPARE_TASKS = "spare-tasks"
    """A launch that comes alone is given to a process that was forked and warmed up before
    (keeper/spare_tasks.py). Without it each task is forked when it is launched.
    """
    ORJSON = "orjson"
    """Messages of tasks are written and read by orjson, if it is installed. Without it the standard library
    does that.
    """
    PASSRIGHTS = "passrights"
    """No shortcut, but a guard: the kernel refuses descriptors that clients send (SO_PASSRIGHTS). Without it
    zmsvc runs as on Linux before 6.16, which a test needs.
    """


def is_free_threaded() -> bool:
    """Return True if this build of CPython has no GIL. `sysconfig` would load all variables of the Makefile
    for it.
    """
    return "t" in sys.abiflags


@functools.cache
def disabled() -> frozenset[Switch]:
    """Return the shortcuts that `ZMSVC_DISABLE` switches off: names separated by commas or blanks. Raises
    ConfigError for an unknown name.

    The variable is read once: the zygote calls this before it removes the variable from the environment that
    tasks inherit.
    """
    names = os.environ.get(VARIABLE, "").replace(",", " ").split()
    unknown = [name for name in names if name not in list(Switch)]
    if unknown:
        raise ConfigError([f"{VARIABLE}: {unknown[0]} is not one of {', '.join(Switch)}"])
    return frozenset(Switch(name) for name in names)


class ForkHooks:
    """The interpreter's hooks for a fork by another function than os.fork(): `before`, then `parent` or
    `child`.

    All three are needed. `PyOS_BeforeFork` takes locks that the other two release: since Python 3.13 a
    release without it ends the process. https://docs.python.org/3/c-api/sys.html#c.PyOS_BeforeFork
    """

    def __init__(self) -> None:
        """Raises AttributeError if the interpreter does not export the hooks (CPython does)."""
        self.before = _hook("PyOS_BeforeFork")
        self.parent = _hook("PyOS_AfterFork_Parent")
        self.child = _hook("PyOS_AfterFork_Child")


def _hook(name: str) -> Callable[[], None]:
    hook = ctypes.pythonapi[name]
    hook.restype = None
    return hook


@functools.cache
def environment() -> MutableMapping[bytes, bytes] | None:
    """Return the dict behind os.environ; None if it is not as expected, and the caller must use
    os.environ. With immortal objects the methods of os.environ copy no more pages: then it is None, too.
    """
    found = vars(os.environ).get("_data")
    if sys.version_info >= (3, 12) or Switch.ENVIRON in disabled() or not isinstance(found, dict):
        return None
    expected = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    return found if found == expected else None


def freeze() -> None:
    """Exclude all current objects from later collections."""
    if Switch.FREEZE not in disabled() and hasattr(gc, "freeze"):
        gc.freeze()
