"""core/json_values.py: the content of a message in the types of a dataclass."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from zmsvc.task.inbox import Message
from zmsvc.task.message_types import conversion


class Unit(enum.Enum):
    C = "C"
    F = "F"


@dataclass
class Place:
    room: str
    floor: int | None = None


@dataclass
class Reading:
    celsius: float
    place: Place = field(default_factory=lambda: Place("hall"))
    unit: Unit = Unit.C
    more: list[int] = field(default_factory=list)
    names: dict[str, bool] = field(default_factory=dict)
    file: Path = Path("/")
    every: timedelta = timedelta(0)
    mode: Literal["a", 1] = "a"
    any: Any = None
    class_: str = ""

    def __post_init__(self) -> None:
        if self.celsius < -273:
            raise ValueError("colder than cold")


def on_message(self: object, message: Message[Reading]) -> None:
    """Show the type of the messages."""


def untyped(self: object, message: Message[Any]) -> None:
    """Declare no type of the messages."""


convert = conversion(on_message)
assert convert is not None


def test_a_content_becomes_the_dataclass_with_its_types() -> None:
    assert convert({"celsius": 20, "unknown": 1}) == Reading(20.0)
    assert convert(
        {
            "celsius": 20.5,
            "place": {"room": "x", "floor": None},
            "unit": "F",
            "more": [1, 2],
            "names": {"x": True},
            "file": "/srv",
            "every": "500ms",
            "mode": 1,
            "any": [{}],
            "class": "c",
        }
    ) == Reading(
        20.5, Place("x"), Unit.F, [1, 2], {"x": True}, Path("/srv"), timedelta(seconds=0.5), 1, [{}], "c"
    )
    assert convert({"celsius": 0, "every": 2}).every == timedelta(seconds=2)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "content is [], expected an object"),
        ({}, "content has no celsius, which Reading requires"),
        ({"celsius": "20"}, "content.celsius is '20', expected a number"),
        ({"celsius": True}, "content.celsius is True, expected a number"),
        ({"celsius": float("nan")}, "content.celsius is nan, expected a number"),
        ({"celsius": 1, "place": {"room": 1}}, "content.place.room is 1, expected a text"),
        ({"celsius": 1, "place": {"room": "", "floor": 1.5}}, "content.place.floor is 1.5, expected a whole number"),
        ({"celsius": 1, "more": 1}, "content.more is 1, expected a list"),
        ({"celsius": 1, "more": [1, "x" * 99]}, f"content.more[1] is '{'x' * 56}..., expected a whole number"),
        ({"celsius": 1, "more": ["x" * 58]}, f"content.more[0] is '{'x' * 58}', expected a whole number"),
        ({"celsius": 1, "more": ["x" * 59]}, f"content.more[0] is '{'x' * 56}..., expected a whole number"),
        ({"celsius": 1, "names": {"a": 1}}, "content.names.a is 1, expected true or false"),
        ({"celsius": 1, "unit": "K"}, "content.unit is 'K', expected one of C, F"),
        ({"celsius": 1, "mode": "1"}, "content.mode is '1', expected one of a, 1"),
        ({"celsius": 1, "file": ""}, "content.file '' is not a path, expected one such as /srv/data"),
        ({"celsius": 1, "every": []}, "content.every is [], expected a number of seconds, or a time span such as 500ms"),
        ({"celsius": -300}, "content: colder than cold"),
    ],
)  # fmt: skip
def test_a_content_that_does_not_fit_is_refused_with_the_place_of_the_fault(content: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        convert(content)


def test_only_a_type_in_the_annotation_asks_for_a_conversion() -> None:
    found = conversion(untyped)
    assert found is None or found([1]) == [1]
    assert conversion(lambda message: None) is None
