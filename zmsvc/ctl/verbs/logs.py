"""The verb logs: it reads the journal by matches, or the daemon's log file by the heads of its lines."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zmsvc.core.errors import PlaceError, UsageError
from zmsvc.core.replicas import base, is_named
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.log import file_entries, journal_entries
from zmsvc.ctl.log.file_entries import EntryFilter
from zmsvc.ctl.log.journal_matches import Writers, matches, writers
from zmsvc.ctl.log.log_directory import LogDirectory
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, TaskStatus
from zmsvc.host.paths import Places

PATIENCE = 5.0
"""Seconds to wait for a supervisor, and in `status` for journalctl, since `logs` works without a supervisor
and `status` without a log.
"""
MAX_READERS = 16
"""The number of tasks whose log one `status` shows. With more, the journalctl processes together would take
too long.
"""
MAX_NAMED = 3
"""The number of tasks that a message about their host names."""
_RAW = ("cat", "export")
"""Formats of journalctl without escaping; the others are safe for a terminal."""


def logs(args: argparse.Namespace) -> int:
    """logs: show the log of a context, a transaction or tasks."""
    places = choose(args.context, args.transaction)
    tasks = [*args.tasks, *args.task]
    if args.follow and args.reverse:
        raise UsageError("--reverse and --follow exclude each other")
    if args.json and args.output not in (None, "json"):
        raise UsageError(f"--json and --output={args.output} exclude each other")
    client = Client(places, args.timeout, patience=PATIENCE)
    status = past = None
    try:
        status = ContextStatus(client.ask("status", transaction=args.transaction, tasks=tasks))
    except NotRunningError:
        past = _past(places)
    except CtlError as error:
        if error.code == 124:
            raise
        # The supervisor has forgotten the transaction, or does not answer. There is a log nevertheless.
        terminal.complain(f"{error}; its log is searched all the same")
    known = status or past
    _warn_unknown(tasks, known)
    tasks = with_replicas(tasks, known)
    _warn_elsewhere(args, places, tasks, status)
    log, of = _log_of(known, places), writers(known, places, client.uid)
    if log == "journal":
        found = matches(of, args.transaction, tasks, cgroups(status, places.name, args.transaction, tasks))
        return _journal(
            args, found, same_instance=known is not None and _same_instance(known, args.transaction, tasks)
        )
    return _file(args, log, of.daemon, tasks)


def _warn_unknown(tasks: Sequence[str], known: ContextStatus | None) -> None:
    """Print a warning for tasks that no transaction has. Either a reload has removed them, and their log is
    shown, or the name is wrong.
    """
    if known is None:
        return
    has = {name for task in known.tasks for name in (task.id, base(task.id))}
    if unknown := [task for task in tasks if task not in has]:
        which = f"no transaction of {known.name} has {' '.join(unknown)}"
        terminal.complain(f"{which}; its log is searched all the same (zmsvcctl -c {known.name} status)")


def _warn_elsewhere(
    args: argparse.Namespace, places: Places, tasks: Sequence[str], status: ContextStatus | None
) -> None:
    """Print the hosts that have the logs of tasks that do not run on this one, with the command that shows
    them.
    """
    elsewhere: dict[str, list[str]] = {}
    for each in status.transactions if status is not None else ():
        for task in each.tasks:
            if task.host and (not tasks or task.id in tasks) and args.transaction in (None, each.id):
                elsewhere.setdefault(task.host, []).append(task.id)
    for host, names in elsewhere.items():
        chosen = ["--transaction", args.transaction] if args.transaction else []
        words = ["zmsvcctl", "-H", host, "-c", places.name, "logs", *chosen, *(names if tasks else ())]
        shown = ", ".join(names[:MAX_NAMED]) + (" and others" if names[MAX_NAMED:] else "")
        verb = "runs" if len(names) == 1 else "run"
        terminal.complain(f"{shown} {verb} on {host}, and the log is there ({shlex.join(words)})")


def with_replicas(tasks: list[str], known: ContextStatus | None) -> list[str]:
    """Return the tasks and the replicas of those that have some: the journal finds whole names only."""
    found = (
        [] if known is None or not tasks else [task.id for task in known.tasks if is_named(task.id, tasks)]
    )
    return list(dict.fromkeys([*tasks, *found]))


def _past(places: Places) -> ContextStatus | None:
    """Return the contents of the state file of a context that does not run, and announce on stderr where they
    and the log come from.
    """
    # Imported here for start-up time: most of the time a supervisor answers.
    from zmsvc.ctl import state_file_reader

    past, source = None, f"{places.name} does not run; this is"
    if state_file_reader.exists(places.state_file):
        try:
            past, source = (
                ContextStatus(state_file_reader.status(places)),
                f"{state_file_reader.note(places)}, and",
            )
        except CtlError as error:
            terminal.complain(str(error))
    log = _log_of(past, places)
    terminal.complain(f"{source} from {'the journal' if log == 'journal' else log}")
    return past


def _log_of(status: ContextStatus | None, places: Places) -> str:
    """Return `journal` or a path: from the supervisor, else the daemon's file if it exists."""
    if status is not None and status.log.startswith("/"):
        return status.log.removesuffix("+stderr")
    if status is not None and status.log == "journal":
        return "journal"
    file = str(places.log_file)
    return file if os.path.exists(file) else "journal"


