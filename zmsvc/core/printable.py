"""Foreign text made safe for a terminal: no control characters, escape sequences or changes of text
direction. Pure.

Every process prints text through one of these two functions: zmsvcctl in ctl/terminal.py, the daemon in
host/complain.py and in the log handler of host/systemd/journal.py. A test looks for prints that bypass them.
"""

from __future__ import annotations


def line(text: str) -> str:
    """Return the text on one line: white space becomes a blank, and unprintable characters are escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else _escaped(char) for char in text)


def lines(text: str) -> str:
    r"""Return the text with all unprintable characters escaped, except line breaks (`\n`) and tabs."""
    return "\n".join("\t".join(map(line, each.split("\t"))) for each in text.split("\n"))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
