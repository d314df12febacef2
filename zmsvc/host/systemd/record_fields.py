"""Read the fields that `extra=` adds to a record of Python's logging, for the journal and for a line of
text.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

MOST = 64
"""The most fields of one record; further ones are left out."""
LONGEST = 65536
"""The most characters of a value; the rest is cut off."""

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
"""Names that journald accepts from a client (sd_journal_send(3))."""
_OURS = re.compile(r"ZMSVC_|SYSLOG_|CODE_|PRIORITY$|MESSAGE$|LOGGER$|EXCEPTION$")
"""Fields that zmsvc sets: `extra=` cannot override them."""
_OWN = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "journal",
}
"""Attributes of every record (`taskName` since Python 3.12), and those that a formatter or zmsvc adds."""
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
    # A broad except: the value's __str__ is code of the user, and a log call must not raise.
    try:
        return str(value)[:LONGEST]
    except Exception as error:
        return f"(cannot be shown: {type(error).__name__})"


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields for the journal: `extra={"order_id": 17}` becomes ORDER_ID=17. Names that journald
    refuses are left out.
    """
    return dict(_given(record))


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def added(text: str, record: logging.LogRecord) -> str:
    """Return the text of a record with these fields at the end of its first line: ` [ORDER_ID=17 WHO="a
    b"]`.
    """
    words = " ".join(f"{name}={_quoted(value)}" for name, value in _given(record))
    if not words:
        return text
    first, end, rest = text.partition("\n")
    return f"{first} [{words}]{end}{rest}"
