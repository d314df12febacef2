"""The verbs that order something and wait until it is done: start, stop, restart, reset-failed, forget,
reload, reexec, exit.
"""

from __future__ import annotations

import argparse
import json

from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError, DroppedError, NotRunningError
from zmsvc.ctl.select_context import choose
from zmsvc.host import ids

TYPE_CHECKING = False  # As in client: typing is not worth its import.
if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

LEAVING = 90.0
"""Seconds that a daemon which has stopped all its tasks has to leave, and a supervisor to be replaced."""
MAX_LOOKS = 20
"""How often somebody may accept a connection and hang up, before we believe that it is not a daemon on its
way out.
"""


def order(args: argparse.Namespace) -> int:
    """start, stop, restart, reset-failed, forget: carry it out and say what became of it."""
    client = Client(choose(args.context, args.transaction), args.timeout)
    tasks = list(dict.fromkeys([*getattr(args, "tasks", ()), *getattr(args, "task", ())]))
    request: Json = {
        "transaction": args.transaction,
        "tasks": tasks,
        "block": not args.no_block,
        "triggers": not args.no_triggers,
        "timeout": args.timeout or None,
    }
    if args.verb == "start" and args.transaction is None:
        # Made here and not by the supervisor, so that the order can be given again to the next one when this
        # one dies over it.
        request |= {"transaction": ids.transaction_id(), "new": True}
    try:
        data = client.ask(args.verb, **request)
    except CtlError as error:
        if args.verb == "stop" and error.code == 4 and client.drops and not args.transaction:
            # The supervisor that died over the order had stopped everything: nothing is left to be stopped.
            _tell(args, {"transactions": [], "tasks": []}, new=None)
            return 0
        _say_beside(args, error.data)
        if not args.json:
            _tell(args, error.data, new=request["transaction"])
        raise CtlError(
            error.code, str(error) + _way_out(args, client.name, error, tasks), error.data
        ) from None
    _say_beside(args, data)
    _tell(args, data, new=request["transaction"])
    return 0


def _tell(args: argparse.Namespace, data: Json, *, new: str | None) -> None:
    """What the order did. The ID of a transaction that was opened stands alone, for scripts."""
    if args.json:
        terminal.out(json.dumps(data) + "\n")
        return
    if (
        args.verb == "start"
        and args.transaction is None
        and new is not None
        and data.get("transaction") == new
    ):
        terminal.out(f"{new}\n")
        return
    names = data.get("transactions")
    if args.verb == "forget" and isinstance(names, list):
        terminal.out(
            "".join(_line(name, "forgotten") for name in names)
            or "nothing to forget: no transaction is stopped\n"
        )
    for task in _objects(data, "tasks"):
        where = task.get("transaction") or data.get("transaction")
        process = f", PID {task['pid']}" if isinstance(task.get("pid"), int) else ""
        held = ", held: no rule starts it" if task.get("held") is True else ""
        by_force = (
            ", killed with SIGKILL: it did not end when it was asked" if task.get("killed") is True else ""
        )
        what = f"{task.get('state')} ({task.get('sub')}){process}{by_force}{held}"
        terminal.out(_line(f"{where}/{task.get('id')}" if where else task.get("id"), what))
    _tell_ends(data)


def _tell_ends(data: Json) -> None:
    """What tasks had left behind, and what of them is still there."""
    for end in _objects(data, "ended"):
        terminal.out(_line(end.get("task"), _ended(end)))
    survivors = data.get("survivors")
    for task in survivors if isinstance(survivors, list) else ():
        terminal.complain(f"{task} still has processes (zmsvcctl status {task})")


def _ended(end: Json) -> str:
    """What became of a process of a task beside its main one. How it ended is not known where another one
    has reaped it.
    """
    asked, killed = end.get("asked"), end.get("killed") or not end.get("asked")
    done = [f"{asked} was sent to"] * bool(asked) + ["SIGKILL was sent to"] * bool(killed)
    code = end.get("code")
    how = end.get("signal") or ("" if code is None else f"status {code}")
    return (
        f"{', then '.join(done)} {end.get('name')} (PID {end.get('pid')}), which has ended{how and ': '}{how}"
    )


def _say_beside(args: argparse.Namespace, data: Json) -> None:
    """Announce a second transaction, which is a second copy of everything: systemctl, from which people
    come, starts nothing twice.
    """
    beside, opened = data.get("beside"), data.get("transaction")
    if args.verb == "start" and isinstance(beside, list) and beside:
        others = ", ".join(map(str, beside))
        terminal.complain(
            f"opened transaction {opened}; still running: {others} (zmsvcctl stop --transaction {opened} "
            f"takes it back)"
        )


