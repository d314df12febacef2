"""The loop of the live view: keys and news change what is known, and the screen shows it. It waits for the
keyboard, never for a supervisor.
"""

from __future__ import annotations

import contextlib
import locale
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from zmsvc.core.frozen import frozen
from zmsvc.ctl.top.background import SLOW, Orders, Reader, Subject, Watch
from zmsvc.ctl.top.canvas import Picture, Size, Status
from zmsvc.ctl.top.cursor import Cursor, Quit, Redraw, UserOrder, entries, press
from zmsvc.ctl.top.rows import Snapshot
from zmsvc.ctl.top.screen import screen
from zmsvc.ctl.top.window import Window, opened

PATIENCE = 1.0
"""Seconds to wait for the first answer before the screen is drawn without one."""
TICK = 1.0
"""Seconds between two pictures while an answer is late: the picture shows how late it is."""


@frozen
class Abilities:
    """The functions by which the live view reaches the context, and the abilities of the terminal. The
    functions may block, and raise ZmsvcError.
    """

    name: str
    """The name of the context."""
    look: Callable[[], Snapshot]
    give: Callable[[UserOrder], str]
    read: Callable[[Subject], Sequence[str]]
    interval: float
    colors: bool
    utf8: bool
    total_memory: int


def run(abilities: Abilities, cursor: Cursor) -> list[str]:
    """Show the live view until the user quits. Return the orders that are not finished then.

    Raises UnusableTerminalError, and what the first look at the context raises.
    """
    # curses draws in the encoding of the locale.
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "")
    utf8 = abilities.utf8 and locale.nl_langinfo(locale.CODESET).upper() == "UTF-8"
    # The pipe by which threads and signals end the wait for keys. It stays open, because a thread may write
    # into it later, and must not write to a file that gets its number.
    wakeup, news = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    view = _View(replace(abilities, utf8=utf8), cursor, lambda: _write(news))
    view.begin()
    with contextlib.suppress(KeyboardInterrupt), opened(wakeup, news, colors=abilities.colors) as window:
        view.show(window)
    return view.orders.unfinished()


class _View:
    """The live view of one context."""

    def __init__(self, abilities: Abilities, cursor: Cursor, wake: Callable[[], None]) -> None:
        self._abilities = abilities
        self._cursor = cursor
        self._height = 1
        self._watch = Watch(abilities.look, abilities.interval, wake)
        self._reader = Reader(abilities.read, max(1.0, abilities.interval), wake)
        self.orders = Orders(self._give, wake)

    def begin(self) -> None:
        """Look at the context for the first time."""
        self._watch.start()
        self._reader.start()
        self._watch.first.wait(PATIENCE)
        self._check_first()

    def _check_first(self) -> None:
        """Raise the error of the first look: without any answer there is nothing to show."""
        error = self._watch.error
        if self._watch.snapshot is None and error is not None:
            raise error

    def show(self, window: Window) -> None:
        """Draw and read keys until the user quits or the terminal is gone."""
        while True:
            self._check_first()
            picture = self._picture(window.size())
            window.draw(picture)
            # Without news in this time the answer is late, and the picture has to show that.
            expected = self._abilities.interval + SLOW
            if not window.wait(TICK if self._watch.is_late() else expected):
                return
            for key in window.pressed():
                asked = self._cursor.order
                if not self._press(key, window):
                    return
                if self._cursor.order is not None and asked is None:
                    # Keys that were typed or pasted before the question was seen do not answer it.
                    window.drop_keys()
                    break

    def _picture(self, size: Size) -> Picture:
        message, bad = self.orders.message()
        now = time.monotonic()
        status = Status(
            snapshot=self._snapshot(),
            total_memory=self._abilities.total_memory,
            trouble=self._watch.trouble(now),
            age=self._watch.age(now),
            message=message,
            bad=bad,
            pane=self._reader.lines(),
            utf8=self._abilities.utf8,
        )
        picture = screen(status, size, self._cursor)
        self._cursor = picture.cursor
        self._height = picture.height
        self._want_pane()
        return picture

    def _snapshot(self) -> Snapshot:
        return self._watch.snapshot or Snapshot(name=self._abilities.name)

    def _want_pane(self) -> None:
        pane, selected = self._cursor.pane, self._cursor.selected
        self._reader.want((pane, *selected) if pane and selected else None)

    def _press(self, key: str, window: Window) -> bool:
        """Do what a key asks for. Return False if the user quits."""
        shown = entries(self._snapshot(), self._cursor)
        self._cursor, request = press(self._cursor, key, shown, self._height)
        match request:
            case None:
                pass
            case Quit():
                return False
            case Redraw():
                window.redraw()
            case UserOrder():
                self.orders.begin(request)
            case _:
                assert_never(request)
        return True

    def _give(self, order: UserOrder) -> str:
        try:
            return self._abilities.give(order)
        finally:
            self._watch.look_again()


def _write(fd: int) -> None:
    # If the pipe is full, the wait ends anyway.
    with contextlib.suppress(BlockingIOError):
        os.write(fd, b"\0")
