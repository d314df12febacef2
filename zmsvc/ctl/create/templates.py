"""Render the files of `create`: a Plan becomes texts, by the templates in data/templates. This module writes
no file.
"""

from __future__ import annotations

import json
import keyword
import textwrap
from collections.abc import Iterator
from pathlib import Path

from zmsvc.core.frozen import frozen
from zmsvc.core.model import FIRST_TRIGGERS, Action, Rule, Trigger
from zmsvc.ctl.create import command_task
from zmsvc.ctl.create.command_task import CommandTask
from zmsvc.ctl.create.fields import CONTEXT_ID
from zmsvc.ctl.create.plan import Plan, Service
from zmsvc.ctl.create.template_files import filled, xml

_RESERVED_ITEMS = {"self", "steps", "result", "device_action", "pid", "data"}
"""Names that a result of a generated task cannot have: the message or the template already uses them."""


@frozen
class RenderedFile:
    """A file and its text."""

    path: Path
    text: str


def service_files(plan: Plan) -> Iterator[RenderedFile]:
    """Yield the Python modules of each service: package, service side, task."""
    for service in {each.task_service: each for each in plan.services if not each.command}.values():
        directory = plan.services_dir / service.task_service
        values = {
            "task_service": service.task_service,
            "task_file": service.task_file,
            "task_class": service.task_class,
            "summary": _docstring(service.task_desc, indent=0, taken=len(service.task_service) + 5),
            "description": _docstring(service.task_desc, indent=4, taken=3),
            "service_name": json.dumps(service.service_name, ensure_ascii=False),
            "item": _item(service.device_action),
        }
        yield RenderedFile(path=directory / "__init__.py", text=filled("init.py", values))
        yield RenderedFile(
            path=directory / f"Service{service.task_service}.py", text=filled("service.py", values)
        )
        yield RenderedFile(
            path=directory / f"{service.task_file}.py", text=filled(f"{service.kind}.py", values)
        )


def context_text(plan: Plan) -> str:
    """Return the text of a new context file with the services of the plan."""
    values = {
        "endpoints": _endpoints(plan),
        "context_id": xml(plan.context_id or CONTEXT_ID),
        "context_name": xml(plan.context_name),
        "task_services": "\n".join(task_service_text(service) for service in plan.services),
    }
    return filled("Context.xml", values)


def _endpoints(plan: Plan) -> str:
    if not plan.host:
        return filled("no_endpoints.xml", {})
    return filled(
        "endpoints.xml", {"frontend": xml(plan.subscribe_endpoint), "backend": xml(plan.publish_endpoint)}
    )


def task_service_text(service: Service) -> str:
    """Return the TaskService element of a service, indented as a child of Context, with a line end."""
    if service.command:
        return command_task.text(
            CommandTask(
                id=service.task_id,
                instance=service.task_service,
                topic=service.task_topic,
                description=service.task_desc,
                service_name=service.service_name,
                device_action=service.device_action,
                command=service.command,
                entry_action=service.entry_action or Trigger.ON_START,
                restart=service.restart or "on-failure",
            )
        )
    rules = {rule.trigger: rule for rule in service.rules}
    if service.restart == "on-failure":
        rules.setdefault(
            Trigger.ON_FAIL, Rule(trigger=Trigger.ON_FAIL, action=Action.RESTART, call=service.task_id)
        )
    values = {
        "task_id": service.task_id,
        "task_topic": service.task_topic,
        "task_service": service.task_service,
        "description": xml(service.task_desc),
        "service_name": xml(service.service_name),
        "device_action": xml(service.device_action),
        "location": xml(service.location),
        "entry_action": service.entry_action or Trigger.ON_START,
        "service": command_task.options_text((("restart", "always"),) if service.restart == "always" else ()),
    }
    for trigger in FIRST_TRIGGERS:
        rule = rules.get(trigger)
        values[f"{trigger}_action"] = rule.action if rule else ""
        values[f"{trigger}_call"] = xml(rule.call) if rule else ""
    return filled("TaskService.xml", values)


def _docstring(text: str, *, indent: int, taken: int) -> str:
    """Return a text for use in a docstring: wrapped, with quotes and backslashes escaped."""
    words = " ".join(text.split())
    sentence = words if words.endswith((".", "!", "?", ":", "…")) else f"{words}."
    lines = textwrap.wrap(
        sentence,
        100,
        initial_indent=" " * taken,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    safe = "\n".join(lines).strip().replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return safe.replace("\n", "\n" + " " * indent)


def _item(device_action: str) -> str:
    """Return the name of a generated task's result."""
    fits = device_action.isascii() and device_action.isidentifier() and not keyword.iskeyword(device_action)
    return device_action if fits and device_action not in _RESERVED_ITEMS else "at"
