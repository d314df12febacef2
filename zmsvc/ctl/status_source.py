"""The state of a context for the verbs that show it: the supervisor's answer, or the state file of a context
that does not run. The output is in the verbs.
"""

from __future__ import annotations

import argparse

from zmsvc import __version__
from zmsvc.core.replicas import base, is_named
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.status_reply import ContextStatus

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Collection

    from zmsvc.ctl.client import Json
    from zmsvc.host.paths import Places

PATIENCE = 40.0
"""Seconds to wait for an answer. A keeper replaces a hung supervisor in 30 s, under systemd in 15 s."""


def selected_tasks(args: argparse.Namespace) -> list[str]:
    """Return the named tasks, each once."""
    return list(dict.fromkeys([*args.tasks, *getattr(args, "task", ())]))


def current(
    args: argparse.Namespace, places: Places, *, quiet: bool = False, patience: float = PATIENCE
) -> Json:
    """Return the answer to `status`; of a context that does not run, the same from its state file. Stopped
    transactions are left out if another one is open and none is named.
    """
    client = Client(places, args.timeout, patience=patience)
    try:
        data = client.ask("status", transaction=args.transaction, tasks=selected_tasks(args))
    except NotRunningError:
        return _saved(args, places, quiet=quiet)
    if args.transaction is None:
        data["transactions"] = _open(data)
    return data


def _open(data: Json) -> list[Json]:
    """Return the transactions that are open; all of them if none is."""
    shown = [each for each in data.get("transactions", ()) if isinstance(each, dict)]
    opened = {each.id for each in ContextStatus(data).transactions if each.open}
    return [each for each in shown if each.get("id") in opened] or shown


def _saved(args: argparse.Namespace, places: Places, *, quiet: bool) -> Json:
    file = str(places.config_file) if places.config_file.exists() else ""
    saved = past(places, quiet=quiet)
    if saved is not None:
        saved["transactions"] = select(args, places, saved["transactions"])
    elif args.transaction is not None or selected_tasks(args):
        wanted = args.transaction or selected_tasks(args)[0]
        raise CtlError(
            4,
            f"cannot show {wanted}: {places.name} does not run, and has no state file (zmsvcd "
            f"{places.name} starts it)",
        )
    return empty(places.name, file) | (saved or {})


def past(places: Places, *, quiet: bool = False) -> Json | None:
    """Return the contents of the state file, and announce this source on stderr unless `quiet`. Return None
    if zmsvcctl can read no such file.
    """
    # Imported here for start-up time: most of the time a supervisor answers.
    from zmsvc.ctl import state_file_reader

    if not state_file_reader.exists(places.state_file):
        return None
    try:
        found = state_file_reader.status(places)
    except CtlError as error:
        terminal.complain(f"{places.name} does not run; {error}")
        return None
    if not quiet:
        terminal.complain(state_file_reader.note(places))
    return found


def select(args: argparse.Namespace, places: Places, transactions: list[Json]) -> list[Json]:
    """Return the transactions and tasks that were asked for. Raises CtlError 4 for unknown ones, as a
    supervisor does.
    """
    names = set(selected_tasks(args))
    if args.transaction is not None:
        known = [str(each["id"]) for each in transactions]
        transactions = [each for each in transactions if each["id"] == args.transaction]
        if not transactions:
            hint = _similar(args.transaction, known) or f" (zmsvcctl -c {places.name} status)"
            raise CtlError(4, f"cannot show {args.transaction}: no such transaction{hint}")
    if not names:
        return transactions
    found = [
        {**each, "tasks": [task for task in each["tasks"] if is_named(task["id"], names)]}
        for each in transactions
    ]
    have = {name for each in found for task in each["tasks"] for name in (task["id"], base(task["id"]))}
    if missing := names - have:
        task = min(missing)
        tasks = dict.fromkeys(str(task["id"]) for each in transactions for task in each["tasks"])
        hint = _similar(task, tasks) or f" (zmsvcctl -c {places.name} status)"
        raise CtlError(4, f"cannot show {task}: no such task{hint}")
    # As for a running context: stopped transactions are left out if another one will be resumed.
    going_on = [each for each in found if each["resumes"]] if args.transaction is None else []
    return going_on or found


def _similar(word: str, known: Collection[str]) -> str:
    # Imported here for start-up time: most names are right.
    from zmsvc.core.similar import similar_id

    return similar_id(word, known)


def empty(name: str, file: str) -> Json:
    """Return the JSON of `status` for a context that does not run, with every field."""
    none = (
        "id",
        "pid",
        "keeper_pid",
        "device_pid",
        "frontend",
        "backend",
        "supervisor_version",
        "keeper_version",
        "zygote_version",
    )
    nothing: Json = {
        "name": name,
        **dict.fromkeys(none),
        "restarts": 0,
        "state": "inactive",
        "file": file or None,
        "transactions": [],
    }
    return nothing | {"version": __version__, "restart_needed": False, "need_reload": None}
