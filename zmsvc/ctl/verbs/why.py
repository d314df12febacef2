"""The verb `why`: the explanation of a task that core/why.py makes, from its supervisor or from the state
file, with user names and the end of the log.
"""

from __future__ import annotations

import argparse
import functools
import json
import time

from zmsvc.ctl import render, status_source, terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.log.journal_matches import writers
from zmsvc.ctl.select_context import choose, start_command
from zmsvc.ctl.status_reply import ContextStatus, objects
from zmsvc.ctl.verbs.logs import last_lines

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from zmsvc.ctl.client import Json
    from zmsvc.host.paths import Places

LOG_LINES = 5
STACK_LINES = 80
"""The number of log lines that are shown of a task that has written the stacks of its threads to it."""
MAX_RULES = 5
"""The number of rules that are shown; --json has all."""
MAX_UPDATE = 200
"""The number of characters of an update that are shown; --json has all."""
_LATE = 1.0
"""Seconds after the end of a task in which its last lines reach the log."""


def why(args: argparse.Namespace) -> int:
    """why: explain the states of tasks. Returns 0, also for a context that does not run."""
    places = choose(args.context, args.transaction)
    names = list(dict.fromkeys(args.tasks))
    client = Client(places, args.timeout, patience=status_source.PATIENCE)
    past: Json | None = None
    try:
        data = client.ask("why", transaction=args.transaction, tasks=names)
    except NotRunningError:
        past, data = _of_the_past(args, places, names)
    told = objects(data.get("tasks"))
    if not told:
        raise CtlError(
            4, f"cannot explain {' '.join(names)}: no transaction has it (zmsvcctl -c {places.name} status)"
        )
    for each in told:
        _add_users(each)
        _add_start(each, places)
        _add_log(each, past, places, client)
    if args.json:
        terminal.out(json.dumps({"name": places.name, "tasks": told}) + "\n")
        return 0
    several = len({str(each.get("transaction")) for each in told}) > 1
    now = time.time()
    style = terminal.style()
    blocks = ("\n".join(_lines(each, now, style, several=several)) for each in told)
    terminal.page("\n\n".join(blocks) + "\n", wanted=not args.no_pager)
    return 0


def explanation(client: Client, places: Places, transaction: str, task: str) -> list[str]:
    """Return the lines about one task of a context that runs, without colors. Raises CtlError."""
    told = objects(client.ask("why", transaction=transaction, tasks=[task]).get("tasks"))
    for each in told:
        _add_users(each)
        _add_log(each, None, places, client)
    plain = terminal.Style(colors=False, utf8=terminal.style().utf8)
    now = time.time()
    return [line for each in told for line in _lines(each, now, plain, several=False)]


def _of_the_past(args: argparse.Namespace, places: Places, names: Sequence[str]) -> tuple[Json, Json]:
    """Return the status and the explanations of a context that does not run, from its state file."""
    # Imported here for start-up time: usually a supervisor answers.
    from zmsvc.core import why as core
    from zmsvc.ctl import state_file_reader  # As above.

    if not state_file_reader.exists(places.state_file):
        raise CtlError(4, f"cannot explain {names[0]}: {places.name} does not run, and has no state file")
    status = state_file_reader.status(places)
    chosen = argparse.Namespace(transaction=args.transaction, tasks=names, task=[])
    status_source.select(chosen, places, status["transactions"])  # Unknown names end here.
    saved = state_file_reader.saved(places)
    terminal.complain(state_file_reader.note(places))
    told = []
    for key in core.keys_of(saved.world, args.transaction, names):
        when = functools.partial(saved.when, key)
        clock = core.TimeFormat(now=time.monotonic(), wall=state_file_reader.moment, monotonic=when)
        told.append(core.explain(saved.world, key, saved.rows, clock, running=False))
    return status, {"tasks": told}


# --- what only this process knows


def _add_users(told: Json) -> None:
    """Add the name of each user, which the supervisor must not look up, because that may take long."""
    for each in (*objects(told.get("chain")), *objects(told.get("reasons"))):
        uid = each.get("uid")
        each["user"] = _user(uid) if isinstance(uid, int) else None


