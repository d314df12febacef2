"""Renders the files of `create`: a Plan becomes texts, by the templates in data/templates. This module writes
no file.
"""

from __future__ import annotations

import json
import keyword
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from zmsvc.core.model import Trigger
from zmsvc.ctl.create.fields import CONTEXT_ID
from zmsvc.ctl.create.plan import Plan, Service

_TEMPLATES = Path(__file__).parents[2] / "data" / "templates"
_RESERVED_ITEMS = {"self", "steps", "result", "device_action", "pid", "data"}
"""Names that a result of a generated task cannot have: the message or the template already uses them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedFile:
    """A file and its text."""

    path: Path
    text: str


def service_files(plan: Plan) -> Iterator[RenderedFile]:
    """Yield the Python modules of each service: package, service side, task."""
    for service in {each.task_service: each for each in plan.services}.values():
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
        task = "single" if service.single else "looped"
        yield RenderedFile(path=directory / "__init__.py", text=_filled("init.py", values))
        yield RenderedFile(
            path=directory / f"Service{service.task_service}.py", text=_filled("service.py", values)
        )
        yield RenderedFile(path=directory / f"{service.task_file}.py", text=_filled(f"{task}.py", values))


def context_text(plan: Plan) -> str:
    """Return the text of a new context file with the services of the plan."""
    values = {
        "endpoints": _endpoints(plan),
        "context_id": _xml(plan.context_id or CONTEXT_ID),
        "context_name": _xml(plan.context_name),
        "task_services": "\n".join(task_service_text(service) for service in plan.services),
    }
    return _filled("Context.xml", values)


def _endpoints(plan: Plan) -> str:
    if not plan.host:
        return _filled("no_endpoints.xml", {})
    return _filled(
        "endpoints.xml", {"frontend": _xml(plan.subscribe_endpoint), "backend": _xml(plan.publish_endpoint)}
    )


def task_service_text(service: Service) -> str:
    """Return the TaskService element of a service, indented as a child of Context, with a line end."""
    rules = {rule.trigger: rule for rule in service.rules}
    values = {
        "task_id": service.task_id,
        "task_topic": service.task_topic,
        "task_service": service.task_service,
        "description": _xml(service.task_desc),
        "service_name": _xml(service.service_name),
        "device_action": _xml(service.device_action),
        "location": _xml(service.location),
        "entry_action": service.entry_action or Trigger.ON_START,
    }
    for trigger in Trigger:
        rule = rules.get(trigger)
        values[f"{trigger}_action"] = rule.action if rule else ""
        values[f"{trigger}_call"] = _xml(rule.call) if rule else ""
    return _filled("TaskService.xml", values)


def _filled(template: str, values: dict[str, str]) -> str:
    return Template((_TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")).substitute(values)


def _xml(text: str) -> str:
    # An XML parser would read a bare carriage return as a line feed.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


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
