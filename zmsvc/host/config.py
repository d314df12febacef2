"""Context files: XML in, `core.model` out. Every fault of a file is found in one pass and told as `FILE:LINE: what is wrong, what was expected`.

Entities, DTDs and the network are off. What zmicroservices users have today loads unchanged; a task's `<configuration>` is its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from lxml import etree

from zmsvc.core import values
from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Action, Context, Endpoints, Limits, Rule, ServiceType, TaskService, Trigger
from zmsvc.core.values import Endpoint, quote
from zmsvc.host import accounts

MAX_SIZE = 16 << 20
"""Bytes of a context file."""

Element = etree._Element
Value = TypeVar("Value")

_CONTEXT = ("FrontEndEndpoint", "BackendEndpoint", "FrontBind", "BackendBind", "ContextID", "TaskLogName", "TaskService")
_TASK = ("description", "message", "state", "service")
_SPANS = ("start_timeout", "stop_timeout", "watchdog", "restart_delay", "restart_max_delay", "start_limit_interval")
_SERVICE = (*_SPANS, "start_limit_burst", "user", "group", "nice", "environment", "limits")
_ENTRY = ("on_start", "start_now")
RLIMITS = ("as", "core", "cpu", "data", "fsize", "memlock", "nofile", "nproc", "rss", "stack")


def load(path: str | Path, *, name: str | None = None) -> Context:
    """The context of a file. Raises ConfigError with all faults; one that cannot be read is a fault, too."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot read the file: {error.strerror}"]) from error
    return parse(text, path=str(path), name=name or path.stem.removeprefix("Context-"))


def parse(text: bytes, *, path: str, name: str) -> Context:
    """The context of a file's text. `path` is what faults name, and relative locations start at its directory."""
    root = read_xml(text, path)
    return _Reader(path, name).context(root)


def read_xml(text: bytes, path: str) -> Element:
    """The root of an XML file from anyone, hardened. Raises ConfigError."""
    if len(text) > MAX_SIZE:
        raise ConfigError([f"{path}: the file has {len(text)} bytes, expected at most {MAX_SIZE}"])
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(text, parser)
    except etree.XMLSyntaxError as error:
        faults = {f"{path}:{entry.line}: {entry.message}, expected well-formed XML" for entry in error.error_log}
        raise ConfigError(sorted(faults) or [f"{path}:1: the file is empty, expected a <Context>"]) from error
    except ValueError as error:
        raise ConfigError([f"{path}:1: {error}"]) from error
    if root.getroottree().docinfo.doctype:
        raise ConfigError([f"{path}:1: a DOCTYPE is not allowed, expected plain XML"])
    return root


def to_json(element: Element) -> Any:
    """An element as the old protocol writes it in JSON: attributes become keys, repeated children lists, leaves strings."""
    children = [child for child in element if isinstance(child.tag, str)]
    if not children and not element.attrib:
        return (element.text or "").strip()
    made: dict[str, Any] = {}
    pairs: list[tuple[str, Any]] = [(str(key), value) for key, value in element.attrib.items()]
    pairs += [(str(child.tag), to_json(child)) for child in children]
    if not children and (text := (element.text or "").strip()):
        pairs.append(("text", text))
    for key, value in pairs:
        if key not in made:
            made[key] = value
        elif isinstance(made[key], _Repeated):
            made[key].append(value)
        else:
            made[key] = _Repeated([made[key], value])
    return {key: list(value) if isinstance(value, _Repeated) else value for key, value in made.items()}


class _Repeated(list[Any]):
    """The values of a repeated child, told apart from a value that is a list."""


