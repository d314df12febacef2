"""How things look on a terminal: colours, trees, tables, sizes and times. Pure but for the look at the environment in `Style`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

_COLOURS = {"green": "\x1b[0;1;32m", "red": "\x1b[0;1;31m", "yellow": "\x1b[0;1;33m", "grey": "\x1b[0;38;5;245m", "bold": "\x1b[0;1;39m"}
_OF_STATE = {"active": "green", "failed": "red", "activating": "yellow", "deactivating": "yellow"}
# The cross is systemctl's own sign for a failed unit.
_DOTS = {"active": "●", "failed": "×", "activating": "↻", "deactivating": "↻", "inactive": "○"}  # noqa: RUF001
_PLAIN = str.maketrans({"●": "*", "×": "x", "↻": "~", "○": "o", "├": "|", "└": "`", "─": "-", "│": "|", "→": ">"})  # noqa: RUF001


class Style:
    """What the terminal can show: colours as systemctl decides them (SYSTEMD_COLORS, NO_COLOR, TERM), UTF-8 or ASCII."""

    def __init__(self) -> None:
        self.colours = _wants_colours()
        self.utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"

    def paint(self, colour: str | None, text: str) -> str:
        return f"{_COLOURS[colour]}{text}\x1b[0m" if self.colours and colour else text

    def state(self, state: str, text: str | None = None) -> str:
        return self.paint(_OF_STATE.get(state), text or state)

    def dot(self, state: str) -> str:
        return self.state(state, _DOTS.get(state, "○"))

    def line(self, text: str) -> str:
        return text if self.utf8 else text.translate(_PLAIN)


def _wants_colours() -> bool:
    asked = os.environ.get("SYSTEMD_COLORS")
    if asked is not None:
        return asked.lower() not in ("0", "no", "false", "off")
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def age(at: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was, as systemd says it: `2min 3s ago`."""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(at)).total_seconds()
    return f"{span(max(0.0, seconds))} ago"


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    if seconds < 10:
        return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s"
    whole = int(seconds)
    days, hours, minutes, rest = whole // 86400, whole % 86400 // 3600, whole % 3600 // 60, whole % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value}{unit}" for value, unit in parts if value)[:32].rsplit(" ", max(0, sum(v > 0 for v, _ in parts) - 2))[0]


def size(amount: int) -> str:
    """Bytes as systemd shows memory."""
    value = float(amount)
    for unit in ("B", "K", "M"):
        if value < 1024:
            return f"{value:.0f}{unit}" if unit == "B" else f"{value:.1f}{unit}"
        value /= 1024
    return f"{value:.1f}G"


def memory_of(pid: int) -> int | None:
    """The resident bytes of a process, private and shared; None when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell; the last one is not padded."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def ended(end: dict[str, Any] | None) -> str:
    """How a task ended last, in words."""
    if end is None:
        return ""
    how = end["signal"] or (f"status {end['code']}" if end["code"] is not None else "")
    return f"{end['reason']}{', ' + how if how and end['reason'] != 'exited' else ''}"


def context(data: dict[str, Any], style: Style, shown: dict[str, list[str]]) -> list[str]:
    """One context as `status` shows it. `shown` has log lines to print below a task, by `TRANSACTION/TASK`."""
    tasks = [task for each in data["transactions"] for task in each["tasks"]]
    running = sum(task["state"] == "active" for task in tasks)
    lines = [
        f"{style.dot(data['state'])} {style.paint('bold', data['name'])} - {data['id']}, {running} of {len(tasks)} tasks running",
        f"     State: {style.state(data['state'])}"
        + (f", since its supervisor was replaced {data['restarts']} times" if data["restarts"] else ""),
        f"      File: {data['file']}",
        f"       Bus: subscribe {data['frontend']}, publish {data['backend']}",
        f" Processes: keeper {data['keeper_pid']}, supervisor {data['pid']}, device {data['device_pid']}",
    ]
    lines += [f"   Dropped: {', '.join(f'{count} {what}' for what, count in data['dropped'].items() if count)}"] * any(
        data["dropped"].values()
    )
    lines += [style.paint("red", f"   Unsaved: {data['unsaved']}")] * bool(data["unsaved"])
    for transaction in data["transactions"]:
        lines += _transaction(transaction, style, shown)
    return lines


def _transaction(transaction: dict[str, Any], style: Style, shown: dict[str, list[str]]) -> list[str]:
    lines = [f"{style.dot(transaction['state'])} {transaction['id']}: {style.state(transaction['state'])}"]
    tasks = transaction["tasks"]
    width = max((len(task["id"]) for task in tasks), default=0)
    for number, task in enumerate(tasks):
        last = number == len(tasks) - 1
        branch, below = ("  └─", "    ") if last else ("  ├─", "  │ ")
        lines.append(f"{style.line(branch)}{style.dot(task['state'])} {_task(task, width, style)}")
        if task["state"] == "failed" or (task["status"] and task["state"] != "active"):
            lines += [style.line(below) + style.paint("grey", f"      {task['status']}")] * bool(task["status"])
        lines += [style.line(below) + f"      {line}" for line in shown.get(f"{transaction['id']}/{task['id']}", [])]
    return lines


def _task(task: dict[str, Any], width: int, style: Style) -> str:
    parts = [f"{task['id'].ljust(width)}  {task['instance']}  {style.state(task['state'], task['state'] + ' (' + task['sub'] + ')')}"]
    if task["pid"] is not None:
        memory = memory_of(task["pid"])
        parts.append(f"PID {task['pid']}" + (f", {size(memory)}" if memory is not None else ""))
    parts.append(age(task["since"]))
    if task["restarts"]:
        parts.append(f"{task['restarts']} restarts")
    if task["pid"] is None and task["exit"] is not None:
        parts.append(f"last exit: {ended(task['exit'])}")
    if task["held"]:
        parts.append("held")
    return ", ".join(parts)
