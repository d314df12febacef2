"""The verbs is-active, is-failed, is-enabled and wait: an exit status for scripts, and the state as one
word.
"""

from __future__ import annotations

import argparse
import json

from zmsvc.core.replicas import is_named
from zmsvc.ctl import status_source, terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.select_context import NoneRunningError, choose
from zmsvc.ctl.status_reply import ContextStatus, unit_file_state

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Callable

    from zmsvc.ctl.client import Json

ACTIVE = ("active", "reloading")


def is_active(args: argparse.Namespace) -> int:
    """is-active: print the states. Returns 0 if at least one is active, else 3, as systemctl does."""
    return _answer(args, ACTIVE, otherwise=3)


def is_failed(args: argparse.Namespace) -> int:
    """is-failed: print the states. Returns 0 if at least one is failed, else 1, as systemctl does."""
    return _answer(args, ("failed",), otherwise=1)


def is_enabled(args: argparse.Namespace) -> int:
    """is-enabled: print whether tasks start with a transaction. Returns 0 if at least one is enabled or
    static, else 1, as systemctl does.
    """
    args = argparse.Namespace(**vars(args), transaction=None, task=[])
    unknown: list[str] = []
    states = _states(args, unknown, quiet=args.quiet, of_task=_file_state, absent="not-found")
    known = len(unknown) < len(states)
    return _told(args, states, unknown, ("enabled", "static"), otherwise=1 if known else 4)


def _answer(args: argparse.Namespace, wanted: tuple[str, ...], *, otherwise: int) -> int:
    unknown: list[str] = []
    try:
        states = _states(args, unknown, quiet=args.quiet)
    except NoneRunningError as error:
        unknown = [str(error)]
        states = [{"transaction": None, "task": None, "state": "inactive"}]
        known = True
    else:
        known = not states or len(unknown) < len(states)
    return _told(args, states, unknown, wanted, otherwise=otherwise if known else 4)


def _told(
    args: argparse.Namespace,
    states: list[Json],
    unknown: list[str],
    wanted: tuple[str, ...],
    *,
    otherwise: int,
) -> int:
    """Print the states, and return the exit status: 0 if one of them is wanted."""
    for problem in () if args.quiet else dict.fromkeys(unknown):
        terminal.complain(problem)
    if args.json and not args.quiet:
        terminal.out(json.dumps({"states": states}) + "\n")
    elif not args.quiet:
        terminal.out("".join(f"{each['state']}\n" for each in states))
    return 0 if any(each["state"] in wanted for each in states) else otherwise


def _states(
    args: argparse.Namespace,
    unknown: list[str],
    *,
    quiet: bool,
    of_task: Callable[[ContextStatus, str], list[Json]] | None = None,
    absent: str = "inactive",
) -> list[Json]:
    """Return a state for each named task of each transaction; without tasks that of the named transaction, or
    of the context. An unknown task is inactive, as systemctl has it, and `unknown` gets the message about it.
    `of_task` returns the states of one task, and `absent` is that of an unknown one.
    """
    of_task = of_task or _of_task
    places = choose(args.context, args.transaction)
    names = status_source.selected_tasks(args)
    try:
        status = ContextStatus(status_source.current(args, places, quiet=quiet))
    except CtlError as error:
        if error.code != 4 or not names:
            raise
        if len(names) == 1:
            unknown.append(str(error))
            return [{"transaction": None, "task": names[0], "state": absent}]
        # One of several is unknown: look at each by itself.
        one = argparse.Namespace(**{**vars(args), "task": []})
        found = []
        for name in names:
            one.tasks = [name]
            found += _states(one, unknown, quiet=True, of_task=of_task, absent=absent)
        return found
    if names:
        return [each for name in names for each in of_task(status, name)]
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


def _file_state(status: ContextStatus, name: str) -> list[Json]:
    """Return whether a task, or each of its replicas, starts with a transaction. Raises CtlError if no
    transaction has it: the supervisor shows only tasks of transactions.
    """
    found = {
        task.id: {"transaction": None, "task": task.id, "state": unit_file_state(task.disabled, task.entry)}
        for transaction in status.transactions
        for task in transaction.tasks
        if is_named(task.id, (name,))
    }
    if not found:
        raise CtlError(
            1,
            f"cannot say whether {name} is enabled: no transaction has it yet (zmsvcctl -c {status.name} "
            f"start {name} opens one)",
        )
    return list(found.values())


def wait(args: argparse.Namespace) -> int:
    """wait: return when all tasks are in the state. The supervisor answers when they are; a context that does
    not run will not change their states.
    """
    places = choose(args.context, args.transaction)
    tasks = list(dict.fromkeys(args.tasks))
    request = {"transaction": args.transaction, "tasks": tasks, "for": args.state}
    try:
        data = Client(places, args.timeout).ask("wait", **request, timeout=args.timeout or None)
    except NotRunningError:
        unknown: list[str] = []
        states = _states(args, unknown, quiet=False)
        if unknown:
            raise CtlError(4, unknown[0]) from None
        if not _all_in(states, args.state):
            raise
        about = {"task": tasks[0]} if len(tasks) == 1 else {"tasks": tasks}
        data = {"transaction": args.transaction, **about, "state": args.state}
    if args.json:
        terminal.out(json.dumps(data) + "\n")
    return 0


def _all_in(states: list[Json], state: str) -> bool:
    """Return True if each task is in the state in one of its transactions."""
    return {each["task"] for each in states} == {each["task"] for each in states if each["state"] == state}
