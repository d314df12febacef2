"""Output to the terminal: colors by the rules of systemctl, UTF-8 or ASCII, the pager, closed pipes."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from zmsvc.core import printable

_CODES = {"green": "0;1;32", "red": "0;1;31", "yellow": "0;1;33", "grey": "0;38;5;245", "bold": "0;1;39"}
_OF_STATE = {
    "active": "green",
    "reloading": "green",
    "failed": "red",
    "activating": "yellow",
    "deactivating": "yellow",
}
_DOTS = {
    "active": "●",
    "reloading": "●",
    "failed": "\N{MULTIPLICATION SIGN}",
    "activating": "↻",
    "deactivating": "↻",
}
_ASCII = str.maketrans(
    {"●": "*", "○": "o", "\N{MULTIPLICATION SIGN}": "x", "↻": "@", "├": "|", "└": "`", "─": "-", "│": "|"}
)
_OWN = re.compile(f"(\x1b\\[(?:0|{'|'.join(_CODES.values())})m)")
"""The escape sequences that `paint` writes; all others are removed."""
_PLAIN = re.compile(r"[\n\t\x20-\x7e]*")
_YES, _NO = ("1", "yes", "true", "on", "16", "256", "24bit"), ("0", "no", "false", "off")


class Style:
    """The abilities of the output: colors or not, UTF-8 or ASCII."""

    __slots__ = ("colors", "utf8")

    def __init__(self, *, colors: bool, utf8: bool) -> None:
        self.colors = colors
        self.utf8 = utf8

    def paint(self, color: str | None, text: str) -> str:
        return f"\x1b[{_CODES[color]}m{text}\x1b[0m" if self.colors and color else text

    def state(self, state: str, text: str | None = None) -> str:
        """Return a state, or another text, in the state's color."""
        return self.paint(_OF_STATE.get(state), state if text is None else text)

    def dot(self, state: str) -> str:
        return self.state(state, self.drawn(_DOTS.get(state, "○")))

    def drawn(self, text: str) -> str:
        """Return a text with dots and box lines; in ASCII if the terminal is not UTF-8."""
        return text if self.utf8 else text.translate(_ASCII)


def style() -> Style:
    """Return the style of standard output."""
    return Style(colors=_wants_colors(), utf8=_has_utf8())


def _wants_colors() -> bool:
    """Return True if the output has colors. As with systemctl, SYSTEMD_COLORS decides first, then NO_COLOR,
    then TERM and the kind of the output, which has to be a terminal.
    """
    setting = os.environ.get("SYSTEMD_COLORS", "").lower()
    if setting in _YES or setting in _NO:
        return setting in _YES
    return on_terminal() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _has_utf8() -> bool:
    """Return True if the locale is UTF-8. Python uses UTF-8 for the C locale, too, and then has a flag set; a
    terminal does not.
    """
    setting = os.environ.get("SYSTEMD_UTF8", "").lower()
    if setting in _YES or setting in _NO:
        return setting in _YES
    made_up = sys.flags.utf8_mode and not os.environ.get("PYTHONUTF8")
    return sys.stdout is not None and sys.stdout.encoding.lower().replace("-", "") == "utf8" and not made_up


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def columns() -> int:
    """Return the width of the terminal. shutil has a function for it, but importing it takes 8 ms, because it
    imports compressors.
    """
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        return 80


def prepare() -> None:
    """Escape characters that the encoding of the output lacks. Without this a command would end in a
    traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        # The parent process may have closed these streams, or a test may have replaced them.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


clean = printable.line
"""Return a text of another program on one line, without control characters, which could control
the terminal.
"""


def _shown(text: str) -> str:
    """Return a text without the control characters that another user may have put into it. All output passes
    through this function.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(part if at % 2 else printable.lines(part) for at, part in enumerate(_OWN.split(text)))


def out(text: str, *, flush: bool = False) -> None:
    """Write to standard output, which may be closed."""
    _write(_shown(text), flush=flush)


