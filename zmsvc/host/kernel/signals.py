"""Convert between names and numbers of signals (`HUP`, `SIGHUP` or `1`; `RTMIN+3` for a real-time one), and
ignore those that are for the keeper.
"""

from __future__ import annotations

import re
import signal

STACKS = "SIGRTMIN+20"
"""The signal on which a Python task writes the stacks of its threads to its log. Its default action ends a
process, so it is sent only to a process that catches it.
"""
_REALTIME = re.compile(r"(?:SIG)?RTMIN\+([0-9]{1,2})")


def leave_to_keeper() -> None:
    """Ignore the signals that a terminal or a service manager sends to the whole process group, such as those
    of Ctrl-C: the keeper handles them, and ends this process when it is time.
    """
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU):
        signal.signal(each, signal.SIG_IGN)


def name(text: str) -> str:
    """Return the canonical name of a signal. Raises ValueError for any other text."""
    word = text.strip().upper()
    if (match := _REALTIME.fullmatch(word)) and signal.SIGRTMIN + int(match[1]) <= signal.SIGRTMAX:
        return f"SIGRTMIN+{int(match[1])}"
    if re.fullmatch("[0-9]{1,3}", word):
        number = int(word)
        if number in [each.value for each in signal.Signals]:
            return signal.Signals(number).name
        if signal.SIGRTMIN < number < signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    full = word if word.startswith("SIG") else f"SIG{word}"
    if full in signal.Signals.__members__:
        return signal.Signals[full].name
    raise ValueError(
        f"{_quote(text)} is not a signal, expected a name such as QUIT or SIGQUIT, or a number"
        f"{_similar(full)}"
    )


def _quote(text: str) -> str:
    # Imported here for the same reason as `similar`.
    from zmsvc.core.values import quote

    return quote(text)


def _similar(full: str) -> str:
    # Imported here for start-up time: a task reads signals, too, and most names are right.
    from zmsvc.core.similar import similar

    return similar(full, signal.Signals.__members__, 0.8)


def number(name: str) -> int:
    """Return the number of a signal by its canonical name. Raises ValueError."""
    if match := _REALTIME.fullmatch(name):
        return int(signal.SIGRTMIN) + int(match[1])
    if name in signal.Signals.__members__:
        return signal.Signals[name].value
    raise ValueError(f"{name} is not a signal of this machine")


def catches(pid: int, name: str) -> bool:
    """Return True if a process has a handler for this signal; False also if that cannot be read."""
    try:
        with open(f"/proc/{pid}/status") as file:
            caught = next((line.split()[1] for line in file if line.startswith("SigCgt:")), "0")
        return bool(int(caught, 16) >> (number(name) - 1) & 1)
    except (OSError, ValueError):
        return False


def reported_name(number: int) -> str:
    """Return the name by which the keeper reports the end of a process by this signal: `SIGKILL`, or `SIG37`
    for a real-time signal.
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
