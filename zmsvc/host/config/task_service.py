"""Read one `<TaskService>` element to a `model.TaskDefinition`. Faults are noted and never raised. Faults
between tasks are found elsewhere.
"""

from __future__ import annotations

import keyword
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zmsvc.core import last_values, restart, rule_conditions
from zmsvc.core.frozen import frozen
from zmsvc.core.model import TRIGGERS_OF_TASK, Action, Rule, TaskDefinition, Trigger
from zmsvc.core.probing import topic_of
from zmsvc.core.service_options import ServiceType
from zmsvc.core.settings import TEXT_KEY
from zmsvc.core.similar import similar
from zmsvc.core.values import TASK_ID, TRUE, WHITE, FaultsError, quote
from zmsvc.host.config import command_words
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.schema import OF_CONFIGURATION
from zmsvc.host.config.service_options import read_service_options
from zmsvc.host.config.xml_text import kept, leaf, text_of, to_json
from zmsvc.host.kernel import signals
from zmsvc.host.paths import directory_of

if TYPE_CHECKING:
    from lxml import etree

_ID_WORDS = "1 to 64 of A-Z a-z 0-9 _ . -"
_ENTRY = ("on_start", "start_now")
_KINDS = tuple(kind.value for kind in ServiceType)
_ACTIONS = tuple(action.value for action in Action)


@frozen
class ParsedService:
    """A task and the elements from which it was read. `rules` has an element for each rule of the file. The
    task may have more rules, by its `restart`.
    """

    task: TaskDefinition
    element: etree._Element
    configuration: etree._Element | None
    rules: tuple[etree._Element, ...]


def read_service(element: etree._Element, source: Any, notes: FaultList, folder: str) -> ParsedService:
    """Read a `<TaskService>`. `source` is its JSON. A relative `location` leads from `folder`, the directory
    of the context file.
    """
    kind = _kind(element, notes)
    configuration = element.find("Task/message/content/configuration")
    rules = list(read_rules(element.find("Task/state"), TRIGGERS_OF_TASK, notes))
    action = element.find("Task/message/header/action")
    if action is not None and leaf(action):
        notes.value(action, _action, Action.START)
    options = read_service_options(element.find("Task/service"), element, kind, notes)
    instance = _instance(element, kind, notes)
    own = _own(configuration)
    location = _location(configuration, notes, folder)
    # A service of the user with this name comes first.
    retains = instance == last_values.INSTANCE and directory_of(location, instance) is None
    if retains and kind is not ServiceType.COMMAND:
        options = _of_last_value(element, configuration, kind, options, notes)
    _warn_of_misspelled(configuration, kind, instance, notes)
    state = element.find("Task/state")
    ident, written = _id(element, notes), [rule for rule, _ in rules]
    again = options.get("restart")
    for index, text in restart.contradictions(again, ident, written):
        notes.fault(rules[index][1], text)
    task = TaskDefinition(
        id=ident,
        instance=instance,
        topic=_attribute(element, "topic") or "process",
        service_type=kind,
        description=" ".join(text_of(element.find("Task/description")).split()),
        service_name=text_of(element.find("Task/message/header/service_name")) or instance,
        device_action=text_of(_only(configuration, "device_action", notes)),
        location=location,
        entry=state is not None and _attribute(state, "type") in _ENTRY,
        rules=(*written, *restart.rules_of(again, ident, written, limited="memory_restart" in options)),
        **options,
        command=_command(configuration, notes) if kind is ServiceType.COMMAND else (),
        notify=(says := _notifies(configuration, notes) if kind is ServiceType.COMMAND else "") != "",
        notify_reload=says == "reload" or _reports_reload(configuration, kind),
        configuration=own,
        source=source if isinstance(source, dict) else {},
        retains=retains and kind is not ServiceType.COMMAND,
    )
    if kind is not ServiceType.COMMAND and task.ready is not None and not topic_of(task.ready):
        notes.fault(
            element,
            f"<ready> with a probe is for a Command, expected <ready topic=...> or none for a {kind.value}, "
            "which is ready when its setup has ended",
        )
    if task.notify and task.ready is not None:
        notes.fault(element, "<notify> yes and <ready> both say when the task is ready, expected one of them")
    note_rules_that_never_fire(rules, [task], notes)
    return ParsedService(
        task=task, element=element, configuration=configuration, rules=tuple(where for _, where in rules)
    )


