"""The verbs that send an order and wait for its outcome: start, stop, restart, signal, reset-failed, forget,
enable, disable, reload, reexec, exit.
"""

from __future__ import annotations

import argparse
import json

from zmsvc.core.replicas import base
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError, DroppedError, NotRunningError
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, objects
from zmsvc.host import ids, paths

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

EXIT_PATIENCE = 90.0
"""Seconds for a daemon to end after it has stopped all its tasks, and for a supervisor to be replaced."""
MAX_HANGUPS = 20
"""The number of connections in a row that may be accepted and closed. If there are more, the listener is not
a daemon that is ending.
"""


def order(args: argparse.Namespace) -> int:
    """start, stop, restart, reset-failed, forget: send the order and print its outcome."""
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
        # The ID is made here and not in the supervisor. So the order can be repeated to the next supervisor
        # if this one dies before it answers.
        request |= {"transaction": ids.transaction_id(), "new": True}
    try:
        data = client.ask(args.verb, **request)
    except CtlError as error:
        if args.verb == "stop" and error.code == 4 and client.drops and not args.transaction:
            # The supervisor that died before it answered had stopped everything: the order is done.
            _print_outcome(args, {"transactions": [], "tasks": []}, new=None)
            return 0
        _announce_second(args, error.data)
        if not args.json:
            _print_outcome(args, error.data, new=request["transaction"])
        raise CtlError(error.code, str(error) + _hint(args, client.name, error, tasks), error.data) from None
    _announce_second(args, data)
    _print_outcome(args, data, new=request["transaction"])
    return 0


def restart(args: argparse.Namespace) -> int:
    """restart: all tasks at once, or one after the other."""
    return _restart_one_by_one(args) if args.one_by_one else order(args)


def _restart_one_by_one(args: argparse.Namespace) -> int:
    if args.no_block:
        raise CtlError(2, "cannot restart: --one-by-one waits for each task, and --no-block for none")
    client = Client(choose(args.context, args.transaction), args.timeout)
    left = _to_restart(args, client)
    done: list[Json] = []
    while left:
        transaction, task = left.pop(0)
        request = {"transaction": transaction, "tasks": [task], "triggers": not args.no_triggers}
        try:
            data = client.ask("restart", **request, block=True, timeout=args.timeout or None)
        except CtlError as error:
            rest = [f"{other}/{name}" for other, name in left]
            also = f"; not restarted: {', '.join(rest)}" if rest else ""
            hint = f" (zmsvcctl -c {client.name} logs --transaction {transaction} {task})"
            more = {"tasks": [*done, *objects(error.data.get("tasks"))], "not_restarted": rest}
            raise CtlError(error.code, f"{error}{also}{hint}", error.data | more) from None
        done += objects(data.get("tasks"))
        # A task that requires the restarted one was restarted together with it.
        again = {(each.get("transaction"), each.get("id")) for each in objects(data.get("tasks"))}
        left = [each for each in left if each not in again]
        if not args.json:
            _print_outcome(args, data, new=None)
            terminal.out("", flush=True)
    if args.json:
        terminal.out(json.dumps({"tasks": done, "not_restarted": []}) + "\n")
    elif not done:
        terminal.out("nothing to restart: no task runs\n")
    return 0


def _to_restart(args: argparse.Namespace, client: Client) -> list[tuple[str, str]]:
    """Return the tasks to restart one by one, with their transactions: the named ones, or all that run. Those
    that others require come before these.
    """
    names = list(dict.fromkeys([*args.tasks, *args.task]))
    it = ContextStatus(client.ask("status", transaction=args.transaction, tasks=names))
    opened = [each for each in it.transactions if each.open]
    if not opened:
        what = args.transaction or client.name
        raise CtlError(4, f"cannot restart {what}: no transaction is open (zmsvcctl -c {client.name} status)")
    place = {name: at for at, name in enumerate(names)}
    found = []
    for each in opened:
        tasks = [task for task in each.tasks if names or task.state in ("active", "activating")]
        tasks.sort(key=lambda task: place.get(task.id, place.get(base(task.id), len(place))))
        found += [(each.id, name) for name in _required_first({task.id: task.requires for task in tasks})]
    return found


