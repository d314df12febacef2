"""What `extra=` adds to a record of Python's logging: fields for the journal, and words for a line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

MOST = 64
"""Fields of one record; the others are left out."""
LONGEST = 65536
"""Characters of a value; the rest is left out."""

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""What journald takes from a client (sd_journal_send(3))."""
_OURS = re.compile(r"ZMSVC_|SYSLOG_|CODE_|PRIORITY$|MESSAGE$|LOGGER$|EXCEPTION$")
"""Fields that say whose an entry is, and what of it: they cannot be given."""
_OWN = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "journal",
}
"""Attributes of every record (`taskName` since Python 3.12), and those that a formatter or this daemon
adds.
"""
_PLAIN = re.compile(r"[^\s\"'=\[\]]+")


def _given(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    if len(record.__dict__) <= len(_OWN) and record.__dict__.keys() <= _OWN:
        return
    count = 0
    for key, value in record.__dict__.items():
        if key in _OWN or value is None:
            continue
        name = key.upper()
        if not _NAME.fullmatch(name) or _OURS.match(name):
            continue
        count += 1
        if count > MOST:
            return
        yield name, _text(value)


def _text(value: Any) -> str:
    # Broad, for it is the user's own code that makes a text of the value, and a log line is never worth an
    # error in the one who logs.
    try:
        return str(value)[:LONGEST]
    except Exception as error:
        return f"(cannot be shown: {type(error).__name__})"


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields for the journal: `extra={"order_id": 17}` is ORDER_ID=17. A name that journald
    refuses is left out.
    """
    return dict(_given(record))


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def added(text: str, record: logging.LogRecord) -> str:
    """Return the text of a record with the same as words at the end of its first line: ` [ORDER_ID=17
    WHO="a b"]`.
    """
    words = " ".join(f"{name}={_quoted(value)}" for name, value in _given(record))
    if not words:
        return text
    first, end, rest = text.partition("\n")
    return f"{first} [{words}]{end}{rest}"
