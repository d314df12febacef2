"""Text of a context: the tree of `status`, tables, times. Pure: measurements and log lines are arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from zmsvc.ctl import versions
from zmsvc.ctl.status_reply import ContextStatus, LastExit, TaskStatus, TransactionStatus
from zmsvc.ctl.terminal import Style, clean

_MINUTE, _HOUR, _DAY, _WEEK = 60, 3600, 86400, 7 * 86400
_YEAR = 31_557_600
_MONTH = _YEAR // 12
_INDENT = " " * 13
"""The column of values: the names before them are right-aligned to it, as in systemctl."""


def ago(seconds: float) -> str:
    """Format an age as systemd does: `2min 3s ago`."""
    if seconds < 1:
        return f"{max(0, int(seconds * 1000))}ms ago" if seconds >= 0.001 else "now"
    for limit, large, small in (
        (_YEAR, (_YEAR, " year"), (_MONTH, " month")),
        (_MONTH, (_MONTH, " month"), (_DAY, " day")),
        (_WEEK, (_WEEK, " week"), (_DAY, " day")),
        (2 * _DAY, (_DAY, " day"), None),
        (25 * _HOUR, (_DAY, " day"), (_HOUR, "h")),
        (6 * _HOUR, (_HOUR, "h"), None),
        (_HOUR, (_HOUR, "h"), (_MINUTE, "min")),
        (5 * _MINUTE, (_MINUTE, "min"), None),
        (_MINUTE, (_MINUTE, "min"), (1, "s")),
        (0, (1, "s"), None),
    ):
        if seconds >= limit:
            count, rest = divmod(int(seconds), large[0])
            parts = [_counted(count, large[1])]
            if small and rest // small[0]:
                parts.append(_counted(rest // small[0], small[1]))
            return f"{' '.join(parts)} ago"
    return "now"


def _counted(count: int, unit: str) -> str:
    """Format `3 days`, `1 day`, `5min`: only words have a plural."""
    return f"{count}{unit}{'s' if unit.startswith(' ') and count != 1 else ''}"


def epoch(at: str) -> float | None:
    """Convert an RFC 3339 time to seconds of the epoch; None if it is not a valid one."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except (ValueError, OverflowError):
        return None


def since(at: str, now: float) -> str:
    """Format the age of an RFC 3339 time, or a dash."""
    moment = epoch(at)
    return "-" if moment is None else ago(now - moment)