def _required_first(requires: dict[str, list[str]]) -> list[str]:
    """Return the tasks in their order, each after those of them that it requires."""
    seen: set[str] = set()
    found = []
    for first in requires:
        path = [] if first in seen else [first]
        seen.add(first)
        while path:
            before = next(
                (name for name in requires[path[-1]] if name in requires and name not in seen), None
            )
            if before is None:
                found.append(path.pop())
            else:
                seen.add(before)
                path.append(before)
    return found


def send_signal(args: argparse.Namespace) -> int:
    """signal: send a signal to tasks; print the processes that it was sent to."""
    client = Client(choose(args.context, args.transaction), args.timeout)
    request = {"transaction": args.transaction, "tasks": args.tasks, "signal": args.signal, "all": args.all}
    try:
        data = client.ask("signal", **request)
    except CtlError as error:
        raise CtlError(error.code, str(error) + _hint(args, client.name, error, []), error.data) from None
    if args.json:
        terminal.out(json.dumps(data) + "\n")
        return 0
    for task in objects(data.get("tasks")):
        processes = "all its processes" if data.get("all") is True else f"PID {task.get('pid')}"
        sent = f"{data.get('signal')} was sent to {processes}"
        terminal.out(_line(f"{task.get('transaction')}/{task.get('id')}", sent))
    return 0


def switch(args: argparse.Namespace) -> int:
    """enable, disable: say whether tasks start with a transaction; print what has changed. With --now, start
    or stop them as well.
    """
    places = choose(args.context)
    client = Client(places, args.timeout)
    try:
        data = client.ask(args.verb, tasks=args.tasks)
    except CtlError as error:
        # Users of systemctl name a context here.
        known = error.code == 4 and set(args.tasks) & paths.known_contexts().keys()
        hint = (
            f" (systemctl {args.verb} zmsvc@{min(known)} does that for a context)"
            if known
            else _hint(args, client.name, error, [])
        )
        raise CtlError(error.code, f"{error}{hint}", error.data) from None
    if not args.json:
        _print_switched(args, client.name, data)
    if not args.now:
        if args.json:
            terminal.out(json.dumps(data) + "\n")
        return 0
    done = _start_or_stop(args, client, data)
    if args.json:
        terminal.out(json.dumps(data | {"now": done}) + "\n")
    else:
        _print_outcome(args, done, new=None)
    return 0


def _print_switched(args: argparse.Namespace, name: str, data: Json) -> None:
    for task in objects(data.get("tasks")):
        off, ident = task.get("disabled") is True, task.get("id")
        again = "" if task.get("changed") is True else "already "
        goes_on = off and task.get("live") is True and not args.now
        goes_on_text = f"; it goes on running (zmsvcctl -c {name} stop {ident})" if goes_on else ""
        terminal.out(_line(ident, f"{again}{'disabled' if off else 'enabled'}{goes_on_text}"))


def _start_or_stop(args: argparse.Namespace, client: Client, switched: Json) -> Json:
    """Start enabled tasks, or stop disabled ones that run, and return the outcome."""
    verb = "start" if args.verb == "enable" else "stop"
    tasks = [
        each.get("id")
        for each in objects(switched.get("tasks"))
        if verb == "start" or each.get("live") is True
    ]
    if not tasks:
        return {"tasks": []}
    request: Json = {"tasks": tasks, "block": not args.no_block, "timeout": args.timeout or None}
    if verb == "start":
        request |= {"transaction": ids.transaction_id(), "new": True}
    try:
        return client.ask(verb, **request)
    except CtlError as error:
        raise CtlError(error.code, str(error) + _hint(args, client.name, error, []), switched) from None


