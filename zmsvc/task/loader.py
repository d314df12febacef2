"""Find and import a service: `<directory>/NAME/ServiceNAME.py`, class `ServiceNAME`. Runs only in the task's
own process.
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
from zmsvc.host.python.interpreter import Switch, disabled
from zmsvc.task.sdk import AsyncTask, LoopedTask, MessageTask, SingleTask, TaskService

BUILT_IN = {"LastValue": "zmsvc.task.last_value", "Monitor": "zmsvc.task.monitor"}
"""Services that are part of zmsvc. If the path has one of the same name, that one is used."""

OLD_SERVICE = b"from Provider.IServiceHandler import"
"""The import that identifies a service of zmicroservices."""
_OLD_NAME = b"Provider.IServiceHandler"
"""The same in compiled code."""

_COROUTINE, _GENERATOR, _ASYNC_GENERATOR = 0x80, 0x20, 0x200
"""inspect.CO_COROUTINE and its like. The module inspect is slow to import."""

_CACHED = os.path.basename(importlib.util.cache_from_source("x.py"))[1:]
"""The suffix of this Python's names for compiled code."""


def load(name: str, directories: Iterable[str]) -> type[TaskService]:
    """Return the service class of this name. Raises LaunchError, or any exception that the service's code
    raises at its import.
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
        f"{', '.join(searched) or 'no directory'}{_similar(name, searched)}"
    )


def _similar(name: str, searched: Iterable[str]) -> str:
    # Imported here, since each task would otherwise carry it: only a missing service needs it.
    from zmsvc.core.similar import similar

    found = (
        each
        for place in filter(os.path.isdir, searched)
        for each in os.listdir(place)
        if os.path.isfile(f"{place}/{each}/Service{each}.py")
    )
    try:
        return similar(name, found)
    except OSError:  # The user of the task may not read a directory.
        return ""


def _refuse_old(name: str, file: str, cached: bytes | None) -> None:
    """Raise LaunchError for a service of zmicroservices, which is Python 2. Its import would fail with an
    error that does not explain this.
    """
    if cached is not None and _OLD_NAME not in cached:
        return
    with open(file, "rb") as code:
        if OLD_SERVICE in code.read():
            raise LaunchError(
                f"cannot load service {name}: {file} is a service of zmicroservices 1.0, for Python 2; "
                "zmsvcctl create makes a new service, and docs/from-zmicroservices.md explains how to move "
                "the code"
            )


def _package(name: str, directory: str) -> str:
    """Make the service's directory a package, and return the package's name: NAME, unless Python or another
    service uses that name.

    A service may be called `queue`. If it replaced the module of the standard library, later imports of that
    would break. Relative imports work under any name.
    """
    path = f"{directory}/{name}"
    if directory not in sys.path:
        sys.path.append(directory)  # at the end: a service must not replace a library
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
    """Return the service's module. Its path is known: a search by importlib would double the cost of a
    start.
    """
    full = f"{package}.Service{name}"
    if full not in sys.modules:
        setattr(sys.modules[package], f"Service{name}", _run(full, file, cached))
    return sys.modules[full]


def _run(name: str, file: str | None, cached: bytes | None, search: list[str] | None = None) -> ModuleType:
    """Import a file under this name, from the cached code if there is any. With `search`, import a package,
    which needs no file.
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
    """Return the code of a source file, from the cache if possible."""
    if cached is not None:
        try:
            code = marshal.loads(memoryview(cached)[16:])
        except (EOFError, ValueError, TypeError, SystemError, MemoryError):
            code = None
        if not isinstance(code, CodeType):
            # A crash of the machine has left a partly written file. Python's own import would fail with it
            # each time.
            return loader.source_to_code(loader.get_data(file), file)
        if code.co_filename == file:
            return code
        # The source was compiled under a relative path, or has moved since. Python corrects the path, too.
    found = loader.get_code(name)
    assert found is not None  # None is only for modules without source
    return found


def _cached(file: str) -> bytes | None:
    """Return the cached code of exactly this source from `__pycache__`, by the rules of PEP 552 for time
    stamps. If it returns None, importlib looks for the code.

    Only this usual case is handled here. importlib runs 20 functions for it, which is a tenth of a start in a
    new fork.
    """
    directory, _, name = file.rpartition("/")
    if sys.pycache_prefix is not None or Switch.BYTECODE in disabled():
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
            f"cannot load service {name}: class Service{name} in {file} is not a zmsvc.task.TaskService"
        )
    task = getattr(found, "task_class", None)
    if not isinstance(task, type) or not issubclass(task, LoopedTask | SingleTask | MessageTask | AsyncTask):
        raise LaunchError(
            f"cannot load service {name}: task_class of Service{name} in {file} is not a LoopedTask, "
            f"SingleTask, MessageTask or AsyncTask"
        )
    check_methods(name, found)
    return found


def check_methods(name: str, service: type[TaskService]) -> None:
    """Raise LaunchError for a method whose body would never run: an `async def` that nothing awaits, or a
    generator.
    """
    task = service.task_class
    for owner, methods in (
        (task, ("setup", "step", "run", "on_message", "on_reload", "close")),
        (service, ("on_control",)),
    ):
        for method in methods:
            code = getattr(getattr(owner, method, None), "__code__", None)
            flags = code.co_flags if isinstance(code, CodeType) else 0
            if flags & (_GENERATOR | _ASYNC_GENERATOR):
                raise LaunchError(
                    f"cannot load service {name}: {method} of {owner.__name__} has a yield, so nothing "
                    f"would run its body; use self.update or self.publish"
                )
            if flags & _COROUTINE and not issubclass(task, AsyncTask):
                raise LaunchError(
                    f"cannot load service {name}: {method} of {owner.__name__} is async def, so "
                    f"{task.__name__} must be an AsyncTask"
                )
