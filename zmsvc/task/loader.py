"""Finds and imports a service: `<directory>/NAME/ServiceNAME.py`, class `ServiceNAME`. Runs in the task's own process only."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from zmsvc.core.errors import LaunchError
from zmsvc.task.sdk import Task, TaskService

BUILT_IN = {"Monitor": "zmsvc.task.monitor"}
"""Services that come with zmsvc; one of the same name on the path goes first."""


def load(name: str, directories: Iterable[str]) -> type[TaskService]:
    """The service class of this name. Raises LaunchError, or whatever the service's own code raises when it is imported."""
    searched = [Path(directory) for directory in directories]
    for directory in searched:
        if (directory / name / f"Service{name}.py").is_file():
            _as_package(name, directory)
            return _class_of(f"{name}.Service{name}", name, directory / name / f"Service{name}.py")
    if name in BUILT_IN:
        return _class_of(BUILT_IN[name], name, Path(BUILT_IN[name]))
    where = ", ".join(str(directory) for directory in searched)
    raise LaunchError(f"cannot find service {name}: no {name}/Service{name}.py in {where}")


def _as_package(name: str, directory: Path) -> None:
    """Make the service's directory the package NAME, whatever else has that name: two contexts may each have their own."""
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    init = directory / name / "__init__.py"
    location = str(init) if init.is_file() else None
    loader = importlib.machinery.SourceFileLoader(name, location) if location else None
    spec = importlib.machinery.ModuleSpec(name, loader, origin=location, is_package=True)
    spec.submodule_search_locations = [str(directory / name)]
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    if loader is not None:
        loader.exec_module(package)


def _class_of(module: str, name: str, file: Path) -> type[TaskService]:
    found = getattr(importlib.import_module(module), f"Service{name}", None)
    if not isinstance(found, type) or not issubclass(found, TaskService):
        raise LaunchError(f"cannot use service {name}: {file} has no class Service{name}(TaskService)")
    task = getattr(found, "task_class", None)
    if not isinstance(task, type) or not issubclass(task, Task):
        raise LaunchError(f"cannot use service {name}: Service{name}.task_class is no LoopedTask or SingleTask")
    return found