def _add_start(told: Json, places: Places) -> None:
    """If a start of the context helps, add the command that starts it on this machine."""
    down = any(reason.get("kind") == "context-down" for reason in objects(told.get("reasons")))
    for step in objects(told.get("advice"))[:1] if down else ():
        file = str(places.config_file) if places.config_file.exists() else ""
        step["command"] = start_command(places.name if file else None, file)


def _user(uid: int) -> str:
    # Imported here for start-up time: most causes have no user.
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"uid {uid}"


def _add_log(told: Json, past: Json | None, places: Places, client: Client) -> None:
    """Add the last lines of the log of the task that matters. Without a log the explanation has no such
    lines.
    """
    log = told.get("log")
    if not isinstance(log, dict):
        return
    log["lines"] = []
    transaction, task = str(told.get("transaction")), str(log.get("task"))
    try:
        data = past or client.ask("status", transaction=transaction, tasks=[task])
    except CtlError:
        return
    status = ContextStatus(data)
    of = [
        (each.id, found)
        for each in status.transactions
        if each.id == transaction
        for found in each.tasks
        if found.id == task
    ]
    until = log.get("until")
    moment = render.epoch(until) if isinstance(until, str) else None
    before = None if moment is None else f"@{moment + _LATE:.3f}"
    running = None if past else status
    count = STACK_LINES if log.get("stacks") is True else LOG_LINES
    lines = last_lines(writers(running, places, client.uid), status, of, count, before)
    log["lines"] = lines.get((transaction, task), [])


# --- the text


def _lines(told: Json, now: float, style: terminal.Style, *, several: bool) -> Iterator[str]:
    state = str(told.get("state"))
    was = f", was {told['last']}" if told.get("last") else ""
    since = told.get("since")
    moment = render.epoch(since) if isinstance(since, str) else None
    age = f" since {render.moment(moment)}; {render.ago(now - moment)}" if moment is not None else ""
    place = f" of {told.get('transaction')}" if several else ""
    name = style.paint("bold", terminal.clean(str(told.get("task"))))
    shown = style.state(state, f"{state} ({told.get('sub')})")
    yield f"{style.dot(state)} {name}{terminal.clean(place)}: {shown}{terminal.clean(was)}{age}"
    yield from _rows("Reason", map(_reason, objects(told.get("reasons"))))
    yield from _rows("Because", _because(told))
    yield from _rows("Rules", _rules(objects(told.get("rules"))))
    log = told.get("log")
    if isinstance(log, dict) and log.get("lines"):
        yield from _rows("Log", [f"of {log.get('task')}", *map(str, log["lines"])])
    yield from _rows("Do", map(_step, objects(told.get("advice"))))


def _rows(name: str, texts: Iterator[str] | Sequence[str] | map[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        head = f"{name}:" if not number else ""
        yield f"{head:>9} {terminal.clean(text)}".rstrip()


def _reason(reason: Json) -> str:
    text = str(reason.get("text"))
    if reason.get("user"):
        text += f" ({reason['user']}{_at(reason.get('at'), ', ')})"
    until = reason.get("until")
    return f"{text}, until{_at(until, ' ')}" if isinstance(until, str) else text


def _because(told: Json) -> Iterator[str]:
    for link in objects(told.get("chain")):
        user = f" ({link['user']})" if link.get("user") else ""
        yield f"{_at(link.get('at'), ''):<19}  {link.get('text')}{user}"
        if update := link.get("update"):
            text = json.dumps(update, ensure_ascii=False)
            more = "..." if len(text) > MAX_UPDATE else ""
            yield f"{'':<19}  its last update: {text[:MAX_UPDATE]}{more}"
    if told.get("complete") is False:
        yield f"{'':<19}  the history does not reach back further"


def _rules(rules: Sequence[Json]) -> Iterator[str]:
    for rule in rules[:MAX_RULES]:
        yield str(rule.get("text"))
    if len(rules) > MAX_RULES:
        yield f"and {len(rules) - MAX_RULES} more"


def _step(step: Json) -> str:
    command = f": {step['command']}" if step.get("command") else ""
    return f"{step.get('text')}{command}"


def _at(at: object, before: str) -> str:
    return f"{before}{at[:19].replace('T', ' ')}" if isinstance(at, str) else ""
