"""The syntax of an environment file, which is that of systemd's EnvironmentFile=. Pure.

A line or a name that cannot be read is a fault here, while systemd passes over it: a task must not run
without a variable that the author of the file meant to set. The text of a fault quotes nothing of the file,
because values may be secrets.
"""

from __future__ import annotations

import re

_SKIPPED = re.compile(r"(?:[ \t\r\n]+|[#;][^\r\n]*)*+")
"""White space, empty lines and comments between variables. As since systemd 254, a backslash at the end of a
comment does not continue it.
"""
_BLANKS = re.compile(r"[ \t]*")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t]*=")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_PLAIN = re.compile(r"[^\\\r\n]*+(?:\\.[^\\\r\n]*+)*+\\?", re.DOTALL)
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_ESCAPED_IN_QUOTES = re.compile(r'\\(["\\`$\r\n])')
_PIECES = re.compile(r"\\.?|[^\\]+", re.DOTALL)


def parse(text: str) -> dict[str, str]:
    """Return the variables of a file; the last of several with the same name counts. Raises ValueError with
    `LINE: why`.
    """
    found: dict[str, str] = {}
    position = _end(_SKIPPED, text, 0)
    while position < len(text):
        name = _NAME.match(text, position)
        if name is None:
            raise _fault(text, position, "this is not a variable, expected NAME=value")
        found[name[1]], position = _value(text, name.end())
        position = _end(_SKIPPED, text, position)
    if "\0" in text:
        raise _fault(text, text.index("\0"), "a NUL character, expected text")
    return found


def _value(text: str, position: int) -> tuple[str, int]:
    """Return a value, and the position of its end. A value has quoted parts, and then, up to the end of the
    line, a part without quotes.
    """
    parts: list[str] = []
    while True:
        position = _end(_BLANKS, text, position)
        opening = text[position : position + 1]
        if opening not in ("'", '"'):
            break
        quoted = (_SINGLE if opening == "'" else _DOUBLE).match(text, position)
        if quoted is None:
            raise _fault(text, position, f"a quoted value is not closed, expected {opening}")
        single = opening == "'"
        parts.append(quoted[1] if single else _ESCAPED_IN_QUOTES.sub(_unescaped, quoted[1]))
        position = quoted.end()
    plain = _PLAIN.match(text, position)
    assert plain is not None
    pieces = _PIECES.findall(plain[0])
    # The value ends before white space at the end of the line, unless a backslash is before it.
    if pieces and not pieces[-1].startswith("\\"):
        pieces[-1] = pieces[-1].rstrip(" \t")
    parts += [_ESCAPED.sub(_unescaped, piece) for piece in pieces]
    return "".join(parts), plain.end()


def _unescaped(match: re.Match[str]) -> str:
    """Return the character after a backslash. A backslash at the end of a line continues it."""
    return "" if match[1] in ("\r", "\n") else match[1]


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return position if match is None else match.end()


def _fault(text: str, position: int, why: str) -> ValueError:
    return ValueError(f"{text.count(chr(10), 0, position) + 1}: {why}")
