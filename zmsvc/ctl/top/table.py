"""The table of `top`: which columns fit, and the line of each task and transaction. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from zmsvc.core.amounts import size as amount
from zmsvc.core.frozen import frozen
from zmsvc.ctl.terminal import Style
from zmsvc.ctl.top import text
from zmsvc.ctl.top.canvas import Line, Paint, Span, Status, counted, mark
from zmsvc.ctl.top.cursor import Cursor
from zmsvc.ctl.top.rows import Entry, TaskRow, Tree

_PAINT = {
    "active": Paint.PLAIN,
    "reloading": Paint.PLAIN,
    "failed": Paint.FAILED,
    "activating": Paint.BUSY,
    "deactivating": Paint.BUSY,
    "inactive": Paint.DIM,
}


@frozen
class Column:
    """One column of the table."""

    head: str
    width: int
    cell: Callable[[TaskRow, Status], str]
    least: int = 0
    """The width to which it can be reduced; 0 for one that cannot be."""
    to_the_right: bool = True


def _figure(value: object) -> str:
    return "-" if value is None else str(value)


def _memory_share(row: TaskRow, status: Status) -> str:
    return (
        f"{100 * row.rss / status.total_memory:.1f}" if row.rss is not None and status.total_memory else "-"
    )


_NUMBERS = (
    Column(head="PID", width=7, cell=lambda row, _: _figure(row.pid)),
    Column(head="CPU%", width=6, cell=lambda row, _: "-" if row.cpu is None else f"{row.cpu:.1f}"),
    Column(head="RSS", width=7, cell=lambda row, _: "-" if row.rss is None else amount(row.rss)),
    Column(head="MEM%", width=5, cell=_memory_share),
    Column(head="THREADS", width=7, cell=lambda row, _: _figure(row.threads)),
    Column(head="MISSED", width=6, cell=lambda row, _: str(row.missed)),
    Column(head="RESTARTS", width=8, cell=lambda row, _: str(row.restarts)),
)
_DROPPED = ("THREADS", "MEM%", "INSTANCE", "TRANSACTION", "PID", "CAUSE", "MISSED", "RESTARTS", "RSS", "CPU%")
"""The columns that a narrow terminal leaves out, in this order."""
_GAP, _MARK = 2, 2


def columns_that_fit(status: Status, cursor: Cursor, shown: Sequence[Entry], width: int) -> list[Column]:
    """Return the columns that fit. Texts become shorter first, then columns are left out."""
    rows = [(entry.row, len(entry.ancestors)) for entry in shown if entry.row]
    found = [_text_column("TASK", [2 * depth + _wide(row.task, status) for row, depth in rows], _task, 12)]
    if cursor.tree is not Tree.CAUSE:
        found.append(_text_column("INSTANCE", [_wide(row.instance, status) for row, _ in rows], _instance, 8))
    if cursor.tree is not Tree.TRANSACTION and len(status.snapshot.runs) > 1:
        found.append(
            _text_column("TRANSACTION", [_wide(row.transaction, status) for row, _ in rows], _transaction, 11)
        )
    states = {row.state for row, _ in rows}
    found.append(_text_column("STATE", [_wide(state, status) for state in states], _state, 0))
    found += _NUMBERS
    if cursor.tree is Tree.CAUSE:
        found.append(_text_column("CAUSE", [_wide(row.cause, status) for row, _ in rows], _cause, 20))
    return _that_fit(found, width - _MARK)


def _wide(value: str, status: Status) -> int:
    return len(value) if value.isascii() else text.width(text.safe(value, utf8=status.utf8))


def _text_column(
    head: str, widths: Sequence[int], cell: Callable[[TaskRow, Status], str], least: int
) -> Column:
    width = max([len(head), *widths])
    return Column(head=head, width=width, cell=cell, least=min(least, width), to_the_right=False)


def _that_fit(columns: list[Column], width: int) -> list[Column]:
    dropped = iter(_DROPPED)
    while (excess := sum(each.width + _GAP for each in columns) - _GAP - width) > 0:
        room = [max(0, each.width - each.least) if each.least else 0 for each in columns]
        if sum(room) >= excess:
            return _narrowed(columns, excess)
        name = next(dropped, None)
        if name is None:
            # The names remain, as much as fits.
            return [replace(columns[0], width=max(1, width))]
        columns = [each for each in columns if each.head != name]
    return columns


def _narrowed(columns: list[Column], excess: int) -> list[Column]:
    """Take this many columns from texts, first from the widest one."""
    found = list(columns)
    for _ in range(excess):
        at = max(
            (index for index, each in enumerate(found) if each.least and each.width > each.least),
            key=lambda index: found[index].width - (0 if found[index].head != "TASK" else 8),
        )
        found[at] = replace(found[at], width=found[at].width - 1)
    return found


def _task(row: TaskRow, _: Status) -> str:
    return row.task


def _instance(row: TaskRow, _: Status) -> str:
    return row.instance


def _transaction(row: TaskRow, _: Status) -> str:
    return row.transaction


def _state(row: TaskRow, _: Status) -> str:
    return row.state


def _cause(row: TaskRow, _: Status) -> str:
    return row.cause


def cells(columns: Sequence[Column], of: tuple[Entry, TaskRow, Status] | None, utf8: bool) -> str:
    """Return the cells of a row, or the head of the table."""
    parts = []
    for column in columns:
        cell = column.head
        if of is not None:
            entry, row, status = of
            cell = text.safe(column.cell(row, status), utf8=utf8)
            if column.head == "TASK":
                cell = _branches(entry, utf8) + cell
        place = text.right if column.to_the_right else text.left
        parts.append(place(cell, column.width, utf8=utf8))
    head = " " * _MARK if of is None else ""
    return head + (" " * _GAP).join(parts)


def _branches(entry: Entry, utf8: bool) -> str:
    """Return the lines of the tree before a task."""
    if not entry.ancestors:
        return ""
    above = "".join("  " if last else "│ " for last in entry.ancestors[:-1])
    return Style(colors=False, utf8=utf8).drawn(above + ("└─" if entry.ancestors[-1] else "├─"))


def row(entry: Entry, columns: Sequence[Column], cursor: Cursor, status: Status) -> Line:
    selected = entry.key == cursor.selected
    if entry.row is None:
        return _heading(entry, status, selected)
    state = entry.row.state
    paint = _PAINT.get(state, Paint.PLAIN)
    of_mark = Paint.ACTIVE if state in ("active", "reloading") else paint
    return (
        Span(text=f"{mark(state, utf8=status.utf8)} ", paint=of_mark, selected=selected),
        Span(text=cells(columns, (entry, entry.row, status), status.utf8), paint=paint, selected=selected),
    )


def _heading(entry: Entry, status: Status, selected: bool) -> Line:
    tasks = [row for row in status.snapshot.rows if row.transaction == entry.key[0]]
    active = sum(row.state == "active" for row in tasks)
    state = entry.run.state if entry.run else ""
    name = text.safe(entry.key[0], utf8=status.utf8)
    words = f"{name} {text.safe(state, utf8=status.utf8)}, {active} of {counted(len(tasks), 'task')} active"
    paint = Paint.FAILED if state == "failed" else Paint.BOLD
    return (Span(text=f"{mark(state, utf8=status.utf8)} {words}", paint=paint, selected=selected),)