def _print_outcome(args: argparse.Namespace, data: Json, *, new: str | None) -> None:
    """Print what the order did. The ID of an opened transaction is alone on its line, for scripts."""
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
    for task in objects(data.get("tasks")):
        where = task.get("transaction") or data.get("transaction")
        process = f", PID {task['pid']}" if isinstance(task.get("pid"), int) else ""
        held = ", held: no rule starts it" if task.get("held") is True else ""
        by_force = (
            ", killed with SIGKILL: it did not end when it was asked" if task.get("killed") is True else ""
        )
        what = f"{task.get('state')} ({task.get('sub')}){process}{by_force}{held}"
        terminal.out(_line(f"{where}/{task.get('id')}" if where else task.get("id"), what))
    _print_ended(data)


def _print_ended(data: Json) -> None:
    """Print the processes that tasks left behind, and the tasks that still have some."""
    for end in objects(data.get("ended")):
        terminal.out(_line(end.get("task"), _ended_text(end)))
    if isinstance(more := data.get("ended_more"), int):
        terminal.out(f"and {more} more processes, which have ended\n")
    survivors = data.get("survivors")
    for task in survivors if isinstance(survivors, list) else ():
        terminal.complain(f"{task} still has processes (zmsvcctl status {task})")


def _ended_text(end: Json) -> str:
    """Return the outcome of a process of a task beside its main one. The way in which it ended is unknown if
    another process has reaped it.
    """
    asked, killed = end.get("asked"), end.get("killed") or not end.get("asked")
    done = [f"{asked} was sent to"] * bool(asked) + ["SIGKILL was sent to"] * bool(killed)
    code = end.get("code")
    how = end.get("signal") or ("" if code is None else f"status {code}")
    return (
        f"{', then '.join(done)} {end.get('name')} (PID {end.get('pid')}), which has ended{how and ': '}{how}"
    )


def _announce_second(args: argparse.Namespace, data: Json) -> None:
    """Announce a second transaction, which is a second copy of every task. Users may expect that nothing is
    started twice, as with systemctl.
    """
    beside, opened = data.get("beside"), data.get("transaction")
    if args.verb == "start" and isinstance(beside, list) and beside:
        others = ", ".join(map(str, beside))
        terminal.complain(
            f"opened transaction {opened}; still running: {others} (zmsvcctl stop --transaction {opened} "
            f"takes it back)"
        )


def _line(subject: object, what: str) -> str:
    return terminal.clean(f"{subject}: {what}") + "\n"


def _hint(args: argparse.Namespace, name: str, error: CtlError, tasks: list[str]) -> str:
    """Return in brackets what to do next; nothing if the error text already says it."""
    message = str(error)
    if "zmsvcctl" in message or error.code not in (1, 4, 124):
        return ""
    ctl = f"zmsvcctl -c {name}"
    transaction = error.data.get("transaction") or getattr(args, "transaction", None)
    if error.code == 1 and args.verb in ("start", "restart") and isinstance(transaction, str):
        return f" (see {ctl} logs --transaction {transaction}{''.join(f' {task}' for task in tasks)})"
    return f" (see {ctl} status)"


# --- the daemon itself


def reload(args: argparse.Namespace) -> int:
    """reload: have the supervisor read the context file again and print the differences, or have tasks
    reload.
    """
    if args.tasks or args.task or args.transaction:
        return _reload_tasks(args)
    client = Client(choose(args.context), args.timeout)
    if args.dry_run:
        return _plan_reload(args, client)
    try:
        data = client.ask("reload", block=not args.no_block, timeout=args.timeout or None)
    except CtlError as error:
        _warn_still_failed(client.name, error.data)
        if not args.json and "changed" in error.data:
            _print_differences(args, error.data)
        raise CtlError(error.code, str(error) + _hint(args, client.name, error, []), error.data) from None
    _warn_still_failed(client.name, data)
    _print_differences(args, data)
    return 0