def _attribute(element: etree._Element, name: str) -> str:
    return str(element.get(name, "")).strip(WHITE)


def _id(element: etree._Element, notes: FaultList) -> str:
    given = _attribute(element, "id")
    if "id" in element.attrib and not TASK_ID.fullmatch(given):
        notes.fault(element, f"the id {quote(given)} cannot be one, expected {_ID_WORDS}")
    return given


def _kind(element: etree._Element, notes: FaultList) -> ServiceType:
    given = _attribute(element, "serviceType")
    if "serviceType" not in element.attrib:
        return ServiceType.PROCESS
    if given in _KINDS:
        return ServiceType(given)
    hint = similar(given, _KINDS)
    notes.fault(
        element, f"the serviceType {quote(given)} is unknown, expected Process, Thread or Command{hint}"
    )
    return ServiceType.PROCESS


def _instance(element: etree._Element, kind: ServiceType, notes: FaultList) -> str:
    given = _attribute(element, "instance")
    if "instance" not in element.attrib:
        return given
    if kind is ServiceType.COMMAND and not TASK_ID.fullmatch(given):
        notes.fault(element, f"the instance {quote(given)} cannot be one, expected {_ID_WORDS}")
    if kind is not ServiceType.COMMAND and (not given.isidentifier() or keyword.iskeyword(given)):
        notes.fault(
            element, f"the instance {quote(given)} cannot be one, expected a name that Python can import"
        )
    return given


def _action(text: str) -> Action:
    if text not in _ACTIONS:
        hint = similar(text, _ACTIONS)
        raise ValueError(f"{quote(text)} is unknown, expected start, stop or restart{hint}")
    return Action(text)


def read_rules(
    parent: etree._Element | None, triggers: Collection[Trigger], notes: FaultList
) -> Iterable[tuple[Rule, etree._Element]]:
    """Yield each rule of these triggers with its `<call>`."""
    for block in () if parent is None else parent:
        if block.tag not in triggers:
            continue
        does, calls = block.find("action"), block.find("call")
        action, call = text_of(does), text_of(calls)
        conditions = _conditions(block, notes)
        if action and does is not None:
            known = notes.value(does, _action, Action.START)
            if not call:
                notes.fault(
                    block, f"<{block.tag}> has an action and no call, expected <call> with the id of a task"
                )
            elif calls is not None:
                yield Rule(trigger=Trigger(block.tag), action=known, call=call, **conditions), calls
        elif call:
            notes.fault(
                block,
                f"<{block.tag}> has a call and no action, expected <action> with start, stop or restart",
            )
        elif conditions:
            notes.fault(
                block,
                f"<{block.tag}> has the attribute {' and '.join(conditions)} and no rule, expected <action> "
                f"and <call>",
            )


def _conditions(block: etree._Element, notes: FaultList) -> dict[str, Any]:
    """Return the conditions of a rule, by the fields of `Rule`."""
    read: dict[str, Callable[[str], Any]] = {
        "when": lambda text: rule_conditions.read_ends(Trigger(block.tag), text, _reported_signal),
        "after": rule_conditions.read_threshold,
    }
    found: dict[str, Any] = {}
    for name, convert in read.items():
        if name in block.attrib:
            try:
                found[name] = convert(str(block.get(name)))
            except ValueError as error:
                for each in error.faults if isinstance(error, FaultsError) else (error,):
                    notes.fault(block, f"the {name} of <{block.tag}> {each}")
    return found


def _reported_signal(text: str) -> str:
    return signals.reported_name(signals.number(signals.name(text)))


def note_rules_that_never_fire(
    rules: Iterable[tuple[Rule, etree._Element]], tasks: Sequence[TaskDefinition], notes: FaultList
) -> None:
    """Note each of these rules whose conditions none of the tasks can meet; the elements are their calls."""
    for rule, calls in rules:
        if why := rule_conditions.never(rule, tasks):
            block = calls.getparent()
            notes.fault(
                calls if block is None else block,
                f"<{rule.trigger}> can never fire: {why}, expected another when",
            )


