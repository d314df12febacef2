"""core/topics: which values can be a topic."""

from __future__ import annotations

from typing import Any

import pytest

from zmsvc.core import topics


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        ("raw", []),
        (["raw", "a @@@ b"], [(1, "'a @@@ b' cannot be a topic")]),
        (["", "raw"], [(0, "a topic is empty")]),
        (["raw", 5], [(1, "'5' is not a text")]),
        ("é" * 500, []),
        ("é" * 501, [(0, f"'{'é' * 57}...' cannot be a topic: it has 1002 bytes, 1000 are allowed")]),
    ],
)
def test_what_is_wrong_with_a_topic_is_said_for_each_value(value: Any, faults: list[tuple[int, str]]) -> None:
    assert topics.faults(value) == faults
