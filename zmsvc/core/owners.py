"""Users and groups as a context file names them. Pure: only host knows those that exist on this machine."""

from __future__ import annotations

import re

_NAME = re.compile(r"(?!-)[^\s:/\x00-\x1f\x7f]+")
"""The names that a user database can hold, including network databases (`DOMAIN\\user`, `user@domain`)."""
_HIGHEST = 0xFFFFFFFE
_DIGITS = 20
_NO_ID = 0xFFFF
"""-1 in 16 bits. Old interfaces take it for "no user"; systemd refuses it as well."""


def numeric_id(text: str) -> int | None:
    """Return the user or group ID that a text contains, or None for a name."""
    return int(text) if text.isascii() and text.isdecimal() else None


def owner(text: str) -> str:
    """Read the name or number of a user or group; it need not exist on this machine. Raises ValueError."""
    if text.isdecimal():
        # Refuse longer numbers. If they were cut off, a number after many zeros would be the ID of root.
        number = numeric_id(text) if len(text) <= _DIGITS else None
        if number is None or number > _HIGHEST or number == _NO_ID:
            raise ValueError(
                f"{text[:20]!r} is not an ID, expected a name, or a number from 0 to {_HIGHEST} that is "
                f"not {_NO_ID}"
            )
        return str(number)
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text[:60]!r} cannot be a name, expected the name or the number of one")
    return text
