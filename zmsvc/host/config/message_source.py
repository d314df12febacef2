"""Read from the source of a service which topics its task hears and publishes. No code is run."""

from __future__ import annotations

import ast
from pathlib import Path

from zmsvc.core import topics
from zmsvc.core.frozen import frozen
from zmsvc.host.config.class_source import MAX_DEPTH, ClassSource, Named

_BASES = ("MessageTask", "LoopedTask", "SingleTask", "AsyncTask")


@frozen
class TaskMessages:
    """The messages of a task by its class. None where the source does not show it."""

    base: str | None = None
    """The class of zmsvc.task from which it is derived."""
    hears: bool | None = None
    """True if it overrides on_message."""
    topics: tuple[str, ...] | None = None
    """The topics of the class, and () if it has none."""
    publishes: tuple[str, ...] | None = None
    """The topics that it may publish. None also if it does not say."""

    @property
    def reads_subscribe(self) -> bool:
        """True if `<subscribe>` is for zmsvc. In the configuration of another class, it is for the task."""
        return bool(self.topics) or self.hears is True or self.base == "MessageTask"


def messages_of(location: Path, instance: str) -> TaskMessages:
    """Return the messages of the task class of a service in this directory."""
    try:
        return _messages_of(ClassSource(location), instance)
    except RecursionError:
        return TaskMessages()  # no person writes such code


def _messages_of(source: ClassSource, instance: str) -> TaskMessages:
    service = source.find(f"{instance}.Service{instance}.Service{instance}")
    task = service and source.attribute(service, "task_class")
    if not task or not isinstance(task.node, ast.ClassDef):
        return TaskMessages()
    base = _base(source, task)
    overrides = _overrides(source, task, "on_message")
    return TaskMessages(
        base=base,
        # A base that is not found may have what this class lacks.
        hears=True if overrides else False if base else None,
        topics=_topics(source, task, "topics", () if base else None),
        publishes=_topics(source, task, "publishes", None),
    )


def _bases(source: ClassSource, found: Named) -> list[tuple[Named | None, str]]:
    """Return each base of a class with its full name."""
    if not isinstance(found.node, ast.ClassDef):
        return []
    bases = [each.value if isinstance(each, ast.Subscript) else each for each in found.node.bases]
    return [(source.resolve(found.module, each), source.full_name(found.module, each)) for each in bases]


def _base(source: ClassSource, found: Named, depth: int = 0) -> str | None:
    """Return the class of zmsvc.task from which a class is derived; None if a base is unknown."""
    known = None
    for base, full in _bases(source, found):
        package, _, name = full.rpartition(".")
        of_base = name if package in ("zmsvc.task", "zmsvc.task.sdk") and name in _BASES else None
        if of_base is None and base is not None and depth < MAX_DEPTH:
            of_base = _base(source, base, depth + 1)
        if of_base is None:
            return None
        known = known or of_base
    return known


def _overrides(source: ClassSource, found: Named, method: str, depth: int = 0) -> bool:
    if not isinstance(found.node, ast.ClassDef) or depth > MAX_DEPTH:
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(each, functions) and each.name == method for each in found.node.body) or any(
        _overrides(source, base, method, depth + 1) for base, _ in _bases(source, found) if base
    )


def _topics(
    source: ClassSource, task: Named, name: str, default: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Return the topics of an attribute; `default` if the class lacks it, None if they are unknown."""
    found = source.attribute(task, name)
    if found is None:
        return default
    values = _constants(source, found)
    return None if values is None or topics.faults(values) else topics.unique(values)


def _constants(source: ClassSource, found: Named) -> list[str] | None:
    node = found.node
    items = node.elts if isinstance(node, ast.Tuple | ast.List) else [node]
    values = []
    for each in items:
        constant = source.resolve(found.module, each)
        if constant is None or not isinstance(constant.node, ast.Constant):
            return None
        if not isinstance(constant.node.value, str):
            return None
        values.append(constant.node.value)
    return values
