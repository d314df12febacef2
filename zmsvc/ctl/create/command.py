"""`zmsvcctl create` and scripts/create_service.py: the arguments, the outcome for each file, and the report.

plan.py checks the request, templates.py renders it, merge.py merges it into an existing file, and
atomic_write.py writes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from zmsvc.core.errors import ConfigError, UsageError, ZmsvcError
from zmsvc.core.frozen import frozen
from zmsvc.core.values import WHITE
from zmsvc.ctl import terminal
from zmsvc.ctl.create import merge, meta_file, templates
from zmsvc.ctl.create.atomic_write import Change, Changed, read_if_exists, write
from zmsvc.ctl.create.fields import ENTRY_ACTIONS, SERVICE_REQUIRED
from zmsvc.ctl.create.plan import GivenFields, Layout, Plan, context_file, make_plan, named_after_program
from zmsvc.host import paths

_OF_CONTEXT = {
    "service_path": (
        "PATH",
        "the directory that holds Services/ and Conf/; it is made if it does not exist; default: the "
        "directories in which zmsvcd NAME looks, such as /etc/zmsvc and /etc/zmsvc/services",
    ),
    "context_name": ("NAME", "the context: its file is Conf/Context-NAME.xml, and it logs as NAME"),
    "context_id": ("ID", "the ContextID that messages to the context name (default: context001)"),
    "server_ip": (
        "ADDRESS",
        "the address of both endpoints; without it and the ports they are in the runtime directory",
    ),
    "sub_port": ("PORT", "the port at which task services subscribe (FrontEndEndpoint)"),
    "pub_port": ("PORT", "the port to which everyone publishes (BackendEndpoint)"),
    "home_path": ("PATH", "the directory that holds Conf/, where that is not --service_path"),
    "location": ("PATH", "where the context looks for the services (default: Services under --service_path)"),
}
_OF_SERVICE = {
    "task_service": ("NAME", "the service: Services/NAME/ServiceNAME.py, the instance in the context file"),
    "task_file": ("NAME", "the module of the task, without .py (default: as --task_service)"),
    "task_class": ("NAME", "the class of the task (default: as --task_service)"),
    "task_desc": ("TEXT", "what the task does, for people"),
    "task_type": (
        "TYPE",
        "Looped: runs until it is stopped (default); Single or Simple: runs once; Async: a coroutine",
    ),
    "service_name": ("NAME", "the name that the service's messages carry"),
    "task_id": ("ID", "the task's id, which no other of the context has"),
    "task_topic": ("TOPIC", "the topic of the service's messages (default: process)"),
    "device_action": ("WORD", "tells particular messages apart; may be left out"),
    "entry_action": (
        "WORD",
        f"on_start: runs with its transaction (default); else it waits for a rule: "
        f"{', '.join(ENTRY_ACTIONS)}",
    ),
}
_OF_COMMAND = {
    "command": ("TEXT", "a program and its arguments, quoted as in sh, that runs as a Command"),
    "restart": (
        "WHEN",
        "after which ends the task starts again: no, on-failure (the default with --command) or always",
    ),
}

_ATTEMPTS = 100
"""The number of attempts to write. When one fails, another `create` has succeeded, so this many may run at
the same time.
"""


class FileOutcome(StrEnum):
    """The outcome for a file."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    KEPT = "kept"