class _Reader:
    """Reads one file and gathers its faults."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name
        self._faults: list[tuple[int, str]] = []

    def fault(self, where: Element, text: str) -> None:
        self._faults.append((int(where.sourceline or 1), text))

    def _try(self, where: Element, read: Callable[[], Value], default: Value) -> Value:
        try:
            return read()
        except ValueError as error:
            self.fault(where, f"<{where.tag}>: {error}")
            return default

    # --- shapes

    def _children(self, parent: Element, allowed: Iterable[str]) -> Iterator[Element]:
        allowed = tuple(allowed)
        for child in parent:
            if not isinstance(child.tag, str):
                continue
            if child.tag in allowed:
                yield child
            else:
                self.fault(child, f"<{child.tag}> in <{parent.tag}> is not known, expected {', '.join(f'<{tag}>' for tag in allowed)}")

    def _one(self, parent: Element, tag: str, *, needed: bool = False) -> Element | None:
        found = parent.findall(tag)
        for extra in found[1:]:
            self.fault(extra, f"a second <{tag}> in <{parent.tag}>, expected one")
        if not found and needed:
            self.fault(parent, f"no <{tag}> in <{parent.tag}>, expected one")
        return found[0] if found else None

    def _text(self, parent: Element, tag: str, default: str = "") -> str:
        child = self._one(parent, tag)
        return (child.text or "").strip() or default if child is not None else default

    # --- the context

    def context(self, root: Element) -> Context:
        if root.tag != "Context":
            raise ConfigError([f"{self._path}:{root.sourceline}: the root is <{root.tag}>, expected <Context>"])
        list(self._children(root, _CONTEXT))
        endpoints = self._endpoints(root)
        tasks: dict[str, TaskService] = {}
        elements: dict[str, Element] = {}
        for element in root.findall("TaskService"):
            service = self._service(element)
            if service is None:
                continue
            if service.id in tasks:
                self.fault(element, f"task id {quote(service.id)} is used twice (first in line {elements[service.id].sourceline})")
            tasks[service.id], elements[service.id] = service, element
        if not root.findall("TaskService"):
            self.fault(root, "no <TaskService> in <Context>, expected at least one")
        self._check_rules(tasks, elements)
        if self._faults:
            raise ConfigError([f"{self._path}:{line}: {text}" for line, text in sorted(self._faults)])
        return Context(
            name=self._name,
            id=self._text(root, "ContextID", "context001"),
            log_name=self._text(root, "TaskLogName", self._name),
            endpoints=endpoints,
            tasks=MappingProxyType(tasks),
            path=self._path,
            source=to_json(root),
        )

    def _endpoints(self, root: Element) -> Endpoints:
        connect = {tag: self._endpoint(root, tag, bind=False, needed=True) for tag in ("FrontEndEndpoint", "BackendEndpoint")}
        front = self._endpoint(root, "FrontBind", bind=True) or connect["BackendEndpoint"]
        back = self._endpoint(root, "BackendBind", bind=True) or connect["FrontEndEndpoint"]
        for one, tag, bound, binds in (
            (connect["BackendEndpoint"], "FrontBind", front, "BackendEndpoint"),
            (connect["FrontEndEndpoint"], "BackendBind", back, "FrontEndEndpoint"),
        ):
            if one and bound and not values.reaches(one, bound):
                where = root.find(tag)
                hint = f"expected the port or path of <{binds}>, {one} (FrontBind takes messages in, BackendBind gives them out)"
                self.fault(root if where is None else where, f"<{tag}> binds {bound}, {hint}")
        if front and back and values.collide(front, back):
            where = root.find("BackendBind")
            self.fault(root if where is None else where, f"<FrontBind> {front} and <BackendBind> {back} collide, expected two different ports")
        return Endpoints(
            frontend=str(connect["FrontEndEndpoint"]), backend=str(connect["BackendEndpoint"]), front_bind=str(front), backend_bind=str(back)
        )

    def _endpoint(self, root: Element, tag: str, *, bind: bool, needed: bool = False) -> Endpoint | None:
        element = self._one(root, tag, needed=needed)
        if element is None:
            return None
        text = (element.text or "").strip()
        return self._try(element, lambda: values.endpoint(text, bind=bind), None)

    def _check_rules(self, tasks: Mapping[str, TaskService], elements: Mapping[str, Element]) -> None:
        for service in tasks.values():
            for rule in service.rules:
                if rule.call not in tasks:
                    where = elements[service.id].find(f"Task/state/{rule.trigger.value}/call")
                    known = ", ".join(list(tasks)[:8]) + (", ..." if len(tasks) > 8 else "")
                    self.fault(
                        elements[service.id] if where is None else where,
                        f"<call> of {service.id} names {quote(rule.call)}, which is no task, expected one of {known}",
                    )

    # --- one task service

    def _service(self, element: Element) -> TaskService | None:
        for name in element.attrib:
            if name not in ("id", "topic", "instance", "serviceType"):
                self.fault(element, f"attribute {str(name)!r} of <TaskService> is not known, expected id, topic, instance, serviceType")
        task_id, instance = element.get("id", ""), element.get("instance", "")
        if not values.TASK_ID.fullmatch(task_id):
            self.fault(element, f"<TaskService> has the id {quote(task_id)}, expected 1 to 64 of A-Z a-z 0-9 _ . -")
        if not instance.isidentifier():
            self.fault(element, f"<TaskService> {task_id} has the instance {quote(instance)}, expected the name of a service, such as EchoAction")
        kind = self._try(element, lambda: _kind(element.get("serviceType", "Process")), ServiceType.PROCESS)
        list(self._children(element, ("Task",)))
        task = self._one(element, "Task", needed=True)
        if task is None:
            return None
        list(self._children(task, _TASK))
        entry, rules = self._state(task)
        configuration = task.find("message/content/configuration")
        settings = {} if configuration is None else to_json(configuration) or {}
        return TaskService(
            id=task_id,
            instance=instance,
            topic=element.get("topic", "process"),
            service_type=kind,
            description=self._text(task, "description"),
            service_name=(task.findtext("message/header/service_name") or instance).strip(),
            device_action=(task.findtext("message/content/configuration/device_action") or "").strip(),
            location=self._location(task, instance),
            entry=entry,
            rules=rules,
            command=self._command(element, kind, configuration),
            configuration=settings if isinstance(settings, dict) else {"text": settings},
            source=to_json(element),
            **self._settings(task),
        )

    def _location(self, task: Element, instance: str) -> str | None:
        element = task.find("message/content/configuration/location")
        text = (element.text or "").strip() if element is not None else ""
        if element is None or not text:
            return None
        place = Path(self._path).absolute().parent / text
        if not place.is_dir():
            self.fault(element, f"<location> {text} does not exist, expected a directory that holds {instance}/Service{instance}.py")
        return str(place)

    def _command(self, element: Element, kind: ServiceType, configuration: Element | None) -> tuple[str, ...]:
        command = configuration.find("command") if configuration is not None else None
        if command is None:
            if kind is ServiceType.COMMAND:
                self.fault(element, f"{element.get('id')} is a Command without <command>, expected one in its <configuration>")
            return ()
        if kind is not ServiceType.COMMAND:
            return ()
        given = [(arg.text or "").strip() for arg in command.findall("arg")]
        words = given or self._try(command, lambda: shlex.split(command.text or ""), [])
        if not words:
            self.fault(command, "<command> is empty, expected a program and its arguments")
        return tuple(words)

    def _state(self, task: Element) -> tuple[bool, tuple[Rule, ...]]:
        state = self._one(task, "state")
        if state is None:
            return True, ()
        kind = state.get("type", "").strip()
        triggers = [trigger.value for trigger in Trigger]
        if kind and kind not in (*_ENTRY, *triggers):
            self.fault(state, f"<state> has the type {quote(kind)}, expected on_start, start_now, or nothing for a task that waits for a rule")
        rules = [self._rule(element) for element in self._children(state, triggers)]
        return kind in _ENTRY, tuple(rule for rule in rules if rule is not None)

    def _rule(self, element: Element) -> Rule | None:
        list(self._children(element, ("action", "call")))
        action, call = self._text(element, "action"), self._text(element, "call")
        if not action and not call:
            return None
        if not action or not call:
            there, missing = ("action", "call") if action else ("call", "action")
            self.fault(element, f"<{element.tag}> has <{there}> without <{missing}>, expected both or neither")
            return None
        if action not in list(Action):
            where = element.find("action")
            self.fault(element if where is None else where, f"<action> {quote(action)} is not known, expected start, stop or restart")
            return None
        return Rule(trigger=Trigger(str(element.tag)), action=Action(action), call=call)

    # --- <service>: ours

    def _settings(self, task: Element) -> dict[str, Any]:
        service = self._one(task, "service")
        if service is None:
            return {}
        found = {str(child.tag): child for child in self._children(service, _SERVICE)}
        made: dict[str, Any] = {"limits": self._limits(found)}
        for tag, check in (("user", accounts.check_user), ("group", accounts.check_group)):
            if text := _leaf(found, tag):
                made[tag] = self._try(found[tag], lambda check=check, text=text: check(text), text)
        if text := _leaf(found, "nice"):
            made["nice"] = self._try(found["nice"], lambda: values.whole(_leaf(found, "nice"), -20, 19), 0)
        if "environment" in found:
            made["environment"] = {str(child.tag): child.text or "" for child in found["environment"]}
        if "limits" in found:
            made["rlimits"] = {
                str(child.tag): self._try(child, lambda child=child: values.amount(child.text or ""), 0)
                for child in self._children(found["limits"], RLIMITS)
            }
        return made

    def _limits(self, found: Mapping[str, Element]) -> Limits:
        made: dict[str, Any] = {}
        for tag in _SPANS:
            if _leaf(found, tag):
                made[tag] = self._try(found[tag], lambda tag=tag: values.timespan(_leaf(found, tag)), 0.0)
        if _leaf(found, "start_limit_burst"):
            made["start_limit_burst"] = self._try(
                found["start_limit_burst"], lambda: values.whole(_leaf(found, "start_limit_burst"), 0, 1_000_000), 0
            )
        return Limits(**made)


def _leaf(found: Mapping[str, Element], tag: str) -> str:
    return (found[tag].text or "").strip() if tag in found else ""


def _kind(text: str) -> ServiceType:
    try:
        return ServiceType(text)
    except ValueError:
        raise ValueError(f"serviceType {quote(text)} is not known, expected Process, Thread or Command") from None
