"""The topics that the watcher process watches for Commands, whose programs do not report on themselves: those
of `<ready topic="...">` and `<expect>`. Pure.

A task in Python reports its own first message and its own silence (task/expected_topics.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from zmsvc.core import effects as fx
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.model import TaskDefinition
from zmsvc.core.probing import topic_of
from zmsvc.core.service_options import ServiceType
from zmsvc.core.task_key import Key
from zmsvc.core.world import Task


def watch_of(service: TaskDefinition | None, key: Key, task: Task | None) -> fx.WatchTopics | None:
    """Return what is to be watched for a task in its sub-state; None if that is nothing.

    The watch for the first message begins with the order to fork: the device has the subscription, as a rule,
    before the program can publish.
    """
    if task is None or service is None or service.service_type is not ServiceType.COMMAND:
        return None
    topic = topic_of(service.ready)
    if topic and task.sub_state in (SubState.LAUNCHING, SubState.START):
        return fx.WatchTopics(launch=task.launch, key=key, ready=topic, has_process=task.pid is not None)
    if service.expect and task.state is State.ACTIVE:
        return fx.WatchTopics(launch=task.launch, key=key, has_process=True, expect=service.expect)
    return None


def changes(before: fx.WatchTopics | None, after: fx.WatchTopics | None) -> Iterator[fx.WatchTopics]:
    """Yield the orders that lead from one watch of a task to the next one."""
    if before is not None and (after is None or after.launch != before.launch):
        yield fx.WatchTopics(launch=before.launch, key=before.key)
    if after is not None and after != before:
        yield after
