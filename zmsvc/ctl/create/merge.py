"""Add services to an existing context file. All other text stays, byte for byte. This module
writes no file.
"""

from __future__ import annotations

import codecs
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.parsers import expat

from lxml import etree

from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.ctl.create import templates, xml_file
from zmsvc.ctl.create.plan import Plan, Service
from zmsvc.host.config import xml_text
from zmsvc.host.config.file_bytes import parts_directory

_CONFIGURATION = "Task/message/content/configuration"


def known_ids(path: Path | None) -> frozenset[str]:
    """Return the ids of the tasks of a context file and of the files in its directory. A file that does not
    exist or cannot be read has none; that is reported elsewhere.
    """
    files = [] if path is None else [path, *_parts(path)]
    return frozenset(task for file in files if file.exists() for task in _tasks_of(file))


def _parts(path: Path) -> list[Path]:
    return sorted(parts_directory(path).glob("[!.]*.xml"))


def _tasks_of(file: Path) -> dict[str, str]:
    """Return the place of each task of a file by its id; none if the file cannot be read."""
    try:
        document = xml_file.parse(xml_file.read(file), file, "Context")
    except ZmsvcError:
        return {}
    return {task: document.at(element) for task, element in _tasks(document.root).items()}


def missing(data: bytes, plan: Plan) -> list[Service]:
    """Return the services of the plan that the file lacks. Raises ConfigError if the file has a different one
    of the same id, or other endpoints.
    """
    document = xml_file.parse(data, plan.context_file, "Context")
    faults = list(_other_context(document, plan))
    tasks = _tasks(document.root)
    added = {task: place for part in _parts(plan.context_file) for task, place in _tasks_of(part).items()}
    for service in plan.services:
        if service.task_id in tasks:
            faults += _differences(document, tasks[service.task_id], service)
        elif service.task_id in added:
            faults.append(
                f"{added[service.task_id]}: {service.task_id} is there, expected no task of this id: take "
                f"another task_id"
            )
    if faults:
        raise ConfigError(faults)
    return [service for service in plan.services if service.task_id not in tasks]


def merged(data: bytes, services: Sequence[Service], path: Path) -> bytes:
    """Return the file with the services' elements inserted before `</Context>`, and otherwise unchanged."""
    encoding = _encoding(data, path)
    newline = "\r\n" if b"\r\n" in data else "\n"
    # Write a blank line before each service, as in a new file. So the result is the same if services are
    # added together or one by one.
    text = "".join("\n" + templates.task_service_text(service) for service in services).replace("\n", newline)
    at = _end_tag(data, path)
    line = data.rfind(b"\n", 0, at) + 1
    if not data[line:at].strip():
        # The closing tag is alone on its line: keep its indentation with it.
        at = line
    else:
        text = newline + text
    return data[:at] + text.encode(encoding, "xmlcharrefreplace") + data[at:]


def _tasks(root: etree._Element) -> dict[str, etree._Element]:
    return {str(task.get("id", "")).strip(): task for task in root.iterchildren("TaskService")}


def _other_context(document: xml_file.Document, plan: Plan) -> Iterator[str]:
    """Yield a fault for each value of the context that differs between file and plan."""
    wanted = (
        {"FrontEndEndpoint": plan.subscribe_endpoint, "BackendEndpoint": plan.publish_endpoint}
        if plan.host
        else {}
    )
    if plan.context_id:
        wanted["ContextID"] = plan.context_id
    for name, want in wanted.items():
        found = document.root.find(name)
        have = "" if found is None else xml_text.leaf(found)
        if have != want:
            found_text = f"is {have!r}" if have else "is missing"
            place = document.at(document.root if found is None else found)
            yield (
                f"{place}: {name} {found_text}, expected {want!r}, which is asked for (server_ip, ports, "
                f"context_id): "
                "all services of a context share it; ask for the same, or take another context_name"
            )


def _differences(document: xml_file.Document, element: etree._Element, service: Service) -> Iterator[str]:
    """Yield a fault for each field of an existing task that differs from the plan. Fields that the plan
    leaves out, and those that a person has added, do not count.
    """
    wanted: dict[str, tuple[str | None, str]] = {
        "instance": (element.get("instance"), service.task_service),
        "topic": (element.get("topic", "process"), service.task_topic),
        "description": (xml_text.text_of(element.find("Task/description")), service.task_desc),
        "service_name": (
            xml_text.text_of(element.find("Task/message/header/service_name")),
            service.service_name,
        ),
        "device_action": (
            xml_text.text_of(element.find(f"{_CONFIGURATION}/device_action")),
            service.device_action,
        ),
    }
    command = element.find(f"{_CONFIGURATION}/command")
    if service.command or command is not None:
        wanted["command"] = (_command(command), service.command)
    if service.restart:
        wanted["restart"] = (_restart(element, service.task_id), service.restart)
    location = xml_text.text_of(element.find(f"{_CONFIGURATION}/location"))
    if location and not service.command:
        wanted["location"] = (
            os.path.normpath(Path(document.path).parent.absolute() / location),
            service.location,
        )
    state = element.find("Task/state")
    if service.entry_action:
        wanted["state type"] = (state.get("type") if state is not None else None, service.entry_action)
    for rule in service.rules:
        have = (
            f"{xml_text.text_of(element.find(f'Task/state/{rule.trigger}/action'))} "
            f"{xml_text.text_of(element.find(f'Task/state/{rule.trigger}/call'))}"
        )
        wanted[str(rule.trigger)] = (have, f"{rule.action} {rule.call}")
    for name, (present, want) in wanted.items():
        if " ".join((present or "").split()) != " ".join(want.split()):
            yield (
                f"{document.at(element)}: {service.task_id} is there with {name} {(present or '')!r}, "
                f"expected {want!r}, which is asked for: edit the file, or take another task_id"
            )


def _command(element: etree._Element | None) -> str:
    """Return the text of a `<command>`, or its arguments as such a text."""
    if element is None:
        return ""
    arguments = [xml_text.value(argument) for argument in element.iterchildren("arg")]
    return shlex.join(arguments) if arguments else xml_text.leaf(element)


def _restart(element: etree._Element, task: str) -> str:
    """Return the value of the option `restart` that a task has, or to which its rule amounts."""
    own = any(
        xml_text.text_of(rule.find("call")) == task and not {"when", "after"} & {*map(str, rule.attrib)}
        for rule in element.iterfind("Task/state/on_fail")
    )
    default = "on-failure" if own else "no"
    return xml_text.text_of(element.find("Task/service/restart")) or default


def _encoding(data: bytes, path: Path) -> str:
    found = xml_file.parse(data, path, "Context").root.getroottree().docinfo.encoding or "UTF-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found = "UTF-16"  # libxml2 reports UTF-8 if only the byte order mark shows the encoding.
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
    """Return the position of `</Context>`, by a parser: a text search could find one in a comment."""
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