@frozen
class PlannedFile:
    """A file of the plan: its intended outcome, and its bytes before and after."""

    path: Path
    outcome: FileOutcome
    data: bytes
    before: bytes | None
    added: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the manual, and `--from` for `--xml_file`."""
    many = parser.add_argument_group("many services at once")
    many.add_argument(
        "--xml_file", "--from", dest="xml_file", metavar="FILE",
        help=(
            "a MetaServiceConf file; flags about the context take precedence over it, flags about a service "
            "are refused"
        ),
    )  # fmt: skip
    for title, flags in (
        ("the context", _OF_CONTEXT),
        ("one service", _OF_SERVICE),
        ("a program as a service, and its restart", _OF_COMMAND),
    ):
        group = parser.add_argument_group(title)
        for name, (metavar, text) in flags.items():
            group.add_argument(f"--{name}", metavar=metavar, help=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run scripts/create_service.py."""
    parser = argparse.ArgumentParser(
        prog="create_service.py",
        description="Makes task services and adds them to their context file. A second run changes nothing, "
        "and files that a person has edited stay as they are.",
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Make the services of the arguments, and print the outcome for each file. Returns the exit status."""
    program = "zmsvcctl" if hasattr(args, "verb") else "create_service.py"
    try:
        current, warnings, files = _perform(args)
    except ConfigError as error:
        for fault in sorted(error.faults, key=_line_of):
            from_flags = fault.startswith(("--", "give --"))
            terminal.say_error(f"{program}: cannot create: {fault}" if from_flags else fault)
        return _failed(args, 2, "; ".join(error.faults))
    except ZmsvcError as error:
        terminal.say_error(f"{program}: {error}")
        return _failed(args, 2 if isinstance(error, UsageError) else 1, str(error))
    for warning in (*warnings, *_advice(current)):
        terminal.say_error(f"warning: {warning}")
    if not current.quiet or getattr(args, "json", False):
        _report(files, as_json=getattr(args, "json", False))
    return 0


def _failed(args: argparse.Namespace, code: int, error: str) -> int:
    if getattr(args, "json", False):
        terminal.out(json.dumps({"error": error, "code": code}) + "\n")
    return code


def _perform(args: argparse.Namespace) -> tuple[Plan, tuple[str, ...], list[PlannedFile]]:
    for attempt in range(1, _ATTEMPTS + 1):
        current, warnings = plan(args)
        files = list(_file_plans(current))
        new_files = [each for each in files if each.outcome in (FileOutcome.CREATED, FileOutcome.CHANGED)]
        try:
            write([Change(path=each.path, data=each.data, before=each.before) for each in new_files])
        except Changed:
            # Another create was faster, and has finished: the next attempt merges its result.
            if attempt == _ATTEMPTS:
                raise
        else:
            break
    return current, warnings, files


def _line_of(fault: str) -> int:
    """Return the line of a fault in a file, 0 for a flag: sort key, so that the list follows the file."""
    match = re.match(r"(?!--).+?:([0-9]+): ", fault)
    return int(match[1]) if match else 0


def plan(args: argparse.Namespace) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of the arguments, and warnings. Raises ConfigError with every fault, UsageError for an
    unreadable file.
    """
    flags, installed = _flags(args), _installed()
    if not args.xml_file:
        # Each fault is reported once: `make_plan` reports missing fields and a bad location with the context.
        service = replace(flags, required=(), text={**flags.text, "location": ""})
        known = merge.known_ids(context_file(flags, installed))
        return make_plan(flags, [service], known, _of_modules(flags), installed=installed), ()
    found = meta_file.read(args.xml_file)
    faults = [
        f"--{name} cannot be used with --xml_file: the file has it for each service"
        for name in _OF_SERVICE
        if flags.get(name)
    ]
    faults += [
        f"--{name} cannot be used with --xml_file: give a program its own run of create"
        for name in _OF_COMMAND
        if flags.get(name)
    ]
    context = GivenFields(
        text={**found.context.text, **{name: flags.text[name] for name in _OF_CONTEXT if flags.get(name)}},
        labels={
            **found.context.labels,
            **{name: flags.labels[name] for name in _OF_CONTEXT if flags.get(name)},
        },
        lacks=found.context.lacks,
        required=found.context.required,
    )
    known = merge.known_ids(context_file(context, installed))
    faults += found.faults
    return make_plan(context, found.services, known, faults, installed=installed), found.warnings


def _installed() -> Layout:
    return Layout(context_dir=paths.config_dir(), services_dir=paths.service_path()[0])


def _of_modules(flags: GivenFields) -> list[str]:
    """Return faults for flags about the modules of a service. A program has no such modules."""
    return [
        f"--{name} cannot be used with --command: it is about a service in Python"
        for name in ("task_file", "task_class", "task_type", "location")
        if flags.get("command") and flags.get(name)
    ]


def _flags(args: argparse.Namespace) -> GivenFields:
    names = [*_OF_CONTEXT, *_OF_SERVICE, *_OF_COMMAND]
    text = {name: (getattr(args, name) or "").strip(WHITE) for name in names}
    # zmsvcctl has -c for the name of a context; the script has not.
    text["context_name"] = text["context_name"] or getattr(args, "context", None) or ""
    labels = {name: f"--{name}" for name in names}
    # Without --service_path the files go where an installed zmsvcd looks for them.
    required: tuple[str, ...] = ("context_name",)
    if args.command is not None:
        required, text = ("context_name", "command", "task_id"), named_after_program(text)
    else:
        required = (*(("service_path",) if text["home_path"] else ()), *required, *SERVICE_REQUIRED)
    return GivenFields(
        text=text,
        labels=labels,
        lacks="give --xml_file FILE, or the missing ",
        required=required,
        name="--{}",
    )


def _file_plans(plan: Plan) -> Iterator[PlannedFile]:
    # The context file is last: when it names a service, the service's code exists.
    for file in templates.service_files(plan):
        data, before = file.text.encode(), _read(file.path)
        outcome = (
            FileOutcome.CREATED
            if before is None
            else FileOutcome.UNCHANGED
            if before == data
            else FileOutcome.KEPT
        )
        yield PlannedFile(path=file.path, outcome=outcome, data=data, before=before)
    path = plan.context_file
    before = _read(path)
    if before is None:
        data = templates.context_text(plan).encode()
        added = tuple(service.task_id for service in plan.services)
        yield PlannedFile(path=path, outcome=FileOutcome.CREATED, data=data, before=None, added=added)
    elif services := merge.missing(before, plan):
        added = tuple(service.task_id for service in services)
        yield PlannedFile(
            path=path,
            outcome=FileOutcome.CHANGED,
            data=merge.merged(before, services, path),
            before=before,
            added=added,
        )
    else:
        yield PlannedFile(path=path, outcome=FileOutcome.UNCHANGED, data=before, before=before)


def _read(path: Path) -> bytes | None:
    try:
        return read_if_exists(path)
    except OSError as error:
        raise ZmsvcError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error


def _advice(plan: Plan) -> Iterator[str]:
    """Yield warnings about parts of the request that may not work yet."""
    own = plan.services_dir.absolute()
    yield from _advice_about_programs(plan)
    for location in {service.location: None for service in plan.services if not service.command}:
        if not Path(location).is_dir():
            yield f"location {location} does not exist: the context cannot be loaded before it does"
        elif not own.exists() or not Path(location).samefile(own):
            yield f"the context takes the services from {location}, but they were made in {own}"
    if plan.host and not plan.host.startswith(("127.", "[::1]")):
        yield f"every host that reaches {plan.host} could send orders: it is bound only with CURVE keys"


def _advice_about_programs(plan: Plan) -> Iterator[str]:
    """Yield what `check` says about the programs of the plan."""
    programs = {service.task_id for service in plan.services if service.command}
    if not programs:
        return
    # Imported here for start-up time: most services are in Python.
    from zmsvc.core import checks
    from zmsvc.host.config import reader  # As above.

    try:
        context = reader.load(plan.context_file)
    except ConfigError as error:
        yield f"the context cannot be loaded: {'; '.join(error.faults)}"
        return
    for each in (*checks.config_warnings(context), *reader.check_services(context)):
        if each.task in programs:
            yield each.text


def _report(files: Sequence[PlannedFile], *, as_json: bool) -> None:
    if as_json:
        shown = [
            {"path": str(each.path), "outcome": each.outcome, "added": list(each.added)} for each in files
        ]
        terminal.say(json.dumps({"files": shown}))
        return
    for each in files:
        note = f" ({', '.join(each.added)} added)" if each.outcome is FileOutcome.CHANGED else ""
        note = " (edited since it was made)" if each.outcome is FileOutcome.KEPT else note
        terminal.say(f"{each.outcome:<10}{each.path}{note}")
