"""The syntax of systemd's unit files: sections, NAME=VALUE, continued lines, and lists of quoted words."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from zmsvc.ctl.imports.import_report import FileLine, UnreadableError
from zmsvc.ctl.imports.ini_file import OptionText

_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " ",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip
_NUMBER = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3}))")


@dataclass(slots=True)
class UnitSection:
    """The assignments of all sections of one name. An empty assignment has removed those before it."""

    values: dict[str, list[OptionText]] = field(default_factory=dict)

    def last(self, key: str) -> OptionText | None:
        return self.values[key][-1] if self.values.get(key) else None


def parse(text: str, path: Path) -> dict[str, UnitSection]:
    """Return the sections of a unit file by their names. Raises UnreadableError."""
    sections: dict[str, UnitSection] = {}
    section: UnitSection | None = None
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        place, line = FileLine(str(path), at + 1), lines[at].strip()
        at += 1
        if not line or line[0] in "#;":
            continue
        while line.endswith("\\") and at < len(lines):
            # A comment between continued lines is left out.
            more = lines[at].strip()
            line = line if more[:1] in ("#", ";") else f"{line[:-1]} {more}"
            at += 1
        if line.startswith("[") and line.endswith("]"):
            section = sections.setdefault(line[1:-1], UnitSection())
            continue
        key, equals, value = line.partition("=")
        if section is None or not equals or not key.strip():
            raise UnreadableError(place, "expected NAME=VALUE in a [section]")
        _assign(section, key.strip(), OptionText(value.strip(), place))
    return sections


def _assign(section: UnitSection, key: str, value: OptionText) -> None:
    if value.text:
        section.values.setdefault(key, []).append(value)
    else:
        section.values.pop(key, None)


def words(text: str) -> list[str]:
    """Split a value as systemd does: quotes around words, and escapes of C in them. Raises ValueError."""
    found: list[str] = []
    word: list[str] | None = None
    quote, at = "", 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\":
            piece, at = _escape(text, at - 1)
            word = [*(word or []), piece]
        elif quote:
            if char == quote:
                quote = ""
            else:
                word = [*(word or []), char]
        elif char in "\"'":
            quote, word = char, word or []
        elif char.isspace():
            found += [] if word is None else ["".join(word)]
            word = None
        else:
            word = [*(word or []), char]
    if quote:
        raise ValueError("a quote is not closed")
    return found + ([] if word is None else ["".join(word)])


def _escape(text: str, at: int) -> tuple[str, int]:
    """Return the character of an escape, and the position after it."""
    if number := _NUMBER.match(text, at):
        digits = number[number.lastindex or 1]
        return chr(int(digits, 8 if number.lastindex == 4 else 16)), number.end()
    if (follows := text[at + 1 : at + 2]) in _ESCAPES and follows:
        return _ESCAPES[follows], at + 2
    # systemd leaves an unknown escape as it is.
    return "\\", at + 1