def _objects(data: Json, key: str) -> list[Json]:
    value = data.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _line(who: object, what: str) -> str:
    return terminal.clean(f"{who}: {what}") + "\n"


def _way_out(args: argparse.Namespace, name: str, error: CtlError, tasks: list[str]) -> str:
    """What to do next, in brackets; nothing when the error says so itself."""
    said = str(error)
    if "zmsvcctl" in said or error.code not in (1, 4, 124):
        return ""
    ctl = f"zmsvcctl -c {name}"
    transaction = error.data.get("transaction") or args.transaction
    if error.code == 1 and args.verb in ("start", "restart") and isinstance(transaction, str):
        return f" (see {ctl} logs --transaction {transaction}{''.join(f' {task}' for task in tasks)})"
    return f" (see {ctl} status)"


# --- the daemon itself


def reload(args: argparse.Namespace) -> int:
    """reload: read the context file again; say what differs."""
    client = Client(choose(args.context), args.timeout)
    try:
        data = client.ask("reload", block=not args.no_block, timeout=args.timeout or None)
    except CtlError as error:
        _say_still_failed(client.name, error.data)
        if not args.json and "changed" in error.data:
            _tell_difference(args, error.data)
        raise CtlError(error.code, str(error) + _way_out(args, client.name, error, []), error.data) from None
    _say_still_failed(client.name, data)
    _tell_difference(args, data)
    return 0


def _say_still_failed(name: str, data: Json) -> None:
    """Name what has failed and was changed: whoever has mended a file expects that it runs."""
    for failed in _objects(data, "still_failed"):
        task = failed.get("task")
        start = f"zmsvcctl -c {name} start --transaction {failed.get('transaction')} {task}"
        terminal.complain(f"{task} is still failed, and a reload starts no failed task ({start})")


_DIFFERENCES = {
    "added": "added",
    "removed": "removed",
    "changed": "changed",
    "in_place": "changed without a restart",
    "context": "changed for the context",
}
"""What a reload tells, and how it is printed."""


def _tell_difference(args: argparse.Namespace, data: Json) -> None:
    if args.json:
        terminal.out(json.dumps(data) + "\n")
        return
    told = {what: names for what in _DIFFERENCES if isinstance(names := data.get(what), list) and names}
    for what, names in told.items():
        terminal.out(_line(_DIFFERENCES[what], " ".join(map(str, names))))
    if not told:
        terminal.out("nothing differs\n")
    _tell_ends(data)


def reexec(args: argparse.Namespace) -> int:
    """reexec: done when the next supervisor answers."""
    client = Client(choose(args.context), args.timeout, patience=LEAVING)
    before = client.ask("status").get("pid")
    try:
        with client.open() as farewell:
            client.ask("reexec")
            # The connection ends with the supervisor that holds it, so the one after it is held by its
            # successor.
            farewell.wait_for_end()
    except DroppedError:
        pass  # It was gone before it had said so.
    after = client.ask("status").get("pid")
    if args.json:
        terminal.out(json.dumps({"before": before, "after": after}) + "\n")
    else:
        terminal.out(f"supervisor {before} was replaced by {after}\n")
    return 0


def leave(args: argparse.Namespace) -> int:
    """exit: done when the daemon is gone, not when it has promised to go."""
    places = choose(args.context)
    client = Client(places, args.timeout)
    try:
        client.ask("exit", block=not args.no_block, timeout=args.timeout or None)
    except DroppedError:
        # It may have gone because of the order, or have been replaced in the middle of it. The daemon's end
        # tells.
        _see_it_go(client, sure=False)
    else:
        if not args.no_block:
            _see_it_go(Client(places, args.timeout, patience=LEAVING), sure=True)
    if args.json:
        terminal.out(json.dumps({"context": places.name, "ended": not args.no_block}) + "\n")
    return 0


def _see_it_go(client: Client, *, sure: bool) -> None:
    """Until nobody listens any more. A connection that nobody accepts, or whose supervisor leaves, is hung
    up: then we look again.

    Where the order is not `sure` to have been taken, a supervisor that answers is a new one, which knows
    nothing of it.
    """
    for _ in range(MAX_LOOKS):
        try:
            with client.open() as connection:
                if not sure:
                    connection.write(b'{"verb": "status"}\n')
                    if connection.read() is not None:
                        raise CtlError(
                            1,
                            f"cannot say that {client.name} has ended: its supervisor was replaced while "
                            f"it stopped the tasks "
                            f"(zmsvcctl -c {client.name} exit does it again)",
                        )
                connection.wait_for_end()
        except NotRunningError:
            return
    raise CtlError(
        5,
        f"cannot say that {client.name} has ended: somebody goes on to listen (systemctl status "
        f"zmsvc@{client.name})",
    )
