"""The help of `top`: the meaning of each key. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from zmsvc.ctl.top import text
from zmsvc.ctl.top.canvas import Line, Paint, Picture, Size, Span, Status, fitted, mark
from zmsvc.ctl.top.cursor import Cursor

HELP = (
    ("arrows, PgUp, Home ...", "select a task"),
    ("/ or F4", "filter: words of names, states and PIDs; Esc ends it"),
    ("< > or F6", "sort by the column before or after this one"),
    ("P M N A S L R", "sort by CPU, memory, PID, ID, state, missed messages, restarts"),
    ("I", "reverse the order"),
    (
        "t or F5",
        "all tasks; tree by transaction; tree by cause: below a task those that its rules have started",
    ),
    ("s", "start the task"),
    ("x", "stop the task, after a question"),
    ("r", "restart the task, after a question"),
    ("k or F9", "send a signal to the task: arrows choose or letters name it, Enter sends it"),
    ("", "on the heading of a transaction, s, x and r are for all its tasks"),
    ("l", "show the log of the task, or close it"),
    ("w or Enter", "show why the task is in its state, or close it"),
    ("Tab", "arrows scroll the log or the explanation, or select tasks again"),
    ("Ctrl-L", "draw the screen again"),
    ("q, F10 or Ctrl-C", "quit; orders go on"),
)


def help_screen(status: Status, size: Size, cursor: Cursor) -> Picture:
    lines: list[Line] = []
    for key, meaning in HELP:
        lines += _help_lines(key, meaning, size.columns)
    marks = ", ".join(
        f"{mark(state, utf8=status.utf8)} {state}" for state in ("active", "failed", "activating", "inactive")
    )
    lines += [(), *((Span(text=each),) for each in text.wrapped(f"marks: {marks}", max(1, size.columns)))]
    height = max(0, size.lines - 1)
    back = min(cursor.back, max(0, len(lines) - height))
    shown = lines[back : back + height]
    more = len(lines) - back - len(shown)
    foot = f"more lines ({more}): down; any other key closes the help" if more else "any key closes the help"
    last: list[Line] = [(Span(text=foot, paint=Paint.DIM),)]
    everything = [*shown, *([()] * (height - len(shown))), *last][: size.lines]
    cut = tuple(fitted(line, size.columns, utf8=status.utf8) for line in everything)
    return Picture(lines=cut, cursor=replace(cursor, back=back), height=1)


_KEY_WIDTH = 24


def _help_lines(key: str, meaning: str, columns: int) -> Iterator[Line]:
    """Yield the lines about a key: beside it if there is room, else below."""
    beside = columns >= 2 * _KEY_WIDTH
    room = max(1, columns - (_KEY_WIDTH if beside else 2))
    broken = _broken(meaning, room)
    if not beside and key:
        yield (Span(text=key, paint=Paint.KEY),)
    for number, each in enumerate(broken):
        if beside:
            yield (
                Span(text=key.ljust(_KEY_WIDTH) if not number else " " * _KEY_WIDTH, paint=Paint.KEY),
                Span(text=each),
            )
        else:
            yield (Span(text=f"  {each}"),)


def _broken(words: str, columns: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > columns:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
