"""The verb check: find the faults of context files, and warn. It needs no running context."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zmsvc.core import checks, wiring
from zmsvc.core.errors import ConfigError
from zmsvc.ctl import terminal
from zmsvc.ctl.client import listens
from zmsvc.ctl.select_context import choose
from zmsvc.host import paths
from zmsvc.host.bus import curve_keys
from zmsvc.host.config import reader
from zmsvc.host.config.context_files import context_file_of
from zmsvc.host.config.settings_check import check_settings
from zmsvc.host.config.subscribe_check import check_subscriptions, declared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmsvc.core.model import Context
    from zmsvc.ctl.client import Json
    from zmsvc.ctl.verbs.prove import ProofReport


def check(args: argparse.Namespace) -> int:
    """check: print every fault of every file, or its warnings if it has none. Returns 2 if a file has a
    fault, and 1 if --prove finds a counter-example.
    """
    reports = [_check_file(file, prove=args.prove) for file in _files(args)]
    if args.json:
        terminal.out(json.dumps({"files": [each.as_json() for each in reports]}) + "\n")
    else:
        for each in reports:
            _print_report(each)
    if not all(each.ok for each in reports):
        return 2
    return 1 if any(each.proof is not None and each.proof.found for each in reports) else 0


def _files(args: argparse.Namespace) -> list[str]:
    """Return the files to check: without any, the file of the selected context."""
    return [*args.files] or [str(choose(args.context).config_file)]


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
        wiring: Sequence[str] = (),
        proof: ProofReport | None = None,
    ) -> None:
        self.file = file
        self.access = access
        """Lines that say which clients may connect to which endpoint."""
        self.wiring = wiring
        """Lines about the topics that the classes of tasks name."""
        self.proof = proof
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
            "wiring": [*self.wiring],
        }
        return {
            "file": self.file,
            "ok": self.ok,
            "tasks": self.tasks,
            **found,
            "problems": [*map(self._fault, self.faults), *map(self._warning, self.warnings)],
            **({"proof": self.proof.as_json()} if self.proof is not None else {}),
        }

    def _fault(self, text: str) -> Json:
        """Return a fault with its place, for editors and pages. Its text has the form `FILE:LINE: words`."""
        placed = re.match(r"(.+?):(\d+): ", text)
        return {
            "severity": "error",
            "file": placed[1] if placed else self.file,
            "line": int(placed[2]) if placed else None,
            "text": text[placed.end() :] if placed else text,
        }

    def _warning(self, warning: checks.ConfigWarning) -> Json:
        return {
            "severity": "warning",
            "file": warning.file or self.file,
            "line": warning.line or None,
            "text": warning.text,
        }


def _check_file(file: str, *, prove: bool) -> FileReport:
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
        wiring=wiring.sentences(wiring.topics_of(declared(context))),
        proof=_proof(context, file) if prove else None,
    )


def _proof(context: Context, file: str) -> ProofReport:
    # Imported here for start-up time: the engine and its simulation.
    from zmsvc.ctl.verbs.prove import ProofReport

    return ProofReport(context, file)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _print_report(report: FileReport) -> None:
    for fault in report.faults:
        terminal.err(terminal.clean(fault) + "\n")
    lines = [replace(each, text=f"warning: {each.text}").in_file(report.file) for each in report.warnings]
    if report.ok:
        lines += [f"{report.file}: {line}" for line in (*report.access, *report.wiring)]
        lines.append(
            f"{report.file}: ok ({_counted(report.tasks or 0, 'task')}"
            f"{', ' + _counted(len(report.warnings), 'warning') if report.warnings else ''})"
        )
    if report.proof is not None:
        lines += report.proof.lines()
    for line in lines:
        terminal.out(terminal.clean(line) + "\n")
