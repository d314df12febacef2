"""Run zmsvcd with a zygote that writes down the address of each object before it forks its first task.

`python -m bench.objectmap FILE [COMMAND...] -m zmsvc.keeper ARGUMENTS`: COMMAND is ignored, so that these
words can stand before the command line of a daemon. The keeper then executes this module as its zygote.
"""

from __future__ import annotations

import marshal
import os
import runpy
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from zmsvc.host.python import withheld_hooks

with withheld_hooks.during_imports():
    import ctypes

    from zmsvc.host.python import immortal, page_sharing

VARIABLE = "BENCH_OBJECTS"
"""The variable with the path of the file that the zygote writes."""

Region = tuple[int, int, str, str]
"""Address, bytes, kind of object, and its type or function."""

_HAVE_GC, _PREHEADER = 1 << 14, 1 << 3 | 1 << 4
"""Flags of a type (tp_flags): before the object lie two words of the garbage collector, and, since 3.12,
before these two words with pointers.
"""
_TABLE_AT: dict[type, int] = {dict: 32, list: 24}
"""The offsets at which a dictionary and a list have the address of their table."""


def write(path: str) -> None:
    """Write down the objects of this process. A fork does it, so that nothing is allocated in this process."""
    pid = os.fork()
    if pid == 0:
        try:
            with open(f"{path}.new", "wb") as file:
                marshal.dump(
                    sorted(region for each in immortal.reachable() for region in _regions(each)), file
                )
            os.rename(f"{path}.new", path)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def _regions(each: Any) -> Iterator[Region]:
    kind = type(each)
    if kind is types.CodeType:
        name = f"{each.co_filename.rpartition('/')[2]}:{each.co_qualname}"
    else:
        name = each.__qualname__ if issubclass(kind, type | types.FunctionType) else kind.__qualname__
    address, size, own = id(each), sys.getsizeof(each), kind.__basicsize__
    if kind.__flags__ & _HAVE_GC:
        size -= 16
        yield address - 16, 16, "links of the collector", name
        if sys.version_info >= (3, 12) and kind.__flags__ & _PREHEADER:
            size -= 16
            yield address - 32, 16, "pointer to a dictionary or weak reference", name
    yield address, 8, "reference count", name
    if kind in _TABLE_AT:
        if size > own:
            yield (
                ctypes.c_size_t.from_address(address + _TABLE_AT[kind]).value,
                size - own,
                f"table of a {kind.__name__}",
                name,
            )
    elif kind is types.CodeType:
        yield address + own, size - own, "byte code and its caches", name
    else:
        own = size
    yield (
        address + 8,
        own - 8,
        f"fields of a {kind.__name__}" if kind.__module__ == "builtins" else "fields of an object",
        name,
    )


def keep(path: str, arguments: list[str]) -> None:
    """Run the keeper in this process."""
    # Imported here, because the zygote must not import logging and threading before it withholds their hooks.
    from zmsvc.keeper.execution import execute
    from zmsvc.keeper.machine import Machine

    withheld_hooks.register()

    def spawn_zygote(
        _machine: object, module: str, arguments: list[str], environment: Mapping[str, str], fds: list[int]
    ) -> int:
        if module != "zmsvc.zygote":
            return execute(module, arguments, environment, fds)
        return execute("bench.objectmap", arguments, {**environment, VARIABLE: path}, fds)

    Machine.spawn = spawn_zygote  # type: ignore[method-assign, assignment]
    sys.argv[1:] = arguments
    runpy.run_module("zmsvc.keeper", run_name="__main__", alter_sys=True)


def fork_tasks(path: str) -> None:
    """Run the zygote in this process."""
    share = page_sharing.share

    def share_and_write() -> None:
        share()
        write(path)

    page_sharing.share = share_and_write
    runpy.run_module("zmsvc.zygote", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if (found := os.environ.pop(VARIABLE, None)) is not None:
        fork_tasks(found)
    else:
        keep(sys.argv[1], sys.argv[sys.argv.index("zmsvc.keeper") + 1 :])
