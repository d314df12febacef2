"""Check and convert the JSON content of a message by a shape of core/settings.py. Pure.

Unlike the text of a configuration, a JSON value has a type of its own, and that has to be the expected one.
Names without a field are ignored, so a sender may add some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from zmsvc.core.settings import PATH, SECONDS, Choice, Leaf, Leaves, Many, Maybe, Raw, Shape, Structure, Table

T = TypeVar("T")


def _checked(read: Callable[[Any], T | None], expected: str) -> Leaf:
    def checked(value: Any) -> T:
        found = read(value)
        if found is None:
            raise ValueError(f"is {_shown(value)}, expected {expected}")
        return found

    return Leaf(checked)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None


def _seconds(value: Any) -> float | None:
    return float(SECONDS.read(value)) if isinstance(value, str) else _number(value)  # type: ignore[arg-type]


TEXT = _checked(lambda value: value if isinstance(value, str) else None, "a text")
WHOLE = _checked(lambda value: value if type(value) is int else None, "a whole number")
NUMBER = _checked(_number, "a number")
TRUTH = _checked(lambda value: value if isinstance(value, bool) else None, "true or false")
FILE = _checked(lambda value: PATH.read(value) if isinstance(value, str) else None, "a path")
SPAN = _checked(_seconds, "a number of seconds, or a time span such as 500ms")
LEAVES = Leaves(text=TEXT, whole=WHOLE, number=NUMBER, boolean=TRUTH, path=FILE, seconds=SPAN)


def convert(shape: Shape, value: Any, place: str = "content") -> Any:
    """Return the value in the types of its shape. Raises ValueError, whose text names the place of the
    fault.
    """
    match shape:
        case Raw():
            return value
        case Leaf():
            return _read(shape, value, place)
        case Choice():
            return _chosen(shape, value, place)
        case Maybe():
            return None if value is None else convert(shape.item, value, place)
        case Many():
            if not isinstance(value, list):
                raise ValueError(f"{place} is {_shown(value)}, expected a list")
            return shape.make(
                [convert(shape.item, each, f"{place}[{number}]") for number, each in enumerate(value)]
            )
        case Table():
            return {
                name: convert(shape.item, each, f"{place}.{name}")
                for name, each in _object(value, place).items()
            }
        case Structure():
            return _record(shape, _object(value, place), place)


def _read(shape: Leaf, value: Any, place: str) -> Any:
    try:
        return shape.read(value)
    except ValueError as error:
        raise ValueError(f"{place} {error}") from None


def _chosen(shape: Choice, value: Any, place: str) -> Any:
    for chosen in shape.values.values():
        own = getattr(chosen, "value", chosen)
        if type(value) is type(own) and value == own:
            return chosen
    raise ValueError(f"{place} is {_shown(value)}, expected one of {', '.join(shape.values)}")


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} is {_shown(value)}, expected an object")
    return value


def _record(shape: Structure, given: Mapping[str, Any], place: str) -> Any:
    for name, member in shape.members.items():
        if member.required and name not in given:
            raise ValueError(f"{place} has no {name}, which {shape.name} requires")
    found = {
        name: convert(member.shape, given[name], f"{place}.{name}")
        for name, member in shape.members.items()
        if name in given
    }
    try:
        return shape.make(found)
    except (TypeError, ValueError) as error:
        # A check of the class itself, such as __post_init__ of a dataclass.
        raise ValueError(f"{place}: {error}") from error


def _shown(value: Any) -> str:
    """Return a value as a short text."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
