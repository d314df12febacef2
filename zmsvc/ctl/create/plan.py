"""The plan of `create`, checked before any file is made. Pure: texts go in, a Plan or all faults come out."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from zmsvc.core.errors import ConfigError
from zmsvc.core.frozen import frozen
from zmsvc.core.model import FIRST_TRIGGERS, Action, Rule, Trigger
from zmsvc.core.values import quote
from zmsvc.ctl.create.fields import (
    COMMAND_CHECKS,
    CONTEXT_CHECKS,
    ENDPOINT_FIELDS,
    RESTART_CHECKS,
    SERVICE_CHECKS,
    SWITCH,
    TASK_TYPES,
    Check,
    either,
    not_xml,
    port,
)
from zmsvc.host.paths import CONTEXT_NAME


@frozen
class RuleFields:
    """A `state` block as written; `label` is its place."""

    trigger: str
    action: str
    call: str
    label: str


@frozen
class GivenFields:
    """Fields as the user wrote them: the text of each, and the label of its place in faults (`--sub_port`,
    `FILE:7: sub_port`).

    Empty texts count as left out. The fault about missing `required` fields begins with `lacks`, and formats
    each field with `name`.
    """

    text: Mapping[str, str]
    labels: Mapping[str, str]
    lacks: str
    required: Sequence[str]
    name: str = "<{}>"
    rules: Sequence[RuleFields] = ()

    def get(self, key: str, default: str = "") -> str:
        return self.text.get(key) or default


@frozen
class Service:
    """One service to make. A field of None was left out: any value in an existing context file agrees with
    it.
    """

    task_service: str
    task_file: str
    task_class: str
    task_desc: str
    service_name: str
    task_id: str
    task_topic: str
    device_action: str
    entry_action: str | None
    location: str
    kind: str
    """The type of its task, which is the name of a template: looped, single or async."""
    rules: tuple[Rule, ...] = ()
    command: str = ""
    """The program and its arguments, of a Command. Empty for a service in Python."""
    restart: str | None = None
    """One of `fields.RESTARTS`."""


@frozen
class Layout:
    """The directories in which an installed zmsvcd looks for context files and services."""

    context_dir: Path
    services_dir: Path


@frozen
class Plan:
    """The services to make, and their context."""

    context_name: str
    context_id: str | None
    host: str
    """Empty if the context file names no endpoints."""
    sub_port: int
    pub_port: int
    services_dir: Path
    context_file: Path
    quiet: bool = False
    services: tuple[Service, ...] = field(default_factory=tuple)

    @property
    def subscribe_endpoint(self) -> str:
        """Return the endpoint at which task services subscribe, where the device binds its XPUB socket."""
        return f"tcp://{self.host}:{self.sub_port}"

    @property
    def publish_endpoint(self) -> str:
        """Return the endpoint to which everyone publishes, where the device binds its XSUB socket."""
        return f"tcp://{self.host}:{self.pub_port}"


def context_file(context: GivenFields, installed: Layout) -> Path | None:
    """Return the path of the context file, or None if the fields do not determine it (then `make_plan` has
    faults).
    """
    home = context.get("home_path") or context.get("service_path")
    name = context.get("context_name")
    if not CONTEXT_NAME.fullmatch(name):
        return None
    directory = Path(os.path.expanduser(home)) / "Conf" if home else installed.context_dir
    return directory / f"Context-{name}.xml"


def named_after_program(text: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a Command. Those that were left out have the name of the program."""
    try:
        words = shlex.split(text["command"])
    except ValueError:
        words = text["command"].split()
    program = re.sub("[^A-Za-z0-9_.-]+", "-", os.path.basename(words[0] if words else ""))[:64].strip("-")
    task = text["task_id"] or program
    named = {"task_id": task, "task_service": program or task, "service_name": task}
    return {**text, **{name: text[name] or default for name, default in named.items()}}


def make_plan(
    context: GivenFields,
    services: Sequence[GivenFields],
    known: Collection[str] = (),
    faults: Iterable[str] = (),
    *,
    installed: Layout,
) -> Plan:
    """Return the checked plan. `known` has the ids of the tasks in an existing context file.

    Raises ConfigError with the earlier `faults` and all faults found here.
    """
    asked = any(context.get(name) for name in ENDPOINT_FIELDS)
    if asked:
        context = replace(context, required=(*context.required, *ENDPOINT_FIELDS))
    found = [*faults, *_faults(context, CONTEXT_CHECKS)]
    found += [fault for given in services for fault in _faults(given, _checks(given))]
    found += _port_faults(context) + _clashes(services)
    ids = ({given.get("task_id") for given in services} | set(known)) - {""}
    found += [fault for given in services for rule in given.rules if (fault := _rule_fault(rule, ids))]
    file = context_file(context, installed)
    if found or file is None:
        raise ConfigError(found)
    home = context.get("service_path")
    services_dir = Path(os.path.expanduser(home)) / "Services" if home else installed.services_dir
    default = context.get("location", str(services_dir))
    return Plan(
        context_name=context.get("context_name"),
        context_id=context.get("context_id") or None,
        host=_host(context.get("server_ip")),
        sub_port=int(context.get("sub_port", "0")),
        pub_port=int(context.get("pub_port", "0")),
        services_dir=services_dir,
        context_file=file,
        quiet=not SWITCH[context.get("log_on", "1").lower()],
        services=tuple(_service(given, default) for given in services),
    )