def say(text: str) -> None:
    """Write a line to standard output, at once."""
    out(f"{text}\n", flush=True)


def steer(codes: str, text: str = "", *, flush: bool = False) -> None:
    """Write codes that move the cursor, then a text."""
    _write(codes + _shown(text), flush=flush)


def _write(text: str, *, flush: bool) -> None:
    if sys.stdout is not None:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()


def leave_second_screen() -> None:
    """Show the first screen and the cursor again, after the end of a program that could not restore them.
    This changes nothing if the program has drawn nothing, or if this Python has no curses.
    """
    try:
        # Imported here for start-up time.
        import curses
    except ImportError:
        return
    with contextlib.suppress(curses.error):
        curses.setupterm(fd=1)
        found = {name: curses.tigetstr(name) or b"" for name in ("rmcup", "rmkx", "cnorm", "sgr0")}
        # 1049 also moves the cursor to a saved place, and there may be none; 1047 leaves the cursor alone.
        found["rmcup"] = found["rmcup"].replace(b"?1049l", b"?1047l")
        steer(b"".join(found.values()).decode("ascii", "ignore"), flush=True)


def err(text: str) -> None:
    """Write to standard error. A failure is ignored, since there is no other place to report it."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(_shown(text))
        except OSError:
            return


def say_error(text: str) -> None:
    """Write lines to standard error."""
    err(f"{text}\n")


def complain(text: str) -> None:
    """Write one line to standard error; line breaks in the text become `; `."""
    err(f"zmsvcctl: {'; '.join(clean(line) for line in text.splitlines() if line.strip())}\n")


def silence() -> None:
    """Redirect standard output to /dev/null after its reader has gone. Otherwise buffered text, or the flush
    of Python at its end, would fail.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def page(text: str, *, wanted: bool = True) -> None:
    """Write through the pager if systemctl would use one, else directly."""
    if wanted and on_terminal() and os.environ.get("TERM") != "dumb":
        for command in _pagers():
            if _through(command, _shown(text)):
                return
    out(text)


def _pagers() -> Iterator[list[str]]:
    setting = os.environ.get("SYSTEMD_PAGER", os.environ.get("PAGER"))
    if setting is not None:
        command = setting.split()
        if command and command != ["cat"]:
            yield command
        return
    yield ["less"]
    yield ["more"]


def _through(command: list[str], text: str) -> bool:
    """Show the text in a pager; return False if there is no such program."""
    # Imported here for start-up time: 1 ms, needed on a terminal only.
    import signal

    reader, writer = os.pipe()
    # posix_spawn, because importing subprocess would double the time of `status`.
    try:
        child = os.posix_spawnp(
            command[0],
            command,
            {**os.environ, **_for_less()},
            file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)],
            setsigdef=[signal.SIGINT, signal.SIGPIPE],
        )
    except OSError:
        os.close(writer)
        return False
    finally:
        os.close(reader)
    # While the pager runs, Ctrl-C is for the pager, where it stops a search. It must not end zmsvcctl,
    # because then the shell and the pager would both read the terminal.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(writer, "w", errors="backslashreplace") as pipe:
            pipe.write(text)
    except BrokenPipeError:
        pass  # The user has quit the pager.
    finally:
        os.waitpid(child, 0)
        signal.signal(signal.SIGINT, before)
    return True


def _for_less() -> dict[str, str]:
    """Return the environment in which systemctl runs less: colors pass, long lines are chopped, text that
    fits is not paged; secure if root runs it for another user.
    """
    settings = {"LESS": os.environ.get("SYSTEMD_LESS", "FRSXMK")}
    if charset := os.environ.get("SYSTEMD_LESSCHARSET"):
        settings["LESSCHARSET"] = charset
    secure = os.environ.get("SYSTEMD_PAGERSECURE", "").lower()
    if secure in _YES or (secure not in _NO and "SUDO_UID" in os.environ):
        settings["LESSSECURE"] = "1"
    return settings
