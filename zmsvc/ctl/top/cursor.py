"""The state of the view of `top` that keys change, and what each key does. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from zmsvc.core.frozen import frozen
from zmsvc.ctl.top.rows import SORTS, Entry, Key, Snapshot, Tree, arranged, matching, ordered

SIGNALS = ("TERM", "HUP", "INT", "QUIT", "USR1", "USR2", "KILL", "STOP", "CONT", "WINCH")
"""The signals that the arrow keys offer; others can be typed."""
MAX_TYPED = 200
"""The number of characters of a filter or of the name of a signal."""


class Mode(Enum):
    """The meaning of keys at the moment."""

    TABLE = "table"
    FILTER = "filter"
    SIGNAL = "signal"
    CONFIRM = "confirm"
    HELP = "help"


class Pane(Enum):
    """The text about the selected task in the lower half of the screen."""

    LOG = "log"
    WHY = "why"


@frozen
class UserOrder:
    """An order of the user. Without a task it is for the whole transaction."""

    verb: str
    transaction: str
    task: str = ""
    signal: str = ""

    @property
    def text(self) -> str:
        what = f"signal {self.signal} to" if self.verb == "signal" else self.verb
        return f"{what} {f'{self.transaction}/{self.task}' if self.task else self.transaction}"


@frozen
class Quit:
    """The user wants to leave."""


@frozen
class Redraw:
    """Another program has written to the terminal."""


Request = UserOrder | Quit | Redraw


@frozen
class Cursor:
    """The selection of the user: a task, an order of the rows, a pane."""

    selected: Key | None = None
    index: int = 0
    """The line of the selected entry. It remains selected when the entry is gone."""
    first: int = 0
    """The first line of the table that is shown."""
    sort: str = "cpu"
    reverse: bool = False
    tree: Tree = Tree.FLAT
    filter: str = ""
    mode: Mode = Mode.TABLE
    typed: str = ""
    """The name of a signal, or the filter before it was edited."""
    order: UserOrder | None = None
    """The order that is to be confirmed."""
    pane: Pane | None = None
    on_pane: bool = False
    """True if the arrow keys scroll the pane."""
    back: int = 0
    """The number of lines from the end of the pane (log) or from its beginning (why), or those of the help,
    that the user has scrolled.
    """
    notice: str = ""
    """Why the last key did nothing."""


def entries(snapshot: Snapshot, cursor: Cursor) -> list[Entry]:
    """Return all lines of the table."""
    rows = ordered(matching(snapshot.rows, cursor.filter), cursor.sort, reverse=cursor.reverse)
    return arranged(snapshot, rows, cursor.tree)


def settled(cursor: Cursor, shown: Sequence[Entry], height: int) -> Cursor:
    """Return the cursor moved so that it selects one of these entries and is on the screen, which has
    `height` lines for them.
    """
    if not shown:
        return replace(cursor, selected=None, index=0, first=0)
    index = next((at for at, entry in enumerate(shown) if entry.key == cursor.selected), None)
    if index is None:
        index = min(cursor.index, len(shown) - 1)
    height = max(1, height)
    first = min(cursor.first, index, max(0, len(shown) - height))
    first = max(first, index - height + 1)
    return replace(cursor, selected=shown[index].key, index=index, first=first)


def press(cursor: Cursor, key: str, shown: Sequence[Entry], height: int) -> tuple[Cursor, Request | None]:
    """Return the next cursor, and what the user asks for. `key` is a character or a name such as `page-down`;
    `height` is the number of lines of the table.
    """
    cursor = settled(replace(cursor, notice=""), shown, height)
    match cursor.mode:
        case Mode.FILTER:
            return _filter(cursor, key), None
        case Mode.SIGNAL:
            return _signal(cursor, key)
        case Mode.CONFIRM:
            agreed = cursor.order if key in ("y", "Y") else None
            notice = "" if agreed else "nothing was ordered"
            return replace(cursor, mode=Mode.TABLE, order=None, notice=notice), agreed
        case Mode.HELP:
            return _help(cursor, key), None
        case _:
            return _table(cursor, key, shown, height)


# --- in the table

_QUIT = ("q", "Q", "f10")
_ORDERS = {"s": "start", "x": "stop", "r": "restart"}
_SORT_KEYS = {
    "P": "cpu", "M": "rss", "N": "pid", "A": "id", "S": "state", "L": "missed", "R": "restarts",
}  # fmt: skip
_PANES = {"l": Pane.LOG, "w": Pane.WHY, "enter": Pane.WHY}


def _table(cursor: Cursor, key: str, shown: Sequence[Entry], height: int) -> tuple[Cursor, Request | None]:
    if key in _QUIT:
        return cursor, Quit()
    if key == "ctrl-l":
        return cursor, Redraw()
    if key in _ORDERS:
        return _order(cursor, _ORDERS[key])
    if key in ("k", "f9"):
        return _choose_signal(cursor), None
    if key in _PANES:
        return _toggle(cursor, _PANES[key]), None
    if key == "tab" and cursor.pane:
        return replace(cursor, on_pane=not cursor.on_pane), None
    if key == "escape":
        return _escape(cursor), None
    if (distance := _distance(key, height, len(shown))) is not None:
        if cursor.on_pane:
            # The newest line of a log is at the bottom, and an explanation begins at the top.
            away = -distance if cursor.pane is Pane.LOG else distance
            return replace(cursor, back=max(0, cursor.back + away)), None
        index = min(max(0, cursor.index + distance), max(0, len(shown) - 1))
        selected = shown[index].key if shown else None
        moved = selected != cursor.selected
        return settled(
            replace(cursor, selected=selected, index=index, back=0 if moved else cursor.back), shown, height
        ), None
    return _view(cursor, key), None


def _view(cursor: Cursor, key: str) -> Cursor:
    if key in _SORT_KEYS:
        return replace(cursor, sort=_SORT_KEYS[key], reverse=False)
    match key:
        case "<" | ">" | "f6":
            step = -1 if key == "<" else 1
            at = SORTS.index(cursor.sort) if cursor.sort in SORTS else 0
            return replace(cursor, sort=SORTS[(at + step) % len(SORTS)], reverse=False)
        case "I":
            return replace(cursor, reverse=not cursor.reverse)
        case "t" | "f5":
            return replace(cursor, tree=cursor.tree.following)
        case "/" | "f4":
            return replace(cursor, mode=Mode.FILTER, typed=cursor.filter)
        case "?" | "h" | "f1":
            return replace(cursor, mode=Mode.HELP, back=0)
        case _:
            return replace(cursor, notice="? shows the keys") if len(key) == 1 else cursor


def _distance(key: str, height: int, count: int) -> int | None:
    """Return the number of lines that a key moves; None if it does not move."""
    return {
        "up": -1,
        "down": 1,
        "page-up": -max(1, height - 1),
        "page-down": max(1, height - 1),
        "home": -max(count, 1 << 20),
        "end": max(count, 1 << 20),
    }.get(key)


def _toggle(cursor: Cursor, pane: Pane) -> Cursor:
    opened = None if cursor.pane is pane else pane
    return replace(cursor, pane=opened, on_pane=False, back=0)


def _escape(cursor: Cursor) -> Cursor:
    """Close the pane; without one, clear the filter."""
    if cursor.pane:
        return replace(cursor, pane=None, on_pane=False, back=0)
    return replace(cursor, filter="")


# --- orders


def _order(cursor: Cursor, verb: str) -> tuple[Cursor, Request | None]:
    if cursor.selected is None:
        return replace(cursor, notice=f"there is no task to {verb}"), None
    transaction, task = cursor.selected
    order = UserOrder(verb=verb, transaction=transaction, task=task)
    # A start ends no process, so it needs no confirmation.
    if verb == "start":
        return cursor, order
    return replace(cursor, mode=Mode.CONFIRM, order=order), None


def _choose_signal(cursor: Cursor) -> Cursor:
    if cursor.selected is None or not cursor.selected[1]:
        return replace(cursor, notice="select a task to send a signal to")
    transaction, task = cursor.selected
    # Note the task now: its row may be at another line when the user presses the next key.
    order = UserOrder(verb="signal", transaction=transaction, task=task)
    return replace(cursor, mode=Mode.SIGNAL, typed="", order=order)


def _signal(cursor: Cursor, key: str) -> tuple[Cursor, Request | None]:
    order = cursor.order
    if key == "escape" or order is None:
        return replace(cursor, mode=Mode.TABLE, order=None, typed="", notice="nothing was ordered"), None
    name = cursor.typed or SIGNALS[0]
    if key == "enter":
        return replace(cursor, mode=Mode.TABLE, order=None, typed=""), replace(order, signal=name)
    if key in ("up", "down"):
        at = SIGNALS.index(name) if name in SIGNALS else -1
        return replace(cursor, typed=SIGNALS[(at + (1 if key == "down" else -1)) % len(SIGNALS)]), None
    typed = _typed(cursor.typed, key).upper()
    return replace(cursor, typed="".join(char for char in typed if char.isascii() and char.isalnum())), None


# --- typed text


def _filter(cursor: Cursor, key: str) -> Cursor:
    if key == "enter":
        return replace(cursor, mode=Mode.TABLE, typed="")
    if key == "escape":
        return replace(cursor, mode=Mode.TABLE, filter=cursor.typed, typed="")
    return replace(cursor, filter=_typed(cursor.filter, key))


def _typed(text: str, key: str) -> str:
    match key:
        case "backspace":
            return text[:-1]
        case "ctrl-u":
            return ""
        case _ if len(key) == 1 and key.isprintable():
            return (text + key)[:MAX_TYPED]
        case _:
            return text


def _help(cursor: Cursor, key: str) -> Cursor:
    if key in ("up", "down"):
        return replace(cursor, back=max(0, cursor.back + (1 if key == "down" else -1)))
    return replace(cursor, mode=Mode.TABLE, back=0)
