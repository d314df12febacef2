"""The file that another host has written about its context: each of its faults is told."""

from __future__ import annotations

import json

import pytest

from zmsvc.core.carried import MAX_SIZE, Carried, parse


def test_a_file_is_read_and_unknown_names_are_ignored() -> None:
    text = {
        "host": "h1",
        "open": ["T2", "T1"],
        "held": [["T1", "ts_1"]],
        "disabled": ["ts_2"],
        "later": {"x": 1},
    }
    assert parse(json.dumps(text).encode()) == Carried(
        host="h1", open=("T2", "T1"), held=(("T1", "ts_1"),), disabled=("ts_2",)
    )
    assert parse(b'{"host": "h1", "open": []}') == Carried(host="h1")
    assert parse(b'{"host": "h1", "open": [], "generation": 3}').generation == 3


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * (MAX_SIZE + 1), "it is longer than 1 MiB"),
        (b"[]", "it is not a JSON object"),
        (b'{"open": []}', '"host" is missing'),
        (b'{"host": 1, "open": []}', '"host" is missing'),
        (b'{"host": "h1"}', '"open" is missing'),
        (b'{"host": "h1", "open": {}}', '"open" is {}, expected a list'),
        (b'{"host": "h1", "open": ["../x"]}', '"open" has "../x", expected a transaction ID'),
        (b'{"host": "h1", "open": [7]}', '"open" has 7, expected a transaction ID'),
        (b'{"host": "h1", "open": ["T", "T"]}', '"open" names a transaction twice'),
        (b'{"host": "h1", "open": ["T"], "held": ["T"]}', '"held" has "T", expected'),
        (b'{"host": "h1", "open": ["T"], "held": [["U", "a"]]}', 'transaction "U", which is not in "open"'),
        (b'{"host": "h1", "open": ["T"], "held": [["T", ""]]}', '"held" has "", expected the ID of a task'),
        (b'{"host": "h1", "open": [], "disabled": [null]}', '"disabled" has null, expected the ID of a task'),
        (
            b'{"host": "h1", "open": [], "generation": -1}',
            '"generation" is -1, expected a whole number from 0',
        ),
        (b'{"host": "h1", "open": [], "generation": true}', '"generation" is true, expected'),
        (b'{"host": "h1", "open": [], "generation": 1048576}', '"generation" is 1048576, expected'),
        (b'{"host": "h1", "open": [], "disabled": "a"}', '"disabled" is "a", expected a list'),
    ],
)
def test_a_fault_of_the_file_is_told(text: bytes, why: str) -> None:
    with pytest.raises(ValueError) as found:  # noqa: PT011
        parse(text)
    assert why in str(found.value)