def moment(seconds: float) -> str:
    """Format a time of the epoch in the machine's zone, as systemctl does."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%a %Y-%m-%d %H:%M:%S %Z")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], style: Style | None = None) -> list[str]:
    """Return the lines of a table. Columns are as wide as their widest cell; the last one is not padded. With
    a style, states in a column STATE have their color.
    """
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    if style is None or not style.colors:
        return lines
    column = head.index("STATE")
    start = sum(width + 2 for width in widths[:column])
    return [
        line[:start] + style.state(row[column]) + line[start + len(row[column]) :]
        for line, row in zip(lines, cells, strict=True)
    ]


def last_exit(end: LastExit) -> str:
    """Format `exited, status 0` or `signal, SIGKILL`."""
    how = end.signal or (f"status {end.code}" if end.code is not None else "")
    return ", ".join(word for word in (end.reason, how) if word)


def inactive(name: str, file: str, start_command: str, style: Style, cluster: str = "") -> list[str]:
    """Return the lines of a context that does not run, with the command that starts it. If it is given to a
    cluster, `cluster` says where it runs.
    """
    return [
        f"{style.dot('inactive')} {style.paint('bold', name)}",
        *([_row("File", clean(file))] if file else []),
        _row("Active", f"inactive ({cluster or f'not running; {start_command} starts it'})"),
    ]


def past(status: ContextStatus, extras: StatusExtras, style: Style) -> list[str]:
    """Return the last known state of the transactions of a context that does not run."""
    return [_row("Tasks", _count(status, whole=extras.whole)), *_transactions(status, extras, style)]


def recorded(status: ContextStatus, extras: StatusExtras, style: Style) -> list[str]:
    """Return the lines of a context at the time of `extras`, from its record."""
    ident = f" - {clean(status.id)}" if status.id else ""
    return [
        f"{style.dot(status.state)} {style.paint('bold', clean(status.name))}{ident}",
        _row("At", moment(extras.now)),
        _row("Active", style.state(status.state)),
        *past(status, extras, style),
    ]


class StatusExtras:
    """Data for `status` beside the supervisor's answer: the time, the memory of processes by PID, log lines
    by (transaction, task).

    `up` is the start of the context; with `whole` stopped transactions are shown with their tasks;
    `need_reload` says that the context file differs from what runs.
    """

    def __init__(
        self,
        *,
        now: float,
        up: float | None = None,
        memory: Mapping[int, str] | None = None,
        logs: Mapping[tuple[str, str], Sequence[str]] | None = None,
        whole: bool = True,
        need_reload: bool = False,
    ) -> None:
        self.now = now
        self.up = up
        self.memory = memory or {}
        self.logs = logs or {}
        self.whole = whole
        self.need_reload = need_reload


def context(status: ContextStatus, extras: StatusExtras, style: Style) -> list[str]:
    """Return the lines of a context for `status`."""
    ident = f" - {clean(status.id)}" if status.id else ""
    lines = [f"{style.dot(status.state)} {style.paint('bold', clean(status.name))}{ident}"]
    if status.file:
        changed = (
            f" (changed, not reloaded: zmsvcctl -c {clean(status.name)} reload)" if extras.need_reload else ""
        )
        lines.append(_row("File", clean(status.file) + style.paint("yellow", changed)))
    when = f"; up since {moment(extras.up)}; {ago(extras.now - extras.up)}" if extras.up is not None else ""
    lines.append(_row("Active", style.state(status.state) + when))
    lines.append(_row("Version", clean(versions.line(status))))
    lines.append(_row("Supervisor", f"{status.pid}{_restarted(status.restarts)}; keeper {status.keeper_pid}"))
    lines.append(_row("Device", f"{status.device_pid}{_restarted(status.device_restarts)}"))
    lines.append(
        _row(
            "Endpoints",
            f"subscribe at {clean(status.subscribe_endpoint)}, publish to {clean(status.publish_endpoint)}",
        )
    )
    lines += [
        _row("Hosts" if not number else "", line) for number, line in enumerate(_hosts(status, extras, style))
    ]
    if status.dropped:
        lines.append(
            _row(
                "Dropped",
                ", ".join(
                    f"{count} {clean(what).replace('_', ' ')}" for what, count in status.dropped.items()
                ),
            )
        )
    if status.unsaved:
        lines.append(_row("Unsaved", style.paint("red", clean(status.unsaved))))
    lines.append(_row("Tasks", _count(status, whole=extras.whole)))
    return [*lines, *_transactions(status, extras, style)]


_HOST_STATES = {"joined": "active", "silent": "deactivating", "lost": "failed", "not-joined": "inactive"}
"""The states of tasks whose colors the states of hosts have."""


def _hosts(status: ContextStatus, extras: StatusExtras, style: Style) -> list[str]:
    """Return a line for each other host of the context, with what keeps tasks from it."""
    width = max((len(each.name) for each in status.hosts), default=0)
    lines = []
    for each in status.hosts:
        words = [style.state(_HOST_STATES.get(each.state, "inactive"), clean(each.state.replace("-", " ")))]
        words[0] += f" since {since(each.since, extras.now)}" if each.since else ""
        words += ["drained"] if each.drained else []
        words.append(f"{each.tasks} task{'s' if each.tasks != 1 else ''}")
        words += [f"{each.dropped} facts dropped"] if each.dropped else []
        lines.append(f"{clean(each.name):<{width}}  {', '.join(words)}")
    return lines


def _transactions(status: ContextStatus, extras: StatusExtras, style: Style) -> list[str]:
    lines = []
    for number, each in enumerate(status.transactions):
        lines += _transaction(each, extras, style, last=number == len(status.transactions) - 1)
    return lines


def _row(name: str, value: str) -> str:
    return f"{name:>11}: {value}"


def _restarted(times: int) -> str:
    return f" (restarted {times} time{'s' if times != 1 else ''})" if times else ""


def _count(status: ContextStatus, *, whole: bool) -> str:
    """Return the number of tasks in each state, of the transactions that are open or will be resumed; if
    there is none, of all transactions that are shown.
    """
    counted = [each for each in status.transactions if each.open or each.resumes] or (
        status.transactions if whole else []
    )
    states = [task.state for each in counted for task in each.tasks]
    counts = {
        state: states.count(state) for state in ("active", "activating", "deactivating", "failed", "inactive")
    }
    opened = len(counted)
    found = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none"
    return f"{found} in {opened} transaction{'s' if opened != 1 else ''}"


def _transaction(
    transaction: TransactionStatus, extras: StatusExtras, style: Style, *, last: bool
) -> list[str]:
    shown = transaction.tasks if extras.whole or transaction.open or transaction.resumes else []
    hidden = (
        f" ({len(transaction.tasks)} task{'s' if len(transaction.tasks) != 1 else ''})"
        if transaction.tasks and not shown
        else ""
    )
    age = f" since {since(transaction.since, extras.now)}" if transaction.open and transaction.since else ""
    age = ", to be resumed by the next start" if transaction.resumes else age
    state = style.state(clean(transaction.state))
    head = f"{style.dot(transaction.state)} {clean(transaction.id)} {state}{age}{hidden}"
    lines = [_INDENT + style.drawn("└─" if last else "├─") + head]
    below = _INDENT + ("  " if last else style.drawn("│ "))
    rows = [_cells(task, extras) for task in shown]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(_COLUMNS))]
    for number, (task, row) in enumerate(zip(shown, rows, strict=True)):
        end = number == len(shown) - 1
        lines.append(
            f"{below}{style.drawn('└─' if end else '├─')}{style.dot(task.state)} "
            f"{_line(task, row, widths, style)}"
        )
        under = below + ("  " if end else style.drawn("│ "))
        lines += [under + text for text in _details(task, extras.logs.get((transaction.id, task.id)), style)]
    return lines


_COLUMNS = ("id", "instance", "state", "host", "pid", "since", "memory", "restarts", "exit")


def _cells(task: TaskStatus, extras: StatusExtras) -> tuple[str, ...]:
    """Return the columns of a task's line, without colors: the caller pads them first."""
    return (
        clean(task.id),
        clean(task.instance),
        f"{clean(task.state)} ({clean(task.sub)})" + (f", was {clean(task.last)}" if task.last else ""),
        _host(task),
        f"PID {task.pid}" if task.pid is not None else "",
        "" if task.last else since(task.since, extras.now),
        extras.memory.get(pid, "") if (pid := task.local_pid) is not None else "",
        f"{task.restarts} restart{'s' if task.restarts != 1 else ''}" if task.restarts else "",
        f"last exit: {clean(last_exit(task.exit))}" if task.exit else "",
    )