def _reload_tasks(args: argparse.Namespace) -> int:
    tasks = list(dict.fromkeys([*args.tasks, *args.task]))
    if args.dry_run:
        raise CtlError(2, "cannot reload: --dry-run is for the context file, and not for tasks")
    if not tasks:
        raise CtlError(2, "cannot reload: --transaction goes with at least one task")
    client = Client(choose(args.context, args.transaction), args.timeout)
    request = {"transaction": args.transaction, "tasks": tasks, "block": not args.no_block}
    try:
        data = client.ask("reload-tasks", **request, timeout=args.timeout or None)
    except CtlError as error:
        # Users of systemctl name a context here.
        known = error.code == 4 and set(tasks) & paths.known_contexts().keys()
        hint = (
            f" (zmsvcctl -c {min(known)} reload does that for a context)"
            if known
            else _hint(args, client.name, error, tasks)
        )
        raise CtlError(error.code, f"{error}{hint}", error.data) from None
    if args.json:
        terminal.out(json.dumps(data) + "\n")
        return 0
    for task in objects(data.get("tasks")):
        notified = "reloaded" if task.get("reloaded") is True else "the reload signal was sent"
        where = f"{task.get('transaction')}/{task.get('id')}"
        terminal.out(_line(where, f"{notified}, PID {task.get('pid')}"))
    return 0


def _plan_reload(args: argparse.Namespace, client: Client) -> int:
    """reload --dry-run: print the steps in their order, then the differences."""
    data = client.ask("reload-dry-run")
    _warn_still_failed(client.name, data)
    if not args.json:
        for step in objects(data.get("steps")):
            where = f"{step.get('transaction')}/{step.get('task')}"
            terminal.out(_line(f"would {step.get('action')}", where))
    _print_differences(args, data)
    return 0


def _warn_still_failed(name: str, data: Json) -> None:
    """Name the failed tasks whose definition has changed. After a correction of the file, users expect that
    these run.
    """
    for failed in objects(data.get("still_failed")):
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
"""The lists in the answer of a reload, and their names in the output."""


def _print_differences(args: argparse.Namespace, data: Json) -> None:
    if args.json:
        terminal.out(json.dumps(data) + "\n")
        return
    differences = {
        what: names for what in _DIFFERENCES if isinstance(names := data.get(what), list) and names
    }
    for what, names in differences.items():
        terminal.out(_line(_DIFFERENCES[what], " ".join(map(str, names))))
    if not differences:
        terminal.out("nothing differs\n")
    _print_ended(data)


def reexec(args: argparse.Namespace) -> int:
    """reexec: send the order, and wait until the next supervisor answers."""
    client = Client(choose(args.context), args.timeout, patience=EXIT_PATIENCE)
    before = client.ask("status").get("pid")
    try:
        with client.open() as connection:
            client.ask("reexec")
            # This connection ends together with its supervisor, so the next connection is to the next
            # supervisor.
            connection.wait_for_end()
    except DroppedError:
        pass  # The supervisor ended before it answered.
    after = client.ask("status").get("pid")
    if args.json:
        terminal.out(json.dumps({"before": before, "after": after}) + "\n")
    else:
        terminal.out(f"supervisor {before} was replaced by {after}\n")
    return 0


def leave(args: argparse.Namespace) -> int:
    """exit: send the order, and wait until the daemon has ended."""
    places = choose(args.context)
    client = Client(places, args.timeout)
    try:
        client.ask("exit", block=not args.no_block, timeout=args.timeout or None, home=args.home)
    except DroppedError:
        # The supervisor may have ended because of the order, or have died during it. Only the end of the
        # daemon shows that the order was carried out.
        _wait_until_gone(client, sure=False)
    else:
        if not args.no_block:
            _wait_until_gone(Client(places, args.timeout, patience=EXIT_PATIENCE), sure=True)
    if args.json:
        terminal.out(json.dumps({"context": places.name, "ended": not args.no_block}) + "\n")
    return 0


def _wait_until_gone(client: Client, *, sure: bool) -> None:
    """Wait until no process listens any more. The kernel closes a connection that is not accepted, and one
    whose supervisor ends: then connect again.

    If it is not `sure` that the order was accepted, a supervisor that answers is a new one, which does not
    know the order.
    """
    for _ in range(MAX_HANGUPS):
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
        f"cannot say that {client.name} has ended: a process still listens (systemctl status "
        f"zmsvc@{client.name})",
    )
