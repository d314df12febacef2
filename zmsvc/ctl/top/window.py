"""The terminal of `top`, by curses: it draws pictures and reads keys. Whatever ends the program, except
SIGKILL, restores the terminal.
"""

from __future__ import annotations

import contextlib
import curses
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from zmsvc.ctl.top.canvas import Line, Paint, Picture, Size, Span

ESCAPE_DELAY = 100
"""Milliseconds in which the rest of the code of a key has to follow its ESC."""
MAX_KEYS = 256
"""The number of keys that are taken before the next picture."""
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_NAMES = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_LEFT: "left",
    curses.KEY_RIGHT: "right",
    curses.KEY_PPAGE: "page-up",
    curses.KEY_NPAGE: "page-down",
    curses.KEY_HOME: "home",
    curses.KEY_END: "end",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    **{curses.KEY_F0 + number: f"f{number}" for number in range(1, 13)},
}
_CONTROLS = {
    "\n": "enter", "\r": "enter", "\x1b": "escape", "\x7f": "backspace", "\b": "backspace", "\t": "tab",
    "\x0c": "ctrl-l", "\x15": "ctrl-u",
}  # fmt: skip
_COLORS = {Paint.ACTIVE: curses.COLOR_GREEN, Paint.BUSY: curses.COLOR_YELLOW, Paint.FAILED: curses.COLOR_RED}