def _host(task: TaskStatus) -> str:
    if task.host:
        return f"on {clean(task.host)}"
    return f"may run on {clean(task.last_host)}" if task.last_host else ""


def _line(task: TaskStatus, row: Sequence[str], widths: Sequence[int], style: Style) -> str:
    """Join the padded cells. Columns that are empty for all tasks are left out, and the end is not padded."""
    cells = [
        (name, cell.ljust(width)) for name, cell, width in zip(_COLUMNS, row, widths, strict=True) if width
    ]
    while cells and not cells[-1][1].strip():
        cells.pop()
    return "  ".join(
        style.state(task.state, cell) if name == "state" else cell for name, cell in cells
    ).rstrip()


_WAITING = ("back-off", "start-after", "stop-after", "unplaced", "waiting")
"""The sub-states whose status text says what the task waits for, or why it was not started."""


def _details(task: TaskStatus, log: Sequence[str] | None, style: Style) -> list[str]:
    """Return the lines below a task: the reason why it failed or waits for its next start, and the end of its
    log.
    """
    lines = []
    if task.status and (
        task.state == "failed"
        or task.sub in _WAITING
        or (task.sub == "exited" and task.left)
        or log is not None
    ):
        lines.append(f'  Status: "{clean(task.status)}"')
    if task.health == "unhealthy":
        lines.append(f"  Unhealthy: {clean(task.health_text)}")
    if task.held:
        lines.append("  Held: no rule starts it until an operator starts it")
    if task.disabled:
        lines.append("  Disabled: it does not start with its transaction; rules and orders may start it")
    if task.dropped:
        lines.append(f"  Dropped: {task.dropped} updates came too fast")
    if task.missed:
        lines.append(f"  Missed: {task.missed} messages of the bus")
    if task.poisoned:
        lines.append(f"  Poison: {task.poisoned} messages that it could not handle (zmsvcctl quarantine)")
    if task.stored:
        lines.append(f"  FD Store: {task.stored}")
    return [*lines, *(style.paint("grey", f"  {clean(line)}") for line in log or ())]
