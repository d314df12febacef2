"""The screen of `top` as lines of styled text: a function of what is known, of the size of the terminal, and
of the cursor. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zmsvc.core.amounts import size as amount
from zmsvc.core.frozen import frozen
from zmsvc.ctl.top import table, text
from zmsvc.ctl.top.canvas import Line, Paint, Picture, Size, Span, Status, counted, fitted
from zmsvc.ctl.top.cursor import SIGNALS, Cursor, Mode, Pane, entries, settled
from zmsvc.ctl.top.help_screen import help_screen
from zmsvc.ctl.top.rows import Entry, Tree


@frozen
class _Parts:
    """The number of lines of each part of the screen."""

    title: int
    info: int
    head: int
    table: int
    pane: int
    message: int
    keys: int


def screen(status: Status, size: Size, cursor: Cursor) -> Picture:
    """Return the screen: exactly `size.lines` lines, none wider than `size.columns`."""
    if cursor.mode is Mode.HELP:
        return help_screen(status, size, cursor)
    asks = cursor.mode in (Mode.FILTER, Mode.SIGNAL, Mode.CONFIRM)
    parts = _divided(size.lines, pane=cursor.pane is not None, asks=asks)
    shown = entries(status.snapshot, cursor)
    cursor = settled(cursor, shown, parts.table)
    visible = shown[cursor.first : cursor.first + parts.table]
    lines: list[Line] = []
    if parts.title:
        lines.append(_title(status))
    if parts.info:
        lines.append(_info(status, cursor, shown, len(visible)))
    columns = table.columns_that_fit(status, cursor, shown, size.columns)
    if parts.head:
        lines.append((Span(text=table.cells(columns, None, status.utf8), paint=Paint.HEAD),))
    lines += [table.row(each, columns, cursor, status) for each in visible]
    lines += [()] * (parts.table - len(visible))
    if parts.pane:
        below, back = _pane(status, cursor, Size(lines=parts.pane, columns=size.columns))
        lines, cursor = lines + below, replace(cursor, back=back)
    caret = None
    if parts.message:
        # On a screen without its own line for this text, the text stands here.
        hidden = "" if parts.info else _hidden(cursor, len(shown), len(visible))
        message, column = _message(status, cursor, hidden)
        # The user types at the end of a prompt, so a long one loses its beginning.
        caret = (len(lines), min(column, max(0, size.columns - 1))) if column else None
        lines.append(message)
    if parts.keys:
        lines.append(_keys(size.columns))
    cut = tuple(fitted(line, size.columns, utf8=status.utf8) for line in lines[: size.lines])
    return Picture(lines=cut, cursor=cursor, height=parts.table, caret=caret)


def _divided(lines: int, *, pane: bool, asks: bool) -> _Parts:
    """Divide the screen. A small one has fewer parts: the selected row is the last to go, except for a
    question.
    """
    message, title, head, info, keys = (int(lines >= least) for least in (1 if asks else 2, 3, 4, 5, 7))
    rest = max(0, lines - message - title - head - info - keys)
    below = 0
    if pane and rest >= 3:
        below = max(2, rest - max(1, rest // 2))
    return _Parts(
        title=title, info=info, head=head, table=max(0, rest - below), pane=below, message=message, keys=keys
    )


# --- the lines above the table


def _title(status: Status) -> Line:
    rows, name = status.snapshot.rows, text.safe(status.snapshot.name, utf8=status.utf8)
    active = sum(row.state == "active" for row in rows)
    failed = sum(row.state == "failed" for row in rows)
    missed = sum(row.missed for row in rows)
    # Tasks that are threads share a process.
    processes = {row.pid: row for row in rows if row.pid is not None}.values()
    cpu = sum(row.cpu or 0.0 for row in processes)
    rss = sum(row.rss or 0 for row in processes)
    spans = [Span(text=name, paint=Paint.BOLD)]
    if status.trouble:
        spans.append(Span(text=f" {status.age:.0f} s ago", paint=Paint.ALERT))
    spans.append(Span(text=f": {active} of {counted(len(rows), 'task')} active", paint=Paint.BOLD))
    if failed:
        spans += [Span(text=", "), Span(text=f"{failed} failed", paint=Paint.FAILED)]
    spans.append(Span(text=f", CPU {cpu:.1f}%, RSS {amount(rss)}"))
    if missed:
        spans.append(Span(text=f", {counted(missed, 'message')} missed"))
    return tuple(spans)


def _info(status: Status, cursor: Cursor, shown: Sequence[Entry], visible: int) -> Line:
    """Return the line that says what is shown of the table, and what is not."""
    words = [hidden] if (hidden := _hidden(cursor, len(shown), visible)) else []
    if cursor.filter:
        without = len(status.snapshot.rows) - sum(entry.row is not None for entry in shown)
        words.append(
            f"{without} hidden by the filter {text.safe(cursor.filter, utf8=status.utf8)} (Esc ends it)"
        )
    if status.trouble:
        before = Span(text="".join(f"{word}; " for word in words), paint=Paint.DIM)
        return before, Span(text=text.safe(status.trouble, utf8=status.utf8), paint=Paint.ALERT)
    order = "by " + cursor.sort + (", reversed" if cursor.reverse else "")
    words.append(order if cursor.tree is Tree.FLAT else f"tree {cursor.tree.value}, {order}")
    runs = status.snapshot.runs
    if len(runs) == 1 and cursor.tree is not Tree.TRANSACTION:
        words.append(f"transaction {text.safe(runs[0].id, utf8=status.utf8)}")
    return (Span(text="; ".join(words), paint=Paint.DIM),)


def _hidden(cursor: Cursor, count: int, visible: int) -> str:
    """Return how many lines of the table are not on the screen; empty if all are."""
    above, below = cursor.first, count - cursor.first - visible
    if not above and not below:
        return ""
    where = ", ".join([f"{above} above"] * bool(above) + [f"{below} below"] * bool(below))
    return f"lines {cursor.first + 1}-{cursor.first + visible} of {count}, not shown: {where}"


# --- the lines below the table


def _pane(status: Status, cursor: Cursor, size: Size) -> tuple[list[Line], int]:
    """Return the lines of the pane, and how far it is scrolled."""
    at_end = cursor.pane is Pane.LOG
    words = "log of" if at_end else "why"
    subject = "/".join(part for part in cursor.selected or () if part)
    given = status.pane if status.pane is not None else ("reading ...",)
    broken = [
        line for each in given for line in text.wrapped(text.safe(each, utf8=status.utf8), size.columns)
    ]
    height = max(0, size.lines - 1)
    back = min(cursor.back, max(0, len(broken) - height))
    first = max(0, len(broken) - height) - back if at_end else back
    hidden = [f"{first} lines above"] * bool(first)
    if (below := len(broken) - first - height) > 0:
        hidden.append(f"{below} lines below")
    about = "arrows scroll, Tab goes back" if cursor.on_pane else "Tab and arrows scroll, Esc closes"
    title = f"{words} {text.safe(subject, utf8=status.utf8)}" + (f"; {', '.join(hidden)}" if hidden else "")
    lines: list[Line] = [
        (Span(text=text.left(f"{title} ({about})", size.columns, utf8=status.utf8), paint=Paint.HEAD),)
    ]
    lines += [(Span(text=line),) for line in broken[first : first + height]]
    return lines + [()] * (size.lines - len(lines)), back


def _message(status: Status, cursor: Cursor, hidden: str) -> tuple[Line, int]:
    """Return the line for questions, orders and their outcomes; and the column at which the user types, or
    0.
    """
    order = cursor.order
    if cursor.mode is Mode.FILTER:
        typed = f"filter: {text.safe(cursor.filter, utf8=status.utf8)}"
        return (Span(text=typed), Span(text="  (Enter keeps it, Esc does not)", paint=Paint.DIM)), text.width(
            typed
        )
    if cursor.mode is Mode.SIGNAL and order is not None:
        typed = f"signal to {text.safe(f'{order.transaction}/{order.task}', utf8=status.utf8)}: "
        typed += cursor.typed or SIGNALS[0]
        hint = "  (arrows choose, Enter sends it, Esc does not)"
        return (Span(text=typed, paint=Paint.ALERT), Span(text=hint, paint=Paint.DIM)), text.width(typed)
    if cursor.mode is Mode.CONFIRM and order is not None:
        whole = "" if order.task else "the whole transaction "
        named = f"{order.transaction}/{order.task}" if order.task else order.transaction
        question = f"(y/n) {order.verb} {whole}{text.safe(named, utf8=status.utf8)}? "
        return (Span(text=question, paint=Paint.ALERT),), text.width(question)
    if cursor.notice:
        return (Span(text=cursor.notice, paint=Paint.DIM),), 0
    if hidden and not status.message:
        return (Span(text=hidden, paint=Paint.DIM),), 0
    paint = Paint.ALERT if status.bad else Paint.PLAIN
    return (Span(text=text.safe(status.message, utf8=status.utf8), paint=paint),), 0


_KEYS = (
    ("?", "help"), ("q", "quit"), ("/", "filter"), (">", "sort"), ("t", "tree"), ("s", "start"),
    ("x", "stop"), ("r", "restart"), ("k", "kill"), ("l", "log"), ("w", "why"),
)  # fmt: skip


def _keys(columns: int) -> Line:
    spans: list[Span] = []
    used = 0
    for key, meaning in _KEYS:
        before = " " if spans else ""
        used += len(before) + len(key) + 1 + len(meaning)
        if used > columns:
            break
        spans += [Span(text=before), Span(text=key, paint=Paint.KEY), Span(text=f" {meaning}")]
    return tuple(spans)
