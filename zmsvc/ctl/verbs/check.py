"""The verbs on context files: check and graph. They need no running context."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
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
from zmsvc.host.config.context_files import context_file_of
from zmsvc.host.config.settings_check import check_settings
from zmsvc.host.config.subscribe_check import check_subscriptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmsvc.ctl.client import Json

PATIENCE = 5.0
"""Seconds to wait for a supervisor's answer about the states of its tasks."""


def check(args: argparse.Namespace) -> int:
    """check: print every fault of every file, or its warnings if it has none. Returns 2 if a file has a
    fault.
    """
    reports = [_check_file(file) for file in args.files]
    if args.json:
        terminal.out(json.dumps({"files": [each.as_json() for each in reports]}) + "\n")
    else:
        for each in reports:
            _print_report(each)
    return 0 if all(each.ok for each in reports) else 2


class FileReport:
    """The result of the check of one file."""

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
        """Lines that say which clients may connect to which endpoint."""
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


def _check_file(file: str) -> FileReport:
    # A file that adds tasks is checked with its context: its rules may call all tasks.
    file = str(context_file_of(Path(file)) or file)
    try:
        context = reader.load(file)
    except ConfigError as error:
        return FileReport(file, tasks=None, faults=error.faults, warnings=[])
    if faults := [*check_settings(context, file), *check_subscriptions(context, file)]:
        return FileReport(file, tasks=None, faults=faults, warnings=[])
    curve = curve_keys.in_use(paths.keys_dir(context.name))
    found = [
        *checks.config_warnings(context, curve=curve),
        *reader.check_binds(context, curve=curve),
        *reader.check_services(context),
    ]
    if not (paths.CONTEXT_NAME.fullmatch(context.name) and listens(paths.places(context.name))):
        # The ports of a running context are in use by the context itself.
        found += reader.check_ports(context)
    warnings = reader.placed(context, found)
    return FileReport(
        file,
        tasks=len(context.tasks),
        faults=[],
        warnings=warnings,
        access=checks.who_may_connect(context, curve=curve),
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _print_report(report: FileReport) -> None:
    for fault in report.faults:
        terminal.err(terminal.clean(fault) + "\n")
    lines = [replace(each, text=f"warning: {each.text}").in_file(report.file) for each in report.warnings]
    if report.ok:
        lines += [f"{report.file}: {line}" for line in report.access]
        lines.append(
            f"{report.file}: ok ({_counted(report.tasks or 0, 'task')}"
            f"{', ' + _counted(len(report.warnings), 'warning') if report.warnings else ''})"
        )
    for line in lines:
        terminal.out(terminal.clean(line) + "\n")


def graph(args: argparse.Namespace) -> int:
    """graph: draw tasks and rules as dot, mermaid or svg; with live states for a running context."""
    context, states = _context_and_states(args)
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


def _context_and_states(args: argparse.Namespace) -> tuple[Context, dict[str, str] | None]:
    """Return the context of a file; or of a name, with the states of its tasks if it runs."""
    if args.what.endswith(".xml") or "/" in args.what:
        return reader.load(args.what), None
    places = choose(args.what)
    try:
        status = status_reply.ContextStatus(
            Client(places, args.timeout, patience=PATIENCE).ask("status", transaction=args.transaction)
        )
    except NotRunningError:
        return reader.load(places.config_file), None
    # A task of several open transactions has its state in the newest one.
    shown = [each for each in status.transactions if args.transaction or each.open]
    return reader.load(status.file or places.config_file), {
        task.id: task.state for each in shown for task in each.tasks
    }
