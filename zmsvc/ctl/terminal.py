"""How text gets to the terminal: colours as systemctl decides them, UTF-8 or ASCII, the pager, a pipe that
was closed. Knows no verb.
"""

from __future__ import annotations

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
"""What `paint` puts around a text; no other escape sequence gets out."""
_PLAIN = re.compile(r"[\n\t\x20-\x7e]*")
_YES, _NO = ("1", "yes", "true", "on", "16", "256", "24bit"), ("0", "no", "false", "off")


class Style:
    """What may be used: colours or not, UTF-8 or ASCII."""

    __slots__ = ("colours", "utf8")

    def __init__(self, *, colours: bool, utf8: bool) -> None:
        self.colours = colours
        self.utf8 = utf8

    def paint(self, colour: str | None, text: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.colours and colour else text

    def state(self, state: str, text: str | None = None) -> str:
        """A state's word, or another text, in the state's colour."""
        return self.paint(_OF_STATE.get(state), state if text is None else text)

    def dot(self, state: str) -> str:
        return self.state(state, self.drawn(_DOTS.get(state, "○")))

    def drawn(self, text: str) -> str:
        """Our own dots and boxes, in ASCII where the terminal has nothing better."""
        return text if self.utf8 else text.translate(_ASCII)


def style() -> Style:
    """What standard output may be sent."""
    return Style(colours=_wants_colours(), utf8=_has_utf8())


def _wants_colours() -> bool:
    """SYSTEMD_COLORS wins over everything, as with systemctl; then NO_COLOR, TERM, and whether anybody
    looks.
    """
    asked = os.environ.get("SYSTEMD_COLORS", "").lower()
    if asked in _YES or asked in _NO:
        return asked in _YES
    return on_terminal() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _has_utf8() -> bool:
    """Whether the locale is UTF-8. Python takes UTF-8 for the C locale too, and says so in its flag; a
    terminal would not.
    """
    asked = os.environ.get("SYSTEMD_UTF8", "").lower()
    if asked in _YES or asked in _NO:
        return asked in _YES
    made_up = sys.flags.utf8_mode and not os.environ.get("PYTHONUTF8")
    return sys.stdout is not None and sys.stdout.encoding.lower().replace("-", "") == "utf8" and not made_up


def on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def columns() -> int:
    """How wide the terminal is. shutil would tell as well, but takes 8 ms to import, for the sake of its
    compressors.
    """
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        return 80


def prepare() -> None:
    """No character may end a command in a traceback: what the encoding cannot say is escaped."""
    for stream in (sys.stdout, sys.stderr):
        # Whoever runs us may have closed them, or put something else in their place.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


clean = printable.line
"""A text from somebody else on one line and without control characters, which could play with the
terminal.
"""


def _shown(text: str) -> str:
    """Return a text as it may reach a terminal, whatever another user has put into it. All that is printed
    comes by here.
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
    """Write codes of our own that move the cursor, then a text."""
    _write(codes + _shown(text), flush=flush)


def _write(text: str, *, flush: bool) -> None:
    if sys.stdout is not None:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()


def err(text: str) -> None:
    """Write to standard error, which may be closed too; then nobody can be told that nobody can be told."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(_shown(text))
        except OSError:
            return


def say_error(text: str) -> None:
    """Write lines to standard error."""
    err(f"{text}\n")


def complain(text: str) -> None:
    """One line on standard error, whatever is in the text."""
    err(f"zmsvcctl: {'; '.join(clean(line) for line in text.splitlines() if line.strip())}\n")


def silence() -> None:
    """Nobody reads us any more: neither what is still buffered nor Python's own end may fail over it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def page(text: str, *, wanted: bool = True) -> None:
    """Write through the pager that systemctl would use, where it would use one; else just write."""
    if wanted and on_terminal() and os.environ.get("TERM") != "dumb":
        for command in _pagers():
            if _through(command, _shown(text)):
                return
    out(text)


def _pagers() -> Iterator[list[str]]:
    asked = os.environ.get("SYSTEMD_PAGER", os.environ.get("PAGER"))
    if asked is not None:
        command = asked.split()
        if command and command != ["cat"]:
            yield command
        return
    yield ["less"]
    yield ["more"]


def _through(command: list[str], text: str) -> bool:
    """Let a pager show the text; False when there is no such program."""
    # Imported here for start-up time: 1 ms that only a terminal pays.
    import signal

    reader, writer = os.pipe()
    # posix_spawn, because importing subprocess takes as long as all the rest of `status`.
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
    # Ctrl-C belongs to the pager while it runs: it stops a search there, and must not take the terminal away
    # from it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(writer, "w", errors="backslashreplace") as pipe:
            pipe.write(text)
    except BrokenPipeError:
        pass  # The reader has seen enough.
    finally:
        os.waitpid(child, 0)
        signal.signal(signal.SIGINT, before)
    return True


def _for_less() -> dict[str, str]:
    """less as systemctl runs it: colours through, long lines chopped, no pager for what fits; secure when
    root looks for another.
    """
    settings = {"LESS": os.environ.get("SYSTEMD_LESS", "FRSXMK")}
    if charset := os.environ.get("SYSTEMD_LESSCHARSET"):
        settings["LESSCHARSET"] = charset
    secure = os.environ.get("SYSTEMD_PAGERSECURE", "").lower()
    if secure in _YES or (secure not in _NO and "SUDO_UID" in os.environ):
        settings["LESSSECURE"] = "1"
    return settings
