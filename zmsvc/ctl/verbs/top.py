"""The verb top: a table of what tasks use of the machine. Printed once, it has the figures that this process
reads; the live view is in ctl/top.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from zmsvc.core.amounts import size
from zmsvc.ctl import render, status_source, terminal
from zmsvc.ctl.client import Client, CtlError
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, TaskStatus, TransactionStatus
from zmsvc.ctl.top.rows import rank
from zmsvc.host import usage

SPAN = 0.2
"""Seconds over which the CPU time of the first screen is measured."""
_HEAD = (
    "TASK",
    "INSTANCE",
    "TRANSACTION",
    "PID",
    "STATE",
    "CPU%",
    "RSS",
    "MEM%",
    "THREADS",
    "CHILDREN",
    "MISSED",
    "RESTARTS",
)


def top(args: argparse.Namespace) -> int:
    """top: show a live table on a terminal, until `q` or Ctrl-C; print it once if there is no terminal."""
    if not (args.json or args.once or not terminal.on_terminal() or os.environ.get("TERM") == "dumb"):
        # Imported here for start-up time: curses and the view are needed on a terminal only.
        from zmsvc.ctl.verbs import live_top

        if live_top.shown(args):
            return 0
    view = TopView(args)
    view.begin()
    # This pause is the measurement, not a wait for an event.
    time.sleep(SPAN)
    if args.json:
        terminal.out(json.dumps({"contexts": [view.rows()]}) + "\n")
    else:
        terminal.out("\n".join(view.screen_lines()) + "\n")
    return 0


class TopView:
    """The view of one context, restricted to the transaction and the tasks of the arguments."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._places = choose(args.context, args.transaction)
        self._transaction: str | None = args.transaction
        self._tasks = status_source.selected_tasks(args)
        self._timeout: float | None = args.timeout
        self._sort: str = args.sort
        self._sampler = usage.ProcessSampler(usage.Options())

    def _ask(self) -> tuple[str, list[tuple[TransactionStatus, TaskStatus]]]:
        """Return the context's name, and the tasks of its open transactions or of the named one."""
        client = Client(self._places, self._timeout, patience=status_source.PATIENCE)
        status = ContextStatus(client.ask("status", transaction=self._transaction, tasks=self._tasks))
        found = [
            (each, task)
            for each in status.transactions
            if each.open or self._transaction is not None
            for task in each.tasks
        ]
        if self._tasks and not found:
            raise CtlError(
                4,
                f"cannot show {' '.join(self._tasks)}: no transaction has it "
                f"(zmsvcctl -c {status.name} status)",
            )
        return status.name, found

    def begin(self) -> None:
        """Begin the measurement."""
        self._sampler.begin(pid for _, task in self._ask()[1] if (pid := task.local_pid) is not None)

    def rows(self) -> dict[str, Any]:
        """Return the name of the context, and for each transaction the rows of a `monitor` message."""
        name, found = self._ask()
        transactions: dict[str, list[usage.Figures]] = {each.id: [] for each, _ in found}
        for (each, _), row in zip(found, self._sample(found), strict=True):
            transactions[each.id].append(row)
        return {"name": name, "transactions": transactions}

    def _sample(self, found: list[tuple[TransactionStatus, TaskStatus]]) -> list[usage.Figures]:
        tasks = (
            {
                "service_id": task.id,
                "pid": task.local_pid,
                "action": task.action,
                "state": task.state,
                "missed": task.missed,
            }
            for _, task in found
        )
        return usage.rows(self._sampler, tasks)

    def screen_lines(self) -> list[str]:
        """Return the lines of one screen: a summary, and the table."""
        name, found = self._ask()
        lines = [(each, task, row) for (each, task), row in zip(found, self._sample(found), strict=True)]
        lines.sort(key=lambda line: _rank(self._sort, line[1], line[2]))
        cpu, rss = (sum(row[what] for _, _, row in lines) for what in ("cpu_percent", "rss"))
        active = sum(task.state == "active" for task in (line[1] for line in lines))
        return [
            f"{terminal.clean(name)}: {active} of {len(lines)} tasks active, CPU {cpu:.1f}%, RSS "
            f"{_size(rss)}, by {self._sort}",
            "",
            *render.table(_HEAD, [_cells(*line) for line in lines], terminal.style()),
        ]


def _rank(key: str, task: TaskStatus, row: usage.Figures) -> tuple[bool, float, str]:
    return rank(
        key,
        task=task.id,
        state=task.state,
        pid=row["pid"],
        cpu=row["cpu_percent"],
        rss=row["rss"],
        missed=task.missed,
        restarts=task.restarts,
    )


def _cells(each: TransactionStatus, task: TaskStatus, row: usage.Figures) -> list[str]:
    known = [terminal.clean(task.id), terminal.clean(task.instance), terminal.clean(each.id)]
    state, counts = terminal.clean(task.state), [str(task.missed), str(task.restarts)]
    if row["pid"] is None:
        return [*known, "-", state, "-", "-", "-", "-", "-", *counts]
    kinds = [child["kind"] for child in row["children"]]
    figures = [f"{row['cpu_percent']:.1f}", _size(row["rss"]), f"{row['percent']:.1f}"]
    return [
        *known,
        str(row["pid"]),
        state,
        *figures,
        str(kinds.count("thread")),
        str(kinds.count("process")),
        *counts,
    ]


def _size(mebibytes: float) -> str:
    return size(int(mebibytes * usage.MIB))
