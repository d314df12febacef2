"""Check the configurations of tasks against the settings classes of their services, without running them."""

from __future__ import annotations

from pathlib import Path

from zmsvc.core import settings
from zmsvc.core.model import Context
from zmsvc.core.service_options import ServiceType
from zmsvc.core.settings import Structure
from zmsvc.host.config import settings_lines, settings_source
from zmsvc.host.paths import directory_of


def check_settings(context: Context, file: str) -> list[str]:
    """Return each value that the settings class of a task refuses, as `FILE:LINE: TASK: what is wrong, what
    was expected`. `file` is the path of the context file for messages.
    """
    shapes: dict[tuple[Path | None, str], Structure | None] = {}
    found = []
    for task in context.as_written.values():
        if task.service_type is ServiceType.COMMAND:
            continue
        key = directory_of(task.location, task.instance), task.instance
        if key not in shapes:
            shapes[key] = None if key[0] is None else settings_source.settings_of(key[0], task.instance)
        shape = shapes[key]
        if shape is not None:
            _, faults = settings.convert(shape, task.configuration)
            found += [(task.id, each) for each in faults]
    lines = settings_lines.of_context(context.text, file, context.parts) if found else []
    return [
        f"{prefix}{task_id}: {fault.text}"
        for task_id, fault in found
        for prefix in [each.prefix(task_id, fault.place) for each in lines if each.has(task_id)][:1]
    ]
