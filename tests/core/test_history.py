"""The details of an event as text."""

from __future__ import annotations

from typing import Any

import pytest

from zmsvc.core import history


@pytest.mark.parametrize(
    ("detail", "text"),
    [
        ({"signal": "SIGHUP", "all": False, "pid": 7}, "signal=SIGHUP pid=7"),
        ({"signal": "SIGHUP", "all": True}, "signal=SIGHUP all=yes"),
        ({"exit_code": 0, "why": "", "tasks": [], "signal": None}, "exit_code=0"),
        ({"tasks": ["a", "b"], "cause": {"by": "operator"}}, "tasks=a,b"),
    ],
)
def test_what_is_empty_or_false_is_left_out(detail: dict[str, Any], text: str) -> None:
    assert history.as_text(history.fields(detail)) == text
