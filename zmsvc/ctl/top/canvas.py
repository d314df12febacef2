"""The parts of which the screen of `top` is made: styled text, sizes, and the data that it shows. Pure."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from zmsvc.core.frozen import frozen
from zmsvc.ctl.terminal import Style
from zmsvc.ctl.top import text
from zmsvc.ctl.top.cursor import Cursor
from zmsvc.ctl.top.rows import Snapshot


class Paint(Enum):
    """The meaning of a part of a line, which the terminal shows by colors or by bold and reverse text."""

    PLAIN = "plain"
    BOLD = "bold"
    DIM = "dim"
    HEAD = "head"
    ACTIVE = "active"
    BUSY = "busy"
    FAILED = "failed"
    ALERT = "alert"
    KEY = "key"


@frozen
class Span:
    """A part of a line in one style."""

    text: str
    paint: Paint = Paint.PLAIN
    selected: bool = False


Line = tuple[Span, ...]


@frozen
class Size:
    """The size of the terminal."""

    lines: int
    columns: int


@frozen
class Status:
    """All that the screen shows."""

    snapshot: Snapshot
    total_memory: int = 0
    """The memory of the machine in bytes; 0 if that is not known."""
    trouble: str = ""
    """Why the snapshot is not current; empty if it is."""
    age: float = 0.0
    """The age of the snapshot in seconds; shown if there is trouble."""
    message: str = ""
    """The last order and its outcome."""
    bad: bool = False
    """True if the message is a failure."""
    pane: tuple[str, ...] | None = None
    """The lines of the pane; None while they are being read."""
    utf8: bool = True


@frozen
class Picture:
    """The lines of the screen, and what is needed to understand the next key."""

    lines: tuple[Line, ...]
    cursor: Cursor
    """The cursor as it is on this screen."""
    height: int
    """The number of lines of the table."""
    caret: tuple[int, int] | None = None
    """The line and column at which the user types."""


def fitted(line: Line, columns: int, *, utf8: bool) -> Line:
    """Cut a line to the width of the terminal."""
    found, rest = [], columns
    for span in line:
        if (wide := text.width(span.text)) > rest:
            if rest > 0:
                found.append(replace(span, text=text.cut(span.text, rest, utf8=utf8)))
            break
        found.append(span)
        rest -= wide
    return tuple(found)


def mark(state: str, *, utf8: bool) -> str:
    """Return the mark that shows a state without color."""
    return Style(colors=False, utf8=utf8).dot(state)


def counted(count: int, what: str) -> str:
    """Format `1 task`, `2 tasks`."""
    return f"{count} {what}{'s' if count != 1 else ''}"
