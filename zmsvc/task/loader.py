"""Finds and imports a service: `<directory>/NAME/ServiceNAME.py`, class `ServiceNAME`. Runs in the task's
own process only.
"""

from __future__ import annotations

import importlib
import importlib.util
import marshal
import os
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType

from zmsvc.core.errors import LaunchError
from zmsvc.host.python.interpreter import Shortcut, disabled
from zmsvc.task.sdk import LoopedTask, SingleTask, TaskService

BUILT_IN = {"Monitor": "zmsvc.task.monitor"}
"""Services that come with zmsvc; one of the same name on the path goes first."""

OLD_SERVICE = b"from Provider.IServiceHandler import"
"""By this the side of a service that zmicroservices made is known."""
_OLD_NAME = b"Provider.IServiceHandler"
"""The same in compiled code."""

_CACHED = os.path.basename(importlib.util.cache_from_source("x.py"))[1:]
"""What this Python calls compiled code, after the name of its source."""


def load(name: str, directories: Iterable[str]) -> type[TaskService]:
    """The service class of this name. Raises LaunchError, or whatever the service's own code raises when
    it is imported.
    """
    searched = list(directories)
    for directory in searched:
        file = f"{directory}/{name}/Service{name}.py"
        cached = _cached(file)
        if cached is not None or os.path.isfile(file):
            _refuse_old(name, file, cached)
            return _class_of(_module(_package(name, directory), name, file, cached), name, file)
    if name in BUILT_IN:
        return _class_of(importlib.import_module(BUILT_IN[name]), name, BUILT_IN[name])
    raise LaunchError(
        f"cannot load service {name}: there is no {name}/Service{name}.py in "
        f"{', '.join(searched) or 'no directory'}"
    )


def _refuse_old(name: str, file: str, cached: bytes | None) -> None:
    """A service of zmicroservices is Python 2 and would fail with whatever of it Python 3 meets first,
    which explains nothing.
    """
    if cached is not None and _OLD_NAME not in cached:
        return
    with open(file, "rb") as code:
        if OLD_SERVICE in code.read():
            raise LaunchError(
                f"cannot load service {name}: {file} is one of zmicroservices 1.0, for Python 2; zmsvcctl "
                f"create makes the frame of a new "
                "one, and docs/from-zmicroservices.md says what goes where"
            )


def _package(name: str, directory: str) -> str:
    """Make the service's directory a package and give its name: NAME, unless a part of Python or of another
    service has that name.

    A service may be called `queue`: taking the name from the standard library would break whoever imports
    that later. Relative imports work under any name.
    """
    path = f"{directory}/{name}"
    if directory not in sys.path:
        sys.path.append(directory)  # at the end: a service is no replacement for a library
    package = name
    while package in sys.modules or package in sys.stdlib_module_names:
        if list(getattr(sys.modules.get(package), "__path__", [])) == [path]:
            return package
        package += "_"
    init = f"{path}/__init__.py"
    cached = _cached(init)
    _run(package, init if cached is not None or os.path.isfile(init) else None, cached, [path])
    return package


def _module(package: str, name: str, file: str, cached: bytes | None) -> ModuleType:
    """The module of the service, which is where we know it to be: to have it searched for would double the
    cost of a start.
    """
    full = f"{package}.Service{name}"
    if full not in sys.modules:
        setattr(sys.modules[package], f"Service{name}", _run(full, file, cached))
    return sys.modules[full]


def _run(name: str, file: str | None, cached: bytes | None, search: list[str] | None = None) -> ModuleType:
    """Import a file under this name, from the cached code where that is there; with `search` as a package,
    also without a file.
    """
    loader = SourceFileLoader(name, file) if file is not None else None
    spec = ModuleSpec(name, loader, origin=file, is_package=search is not None)
    module = ModuleType(name)
    module.__spec__, module.__loader__ = spec, loader
    if search is not None:
        spec.submodule_search_locations = module.__path__ = search
    module.__package__ = name if search is not None else name.rpartition(".")[0]
    sys.modules[name] = module
    if loader is not None and file is not None:
        spec.has_location = True
        module.__file__ = file
        try:
            exec(_code(loader, name, file, cached), module.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return module


def _code(loader: SourceFileLoader, name: str, file: str, cached: bytes | None) -> CodeType:
    """The code of a source file, from what is cached of it."""
    if cached is not None:
        try:
            code = marshal.loads(memoryview(cached)[16:])
        except (EOFError, ValueError, TypeError, SystemError, MemoryError):
            code = None
        if not isinstance(code, CodeType):
            # What the machine had not written when it crashed; Python's own import would fail over it for
            # ever.
            return loader.source_to_code(loader.get_data(file), file)
        if code.co_filename == file:
            return code
        # Compiled by a relative path, or moved here since then: Python knows how to correct that.
    found = loader.get_code(name)
    assert found is not None  # as it is only for modules of other kinds
    return found


def _cached(file: str) -> bytes | None:
    """What Python has left of exactly this source in `__pycache__`, by the rules of PEP 552 for a time stamp;
    None: it is to be looked for.

    Only this usual case is ours, for importlib goes through 20 functions for it, which in a fresh fork is a
    tenth of a start.
    """
    directory, _, name = file.rpartition("/")
    if sys.pycache_prefix is not None or Shortcut.BYTECODE in disabled():
        return None
    try:
        with open(f"{directory}/__pycache__/{name.removesuffix('.py')}{_CACHED}", "rb", buffering=0) as cache:
            cached = cache.readall()
        about = os.stat(file)
    except OSError:
        return None
    stamp = (int(about.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (about.st_size & 0xFFFFFFFF).to_bytes(
        4, "little"
    )
    return cached if cached[:16] == importlib.util.MAGIC_NUMBER + b"\0\0\0\0" + stamp else None


def _class_of(module: ModuleType, name: str, file: str) -> type[TaskService]:
    found = getattr(module, f"Service{name}", None)
    if not isinstance(found, type):
        raise LaunchError(f"cannot load service {name}: {file} has no class Service{name}")
    if not issubclass(found, TaskService):
        raise LaunchError(
            f"cannot load service {name}: class Service{name} in {file} is no zmsvc.task.TaskService"
        )
    task = getattr(found, "task_class", None)
    if not isinstance(task, type) or not issubclass(task, LoopedTask | SingleTask):
        raise LaunchError(
            f"cannot load service {name}: task_class of Service{name} in {file} is no LoopedTask or "
            f"SingleTask"
        )
    return found
