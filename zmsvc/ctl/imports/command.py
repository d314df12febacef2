"""`zmsvcctl import`: the format of the file, the context on stdout, and the warnings on stderr."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from zmsvc.core.errors import ConfigError, UsageError
from zmsvc.ctl import terminal
from zmsvc.ctl.create import command_task
from zmsvc.ctl.create.command_task import CommandTask
from zmsvc.ctl.create.fields import CONTEXT_ID
from zmsvc.ctl.create.template_files import filled, xml
from zmsvc.ctl.imports import circus, ini_file, procfile, supervisor, unit
from zmsvc.ctl.imports.drafts import TaskDraft, finished
from zmsvc.ctl.imports.import_report import Report, UnreadableError
from zmsvc.host.config import reader
from zmsvc.host.paths import CONTEXT_NAME

Reader = Callable[[Path, Report], list[TaskDraft]]

_SUPERVISOR = (
    r"supervisord|supervisorctl|unix_http_server|inet_http_server|include|rpcinterface:.*|group:.*|program:.*"
)
_SECTIONS: tuple[tuple[str, Reader], ...] = (
    (r"circus|watcher:.*|socket:.*|env|env:.*|plugin:.*", circus.read),
    (rf"{_SUPERVISOR}|eventlistener:.*|fcgi-program:.*", supervisor.read),
    (r"Unit|Service|Install", unit.read),
)
"""The sections of each format."""


def run(args: argparse.Namespace) -> int:
    """import: print the context, and warn of everything that it leaves out. Returns the exit status."""
    path, report = Path(args.file), Report()
    if args.name is not None and not CONTEXT_NAME.fullmatch(args.name):
        raise UsageError(f"cannot import as {args.name!r}: letters, digits and _ . : - are allowed in a name")
    name = args.name or _name(path)
    try:
        text = imported(path, name, args.restart, report)
    except UnreadableError:
        _print(report)
        raise
    if args.json:
        terminal.out(json.dumps({"context": name, "xml": text, "warnings": report.lines()}) + "\n")
    else:
        terminal.out(text)
        _print(report)
    return 0


def imported(path: Path, name: str, restart: str | None, report: Report) -> str:
    """Return the text of the context. Raises UnreadableError."""
    tasks = finished(_reader(path)(path, report), restart)
    if not tasks:
        raise UnreadableError(str(path), "it has no program that could be a task")
    text = _context(name, tasks)
    try:
        reader.parse(text.encode(), path=str(path), name=name)
    except ConfigError as error:
        raise UnreadableError(str(path), f"the context would be faulty: {'; '.join(error.faults)}") from error
    return text


def _print(report: Report) -> None:
    for line in report.lines():
        terminal.err(terminal.clean(line) + "\n")


def _reader(path: Path) -> Reader:
    """Return the reader of a file, by its sections or its lines. Raises UnreadableError."""
    lines = [line.strip() for line in ini_file.read_text(path).split("\n")]
    lines = [line for line in lines if line and line[0] not in "#;"]
    for line in lines:
        section = re.fullmatch(r"\[([^\]]+)\].*", line)
        for pattern, read in _SECTIONS if section else ():
            if section and re.fullmatch(pattern, section[1]):
                return read
    if lines and not any(line.startswith("[") for line in lines) and all(map(procfile.LINE.fullmatch, lines)):
        return procfile.read
    raise UnreadableError(
        str(path), "expected a file of Supervisor or Circus, a Procfile or a service unit of systemd"
    )


def _name(path: Path) -> str:
    """Return a name for the context: that of the file, or that of the directory of a Procfile."""
    stem = path.absolute().parent.name if path.name.startswith("Procfile") else path.name.partition(".")[0]
    name = re.sub("[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64]
    return name if CONTEXT_NAME.fullmatch(name) else "imported"


def _context(name: str, tasks: Sequence[CommandTask]) -> str:
    return filled(
        "Context.xml",
        {
            "endpoints": filled("no_endpoints.xml", {}),
            "context_id": CONTEXT_ID,
            "context_name": xml(name),
            "task_services": "\n".join(map(command_task.text, tasks)),
        },
    )
