"""The live view of the verb top: how it asks the supervisor, gives orders, and finds logs and explanations.
The view itself is in ctl/top.
"""

from __future__ import annotations

import argparse
import functools
import os
import time

from zmsvc.ctl import status_source, terminal
from zmsvc.ctl.client import Client
from zmsvc.ctl.log.journal_matches import writers
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, objects
from zmsvc.ctl.top import live
from zmsvc.ctl.top.background import Subject
from zmsvc.ctl.top.cursor import Cursor, Pane, UserOrder
from zmsvc.ctl.top.meter import Meter
from zmsvc.ctl.top.rows import Snapshot
from zmsvc.ctl.top.window import UnusableTerminalError
from zmsvc.ctl.verbs import why
from zmsvc.ctl.verbs.logs import last_lines
from zmsvc.host.paths import Places

SHORTEST = 0.05
"""Least seconds between two looks at the context."""
LOG_LINES = 300
"""The number of lines of the log that can be scrolled."""


def shown(args: argparse.Namespace) -> bool:
    """Show the live view until the user quits. Return False if this terminal cannot show it."""
    places = choose(args.context, args.transaction)
    style = terminal.style()
    meter = Meter(args.transaction)
    abilities = live.Abilities(
        name=places.name,
        look=functools.partial(_look, args, places, meter),
        give=functools.partial(_give, args, places),
        read=functools.partial(_read, args, places),
        interval=max(args.interval, SHORTEST),
        colors=style.colors,
        utf8=style.utf8,
        total_memory=_total_memory(),
    )
    terminal.out("", flush=True)
    try:
        unfinished = live.run(abilities, Cursor(sort=args.sort))
    except UnusableTerminalError as error:
        terminal.complain(f"cannot show the live table: {error}; this is one table")
        return False
    for order in unfinished:
        terminal.complain(f"{order} is not finished yet (zmsvcctl -c {places.name} status)")
    return True


def _total_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _look(args: argparse.Namespace, places: Places, meter: Meter) -> Snapshot:
    client = Client(places, args.timeout, patience=status_source.PATIENCE)
    tasks = status_source.selected_tasks(args)
    data = client.ask("status", transaction=args.transaction, tasks=tasks, usage=True)
    return meter.snapshot(ContextStatus(data), time.monotonic())


def _give(args: argparse.Namespace, places: Places, order: UserOrder) -> str:
    """Send an order, wait until it is carried out, and return its outcome."""
    request = {"transaction": order.transaction, "tasks": [order.task] if order.task else []}
    client = Client(places, args.timeout)
    if order.verb == "signal":
        data = client.ask("signal", **request, signal=order.signal, all=False)
        return ", ".join(f"sent to PID {task.get('pid')}" for task in objects(data.get("tasks")))
    data = client.ask(order.verb, **request, block=True, triggers=True, timeout=args.timeout or None)
    tasks = objects(data.get("tasks"))
    if len(tasks) != 1:
        return f"done, {len(tasks)} tasks"
    killed = (
        ", killed with SIGKILL: it did not end when it was asked" if tasks[0].get("killed") is True else ""
    )
    return f"{tasks[0].get('state')} ({tasks[0].get('sub')}){killed}"


def _read(args: argparse.Namespace, places: Places, subject: Subject) -> list[str]:
    """Return the lines of a pane."""
    pane, transaction, task = subject
    if not task:
        return ["this is a transaction: select a task"]
    client = Client(places, args.timeout, patience=status_source.PATIENCE)
    if pane is Pane.WHY:
        return why.explanation(client, places, transaction, task)
    status = ContextStatus(client.ask("status", transaction=transaction, tasks=[task]))
    of = [(each.id, found) for each in status.transactions for found in each.tasks]
    return last_lines(writers(status, places, client.uid), status, of, LOG_LINES).get((transaction, task), [])
