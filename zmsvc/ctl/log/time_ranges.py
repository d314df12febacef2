"""Times and ranges of priorities in the syntax of journalctl (systemd.time(7), journalctl(1)), for a log
file.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from zmsvc.core.errors import UsageError
from zmsvc.core.values import PRIORITIES, timespan

_DATE = re.compile(
    r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+)?"
    r"(?:(?P<year>\d{4}|\d\d)-(?P<month>\d\d?)-(?P<day>\d\d?))?"
    r"(?:(?:(?<=\d)[T\s]\s*|(?<!\S))(?P<hour>\d\d?):(?P<minute>\d\d?)(?::(?P<second>\d\d?)(?P<part>\.\d{1,6}\d*)?)?)?"
    r"\s*(?P<zone>Z|[+-]\d\d:?(?:\d\d)?|[A-Za-z][A-Za-z0-9_+/-]*)?",
    re.IGNORECASE,
)
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}


def moment(text: str) -> float:
    """Parse a time; return seconds of the epoch. Raises UsageError."""
    words = text.strip()
    try:
        found = _relative(words) if words else None
        return _absolute(words) if found is None else found
    except (ValueError, OverflowError, OSError, LookupError):
        raise UsageError(
            f"cannot understand the time {text!r}, expected one like '2026-11-29 10:00', 10:00, yesterday, "
            f"-2h or '5min ago'"
        ) from None


def _relative(words: str) -> float | None:
    now = time.time()
    if words == "now":
        return now
    if words in _DAYS:
        midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight + timedelta(days=_DAYS[words])).timestamp()
    if words[0] == "@":
        return float(words[1:])
    if words[0] in "+-":
        span = timespan(words[1:])
        return now + span if words[0] == "+" else now - span
    for end, sign in (("ago", -1), ("left", 1)):
        if words.endswith(f" {end}"):
            return now + sign * timespan(words.removesuffix(end))
    return None


def _absolute(words: str) -> float:
    match = _DATE.fullmatch(words)
    if match is None or (match["year"] is None and match["hour"] is None):
        raise ValueError(words)
    zone = _zone(match["zone"])
    day = datetime.now(zone)
    if match["year"] is not None:
        year = int(match["year"])
        # As in systemd: two digits are a year from 1970 to 2069.
        year += 0 if year >= 100 else 2000 if year < 70 else 1900
        day = datetime(year, int(match["month"]), int(match["day"]), tzinfo=zone)
    return day.replace(
        hour=int(match["hour"] or 0), minute=int(match["minute"] or 0), second=int(match["second"] or 0),
        microsecond=round(float(match["part"] or 0) * 1e6),
    ).timestamp()  # fmt: skip


def _zone(text: str | None) -> tzinfo | None:
    """Parse a time zone; None is this machine's own."""
    if text is None:
        return None
    if text.upper() in ("Z", "UTC"):
        return UTC
    if text[0] in "+-":
        digits = text[1:].replace(":", "")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
        return timezone(offset if text[0] == "+" else -offset)
    return ZoneInfo(text)


def stamped(text: str) -> float:
    """Parse a time stamp of the log file."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


def priorities(text: str) -> range:
    """Parse `err`, which means this priority and all more severe ones, or `err..info`. Raises UsageError."""
    first, dots, last = text.partition("..")
    ends = sorted(_priority(each) for each in ((first, last) if dots else ("0", first)))
    return range(ends[0], ends[1] + 1)


def _priority(text: str) -> int:
    word = text.strip().lower()
    if word in PRIORITIES:
        return PRIORITIES.index(word)
    if word.isascii() and word.isdigit() and int(word) < len(PRIORITIES):
        return int(word)
    raise UsageError(
        f"cannot understand the priority {text!r}, expected one of {', '.join(PRIORITIES)}, a number from "
        f"0 to 7, or A..B"
    )
