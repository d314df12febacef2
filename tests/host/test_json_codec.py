"""The JSON of messages: orjson and the standard library write and read the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.json_depth import MAX_DEPTH, is_shallow
from zmsvc.task import json_codec
from zmsvc.task.json_codec import STANDARD, JsonCodec


@pytest.fixture(scope="module")
def codec() -> JsonCodec:
    return json_codec._of_orjson(pytest.importorskip("orjson"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.dictionaries(st.integers(), inner),
    max_leaves=20,
)


@given(value=VALUES)
def test_both_write_the_same_value(codec: JsonCodec, value: Any) -> None:
    assert json.loads(codec.encode(value)) == json.loads(STANDARD.encode(value))


@given(value=VALUES)
def test_both_read_the_same_value_except_integers_of_more_than_64_bits(codec: JsonCodec, value: Any) -> None:
    text = STANDARD.encode(value)
    read = STANDARD.decode(text)
    assert codec.decode(text) == read or any(abs(each) >= 2**63 for each in integers(read))


def integers(value: Any) -> list[int]:
    if isinstance(value, Mapping):
        return [found for each in value.values() for found in integers(each)]
    if isinstance(value, list):
        return [found for each in value for found in integers(each)]
    return [value] if isinstance(value, int) else []


@dataclass
class Reading:
    celsius: float


@pytest.mark.parametrize("value", [Reading(1.0), datetime(2026, 1, 1, tzinfo=UTC), {1}, b"x", object()])
def test_both_refuse_what_is_not_json(codec: JsonCodec, value: Any) -> None:
    for each in (codec, STANDARD):
        with pytest.raises(TypeError):
            each.encode({"value": value})


def test_nan_is_written_as_the_standard_library_does(codec: JsonCodec) -> None:
    for value in (math.nan, math.inf):
        assert codec.encode([value]) == STANDARD.encode([value])
    assert codec.encode({"a": None, "b": "null"}) == b'{"a":null,"b":"null"}'


@pytest.mark.parametrize("text", [b"[NaN]", b'"\\ud800"', b'["\xed\xa0\x80"]', b'{"a":1,"a":2}'])
def test_a_text_that_orjson_refuses_is_read_by_the_standard_library(codec: JsonCodec, text: bytes) -> None:
    assert repr(codec.decode(text)) == repr(STANDARD.decode(text))


@pytest.mark.parametrize("deep", [b"[" * (MAX_DEPTH + 1), b'{"a":' * (MAX_DEPTH + 1)])
def test_both_refuse_a_text_that_is_nested_too_deeply(codec: JsonCodec, deep: bytes) -> None:
    text = deep + b"1" + (b"]" if deep[:1] == b"[" else b"}") * (MAX_DEPTH + 1)
    for each in (codec, STANDARD):
        with pytest.raises(ProtocolError, match="nested deeper"):
            messages.body_of(b'{"content":' + text + b"}", each.decode)


@pytest.mark.parametrize("count", [0, 15, 16, 17, 250, 251, 1000])
def test_a_text_with_many_brackets_is_looked_at_more_closely(count: int) -> None:
    assert is_shallow(b"[{" * count) is (2 * count <= MAX_DEPTH)
    assert is_shallow(b"[" * count) is (count <= MAX_DEPTH)


def test_orjson_is_used_if_it_is_installed_and_not_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_codec, "disabled", lambda: frozenset({json_codec.Switch.ORJSON}))
    assert json_codec.codec.__wrapped__() is STANDARD
    monkeypatch.setattr(json_codec, "disabled", frozenset)
    pytest.importorskip("orjson")
    assert json_codec.codec.__wrapped__() is not STANDARD
