"""Text in the columns of a terminal: its width, cut and wrapped, without control characters. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from zmsvc.core import printable

MAX_MARKS = 2
"""The number of combining characters that a character keeps. A text with more would be drawn over its
neighbors.
"""


def safe(text: str, *, utf8: bool) -> str:
    """Return a text of another program on one line, without characters that control a terminal. Without
    `utf8`, characters beyond ASCII are escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = printable.line(text)
    if not utf8:
        return shown.encode("ascii", "backslashreplace").decode()
    return "".join(_few_marks(shown))


def _few_marks(text: str) -> Iterator[str]:
    marks = 0
    for char in text:
        marks = marks + 1 if not _columns(char) else 0
        if marks <= MAX_MARKS:
            yield char


def width(text: str) -> int:
    """Return the number of columns of a text without control characters."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if char.isascii():
        return 1
    # Combining characters, and the vowels and final consonants of Hangul, which join the previous character.
    if unicodedata.category(char) in ("Mn", "Me") or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, columns: int, *, utf8: bool) -> str:
    """Return the beginning of a text that fits into this many columns. An ellipsis, or `~` without `utf8`,
    stands for the rest.
    """
    if width(text) <= columns:
        return text
    return _beginning(text, columns - 1) + ("…" if utf8 else "~") if columns > 0 else ""


def _beginning(text: str, columns: int) -> str:
    if text.isascii():
        return text[: max(0, columns)]
    used = 0
    for at, char in enumerate(text):
        used += _columns(char)
        if used > columns:
            return text[:at]
    return text


def left(text: str, columns: int, *, utf8: bool) -> str:
    """Return a text in exactly this many columns, at the left."""
    shown = cut(text, columns, utf8=utf8)
    return shown + " " * (columns - width(shown))


def right(text: str, columns: int, *, utf8: bool) -> str:
    """Return a text in exactly this many columns, at the right."""
    shown = cut(text, columns, utf8=utf8)
    return " " * (columns - width(shown)) + shown


def wrapped(text: str, columns: int) -> Iterator[str]:
    """Yield the lines of a text that is broken after this many columns."""
    rest = text
    while width(rest) > columns:
        # A character that is wider than the terminal has a line of its own, and is not tried for ever.
        line = _beginning(rest, columns) or rest[0]
        yield line
        rest = rest[len(line) :]
    if rest or not text:
        yield rest
