"""Make the tasks of a context from those of its file: a task with `<replicas>` becomes several. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from zmsvc.core.model import Rule, TaskDefinition
from zmsvc.core.replicas import MARK


def expand(written: Iterable[TaskDefinition]) -> dict[str, TaskDefinition]:
    """Return the tasks of a context by ID, in the order of the file.

    A rule that calls a task with replicas calls all of them, and a task that comes after it comes after all
    of them. But a rule of a task that calls this task itself calls only the replica for which it fires: the
    others have not failed.
    """
    tasks = {task.id: task for task in written}
    replicas = {
        name: tuple(f"{name}{MARK}{at}" for at in range(1, task.replicas + 1))
        for name, task in tasks.items()
        if task.replicas is not None
    }
    if not replicas:
        return tasks
    found: dict[str, TaskDefinition] = {}
    for name, task in ((each.id, _after_each(each, replicas)) for each in tasks.values()):
        rules = tuple(each for rule in task.rules for each in _rules(rule, name, replicas))
        if name in replicas:
            found |= {own: _replica(task, own, rules) for own in replicas[name]}
        else:
            found[name] = replace(task, rules=rules)
    return found


def _rules(rule: Rule, own: str, replicas: Mapping[str, tuple[str, ...]]) -> Iterable[Rule]:
    if rule.call == own or rule.call not in replicas:
        return (rule,)
    return (replace(rule, call=call) for call in replicas[rule.call])


def _after_each(task: TaskDefinition, replicas: Mapping[str, tuple[str, ...]]) -> TaskDefinition:
    """Return a task that comes after each replica of the tasks that it names."""
    if not replicas.keys() & {*task.predecessors}:
        return task
    after, requires = (
        tuple(each for name in names for each in replicas.get(name, (name,)))
        for names in (task.after, task.requires)
    )
    return replace(task, after=after, requires=requires)


def _replica(task: TaskDefinition, own: str, rules: tuple[Rule, ...]) -> TaskDefinition:
    """Return a replica. Nothing in it says how many there are, so a reload that changes their number leaves
    the others as they are.
    """
    if any(rule.call == task.id for rule in rules):
        rules = tuple(replace(rule, call=own) if rule.call == task.id else rule for rule in rules)
    return replace(task, id=own, rules=rules, replicas=None, source=_source(task.source, own))


def _source(written: Mapping[str, Any], own: str) -> Mapping[str, Any]:
    """Return the element of a replica as it goes on the wire: that of a task with this ID."""
    source = {**written, "id": own}
    task = source.get("Task")
    service = task.get("service") if isinstance(task, Mapping) else None
    if isinstance(task, Mapping) and isinstance(service, Mapping):
        others = {name: value for name, value in service.items() if name != "replicas"}
        source["Task"] = {**task, "service": others or ""}
    return source