def _checks(given: GivenFields) -> Mapping[str, Check]:
    return {**(COMMAND_CHECKS if given.get("command") else SERVICE_CHECKS), **RESTART_CHECKS}


def _service(given: GivenFields, location: str) -> Service:
    name = given.get("task_service")
    return Service(
        task_service=name,
        task_file=given.get("task_file", name),
        task_class=given.get("task_class", name),
        task_desc=given.get("task_desc"),
        service_name=given.get("service_name"),
        task_id=given.get("task_id"),
        task_topic=given.get("task_topic", "process"),
        device_action=given.get("device_action"),
        entry_action=given.get("entry_action") or None,
        location=os.path.abspath(os.path.expanduser(given.get("location", location))),
        kind=TASK_TYPES[given.get("task_type", "Looped").lower()],
        rules=tuple(
            Rule(trigger=Trigger(rule.trigger), action=Action(rule.action), call=rule.call)
            for rule in given.rules
            if rule.action
        ),
        command=given.get("command"),
        restart=given.get("restart") or None,
    )


def _faults(given: GivenFields, checks: Mapping[str, Check]) -> list[str]:
    missing = [given.name.format(name) for name in given.required if not given.get(name)]
    faults = [given.lacks + " ".join(missing)] if missing else []
    for name, check in checks.items():
        text = given.get(name)
        if text and (why := not_xml(text) or check(text)):
            faults.append(f"{given.labels[name]} {quote(text)} {why}")
    return faults


def _port_faults(context: GivenFields) -> list[str]:
    sub, pub = context.get("sub_port"), context.get("pub_port")
    if not sub or not pub or port(sub) or port(pub) or int(sub) != int(pub):
        return []
    return [f"{context.labels['pub_port']} {pub!r} is the sub_port too: take two different ports"]


def _clashes(services: Sequence[GivenFields]) -> list[str]:
    """Return faults for ids that occur twice, services with two different descriptions, and two modules of a
    service that would be one file.
    """
    faults, ids, codes = [], set[str](), dict[str, tuple[str, ...]]()
    for given in services:
        # A program has no module.
        name = "" if given.get("command") else given.get("task_service")
        task = given.get("task_id")
        if task and task in ids:
            faults.append(
                f"{given.labels['task_id']} {task!r} is another service's already: take an id of its own"
            )
        ids.add(task)
        for key in ("task_file", "task_class"):
            if name and given.get(key) == f"Service{name}":
                faults.append(
                    f"{given.labels[key]} 'Service{name}' is the service side's own name: take another"
                )
        if name and codes.setdefault(name, _code(given)) != _code(given):
            where = given.labels["task_service"]
            faults.append(
                f"{where} {name!r} is described twice, and differently: describe it alike, or take two names"
            )
    return faults


def _code(given: GivenFields) -> tuple[str, ...]:
    """Return the fields that the generated Python depends on."""
    name = given.get("task_service")
    texts = [
        given.get("task_file", name),
        given.get("task_class", name),
        given.get("task_type", "looped").lower(),
    ]
    return (*texts, *(given.get(key) for key in ("task_desc", "service_name", "device_action")))


def _rule_fault(rule: RuleFields, ids: Collection[str]) -> str | None:
    if rule.trigger not in set(FIRST_TRIGGERS):
        return f"{rule.label}: {rule.trigger!r} is not a trigger, expected {either(FIRST_TRIGGERS)}"
    if not rule.action and not rule.call:
        return None
    if rule.action not in set(Action):
        problem = f"{rule.action!r} is not an action" if rule.action else "the action is missing"
        expected = f"{either(Action)}, or nothing in action and state_id for no rule"
        return f"{rule.label}: {problem}, expected {expected}"
    if rule.call not in ids:
        known = either(sorted(ids)) if 0 < len(ids) <= 12 else "the id of a task"
        return f"{rule.label}: the state_id {rule.call!r} names no task of this context, expected {known}"
    return None


def _host(text: str) -> str:
    return "127.0.0.1" if text == "localhost" else f"[{text}]" if ":" in text else text
