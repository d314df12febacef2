"""Adds services to a context file that is there: what a person has written in it stays, byte for byte.
Nothing is written here.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.parsers import expat

from lxml import etree

from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.ctl.create import templates, xml_file
from zmsvc.ctl.create.plan import Plan, Service
from zmsvc.host.config import xml_text

_CONFIGURATION = "Task/message/content/configuration"


def known_ids(path: Path | None) -> frozenset[str]:
    """The ids of the tasks of a context file; none where there is no file or it cannot be read, which is
    said elsewhere.
    """
    if path is None or not path.exists():
        return frozenset()
    try:
        return frozenset(_tasks(xml_file.parse(xml_file.read(path), path, "Context").root))
    except ZmsvcError:
        return frozenset()


def missing(data: bytes, plan: Plan) -> list[Service]:
    """The services of the plan that the file lacks. Raises ConfigError where it has one that differs, or
    other endpoints.
    """
    document = xml_file.parse(data, plan.context_file, "Context")
    faults = list(_other_context(document, plan))
    tasks = _tasks(document.root)
    for service in plan.services:
        if service.task_id in tasks:
            faults += _differences(document, tasks[service.task_id], service)
    if faults:
        raise ConfigError(faults)
    return [service for service in plan.services if service.task_id not in tasks]


def merged(data: bytes, services: Sequence[Service], path: Path) -> bytes:
    """The file with the services' elements put in before `</Context>`, and nothing else changed."""
    encoding = _encoding(data, path)
    newline = "\r\n" if b"\r\n" in data else "\n"
    # A blank line before each, as between those of a new file: whether services come at once or one by one is
    # all the same.
    text = "".join("\n" + templates.task_service_text(service) for service in services).replace("\n", newline)
    at = _end_tag(data, path)
    line = data.rfind(b"\n", 0, at) + 1
    if not data[line:at].strip():
        # The closing tag stands on a line of its own: keep its indentation with it.
        at = line
    else:
        text = newline + text
    return data[:at] + text.encode(encoding, "xmlcharrefreplace") + data[at:]


def _tasks(root: etree._Element) -> dict[str, etree._Element]:
    return {str(task.get("id", "")).strip(): task for task in root.iterchildren("TaskService")}


def _other_context(document: xml_file.Document, plan: Plan) -> Iterator[str]:
    """What the file says of the context and the plan says otherwise."""
    asked = {"FrontEndEndpoint": plan.frontend, "BackendEndpoint": plan.backend} if plan.host else {}
    if plan.context_id:
        asked["ContextID"] = plan.context_id
    for name, want in asked.items():
        found = document.root.find(name)
        have = "" if found is None else xml_text.leaf(found)
        if have != want:
            said = f"is {have!r}" if have else "is missing"
            place = document.at(document.root if found is None else found)
            yield (
                f"{place}: {name} {said}, expected {want!r}, which is asked for (server_ip, ports, "
                f"context_id): "
                "all services of a context share it; ask for the same, or take another context_name"
            )


def _differences(document: xml_file.Document, element: etree._Element, service: Service) -> Iterator[str]:
    """Where a task that is there is not what is asked for. What was left out, and what a person has added,
    is no difference.
    """
    asked: dict[str, tuple[str | None, str]] = {
        "instance": (element.get("instance"), service.task_service),
        "topic": (element.get("topic", "process"), service.task_topic),
        "description": (_text(element, "Task/description"), service.task_desc),
        "service_name": (_text(element, "Task/message/header/service_name"), service.service_name),
        "device_action": (_text(element, f"{_CONFIGURATION}/device_action"), service.device_action),
    }
    location = _text(element, f"{_CONFIGURATION}/location")
    if location:
        asked["location"] = (
            os.path.normpath(Path(document.path).parent.absolute() / location),
            service.location,
        )
    state = element.find("Task/state")
    if service.entry_action:
        asked["state type"] = (state.get("type") if state is not None else None, service.entry_action)
    for rule in service.rules:
        have = (
            f"{_text(element, f'Task/state/{rule.trigger}/action')} "
            f"{_text(element, f'Task/state/{rule.trigger}/call')}"
        )
        asked[str(rule.trigger)] = (have, f"{rule.action} {rule.call}")
    for name, (is_there, want) in asked.items():
        if " ".join((is_there or "").split()) != " ".join(want.split()):
            yield (
                f"{document.at(element)}: {service.task_id} is there with {name} {(is_there or '')!r}, "
                f"expected {want!r}, which is asked for: edit the file, or take another task_id"
            )


def _text(element: etree._Element, path: str) -> str:
    found = element.find(path)
    return "" if found is None else xml_text.leaf(found)


def _encoding(data: bytes, path: Path) -> str:
    found = xml_file.parse(data, path, "Context").root.getroottree().docinfo.encoding or "UTF-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found = "UTF-16"  # libxml2 says UTF-8 where only the first two bytes tell.
    try:
        fits = "<Context>".encode(found) == b"<Context>"
    except LookupError:
        fits = False
    if not fits:
        raise ConfigError(
            [f"{path}:1: the encoding is {found}, expected UTF-8 to add services: convert the file"]
        )
    return found


def _end_tag(data: bytes, path: Path) -> int:
    """Where `</Context>` begins. A search of the text could find one in a comment; expat knows."""
    depth, end = 0, -1
    parser = expat.ParserCreate()

    def opened(name: str, attributes: object) -> None:
        nonlocal depth
        depth += 1

    def closed(name: str) -> None:
        nonlocal depth, end
        depth -= 1
        if depth == 0:
            end = parser.CurrentByteIndex

    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ConfigError(
            [f"{path}:{error.lineno}: {expat.ErrorString(error.code)}, expected well-formed XML"]
        ) from error
    if not data.startswith(b"</", end):
        raise ConfigError([f"{path}:1: <Context/> has no closing tag, expected <Context> and </Context>"])
    return end
