"""The places of tasks and rules in the files of a context, for messages about a context that was read before.
Faults of these files are found elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from zmsvc.core.frozen import frozen
from zmsvc.core.model import TRIGGERS_OF_TASK, Context, Rule, Trigger
from zmsvc.core.replicas import base
from zmsvc.core.values import WHITE
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.task_service import read_rules
from zmsvc.host.config.xml_text import lines, tree

if TYPE_CHECKING:
    from lxml import etree


@frozen
class RulePlaces:
    """Files and lines of the tasks and rules of a context."""

    tasks: Mapping[str, tuple[str, int]]
    rules: Mapping[tuple[str, Rule], tuple[str, int]]
    """By the ID of the task in the file, which is empty for a rule of the context, and the rule."""

    def of(self, task: str, rule: Rule | None = None) -> str:
        """Return `FILE:LINE` of a rule; of its task if an option of the task stands for the rule."""
        name = base(task)
        found = self.tasks.get(name, ("", 0))
        if rule is not None:
            found = self.rules.get((name, replace(rule, call=base(rule.call))), found)
        return f"{found[0]}:{found[1]}"


def places_of(context: Context, file: str) -> RulePlaces:
    """Return the places in the files of a context. `file` is the context file as messages name it."""
    tasks: dict[str, tuple[str, int]] = {}
    rules: dict[tuple[str, Rule], tuple[str, int]] = {}
    for path, text in ((file, context.text), *((part.path, part.text) for part in context.parts)):
        root = tree(text, path)
        line = lines(text, root)
        for element in root.findall("TaskService"):
            tasks[_id(element)] = path, line[element]
        for name, rule, element in _rules(root):
            rules.setdefault((name, rule), (path, line[element]))
    return RulePlaces(tasks=tasks, rules=rules)


def _rules(root: etree._Element) -> Iterator[tuple[str, Rule, etree._Element]]:
    notes = FaultList()
    for rule, element in read_rules(root, (Trigger.ON_ANY_FAIL,), notes):
        yield "", rule, element
    for task in root.findall("TaskService"):
        for rule, element in read_rules(task.find("Task/state"), TRIGGERS_OF_TASK, notes):
            yield _id(task), rule, element


def _id(task: etree._Element) -> str:
    return str(task.get("id")).strip(WHITE)
