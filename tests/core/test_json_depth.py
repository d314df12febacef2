"""The depth limit of foreign JSON is the same on every Python, and brackets in strings do not count."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.errors import ProtocolError
from zmsvc.core.json_depth import MAX_DEPTH, check_depth
from zmsvc.core.messages import decode


def nested(depth: int) -> str:
    return '{"a":[' * (depth // 2) + "1" + "]}" * (depth // 2)


def test_json_at_the_depth_limit_can_be_read_and_written() -> None:
    check_depth(nested(MAX_DEPTH))
    assert json.dumps(json.loads(nested(MAX_DEPTH)), separators=(",", ":")) == nested(MAX_DEPTH)


def test_json_beyond_the_depth_limit_is_refused_in_messages_too() -> None:
    with pytest.raises(ProtocolError, match=f"deeper than {MAX_DEPTH} levels"):
        check_depth(nested(MAX_DEPTH + 2))
    with pytest.raises(ProtocolError, match="cannot read message: JSON is nested deeper"):
        decode(b'control @@@ {"content":' + nested(MAX_DEPTH).encode() + b"}")


@given(st.text(st.sampled_from('[]{}"\\'), min_size=MAX_DEPTH, max_size=2 * MAX_DEPTH))
def test_brackets_in_strings_and_siblings_do_not_add_depth(text: str) -> None:
    check_depth(json.dumps([text, [[]] * MAX_DEPTH]))


def test_a_text_that_is_not_json_is_left_to_the_parser() -> None:
    for text in ('"' + "[" * 9999, "]" * 9999, "[" * MAX_DEPTH + "]" * MAX_DEPTH + '"[["'):
        body = text.encode()
        with pytest.raises(ProtocolError, match="cannot read message"):
            decode(b"control @@@ " + body)
