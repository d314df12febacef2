"""Convert the `<configuration>` of a task to typed values, and find every fault of it. Pure.

A configuration is JSON of str, list and dict, as from XML. A *shape* describes the values that it may have.
When a task starts, task/settings.py makes the shape from the classes of its service. `zmsvcctl check` runs no
code of a service, so host/config/settings_source.py makes it from the text of these classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.core.similar import similar
from zmsvc.core.values import boolean, quote, seconds

Place = tuple[tuple[str, int], ...]
"""The path from `<configuration>` to an element: for each step the tag, and how many elements with the same
tag come before.
"""

READ_BY_ZMSVC = ("location", "device_action", "interval", "subscribe", "notify")
"""Elements of a `<configuration>` that need no field, because zmsvc itself reads them."""

TEXT_KEY = "#text"
"""The key of the text of an element that has attributes or children as well."""


@frozen
class SettingFault:
    """A value that cannot be used."""

    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Raw:
    """Any value, which stays unchanged: values of its type are not converted, or `check` does not know the
    type.
    """


@dataclass(frozen=True, slots=True)
class Leaf:
    """A text that `read` converts. `read` raises ValueError."""

    read: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these texts; each stands for a value."""

    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Maybe:
    """None for an empty element, otherwise another shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Many:
    """Any number of elements of one name."""

    item: Shape
    make: Callable[[list[Any]], object] = list


@dataclass(frozen=True, slots=True)
class Table:
    """Elements of any names, with values of one shape."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Member:
    """The value of one name in a record."""

    shape: Shape
    required: bool


@frozen
class Structure:
    """Elements with known names. `make` returns the value for those that are present."""

    name: str
    members: Mapping[str, Member]
    complete: bool = True
    """False if there may be other names as well."""
    make: Callable[[dict[str, Any]], object] = field(default=dict)


Shape = Raw | Leaf | Choice | Maybe | Many | Table | Structure


def _whole(text: str) -> int:
    if not text.lstrip("+-").isdecimal():
        raise ValueError(f"{quote(text)} is not a whole number, expected one such as 10")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not a whole number, expected one such as 10") from None


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{quote(text)} is not a number, expected one such as 0.5")
    return value


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError(f"{quote(text)} is not a path, expected one such as /srv/data")
    return text


TEXT, WHOLE, NUMBER, BOOLEAN = Leaf(str), Leaf(_whole), Leaf(_number), Leaf(boolean)
PATH, SECONDS = Leaf(_path), Leaf(seconds)


@frozen
class Leaves:
    """The conversions to the types of a single value. The conversion of a path gives its text, and that of a
    time span its seconds.
    """

    text: Leaf
    whole: Leaf
    number: Leaf
    boolean: Leaf
    path: Leaf
    seconds: Leaf

    def by_type(self) -> dict[str, Leaf]:
        """Return each conversion by the full name of its type in Python."""
        return {
            "str": self.text,
            "int": self.whole,
            "float": self.number,
            "bool": self.boolean,
            "pathlib.Path": self.path,
            "datetime.timedelta": self.seconds,
        }


LEAVES = Leaves(text=TEXT, whole=WHOLE, number=NUMBER, boolean=BOOLEAN, path=PATH, seconds=SECONDS)


def convert(shape: Structure, configuration: Mapping[str, Any]) -> tuple[Any, list[SettingFault]]:
    """Return the value of a configuration and its faults. If there are faults, there is no value."""
    faults: list[SettingFault] = []
    own = {
        name: value
        for name, value in _children(configuration, (), faults).items()
        if name in shape.members or name not in READ_BY_ZMSVC
    }
    value = _record(shape, own, (), faults)
    return (None if faults else value), faults


def _value(shape: Shape, given: Any, place: Place, faults: list[SettingFault]) -> Any:
    if isinstance(shape, Raw):
        return given
    if isinstance(shape, Many):
        items = given if isinstance(given, list) else [given]
        return shape.make(
            [_value(shape.item, each, _numbered(place, number), faults) for number, each in enumerate(items)]
        )
    if isinstance(given, list):
        second = _numbered(place, 1)
        faults.append(
            SettingFault(
                place=second, text=f"a second <{_tag(place)}>, expected one (there are {len(given)})"
            )
        )
        return None
    if isinstance(shape, Maybe):
        return None if given == "" else _value(shape.item, given, place, faults)
    if isinstance(shape, Structure):
        return _record(shape, _children(given, place, faults), place, faults)
    if isinstance(shape, Table):
        return {
            name: _value(shape.item, each, (*place, (name, 0)), faults)
            for name, each in _children(given, place, faults).items()
        }
    return _text(shape, given, place, faults)


def _tag(place: Place) -> str:
    return place[-1][0] if place else "configuration"


def _numbered(place: Place, number: int) -> Place:
    return (*place[:-1], (place[-1][0], number))


def _children(given: Any, place: Place, faults: list[SettingFault]) -> Mapping[str, Any]:
    """Return the attributes and children of an element. A text beside them is noted as a fault."""
    text = given.get(TEXT_KEY, "") if isinstance(given, Mapping) else given
    if text:
        faults.append(
            SettingFault(
                place=place, text=f"<{_tag(place)}> has the text {quote(str(text))}, expected elements in it"
            )
        )
    children = given if isinstance(given, Mapping) else {}
    return {name: each for name, each in children.items() if name != TEXT_KEY}


def _text(shape: Leaf | Choice, given: Any, place: Place, faults: list[SettingFault]) -> Any:
    try:
        if not isinstance(given, str):
            raise ValueError("has elements or attributes, expected a text")
        if isinstance(shape, Leaf):
            return shape.read(given)
        if given not in shape.values:
            raise ValueError(f"{quote(given)} is unknown, expected {_one_of(shape.values)}")
        return shape.values[given]
    except ValueError as error:
        faults.append(SettingFault(place=place, text=f"<{_tag(place)}> {error}"))
        return None


def _record(shape: Structure, given: Mapping[str, Any], place: Place, faults: list[SettingFault]) -> Any:
    before = len(faults)
    found = {}
    for name, each in given.items():
        if name in shape.members:
            found[name] = _value(shape.members[name].shape, each, (*place, (name, 0)), faults)
        elif shape.complete:
            expected = _one_of(shape.members) if shape.members else "no element"
            hint = similar(name, [known for known in shape.members if known not in given])
            text = f"<{name}> is unknown to {shape.name}, expected {expected}{hint}"
            faults.append(SettingFault(place=(*place, (name, 0)), text=text))
    for name, member in shape.members.items():
        if member.required and name not in given:
            text = (
                f"<{_tag(place)}> has no <{name}>, expected one, because {shape.name} has no default for it"
            )
            faults.append(SettingFault(place=place, text=text))
    if len(faults) > before:
        return None
    try:
        return shape.make(found)
    except (TypeError, ValueError) as error:
        # A check of the class itself, such as __post_init__ of a dataclass.
        faults.append(SettingFault(place=place, text=f"{shape.name}: {error}"))
        return None


def _one_of(words: Collection[str]) -> str:
    shown = list(words)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"


def element_name(field_name: str) -> str:
    """Return the name of the element for a field: a final underscore is dropped, so `class_` is for
    `<class>`.
    """
    return field_name.removesuffix("_")
