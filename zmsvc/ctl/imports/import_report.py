"""The warnings of an import, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass, field

from zmsvc.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class FileLine:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class UnreadableError(UsageError):
    """The file cannot be read, or has none of the forms that import knows."""

    def __init__(self, place: FileLine | str, why: str) -> None:
        super().__init__(f"cannot import {place}: {why}")


@dataclass(slots=True)
class Report:
    """The warnings about the lines of all files, each once."""

    found: dict[tuple[FileLine, str], None] = field(default_factory=dict)

    def warn(self, place: FileLine, text: str) -> None:
        self.found[place, text] = None

    def lines(self) -> list[str]:
        """Return the warnings in the order of the lines, file by file."""
        files = {place.file: None for place, _ in self.found}
        order = {file: at for at, file in enumerate(files)}
        found = sorted(self.found, key=lambda each: (order[each[0].file], each[0].line))
        return [f"{place}: warning: {text}" for place, text in found]
