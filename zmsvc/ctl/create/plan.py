"""What `create` is asked to make, checked before anything is made. Pure: texts go in, a Plan or every
fault comes out.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Action, Rule, Trigger
from zmsvc.ctl.create.fields import (
    CONTEXT_CHECKS,
    ENDPOINT_FIELDS,
    SERVICE_CHECKS,
    SWITCH,
    TASK_TYPES,
    Check,
    either,
    not_xml,
    port,
    shown,
)
from zmsvc.host.paths import CONTEXT_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFields:
    """A `state` block as written; `label` says where."""

    trigger: str
    action: str
    call: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFields:
    """Fields as somebody wrote them: the text of each, and how a fault names its place (`--sub_port`,
    `FILE:7: sub_port`).

    Empty texts count as left out. `lacks` is how the fault about missing `required` fields begins, `name` how
    it calls one.
    """

    text: Mapping[str, str]
    labels: Mapping[str, str]
    lacks: str
    required: Sequence[str]
    name: str = "<{}>"
    rules: Sequence[RuleFields] = ()

    def get(self, key: str, default: str = "") -> str:
        return self.text.get(key) or default


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service to make. None: it was left out, and what a person has written in the context file is as
    good.
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
    single: bool
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Services to make, and the context that they belong to."""

    context_name: str
    context_id: str | None
    host: str
    """Empty: the context file is to name no endpoints."""
    sub_port: int
    pub_port: int
    services_dir: Path
    context_file: Path
    quiet: bool = False
    services: tuple[Service, ...] = field(default_factory=tuple)

    @property
    def frontend(self) -> str:
        """Where task services subscribe, and the device's egress binds."""
        return f"tcp://{self.host}:{self.sub_port}"

    @property
    def backend(self) -> str:
        """Where everyone publishes, and the device's ingress binds."""
        return f"tcp://{self.host}:{self.pub_port}"


def context_file(context: GivenFields) -> Path | None:
    """Where the context file of these fields is, or None when they do not say so (then `blueprint` has
    faults).
    """
    home = context.get("home_path") or context.get("service_path")
    name = context.get("context_name")
    if not home or not CONTEXT_NAME.fullmatch(name):
        return None
    return Path(os.path.expanduser(home)) / "Conf" / f"Context-{name}.xml"


def blueprint(
    context: GivenFields,
    services: Sequence[GivenFields],
    known: Collection[str] = (),
    faults: Iterable[str] = (),
) -> Plan:
    """The checked plan. `known` are the ids of the tasks that the context file has already.

    Raises ConfigError with `faults`, those that were found before, and all that are found here.
    """
    asked = any(context.get(name) for name in ENDPOINT_FIELDS)
    if asked:
        context = replace(context, required=(*context.required, *ENDPOINT_FIELDS))
    found = [*faults, *_faults(context, CONTEXT_CHECKS)]
    found += [fault for given in services for fault in _faults(given, SERVICE_CHECKS)]
    found += _port_faults(context) + _clashes(services)
    ids = ({given.get("task_id") for given in services} | set(known)) - {""}
    found += [fault for given in services for rule in given.rules if (fault := _rule_fault(rule, ids))]
    file = context_file(context)
    if found or file is None:
        raise ConfigError(found)
    services_dir = Path(os.path.expanduser(context.get("service_path"))) / "Services"
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
        single=TASK_TYPES[given.get("task_type", "Looped").lower()],
        rules=tuple(
            Rule(trigger=Trigger(rule.trigger), action=Action(rule.action), call=rule.call)
            for rule in given.rules
            if rule.action
        ),
    )


def _faults(given: GivenFields, checks: Mapping[str, Check]) -> list[str]:
    missing = [given.name.format(name) for name in given.required if not given.get(name)]
    faults = [given.lacks + " ".join(missing)] if missing else []
    for name, check in checks.items():
        text = given.get(name)
        if text and (why := not_xml(text) or check(text)):
            faults.append(f"{given.labels[name]} {shown(text)} {why}")
    return faults


def _port_faults(context: GivenFields) -> list[str]:
    sub, pub = context.get("sub_port"), context.get("pub_port")
    if not sub or not pub or port(sub) or port(pub) or int(sub) != int(pub):
        return []
    return [f"{context.labels['pub_port']} {pub!r} is the sub_port too: take two different ports"]


def _clashes(services: Sequence[GivenFields]) -> list[str]:
    """Ids that occur twice, services that are described twice and differently, and modules of one that
    would be one file.
    """
    faults, ids, codes = [], set[str](), dict[str, tuple[str, ...]]()
    for given in services:
        name, task = given.get("task_service"), given.get("task_id")
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
    """What the generated Python depends on."""
    name = given.get("task_service")
    texts = [
        given.get("task_file", name),
        given.get("task_class", name),
        given.get("task_type", "looped").lower(),
    ]
    return (*texts, *(given.get(key) for key in ("task_desc", "service_name", "device_action")))


def _rule_fault(rule: RuleFields, ids: Collection[str]) -> str | None:
    if rule.trigger not in set(Trigger):
        return f"{rule.label}: {rule.trigger!r} is no trigger, expected {either(Trigger)}"
    if not rule.action and not rule.call:
        return None
    if rule.action not in set(Action):
        said = f"{rule.action!r} is no action" if rule.action else "the action is missing"
        return (
            f"{rule.label}: {said}, expected {either(Action)}, or nothing in action and state_id for no rule"
        )
    if rule.call not in ids:
        known = either(sorted(ids)) if 0 < len(ids) <= 12 else "the id of a task"
        return f"{rule.label}: the state_id {rule.call!r} names no task of this context, expected {known}"
    return None


def _host(text: str) -> str:
    return "127.0.0.1" if text == "localhost" else f"[{text}]" if ":" in text else text
