"""The verbs on context files: check and graph. They need no running context."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

from zmsvc.core import checks
from zmsvc.core import graph as drawing
from zmsvc.core.errors import ConfigError
from zmsvc.core.model import Context
from zmsvc.ctl import status_reply, terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError, listens
from zmsvc.ctl.select_context import choose
from zmsvc.host import paths
from zmsvc.host.bus import curve_keys
from zmsvc.host.config import reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmsvc.ctl.client import Json

PATIENCE = 5.0
"""Seconds that a supervisor has to say which states its tasks are in."""


def check(args: argparse.Namespace) -> int:
    """check: every fault of every file; warnings when there is none. 2 when a file is bad."""
    told = [_checked(file) for file in args.files]
    if args.json:
        terminal.out(json.dumps({"files": [each.as_json() for each in told]}) + "\n")
    else:
        for each in told:
            _say(each)
    return 0 if all(each.ok for each in told) else 2


class _Told:
    """What was found out about one file."""

    def __init__(
        self,
        file: str,
        *,
        tasks: int | None,
        faults: list[str],
        warnings: list[checks.ConfigWarning],
        access: Sequence[str] = (),
    ) -> None:
        self.file = file
        self.access = access
        """Who may connect to what, in words."""
        self.tasks = tasks
        self.faults = faults
        self.warnings = warnings

    @property
    def ok(self) -> bool:
        return self.tasks is not None

    def as_json(self) -> Json:
        found = {
            "faults": self.faults,
            "warnings": [str(each) for each in self.warnings],
            "access": [*self.access],
        }
        return {"file": self.file, "ok": self.ok, "tasks": self.tasks, **found}


def _checked(file: str) -> _Told:
    try:
        context = reader.load(file)
    except ConfigError as error:
        return _Told(file, tasks=None, faults=error.faults, warnings=[])
    curve = curve_keys.in_use(paths.keys_dir(context.name))
    found = [
        *checks.config_warnings(context, curve=curve),
        *reader.check_binds(context, curve=curve),
        *reader.check_services(context),
    ]
    if not (paths.CONTEXT_NAME.fullmatch(context.name) and listens(paths.places(context.name))):
        # Of a context that runs the ports are in use as they should be.
        found += reader.check_ports(context)
    told = _placed(found, context)
    return _Told(
        file,
        tasks=len(context.tasks),
        faults=[],
        warnings=told,
        access=checks.who_may_connect(context, curve=curve),
    )


def _placed(found: list[checks.ConfigWarning], context: Context) -> list[checks.ConfigWarning]:
    """Give each warning its line, if it is about anything that stands in the file."""
    tasks, elements = reader.lines_of(context) if found else ({}, {})
    return [
        replace(each, line=each.line or tasks.get(each.task) or elements.get(each.element) or 0)
        for each in found
    ]


def _say(told: _Told) -> None:
    for fault in told.faults:
        terminal.err(terminal.clean(fault) + "\n")
    lines = [
        f"{told.file}{f':{each.line}' if each.line else ''}: warning: {each.text}" for each in told.warnings
    ]
    if told.ok:
        lines += [f"{told.file}: {line}" for line in told.access]
        lines.append(f"{told.file}: ok ({told.tasks} task{'s' if told.tasks != 1 else ''})")
    for line in lines:
        terminal.out(terminal.clean(line) + "\n")


def graph(args: argparse.Namespace) -> int:
    """graph: tasks and rules as dot, mermaid or svg; with live states for a running context."""
    context, states = _drawn(args)
    if args.format == "mermaid":
        drawn = drawing.mermaid(context, states)
    else:
        drawn = drawing.dot(context, states)
        drawn = _svg(drawn) if args.format == "svg" else drawn
    terminal.out(
        json.dumps({"context": context.name, "format": args.format, "graph": drawn}) + "\n"
        if args.json
        else drawn
    )
    return 0


def _svg(dot: str) -> str:
    if shutil.which("dot") is None:
        raise CtlError(
            1, "cannot draw svg: there is no program dot (install graphviz, or use --format mermaid)"
        )
    done = subprocess.run(
        ["dot", "-Tsvg"], input=dot.encode("utf-8", "backslashreplace"), capture_output=True
    )
    if done.returncode != 0:
        raise CtlError(
            1, f"cannot draw svg: dot ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
        )
    return done.stdout.decode(errors="replace")


def _drawn(args: argparse.Namespace) -> tuple[Context, dict[str, str] | None]:
    """The context of a file, or of a name and then with the states of its tasks if it runs."""
    if args.what.endswith(".xml") or "/" in args.what:
        return reader.load(args.what), None
    places = choose(args.what)
    try:
        it = status_reply.ContextStatus(
            Client(places, args.timeout, patience=PATIENCE).ask("status", transaction=args.transaction)
        )
    except NotRunningError:
        return reader.load(places.config_file), None
    # Of several transactions the newest that goes on says most.
    shown = [each for each in it.transactions if args.transaction or each.open]
    return reader.load(it.file or places.config_file), {
        task.id: task.state for each in shown for task in each.tasks
    }
