"""What an event of the history tells, in words: `reason=exited pid=12`. The log and `zmsvcctl events` show
the same. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def words(detail: Mapping[str, Any]) -> dict[str, str]:
    """Return what there is to be told, as text by its name. What is empty tells nothing, and a cause has a
    form of its own.
    """
    return {
        name: _text(value)
        for name, value in detail.items()
        if name != "cause" and value not in (None, "", [], (), {})
    }


def line(told: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in told.items())


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        # An event of another release may tell more.
        return (
            _process(value)
            if "pid" in value
            else ":".join(f"{name}={_text(each)}" for name, each in value.items())
        )
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _process(entry: Mapping[str, Any]) -> str:
    """`redis(12):SIGTERM`: a process and what has ended it."""
    code = entry.get("code")
    how = entry.get("signal") or ("" if code is None else code)
    return f"{entry.get('name')}({entry.get('pid')}){'' if how == '' else f':{how}'}"
