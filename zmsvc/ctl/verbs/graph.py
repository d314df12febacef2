"""The verb graph: draw the tasks, rules and messages of a context. It needs no running context."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess

from zmsvc.core import wiring
from zmsvc.core.graph import Shown, as_json, dot, mermaid
from zmsvc.core.model import Context
from zmsvc.ctl import status_reply, terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.select_context import choose
from zmsvc.host.config import reader
from zmsvc.host.config.subscribe_check import declared

PATIENCE = 5.0
"""Seconds to wait for a supervisor's answer about the states of its tasks."""


def graph(args: argparse.Namespace) -> int:
    """graph: draw tasks and rules as dot, mermaid or svg; with live states for a running context."""
    context, states, hosts = _context_and_states(args)
    topics = wiring.topics_of(declared(context))
    shown = Shown(topics=topics, hosts=hosts)
    drawn = draw(context, states, shown, args.format)
    if not args.json:
        terminal.out(drawn)
        return 0
    document = {
        "context": context.name,
        "live": states is not None,
        **as_json(context, states, shown),
        "topics": wiring.as_json(topics, 0),
        "format": args.format,
        "graph": drawn,
    }
    terminal.out(json.dumps(document) + "\n")
    return 0


def draw(context: Context, states: dict[str, str] | None, shown: Shown, language: str) -> str:
    """Return a drawing as dot, mermaid or svg. Raises CtlError."""
    if language == "mermaid":
        return mermaid(context, states, shown)
    drawn = dot(context, states, shown)
    return _svg(drawn) if language == "svg" else drawn


def _svg(drawn: str) -> str:
    if shutil.which("dot") is None:
        raise CtlError(
            1, "cannot draw svg: there is no program dot (install graphviz, or use --format mermaid)"
        )
    done = subprocess.run(
        ["dot", "-Tsvg"], input=drawn.encode("utf-8", "backslashreplace"), capture_output=True
    )
    if done.returncode != 0:
        raise CtlError(
            1, f"cannot draw svg: dot ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
        )
    return done.stdout.decode(errors="replace")


def _context_and_states(args: argparse.Namespace) -> tuple[Context, dict[str, str] | None, dict[str, str]]:
    """Return the context of a file; or of a name, with the states of its tasks if it runs, and the other
    hosts on which they run.
    """
    if args.what.endswith(".xml") or "/" in args.what:
        return reader.load(args.what), None, {}
    places = choose(args.what)
    try:
        status = status_reply.ContextStatus(
            Client(places, args.timeout, patience=PATIENCE).ask("status", transaction=args.transaction)
        )
    except NotRunningError:
        return reader.load(places.config_file), None, {}
    # Of a task in several open transactions, the state in the newest one is shown.
    shown = [each for each in status.transactions if args.transaction or each.open]
    tasks = [task for each in shown for task in each.tasks]
    return (
        reader.load(status.file or places.config_file),
        {task.id: task.state for task in tasks},
        {task.id: task.host for task in tasks if task.host},
    )
