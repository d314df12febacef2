"""The verbs that show what is: status, list, events."""

from __future__ import annotations

import argparse
import json
from typing import Any

from zmsvc.ctl import logs
from zmsvc.ctl.client import Client, CtlError, choose, running
from zmsvc.ctl.render import Style, context, table
from zmsvc.host import paths

LOG_LINES = 5
"""Last lines of the log that `status` shows of a failed task."""
FINE = frozenset({"waiting", "exited", "stopped"})
"""Sub-states in which a task is not running and nothing is wrong."""


def status(args: argparse.Namespace) -> int:
    """status: the tree; 0 when everything asked for is active, 3 when not."""
    names = [choose(args.context, args.transaction)] if args.context or args.transaction else running()
    if not names:
        if args.json:
            print(json.dumps({"contexts": []}))
        raise CtlError(3, "no context is running (zmsvcctl list shows the known ones)")
    found: list[dict[str, Any]] = []
    code = 0
    for name in names:
        try:
            answer = Client(name, args.timeout).ask("status", transaction=args.transaction, tasks=args.tasks)
        except CtlError as error:
            if error.code != 5 or "not running" not in str(error):
                raise
            if not args.json:
                print(f"{Style().dot('inactive')} {name}: inactive, not running (systemctl start zmsvc@{name})")
            code = 3
            continue
        if not answer["ok"]:
            raise CtlError(answer["code"], answer["error"])
        found.append(answer["data"])
        code = max(code, _judge(answer["data"], bool(args.tasks)))
    if args.json:
        print(json.dumps({"contexts": found}))
    else:
        _print(found, args)
    return code


def _judge(data: dict[str, Any], named: bool) -> int:
    """0 when everything asked for is active. Of a whole context a task that waits, or has ended as it should, spoils nothing."""
    transactions = data["transactions"]
    tasks = [task for each in transactions if each["state"] != "inactive" or named for task in each["tasks"]]
    if named:
        return 0 if tasks and all(task["state"] == "active" for task in tasks) else 3
    if not any(each["state"] != "inactive" for each in transactions):
        return 3
    return 0 if all(task["state"] == "active" or task["sub"] in FINE for task in tasks) else 3


def _print(data: list[dict[str, Any]], args: argparse.Namespace) -> None:
    style, lines = Style(), []
    for each in data:
        shown = {
            f"{transaction['id']}/{task['id']}": logs.last_lines(each, transaction["id"], task, LOG_LINES)
            for transaction in each["transactions"]
            for task in transaction["tasks"]
            if task["state"] == "failed"
        }
        lines += context(each, style, shown)
    logs.page(lines, args.no_pager)


def contexts(args: argparse.Namespace) -> int:
    """list: contexts known and running."""
    known, alive = paths.known_contexts(), set(running())
    rows = []
    for name in sorted({*known, *alive}):
        data: dict[str, Any] = {}
        if name in alive:
            try:
                data = Client(name, args.timeout or 5.0).ask("status")["data"]
            except CtlError as error:
                data = {"state": f"unreachable ({error.code})"}
        tasks = [task for each in data.get("transactions", ()) for task in each["tasks"]]
        running_tasks = sum(task["state"] == "active" for task in tasks)
        rows.append(
            {
                "name": name,
                "state": data.get("state", "inactive"),
                "pid": data.get("pid"),
                "tasks": len(tasks),
                "running": running_tasks,
                "file": data.get("file") or str(known.get(name, "")),
            }
        )
    if args.json:
        print(json.dumps({"contexts": rows}))
    else:
        cells = [[r["name"], r["state"], f"{r['running']}/{r['tasks']}", str(r["pid"] or "-"), r["file"]] for r in rows]
        print("\n".join(table(["NAME", "STATE", "TASKS", "PID", "FILE"], cells)))
    return 0


def events(args: argparse.Namespace) -> int:
    """events: the lifecycle history from the state file."""
    client = Client(choose(args.context, args.transaction), args.timeout)
    for answer in client.stream("events", transaction=args.transaction, tasks=args.tasks, follow=args.follow, limit=args.lines):
        if not answer["ok"]:
            raise CtlError(answer["code"], answer["error"])
        if not answer.get("more"):
            break
        row = answer["data"]
        print(json.dumps(row) if args.json else _event(row), flush=args.follow)
    return 0


def _event(row: dict[str, Any]) -> str:
    about = "/".join(part for part in (row["transaction"], row["task"]) if part) or "context"
    detail = {name: value for name, value in row["detail"].items() if value not in (None, "", [], {}) and name != "cause"}
    cause = row["detail"].get("cause")
    if cause:
        detail["by"] = cause["by"]
        if cause.get("uid") is not None:
            detail["uid"] = cause["uid"]
        if cause.get("sources"):
            detail["rules"] = [f"{source['task']} {source['rule']}" for source in cause["sources"]]
    words = " ".join(f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}" for name, value in detail.items())
    return f"{row['at'][:23]}  {about}  {row['event']}  {words}".rstrip()