class Window:
    """The terminal while it shows `top`."""

    def __init__(self, window: curses.window, wakeup: int, *, keys: bool, colors: bool) -> None:
        self._window = window
        self._wakeup = wakeup
        self._keys = keys
        self._attributes = _attributes(colors=colors)
        self._resized = False
        self._gone = False

    def size(self) -> Size:
        lines, columns = self._window.getmaxyx()
        return Size(lines=lines, columns=columns)

    def draw(self, picture: Picture) -> None:
        """Show the picture. curses writes only what differs from the one before."""
        self._window.erase()
        for number, line in enumerate(picture.lines):
            self._draw_line(number, line)
        # A terminal may be unable to hide its cursor.
        with contextlib.suppress(curses.error):
            curses.curs_set(0 if picture.caret is None else 1)
        if picture.caret is not None:
            with contextlib.suppress(curses.error):
                self._window.move(*picture.caret)
        self._window.refresh()

    def _draw_line(self, number: int, line: Line) -> None:
        # In the last column of the last line curses writes the text and then fails, because the cursor cannot
        # move on.
        with contextlib.suppress(curses.error):
            self._window.move(number, 0)
            for span in line:
                self._window.addstr(span.text, self._attribute(span))
            if any(span.selected or span.paint is Paint.HEAD for span in line):
                # The bar reaches the right edge.
                self._window.chgat(curses.A_REVERSE)

    def _attribute(self, span: Span) -> int:
        return self._attributes[span.paint] | (curses.A_REVERSE if span.selected else 0)

    def redraw(self) -> None:
        """Draw everything with the next picture: another program has written to the terminal."""
        self._window.redrawwin()

    def wait(self, seconds: float | None) -> bool:
        """Wait for a key, a signal or news, for at most this time. Return False if the terminal is gone."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if self._keys:
            poll.register(0, select.POLLIN)
        for fd, event in poll.poll(None if seconds is None else max(0.0, seconds * 1000)):
            if fd == self._wakeup:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 4096)
            elif event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                self._gone = True
        if self._resized:
            self._resized = False
            self._resize()
        return not self._gone

    def note_resize(self) -> None:
        """Have `wait` resize the screen: after SIGWINCH, and after SIGCONT, since the terminal may have
        changed while the program was stopped.
        """
        self._resized = True

    def _resize(self) -> None:
        with contextlib.suppress(OSError, curses.error):
            size = os.get_terminal_size(1)
            if size.lines > 0 and size.columns > 0:
                curses.resizeterm(size.lines, size.columns)
        self._window.redrawwin()

    def drop_keys(self) -> None:
        """Forget the keys that were pressed and not read yet."""
        curses.flushinp()

    def pressed(self) -> Iterator[str]:
        """Yield the keys that were pressed since the last call."""
        for _ in range(MAX_KEYS if self._keys else 0):
            try:
                key = self._window.get_wch()
            except curses.error:
                return
            except (UnicodeError, OverflowError):
                continue  # These bytes are not text in this locale.
            if isinstance(key, int):
                if key in _NAMES:
                    yield _NAMES[key]
            elif key in _CONTROLS:
                yield _CONTROLS[key]
            elif key.isprintable():
                yield key


def _attributes(*, colors: bool) -> dict[Paint, int]:
    """Return how each style is shown. Without colors, failed tasks are bold and have a mark."""
    found = {
        Paint.PLAIN: curses.A_NORMAL,
        Paint.BOLD: curses.A_BOLD,
        Paint.DIM: curses.A_DIM,
        Paint.HEAD: curses.A_REVERSE,
        Paint.ACTIVE: curses.A_NORMAL,
        Paint.BUSY: curses.A_NORMAL,
        Paint.FAILED: curses.A_BOLD,
        Paint.ALERT: curses.A_BOLD,
        Paint.KEY: curses.A_BOLD,
    }
    if colors and curses.has_colors():
        curses.start_color()
        background = -1
        try:
            curses.use_default_colors()
        except curses.error:
            background = curses.COLOR_BLACK
        for number, (paint, color) in enumerate(_COLORS.items(), 1):
            curses.init_pair(number, color, background)
            found[paint] |= curses.color_pair(number)
        found[Paint.ALERT] |= found[Paint.FAILED]
    return found


class UnusableTerminalError(Exception):
    """The terminal cannot show the table; the text says why."""


@contextlib.contextmanager
def opened(wakeup: int, news: int, *, colors: bool) -> Iterator[Window]:
    """Yield the terminal. `wakeup` is the end of a pipe from which `Window.wait` reads, and signals write to
    `news`, its other end. Raises UnusableTerminalError.
    """
    keys = sys.stdin is not None and sys.stdin.isatty()
    before = termios.tcgetattr(0) if keys else None
    _check_terminal()
    if "ESCDELAY" not in os.environ:
        curses.set_escdelay(ESCAPE_DELAY)
    changed: list[Callable[[], None]] = []

    def note(_number: int, _frame: FrameType | None) -> None:
        for each in changed:
            each()

    # curses installs its own handler of SIGWINCH only if there is none.
    handlers = dict.fromkeys((signal.SIGWINCH, signal.SIGCONT), note) | dict.fromkeys(_ENDS, _end)
    # Redirect stderr: a text there would be drawn into the picture.
    with contextlib.redirect_stderr(None), _handlers(handlers, news):
        screen = curses.initscr()
        try:
            curses.noecho()
            curses.cbreak()
            screen.keypad(True)
            screen.nodelay(True)
            window = Window(screen, wakeup, keys=keys, colors=colors)
            changed.append(window.note_resize)
            yield window
        finally:
            _restore(before)


def _check_terminal() -> None:
    """Raise UnusableTerminalError for a terminal that is not known, or on which the cursor cannot be moved.
    curses itself would end the process.
    """
    name = os.environ.get("TERM", "")
    try:
        curses.setupterm(fd=1)
    except curses.error:
        raise UnusableTerminalError(f"TERM={name} is not known") from None
    if not curses.tigetstr("cup"):
        raise UnusableTerminalError(f"the cursor of TERM={name} cannot be moved")


def _restore(before: list[Any] | None) -> None:
    # The terminal may be gone.
    with contextlib.suppress(curses.error):
        curses.endwin()
    if before is not None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Any], news: int) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    fd = signal.set_wakeup_fd(news, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(fd)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
