"""Convert a `<service>` element to the values of its options. Faults are noted with their element and never
raised.

`core.service_options` declares the options. This module has only the code that depends on the machine, on XML
or on two options at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from zmsvc.core.option_kinds import (
    EXIT_STATUS,
    SIGNAL,
    VARIABLE_WORDS,
    Attributes,
    Elements,
    Fields,
    Kind,
    Several,
    Value,
    Variables,
    Words,
)
from zmsvc.core.service_options import Limits, Option, ServiceOptions, ServiceType, options_of, types_of
from zmsvc.core.values import WHITE, each_of, quote
from zmsvc.host.config import command_words
from zmsvc.host.config.faults import FaultList
from zmsvc.host.config.xml_text import TRIMMED, loses, value
from zmsvc.host.kernel import signals

if TYPE_CHECKING:
    from lxml import etree

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_LIMITS = options_of(Limits)
_OTHERS = options_of(ServiceOptions)


def read_service_options(
    service: etree._Element | None, element: etree._Element, kind: ServiceType, notes: FaultList
) -> dict[str, Any]:
    """Read a `<service>`, or None for a task without one. Return the fields of `ServiceOptions` by name.

    `element` is the `<TaskService>` around it, of type `kind`: an option that it may not have is a fault
    there.
    """
    if service is None:
        return {}
    values = read_options(service, _OTHERS, notes)
    _check_types(values, element, kind, notes)
    _imply_fresh(values, service, kind, notes)
    if values.get("reload_command") and values.get("reload_signal"):
        notes.fault(service, "<service> has both <reload_signal> and <reload_command>, expected one of them")
    if "user" in values:
        values.setdefault("no_new_privileges", True)
    limits = _delays(service, read_options(service, _LIMITS, notes), notes)
    return {"limits": Limits(**limits), **values}


def read_options(service: etree._Element, options: Iterable[Option], notes: FaultList) -> dict[str, Any]:
    """Return the values of the options that a `<service>` has, by their fields. A bad value is noted, and is
    left out.
    """
    by_name = {option.name: option for option in options}
    values: dict[str, Any] = {}
    seen: set[str] = set()
    for element in service:
        name = str(element.tag)
        # The schema reports an unknown element and a repeated one.
        if name not in by_name or (name in seen and not isinstance(by_name[name].kind, Several)):
            continue
        seen.add(name)
        option = by_name[name]
        found = _read(element, option.kind, notes)
        if found is not None:
            values[option.field] = (
                values.get(option.field, ()) + found if isinstance(option.kind, Several) else found
            )
    return values


def _read(element: etree._Element, kind: Kind, notes: FaultList) -> Any:
    match kind:
        case Value():
            return notes.value(element, _reader(kind), None)
        case Attributes():
            return _of_attributes(element, kind, notes)
        case Several(value=None, make=make, attributes=values) if make is not None:
            found = _of_attributes(element, Attributes(values=values, make=make), notes)
            return None if found is None else (found,)
        case Several(make=make) if make is not None:
            return _with_attributes(element, kind, make, notes)
        case Several():
            return notes.value(element, _words_reader(kind), None)
        case Fields():
            # The schema reports an unknown name.
            known = [child for child in element if child.tag in kind.names]
            return {str(child.tag): notes.value(child, kind.value.read, None) for child in known}
        case Elements():
            return _of_elements(element, kind, notes)
        case Variables():
            return _variables(element, notes)
        case Words():
            return command_words.read(element, notes) or None


def _reader(kind: Value) -> Callable[[str], Any]:
    """Return the function that reads a value. The numbers of signals depend on the machine."""
    if kind is SIGNAL:
        return signals.name
    return _exit_status if kind is EXIT_STATUS else kind.read


def _exit_status(text: str) -> int | str:
    word = text.strip(WHITE)
    try:
        status = int(word) if word.isdecimal() else signals.reported_name(signals.number(signals.name(word)))
    except ValueError:
        status = -1
    if isinstance(status, int) and not 0 <= status <= 255:
        raise ValueError(
            f"{quote(word)} is not an exit status, expected a number from 0 to 255, or a signal such as "
            f"SIGTERM"
        )
    return status


def _read_several(kind: Several, text: str) -> tuple[Any, ...]:
    assert kind.value is not None
    words = text.split() if kind.separated else [text]
    if not words:
        raise ValueError(f"is empty, expected {kind.value.words}")
    return each_of(words, _reader(kind.value))


def _with_attributes(
    element: etree._Element, kind: Several, make: Callable[..., Any], notes: FaultList
) -> tuple[Any, ...] | None:
    assert kind.value is not None
    found = notes.value(element, _reader(kind.value), None)
    values = _attributes(element, kind.attributes, notes)
    return None if found is None else (make(found, **values),)


def _of_attributes(element: etree._Element, kind: Attributes, notes: FaultList) -> Any:
    before = len(notes.found)
    values = _attributes(element, kind.values, notes)
    if len(notes.found) > before:
        return None
    try:
        return kind.make(**values)
    except ValueError as error:
        notes.fault(element, f"<{element.tag!s}> {error}")
        return None


def _of_elements(element: etree._Element, kind: Elements, notes: FaultList) -> Any:
    values: dict[str, tuple[Any, ...]] = {}
    # The schema reports an unknown name.
    for child in element:
        if (value := kind.values.get(name := str(child.tag))) is not None:
            several = Several(value=value, separated=True)
            values[name] = values.get(name, ()) + notes.value(child, _words_reader(several), ())
    return kind.make(**values)


def _words_reader(kind: Several) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: _read_several(kind, text)


def _attributes(element: etree._Element, kinds: Mapping[str, Value], notes: FaultList) -> dict[str, Any]:
    values: dict[str, Any] = {}
    # The schema reports an unknown attribute.
    for name, text in element.attrib.items():
        attribute = str(name)
        if (value := kinds.get(attribute)) is None:
            continue
        try:
            values[attribute] = _reader(value)(str(text))
        except ValueError as error:
            notes.fault(element, f"the {attribute} of <{element.tag!s}> {error}")
    return values


def _variables(block: etree._Element, notes: FaultList) -> Mapping[str, str]:
    result: dict[str, str] = {}
    for child in block:
        name = str(child.tag)
        if not _VARIABLE.fullmatch(name):
            notes.fault(child, f"the variable {quote(name)} cannot be one, expected {VARIABLE_WORDS}")
        elif name in result:
            notes.fault(child, f"a second <{name}> in <{block.tag}>, expected one")
        if loses(child):
            notes.warn(child, f"the variable {quote(name)} is read {TRIMMED}")
        result[name] = value(child)
    return result


def _imply_fresh(
    values: dict[str, Any], service: etree._Element, kind: ServiceType, notes: FaultList
) -> None:
    """Make a task with an interpreter of its own a fresh one: only a new process can execute it."""
    if values.get("python") is None or kind is not ServiceType.PROCESS:
        return
    if values.setdefault("fresh", True) is False:
        found = service.find("fresh")
        notes.fault(service if found is None else found, "<fresh> cannot be no with <python>, expected yes")


def _check_types(
    values: Mapping[str, Any], element: etree._Element, kind: ServiceType, notes: FaultList
) -> None:
    for option in _OTHERS:
        if kind not in option.types and values.get(option.field, option.default) != option.default:
            reason = f", {option.otherwise}" if option.otherwise else ""
            notes.fault(
                element,
                f"<{option.name}> is for {types_of(option)}, expected none for a {kind.value}{reason}",
            )


def _delays(service: etree._Element, given: dict[str, Any], notes: FaultList) -> dict[str, Any]:
    """If the file sets only one of the two delays, move the default of the other one so that the minimum is
    not above the maximum.
    """
    least, most = given.get("restart_delay"), given.get("restart_max_delay")
    if least is not None and most is not None and most < least:
        where = service.find("restart_max_delay")
        notes.fault(
            service if where is None else where,
            "<restart_max_delay> is shorter than <restart_delay>, expected a longer one",
        )
    elif least is not None and most is None:
        given["restart_max_delay"] = max(least, Limits().restart_max_delay)
    elif most is not None and least is None:
        given["restart_delay"] = min(most, Limits().restart_delay)
    return given
