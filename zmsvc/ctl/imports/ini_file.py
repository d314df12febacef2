"""Files in the form of configparser, with the line of each value, which configparser itself does not give."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zmsvc.core.errors import reason
from zmsvc.ctl.create.fields import not_xml
from zmsvc.ctl.imports.import_report import FileLine, UnreadableError

MAX_SIZE = 16 << 20
"""The maximum size of a file in bytes."""


@dataclass(frozen=True, slots=True)
class OptionText:
    """The text of an option, and its line."""

    text: str
    place: FileLine


@dataclass(slots=True)
class Section:
    """A section of a file."""

    name: str
    place: FileLine
    values: dict[str, OptionText] = field(default_factory=dict)

    def text(self, key: str, default: str = "") -> str:
        return self.values[key].text if key in self.values else default

    def at(self, key: str) -> FileLine:
        """Return the line of an option, or that of the section."""
        return self.values[key].place if key in self.values else self.place


def read_text(path: Path, max_size: int = MAX_SIZE) -> str:
    """Return the text of a file of at most so many bytes. Raises UnreadableError."""
    try:
        with open(path, "rb") as file:
            data = file.read(max_size + 1)
    except (OSError, ValueError) as error:
        raise UnreadableError(
            str(path), reason(error) if isinstance(error, OSError) else str(error)
        ) from error
    if len(data) > max_size:
        raise UnreadableError(str(path), f"it is larger than {max_size >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableError(FileLine(str(path), line), "it is not in UTF-8") from error
    for number, line_text in enumerate(text.split("\n"), start=1):
        if why := not_xml(line_text):
            raise UnreadableError(FileLine(str(path), number), f"the line {why}")
    return text


def parse(text: str, path: Path, comments: tuple[str, ...]) -> dict[str, Section]:
    """Return the sections of a file by their names, in their order. `comments` are the characters that begin
    a comment after a blank. Raises UnreadableError.
    """
    parser = configparser.RawConfigParser(
        strict=False, inline_comment_prefixes=comments, default_section="\0", empty_lines_in_values=False
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text, str(path))
    except configparser.MissingSectionHeaderError as error:
        raise UnreadableError(
            FileLine(str(path), error.lineno), "a line stands before the first [section]"
        ) from error
    except configparser.ParsingError as error:
        raise UnreadableError(
            FileLine(str(path), error.errors[0][0]), "expected NAME=VALUE or [section]"
        ) from error
    except configparser.Error as error:
        raise UnreadableError(str(path), str(error)) from error
    headers, lines = _lines(text)
    found = {}
    for name in parser.sections():
        section = Section(name, FileLine(str(path), headers.get(name, 1)))
        for key, value in parser.items(name):
            place = FileLine(str(path), lines.get((name, key), section.place.line))
            section.values[key] = OptionText(value or "", place)
        found[name] = section
    return found


def _lines(text: str) -> tuple[Mapping[str, int], Mapping[tuple[str, str], int]]:
    """Return the lines of the sections and of their options. The last of two equal ones counts."""
    headers: dict[str, int] = {}
    lines: dict[tuple[str, str], int] = {}
    name = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := configparser.RawConfigParser.SECTCRE.match(line.strip()):
            name = header["header"]
            headers.setdefault(name, number)
        elif option := configparser.RawConfigParser.OPTCRE.match(line.strip()):
            # An indented line that looks like an option may continue the value before it.
            key = option["option"].rstrip()
            if not line[:1].isspace() or (name, key) not in lines:
                lines[name, key] = number
    return headers, lines
