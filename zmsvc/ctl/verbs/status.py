"""The verbs that show the current state: status and list."""

from __future__ import annotations

import argparse
import json
import os
import time

from zmsvc import __version__
from zmsvc.ctl import procfs, render, status_source, terminal, versions
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.file_change import needs_reload
from zmsvc.ctl.select_context import NoneRunningError, choose, running, start_command
from zmsvc.ctl.status_reply import ContextStatus, TaskStatus, TransactionStatus, all_active
from zmsvc.host import paths
from zmsvc.host.paths import Places

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from zmsvc.ctl.client import Json

LIST_PATIENCE = 3.0
"""Seconds to wait for each answer in `list`, which asks all contexts."""
LOG_LINES = 5
"""The number of log lines that `status` shows of a failed or named task, without -n."""


_FOR_METRICS = ("rules", "totals")
"""The fields of the answer that `metrics` and `graph` show in another form."""


def status(args: argparse.Namespace) -> int:
    """status: print the tree. Returns 0 if everything that was asked for is active, else 3."""
    if args.at is not None:
        # Imported here for start-up time: most of the time the present is of interest.
        from zmsvc.ctl.verbs import replay

        return replay.status_at(args)
    try:
        places = choose(args.context, args.transaction)
    except NoneRunningError as error:
        raise CtlError(3, str(error), {"contexts": []}) from None
    tasks = [*args.tasks, *args.task]
    client = Client(places, args.timeout, patience=status_source.PATIENCE)
    try:
        # Only a program has a use for the figures, which take the supervisor 0.02 ms for each task.
        more = {"usage": True} if args.json else {}
        data = client.ask("status", transaction=args.transaction, tasks=tasks, **more)
    except NotRunningError:
        return _not_running(args, places)
    status = ContextStatus(data)
    if tasks and args.transaction is None and any(each.open for each in status.transactions):
        # Every transaction has the task, but stopped ones are not shown beside an open one.
        status.transactions = [each for each in status.transactions if each.open]
    contexts: Json = {"contexts": [_completed(data, status, places)]} if args.json else {}
    if not args.json:
        _print_tree(args, status, places, client.uid, named=bool(tasks))
    if tasks and not status.tasks:
        raise CtlError(
            4,
            f"cannot show {' '.join(tasks)}: no transaction has it (zmsvcctl -c {places.name} status)",
            contexts,
        )
    if args.json:
        terminal.out(json.dumps(contexts) + "\n")
    return 0 if all_active(status, transaction=args.transaction is not None, task=bool(tasks)) else 3


def _completed(data: Json, status: ContextStatus, places: Places) -> Json:
    """Return the answer with the installed version, and with what zmsvcctl itself finds. Versions that a
    supervisor of zmsvc 1.0 does not send are null.
    """
    names = ("supervisor_version", "keeper_version", "zygote_version")
    process_versions = {name: data.get(name) or None for name in names}
    return {
        **{name: value for name, value in data.items() if name not in _FOR_METRICS},
        "version": __version__,
        **process_versions,
        "restart_needed": versions.restart_needed(status),
        "need_reload": needs_reload(status, places),
    }


def _not_running(args: argparse.Namespace, places: Places) -> int:
    """Show a context that does not run, with the last states of its tasks from its state file."""
    file = str(places.config_file) if places.config_file.exists() else ""
    past = status_source.past(places)
    if past is not None:
        past["transactions"] = status_source.select(args, places, past["transactions"])
    cluster = _cluster(places)
    if args.json:
        found = status_source.empty(places.name, file) | (past or {}) | cluster
        terminal.out(json.dumps({"contexts": [found]}) + "\n")
        return 3
    lines = render.inactive(
        places.name,
        file,
        start_command(places.name if file else None, file),
        terminal.style(),
        terminal.clean(cluster["cluster"]["text"]) if cluster else "",
    )
    if past is not None:
        status, named = ContextStatus(past), bool(args.tasks or args.task)
        logged = [
            (each, task)
            for each in status.transactions
            for task in each.tasks
            if named or (each.resumes and task.state == "failed")
        ]
        whole = named or args.transaction is not None or len(status.transactions) == 1
        extras = render.StatusExtras(
            now=time.time(), logs=_log_lines(args, status, places, None, logged), whole=whole
        )
        lines += render.past(status, extras, terminal.style())
    terminal.page("\n".join(lines) + "\n", wanted=not args.no_pager)
    return 3


