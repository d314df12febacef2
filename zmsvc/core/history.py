"""The details of a history event as text: `reason=exited pid=12`. The log and `zmsvcctl events` show this
text. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fields(detail: Mapping[str, Any]) -> dict[str, str]:
    """Return the details as text, by name. Empty values and booleans that are false are left out. So is the
    cause, which has a form of its own.
    """
    return {
        name: _text(value)
        for name, value in detail.items()
        if name != "cause" and value is not False and value not in (None, "", [], (), {})
    }


def as_text(details: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in details.items())


def _text(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, Mapping):
        # An event of another release may contain more.
        return (
            _process(value)
            if "pid" in value
            else ":".join(f"{name}={_text(each)}" for name, each in value.items())
        )
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _process(entry: Mapping[str, Any]) -> str:
    """Return a process and the way it ended, as `redis(12):SIGTERM`."""
    code = entry.get("code")
    end = entry.get("signal") or ("" if code is None else code)
    return f"{entry.get('name')}({entry.get('pid')}){f':{end}' if end != '' else ''}"
