"""The topics that tasks name by their classes and by `<subscribe>`: list them, and find faults, without
running a class.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zmsvc.core import topics
from zmsvc.core.model import Context, TaskDefinition
from zmsvc.core.probing import topic_of
from zmsvc.core.service_options import ServiceType
from zmsvc.core.settings import Place
from zmsvc.core.wiring import Declared
from zmsvc.host.config import settings_lines
from zmsvc.host.config.message_source import TaskMessages, messages_of
from zmsvc.host.paths import directory_of

_OF_COMMAND = TaskMessages(hears=True, topics=())
_OF_LAST_VALUE = TaskMessages(hears=True, topics=(), publishes=())


def messages_of_tasks(context: Context) -> dict[str, TaskMessages]:
    """Return the messages of each task, by its ID in the file. A Command has no class that names topics."""
    found: dict[tuple[Path | None, str], TaskMessages] = {}
    result = {}
    for task in context.as_written.values():
        if task.service_type is ServiceType.COMMAND:
            result[task.id] = _OF_COMMAND
            continue
        if task.retains:
            result[task.id] = _OF_LAST_VALUE
            continue
        key = directory_of(task.location, task.instance), task.instance
        if key not in found:
            found[key] = TaskMessages() if key[0] is None else messages_of(key[0], task.instance)
        result[task.id] = found[key]
    return result


def declared(context: Context) -> dict[str, Declared]:
    """Return the topics that tasks name by their classes, configurations and options, by their IDs in the
    file. Commands have no class.
    """
    of_classes = messages_of_tasks(context)
    return {
        task.id: Declared(hears=_hears(task, known), publishes=known.publishes, expected=_expected(task))
        for task in context.as_written.values()
        for known in (of_classes.get(task.id, TaskMessages()),)
    }


def _expected(task: TaskDefinition) -> tuple[str, ...]:
    ready = topic_of(task.ready)
    return topics.unique([*(each.topic for each in task.expect), *([ready] if ready else [])])


def _hears(task: TaskDefinition, known: TaskMessages) -> tuple[str, ...]:
    # A LoopedTask without on_message has no other way to hear.
    if not known.reads_subscribe or (known.base == "LoopedTask" and not known.hears):
        return ()
    if task.configuration.get("subscribe"):
        return topics.subscribed(task.configuration)
    return () if topics.faults(known.topics or ()) else topics.unique(list(known.topics or ()))


def check_subscriptions(context: Context, file: str) -> list[str]:
    """Return each `<subscribe>` with which a task would not start, as `FILE:LINE: TASK: what is wrong, what
    was expected`. `file` is the path of the context file for messages.
    """
    of_tasks = messages_of_tasks(context)
    found = [
        (task.id, *fault)
        for task in context.as_written.values()
        if task.id in of_tasks
        for fault in _faults(task, of_tasks[task.id])
    ]
    lines = settings_lines.of_context(context.text, file, context.parts) if found else []
    return [
        f"{prefix}{task_id}: {text}"
        for task_id, place, text in found
        for prefix in [each.prefix(task_id, place) for each in lines if each.has(task_id)][:1]
    ]


def _faults(task: TaskDefinition, known: TaskMessages) -> Iterator[tuple[Place, str]]:
    if not known.reads_subscribe:
        return
    given = task.configuration.get("subscribe")
    if given is not None and given != "":
        for number, fault in topics.faults(given):
            yield (("subscribe", number),), f"<subscribe>: {fault}, {topics.EXPECTED}"
    elif known.base == "MessageTask" and (given == "" or known.topics == ()):
        place: Place = () if given is None else (("subscribe", 0),)
        yield place, "the task lives on messages and has no topics, expected <subscribe> with one"
