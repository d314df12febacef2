"""The verbs is-active, is-failed and wait: an exit status for scripts, and the state as one word."""

from __future__ import annotations

import argparse
import json

from zmsvc.core.replicas import is_named
from zmsvc.ctl import status_source, terminal
from zmsvc.ctl.client import Client, NotRunningError
from zmsvc.ctl.select_context import NoneRunningError, choose
from zmsvc.ctl.status_reply import ContextStatus

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

ACTIVE = ("active", "reloading")


def is_active(args: argparse.Namespace) -> int:
    """is-active: print the states. Returns 0 if at least one is active, else 3, as systemctl does."""
    return _answer(args, ACTIVE, otherwise=3)


def is_failed(args: argparse.Namespace) -> int:
    """is-failed: print the states. Returns 0 if at least one is failed, else 1, as systemctl does."""
    return _answer(args, ("failed",), otherwise=1)


def _answer(args: argparse.Namespace, wanted: tuple[str, ...], *, otherwise: int) -> int:
    try:
        states = _states(args, quiet=args.quiet)
    except NoneRunningError as error:
        if not args.quiet:
            terminal.complain(str(error))
        states = [{"transaction": None, "task": None, "state": "inactive"}]
    if args.json and not args.quiet:
        terminal.out(json.dumps({"states": states}) + "\n")
    elif not args.quiet:
        terminal.out("".join(f"{each['state']}\n" for each in states))
    return 0 if any(each["state"] in wanted for each in states) else otherwise


def _states(args: argparse.Namespace, *, quiet: bool) -> list[Json]:
    """Return a state for each named task of each transaction; without tasks that of the named transaction, or
    of the context.
    """
    places = choose(args.context, args.transaction)
    status = ContextStatus(status_source.current(args, places, quiet=quiet))
    names = status_source.selected_tasks(args)
    if names:
        return [each for name in names for each in _of_task(status, name)]
    if args.transaction is not None:
        return [{"transaction": each.id, "task": None, "state": each.state} for each in status.transactions]
    return [{"transaction": None, "task": None, "state": status.state or "inactive"}]


def _of_task(status: ContextStatus, name: str) -> list[Json]:
    """Return the states of a task, or of its replicas. The supervisor knows each named task; without a
    transaction that has it, it is inactive.
    """
    found = [
        {"transaction": transaction.id, "task": task.id, "state": task.state}
        for transaction in status.transactions
        for task in transaction.tasks
        if is_named(task.id, (name,))
    ]
    return found or [{"transaction": None, "task": name, "state": "inactive"}]


def wait(args: argparse.Namespace) -> int:
    """wait: return when the task is in the state. The supervisor answers when it is; a context that does not
    run will not change its state.
    """
    places, (task,) = choose(args.context, args.transaction), args.tasks
    request = {"transaction": args.transaction, "tasks": [task], "for": args.state}
    try:
        data = Client(places, args.timeout).ask("wait", **request, timeout=args.timeout or None)
    except NotRunningError:
        states = _states(args, quiet=False)
        if args.state not in [each["state"] for each in states]:
            raise
        data = {"transaction": args.transaction, "task": task, "state": args.state}
    if args.json:
        terminal.out(json.dumps(data) + "\n")
    return 0