def _cluster(places: Places) -> Json:
    """Return where the cluster runs the context that does not run here; empty if it is given to none."""
    if not os.path.exists(places.config_file.parent / "cluster" / places.name):
        return {}
    # Imported here for start-up time: most contexts are in no cluster.
    from zmsvc.ctl import cluster_state
    from zmsvc.ctl.verbs.cluster import where  # As above.

    try:
        resource, _ = cluster_state.place_of(places.name)
    except CtlError as error:
        return {"cluster": {"resource": None, "hosts": [], "text": f"given to the cluster; {error}"}}
    if resource is None:
        return {
            "cluster": {
                "resource": None,
                "hosts": [],
                "text": "given to the cluster, which has no resource for it",
            }
        }
    text = f"given to the cluster; {where(resource)}"
    return {"cluster": {"resource": resource["id"], "hosts": resource["hosts"], "text": text}}


def _log_lines(
    args: argparse.Namespace,
    status: ContextStatus,
    places: Places,
    daemon: int | None,
    logged: list[tuple[TransactionStatus, TaskStatus]],
) -> dict[tuple[str, str], list[str]]:
    """Return the last log lines of the given tasks."""
    count = LOG_LINES if args.lines is None else args.lines
    if not logged or not count:
        return {}
    # Both are imported here for start-up time: most of the time nothing has failed, and no log is looked at.
    from zmsvc.ctl.log.journal_matches import writers
    from zmsvc.ctl.verbs import logs as reader  # As above.

    return reader.last_lines(
        writers(status, places, daemon), status, [(each.id, task) for each, task in logged], count
    )


def _print_tree(
    args: argparse.Namespace, status: ContextStatus, places: Places, daemon: int | None, *, named: bool
) -> None:
    logged = [
        (each, task)
        for each in status.transactions
        for task in each.tasks
        if named or (each.open and task.state == "failed")
    ]
    logs = _log_lines(args, status, places, daemon, logged)
    now = time.time()
    age = procfs.age(status.keeper_pid)
    extras = render.StatusExtras(
        now=now,
        up=render.epoch(status.since) or (None if age is None else now - age),
        memory=procfs.memory(pid for task in status.tasks if (pid := task.local_pid) is not None),
        logs=logs,
        whole=named or args.transaction is not None or len(status.transactions) == 1,
        need_reload=needs_reload(status, places) is True,
    )
    text = "\n".join(render.context(status, extras, terminal.style())) + "\n"
    terminal.page(text, wanted=not args.no_pager)


# --- list


def contexts(args: argparse.Namespace, patience: float = LIST_PATIENCE) -> int:
    """list: contexts that have a file, run, or have run. One that does not answer within `patience` seconds,
    or within the limit of the user, is unreachable.
    """
    known = paths.known_contexts()
    running_contexts = {places.name: places for places in running()}
    names = sorted({*known, *running_contexts, *paths.past_contexts()})
    rows = [
        _list_row(name, running_contexts.get(name), str(known.get(name, "")), args.timeout, patience)
        for name in names
    ]
    if args.json:
        terminal.out(json.dumps({"contexts": rows}) + "\n")
        return 0
    cells = [
        [row["name"], row["state"], _ratio(row), str(row["pid"] or "-"), terminal.clean(row["file"] or "-")]
        for row in rows
    ]
    terminal.out(
        "\n".join(render.table(["NAME", "STATE", "TASKS", "PID", "FILE"], cells, terminal.style())) + "\n"
    )
    if old := [row["name"] for row in rows if row["restart_needed"]]:
        terminal.complain(
            f"{__version__} is installed, another release runs: {', '.join(old)} (zmsvcctl -c NAME status "
            f"says more)"
        )
    return 0


def _ratio(row: Json) -> str:
    """Format `2/3`: the active tasks of all."""
    return "-" if row["tasks"] is None else f"{row['running']}/{row['tasks']}"


def _list_row(name: str, places: Places | None, file: str, timeout: float | None, patience: float) -> Json:
    row: Json = {
        "name": name,
        "state": "inactive",
        "running": None,
        "tasks": None,
        "pid": None,
        "file": file or None,
    }
    row["restart_needed"] = False
    if places is None:
        return row
    try:
        status = ContextStatus(Client(places, timeout, patience=patience).ask("status"))
    except CtlError as error:
        # One context that does not answer must not hide the others.
        terminal.complain(str(error))
        return row | {"state": "unreachable"}
    tasks = [task for each in status.transactions if each.open for task in each.tasks]
    return row | {
        "restart_needed": versions.restart_needed(status),
        "state": status.state or "unknown",
        "running": sum(task.state == "active" for task in tasks),
        "tasks": len(tasks),
        "pid": status.pid,
        "file": status.file or file or None,
    }