def _only(parent: etree._Element | None, tag: str, notes: FaultList) -> etree._Element | None:
    """Return a child of `<configuration>` that zmsvc itself reads. A second one is a fault."""
    found = [] if parent is None else parent.findall(tag)
    for again in found[1:]:
        notes.fault(again, f"a second <{tag}> in <configuration>, expected one")
    return found[0] if found else None


_READ_BY_SERVICES = {
    "Monitor": ("service", "publisher", "monitor_options"),
    last_values.INSTANCE: tuple(last_values.READERS),
}
"""The elements of `<configuration>` that the services of zmsvc itself read."""


def _warn_of_misspelled(
    configuration: etree._Element | None, kind: ServiceType, instance: str, notes: FaultList
) -> None:
    """Warn of elements whose names look like misspelled ones of `OF_CONFIGURATION`. They are no faults: a
    task may have any element of its own.
    """
    known = [*OF_CONFIGURATION[kind], *_READ_BY_SERVICES.get(instance, ())]
    there = {str(child.tag) for child in (() if configuration is None else configuration)}
    for child in () if configuration is None else configuration:
        tag = str(child.tag)
        if tag not in known and (
            suggestion := similar(tag, [name for name in known if name not in there], cutoff=0.85)
        ):
            notes.warn(
                child, f"<{tag}> in <configuration> is for the task alone, zmsvc does not read it{suggestion}"
            )


def _of_last_value(
    element: etree._Element,
    configuration: etree._Element | None,
    kind: ServiceType,
    options: Mapping[str, Any],
    notes: FaultList,
) -> dict[str, Any]:
    """Check the settings of a LastValue, and return its options with those that it needs."""
    if kind is not ServiceType.PROCESS:
        notes.fault(
            element, f"the service {last_values.INSTANCE} is a Process, expected no serviceType {kind.value}"
        )
        return {**options}
    for name, read in last_values.READERS.items():
        if (given := _only(configuration, name, notes)) is not None:
            notes.value(given, read, None)
    return {"file_descriptor_store_max": last_values.STORED, **options}


def _own(configuration: etree._Element | None) -> Mapping[str, Any]:
    own = "" if configuration is None else to_json(configuration, keep=kept(configuration))
    if isinstance(own, dict):
        return own
    return {TEXT_KEY: own} if own else {}


def _location(configuration: etree._Element | None, notes: FaultList, folder: str) -> str | None:
    element = _only(configuration, "location", notes)
    if element is None or not leaf(element):
        return None
    path = os.path.normpath(os.path.join(folder, leaf(element)))
    if not os.path.isdir(path):
        what = "is not a directory" if os.path.exists(path) else "does not exist"
        notes.fault(
            element,
            f"the location {quote(leaf(element))} {what}, expected a directory that holds the services",
        )
    return path


def _notifies(configuration: etree._Element | None, notes: FaultList) -> str:
    """Return what the program itself says by sd_notify: "ready" for READY=1, "reload" for RELOADING=1 as
    well, or nothing. Most programs say nothing, and are ready when they run.
    """
    element = _only(configuration, "notify", notes)
    text = "" if element is None else (element.text or "").strip().lower()
    return text if text == "reload" else "ready" if text in TRUE else ""


def _reports_reload(configuration: etree._Element | None, kind: ServiceType) -> bool:
    """Return True if a Process reports its reloads. Any other <notify> of a Process is for the task alone."""
    element = None if configuration is None else configuration.find("notify")
    return (
        kind is ServiceType.PROCESS
        and element is not None
        and (element.text or "").strip().lower() == "reload"
    )


def _command(configuration: etree._Element | None, notes: FaultList) -> tuple[str, ...]:
    element = _only(configuration, "command", notes)
    if element is None:
        if configuration is not None:
            notes.fault(configuration, "the <configuration> of a Command has no <command>, expected one")
        return ()
    return command_words.read(element, notes)
