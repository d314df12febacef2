"""core/settings: the conversion of a configuration to typed values finds all faults at once, each with its
place.
"""

from __future__ import annotations

from typing import Any

import pytest

from zmsvc.core import settings
from zmsvc.core.settings import Choice, Many, Maybe, Member, Raw, Structure, Table

INNER = Structure(
    name="Inner", members={"id": Member(settings.WHOLE, True), "unit": Member(settings.TEXT, False)}
)
SHAPE = Structure(
    name="Settings",
    members={
        "n": Member(settings.WHOLE, True),
        "rate": Member(settings.NUMBER, False),
        "on": Member(settings.BOOLEAN, False),
        "every": Member(settings.SECONDS, False),
        "where": Member(settings.PATH, False),
        "kind": Member(Choice({"1": 1, "b": "b"}), False),
        "single": Member(Choice({"one": 1}), False),
        "maybe": Member(Maybe(settings.WHOLE), False),
        "many": Member(Many(settings.WHOLE), False),
        "inner": Member(Many(INNER, tuple), False),
        "one": Member(INNER, False),
        "table": Member(Table(settings.NUMBER), False),
        "raw": Member(Raw(), False),
    },
)


def test_texts_become_values() -> None:
    given = {
        "n": "-10", "rate": "1e3", "on": "Yes", "every": "1min 500ms", "where": "/srv", "kind": "1", "maybe": "",
        "many": "7", "inner": [{"id": "1"}, {"id": "2", "unit": "K"}], "table": {"a": "1", "b": "2"}, "raw": [{"x": ""}],
        "location": "/x", "device_action": "", "interval": "3",
    }  # fmt: skip
    assert settings.convert(SHAPE, given) == (
        {
            "n": -10, "rate": 1000.0, "on": True, "every": 60.5, "where": "/srv", "kind": 1, "maybe": None,
            "many": [7], "inner": ({"id": 1}, {"id": 2, "unit": "K"}), "table": {"a": 1.0, "b": 2.0},
            "raw": [{"x": ""}],
        },
        [],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "place", "text"),
    [
        ({"n": "ten"}, (("n", 0),), "<n> 'ten' is not a whole number, expected one such as 10"),
        ({"n": "--1"}, (("n", 0),), "<n> '--1' is not a whole number, expected one such as 10"),
        ({"n": "1" * 5000}, (("n", 0),), f"<n> '{'1' * 57}...' is not a whole number, expected one such as 10"),
        ({"rate": "nan"}, (("rate", 0),), "<rate> 'nan' is not a number, expected one such as 0.5"),
        ({"on": "maybe"}, (("on", 0),), "<on> 'maybe' is not a boolean, expected yes or no"),
        ({"where": ""}, (("where", 0),), "<where> '' is not a path, expected one such as /srv/data"),
        ({"kind": "c"}, (("kind", 0),), "<kind> 'c' is unknown, expected 1 or b"),
        ({"single": "c"}, (("single", 0),), "<single> 'c' is unknown, expected one"),
        ({"n": ["1", "2", "3"]}, (("n", 1),), "a second <n>, expected one (there are 3)"),
        ({"n": {"x": "1"}}, (("n", 0),), "<n> has elements or attributes, expected a text"),
        ({"many": ["1", "x"]}, (("many", 1),), "<many> 'x' is not a whole number, expected one such as 10"),
        ({"inner": [{"id": "1"}, {"id": "y"}]}, (("inner", 1), ("id", 0)), "<id> 'y' is not a whole number, expected one such as 10"),
        ({"table": "text"}, (("table", 0),), "<table> has the text 'text', expected elements in it"),
        ({"one": {"#text": "text", "id": "1"}}, (("one", 0),), "<one> has the text 'text', expected elements in it"),
        ({"one": ""}, (("one", 0),), "<one> has no <id>, expected one, because Inner has no default for it"),
        ({"one": {"id": "1", "uint": ""}}, (("one", 0), ("uint", 0)), "<uint> is unknown to Inner, expected id or unit (did you mean unit?)"),
        ({"#text": "text"}, (), "<configuration> has the text 'text', expected elements in it"),
        ({"table": {"a": "x"}}, (("table", 0), ("a", 0)), "<a> 'x' is not a number, expected one such as 0.5"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_and_says_what_was_expected(given: Any, place: Any, text: str) -> None:
    value, faults = settings.convert(SHAPE, {"n": "1", **given})
    assert value is None
    assert [(each.place, each.text) for each in faults] == [(place, text)]


def test_all_faults_are_found_at_once_and_a_missing_element_is_one() -> None:
    _, faults = settings.convert(SHAPE, {"rate": "x", "on": "x"})
    assert [each.text.split()[0] for each in faults] == ["<rate>", "<on>", "<configuration>"]
    assert (
        faults[2].text == "<configuration> has no <n>, expected one, because Settings has no default for it"
    )


def test_a_record_that_is_not_known_completely_takes_any_name() -> None:
    shape = Structure(name="S", members={}, complete=False)
    assert settings.convert(shape, {"any": "x"}) == ({}, [])


def test_the_check_of_the_class_itself_is_a_fault_like_others() -> None:
    def refuse(found: dict[str, Any]) -> object:
        raise ValueError("low is above high")

    _, faults = settings.convert(Structure(name="S", members={}, make=refuse), {})
    assert [(each.place, each.text) for each in faults] == [((), "S: low is above high")]