# --- journald


def cgroups(
    status: ContextStatus | None, name: str, transaction: str | None, tasks: Sequence[str]
) -> list[str]:
    """Return the cgroups of the selected tasks: from the supervisor, or if it no longer knows them, from the
    journal's list.
    """
    if status is not None:
        return [
            task.cgroup
            for each in status.transactions
            if transaction in (None, each.id)
            for task in each.tasks
            if task.cgroup and (not tasks or task.id in tasks)
        ]
    if not transaction and not tasks:
        return []
    return [path for path in _journal_cgroups() if _is_cgroup_of(path, name, transaction, tasks)]


def _is_cgroup_of(cgroup: str, name: str, transaction: str | None, tasks: Sequence[str]) -> bool:
    """Return True if a cgroup belongs to one of these tasks:
    `.../zmsvc@NAME.service/tasks/TRANSACTION:TASK`, or the same below the unit of a host of its cluster.
    """
    unit, _, key = cgroup.rpartition("/tasks/")
    found, _, task = key.partition(":")
    return (
        unit.endswith((f"/zmsvc@{name}.service", f"/zmsvc-host@{name}.service"))
        and transaction in (None, found)
        and (not tasks or is_named(task, tasks))
    )


def _journal_cgroups() -> list[str]:
    try:
        done = subprocess.run(
            ["journalctl", "-q", "-F", "_SYSTEMD_CGROUP"], capture_output=True, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines()


def _journal(args: argparse.Namespace, found: list[str], *, same_instance: bool) -> int:
    """Show the entries that match; with `same_instance` some tasks have the same instance, so their names are
    added.
    """
    command = ["journalctl", *_options(args)]
    output = args.output or ("json" if args.json else None)
    command += [f"--output={output}"] if output else []
    if args.show_query:
        _show_query(args, shlex.join([*command, *found]))
        return 0
    if output is None and same_instance:
        return journal_entries.show(
            [*command, "--no-pager", "--all", "--output=json", *found],
            pager=not args.no_pager and not args.follow,
        )
    sys.stdout.flush()
    try:
        if output in _RAW and terminal.on_terminal():
            return _show_raw([*command, *found])
        os.execvp(command[0], [*command, *found])
    except OSError as error:
        raise CtlError(
            1, f"cannot run journalctl: {(error.strerror or str(error)).lower()} (is systemd installed?)"
        ) from None


def _show_query(args: argparse.Namespace, query: str) -> None:
    terminal.say(json.dumps({"query": query}) if args.json else query)


def _show_raw(command: list[str]) -> int:
    """Show the output of journalctl on a terminal, without the control characters of tasks."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        try:
            assert reader.stdout is not None
            for line in file_entries.texts(reader.stdout):
                terminal.out(line, flush=True)
        except KeyboardInterrupt:
            return 0  # Ctrl-C is a normal end.
        finally:
            reader.terminate()
    return max(0, reader.returncode)


def _options(args: argparse.Namespace) -> list[str]:
    """Return those of the given options that journalctl has as well, under the same names."""
    named = {
        "lines": args.lines,
        "since": args.since,
        "until": args.until,
        "priority": args.priority,
        "grep": args.grep,
    }
    flags = {"--follow": args.follow, "--reverse": args.reverse, "--no-pager": args.no_pager}
    return [
        *(flag for flag, given in flags.items() if given),
        *(f"--{name}={value}" for name, value in named.items() if value is not None),
    ]


def _same_instance(status: ContextStatus, transaction: str | None, tasks: Sequence[str]) -> bool:
    """Return True if selected tasks have the same instance: journalctl prints only the instance, so their
    lines would look the same.
    """
    seen = Counter(
        task.instance
        for each in status.transactions
        if transaction in (None, each.id)
        for task in each.tasks
        if not tasks or task.id in tasks
    )
    return any(count > 1 for count in seen.values())


# --- the daemon's file


def _file(args: argparse.Namespace, path: str, owner: int, tasks: list[str]) -> int:
    """Show the log file of the daemon, whose user is `owner`."""
    selection = EntryFilter(
        args.transaction, tasks, since=args.since, until=args.until, priority=args.priority, grep=args.grep
    )
    if args.show_query:
        _show_query(args, selection.query(path))
        return 0
    return file_entries.show(
        path,
        owner,
        selection,
        lines=args.lines,
        # As with journalctl: the last entries that match a pattern are shown newest first.
        reverse=args.reverse or (args.grep is not None and args.lines is not None and not args.follow),
        follow=args.follow,
        pager=not args.no_pager,
        output=args.output or ("json" if args.json else None),
    )


# --- the last lines, for status


def last_lines(
    of: Writers,
    status: ContextStatus,
    tasks: Sequence[tuple[str, TaskStatus]],
    count: int,
    until: str | None = None,
) -> dict[tuple[str, str], list[str]]:
    """Return the last log lines of each task, by transaction and task; with `until` those before this time,
    as in --until.
    """
    first = tasks[:MAX_READERS]
    if status.log == "journal":
        return _journal_tails(of, first, count, until)
    try:
        with LogDirectory(Path(status.log.removesuffix("+stderr")), of.daemon) as log, log.open() as file:
            text = file_entries.end_of(file)
    except (OSError, PlaceError):
        return {(transaction, task.id): [] for transaction, task in first}
    return {
        (transaction, task.id): [
            line.rstrip("\n") for line in deque(_lines_of_task(text, transaction, task.id, until), count)
        ]
        for transaction, task in first
    }


def messages_since(
    of: Writers, status: ContextStatus, transaction: str, task: TaskStatus, since: float
) -> list[str]:
    """Return what a task has written to its log since a time of the epoch, line by line."""
    begin = f"@{since:.6f}"
    if status.log == "journal":
        groups = [task.cgroup] if task.cgroup else []
        command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--since={begin}"]
        reader = subprocess.Popen(
            [*command, *matches(of, transaction, [task.id], groups)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return _read(reader)
    with LogDirectory(Path(status.log.removesuffix("+stderr")), of.daemon) as log, log.open() as file:
        selection = EntryFilter(transaction, [task.id], since=begin)
        found = file_entries.in_order(selection.pick(file_entries.entries(file_entries.end_of(file))))
        return [line for entry in found for line in entry.message.split("\n")]


def _lines_of_task(text: Iterable[str], transaction: str, task: str, until: str | None) -> Iterator[str]:
    selection = EntryFilter(transaction, [task], until=until)
    return (
        line
        for entry in file_entries.in_order(selection.pick(file_entries.entries(text)))
        for line in entry.lines
    )


def _journal_tails(
    of: Writers, tasks: Sequence[tuple[str, TaskStatus]], count: int, until: str | None
) -> dict[tuple[str, str], list[str]]:
    """Run one journalctl for each task, all at the same time."""
    readers = {}
    for transaction, task in tasks:
        groups = [task.cgroup] if task.cgroup else []
        command = ["journalctl", "--no-pager", "--quiet", f"--lines={count}", "--output=short"]
        command += [f"--until={until}"] if until else []
        try:
            readers[transaction, task.id] = subprocess.Popen(
                [*command, *matches(of, transaction, [task.id], groups)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return {}
    return {key: _read(reader) for key, reader in readers.items()}


def _read(reader: subprocess.Popen[bytes]) -> list[str]:
    try:
        text, _ = reader.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        reader.kill()
        text, _ = reader.communicate()
    return text.decode(errors="replace").splitlines()
