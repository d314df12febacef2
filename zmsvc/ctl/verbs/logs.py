"""The log of a context: journald's by matches that find all of it, else the daemon's file by the heads of
its lines.
"""

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
from zmsvc.ctl import terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.log import file_entries, journal_entries
from zmsvc.ctl.log.file_entries import Wanted
from zmsvc.ctl.log.journal_matches import Writers, matches, writers
from zmsvc.ctl.log.log_directory import LogDirectory
from zmsvc.ctl.select_context import choose
from zmsvc.ctl.status_reply import ContextStatus, TaskStatus
from zmsvc.host.paths import Places

PATIENCE = 5.0
"""Seconds that a supervisor, and journalctl for `status`, have: a log can be read without the one and left
out without the other.
"""
AT_ONCE = 16
"""Tasks whose log is shown by one `status`; of more, all journalctls together would take longer than
anybody wants to wait.
"""
_RAW = ("cat", "export")
"""Formats of journalctl that escape nothing; those of the others are safe for a terminal."""


def logs(args: argparse.Namespace) -> int:
    """logs: of a context, a transaction or tasks."""
    places = choose(args.context, args.transaction)
    tasks = [*args.tasks, *args.task]
    if args.follow and args.reverse:
        raise UsageError("--reverse and --follow exclude each other")
    if args.json and args.output not in (None, "json"):
        raise UsageError(f"--json and --output={args.output} exclude each other")
    client = Client(places, args.timeout, patience=PATIENCE)
    it = past = None
    try:
        it = ContextStatus(client.ask("status", transaction=args.transaction, tasks=tasks))
    except NotRunningError:
        past = _past(places)
    except CtlError as error:
        if error.code == 124:
            raise
        # It has forgotten the transaction, or does not answer; its log is there all the same.
        terminal.complain(f"{error}; its log is searched all the same")
    known = it or past
    _complain_of_unknown(tasks, known)
    log, of = _where(known, places), writers(known, places, client.uid)
    if log == "journal":
        found = matches(of, args.transaction, tasks, cgroups(it, places.name, args.transaction, tasks))
        return _journal(args, found, alike=known is not None and _alike(known, args.transaction, tasks))
    return _file(args, log, of.daemon, tasks)


def _complain_of_unknown(tasks: Sequence[str], known: ContextStatus | None) -> None:
    """Say which tasks no transaction has. A reload may have removed them, and their log is shown; else the
    name is wrong.
    """
    if known is None:
        return
    has = {task.id for each in known.transactions for task in each.tasks}
    if unknown := [task for task in tasks if task not in has]:
        which = f"no transaction of {known.name} has {' '.join(unknown)}"
        terminal.complain(f"{which}; its log is searched all the same (zmsvcctl -c {known.name} status)")


def _past(places: Places) -> ContextStatus | None:
    """Return what the state file of a context that does not run knows of its tasks and its log, and say
    where all this comes from.
    """
    # Imported here for start-up time: most of the time a supervisor answers.
    from zmsvc.ctl import state_file

    past, told = None, f"{places.name} does not run; this is"
    if state_file.exists(places.state_file):
        try:
            past, told = ContextStatus(state_file.status(places)), f"{state_file.note(places)}, and"
        except CtlError as error:
            terminal.complain(str(error))
    log = _where(past, places)
    terminal.complain(f"{told} from {'the journal' if log == 'journal' else log}")
    return past


def _where(it: ContextStatus | None, places: Places) -> str:
    """`journal` or a path: as the supervisor says, else the daemon's file if it has ever written one."""
    if it is not None and it.log.startswith("/"):
        return it.log.removesuffix("+stderr")
    if it is not None and it.log == "journal":
        return "journal"
    file = str(places.log_file)
    return file if os.path.exists(file) else "journal"


# --- journald


def cgroups(it: ContextStatus | None, name: str, transaction: str | None, tasks: Sequence[str]) -> list[str]:
    """The cgroups of what is meant: from the supervisor, or when it does not know them any more from the
    journal's own list.
    """
    if it is not None:
        return [
            task.cgroup
            for each in it.transactions
            if transaction in (None, each.id)
            for task in each.tasks
            if task.cgroup and (not tasks or task.id in tasks)
        ]
    if not transaction and not tasks:
        return []
    return [path for path in _written_from() if _is_of(path, name, transaction, tasks)]


def _is_of(cgroup: str, name: str, transaction: str | None, tasks: Sequence[str]) -> bool:
    """Whether a cgroup is that of one of these tasks: `.../zmsvc@NAME.service/tasks/TRANSACTION:TASK`."""
    unit, _, key = cgroup.rpartition("/tasks/")
    found, _, task = key.partition(":")
    return (
        unit.endswith(f"/zmsvc@{name}.service")
        and transaction in (None, found)
        and (not tasks or task in tasks)
    )


def _written_from() -> list[str]:
    try:
        done = subprocess.run(
            ["journalctl", "-q", "-F", "_SYSTEMD_CGROUP"], capture_output=True, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines()


def _journal(args: argparse.Namespace, found: list[str], *, alike: bool) -> int:
    """Show what the matches find; `alike`: among it are tasks that journalctl would not tell apart."""
    command = ["journalctl", *_options(args)]
    output = args.output or ("json" if args.json else None)
    command += [f"--output={output}"] if output else []
    if args.show_query:
        _show_query(args, shlex.join([*command, *found]))
        return 0
    if output is None and alike:
        return journal_entries.show(
            [*command, "--no-pager", "--all", "--output=json", *found],
            pager=not args.no_pager and not args.follow,
        )
    sys.stdout.flush()
    try:
        if output in _RAW and terminal.on_terminal():
            return _cleaned([*command, *found])
        os.execvp(command[0], [*command, *found])
    except OSError as error:
        raise CtlError(
            1, f"cannot run journalctl: {(error.strerror or str(error)).lower()} (is systemd installed?)"
        ) from None


def _show_query(args: argparse.Namespace, query: str) -> None:
    terminal.say(json.dumps({"query": query}) if args.json else query)


def _cleaned(command: list[str]) -> int:
    """Show on a terminal what journalctl would write there as the task has."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        try:
            assert reader.stdout is not None
            for line in file_entries.texts(reader.stdout):
                terminal.out(line, flush=True)
        except KeyboardInterrupt:
            return 0  # That is how one ends it.
        finally:
            reader.terminate()
    return max(0, reader.returncode)


def _options(args: argparse.Namespace) -> list[str]:
    """The options that journalctl has by the same name."""
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


def _alike(it: ContextStatus, transaction: str | None, tasks: Sequence[str]) -> bool:
    """Tell whether tasks that are meant have the same instance: journalctl shows it alone, which would not
    tell them apart.
    """
    seen = Counter(
        task.instance
        for each in it.transactions
        if transaction in (None, each.id)
        for task in each.tasks
        if not tasks or task.id in tasks
    )
    return any(count > 1 for count in seen.values())


# --- the daemon's file


def _file(args: argparse.Namespace, path: str, owner: int, tasks: list[str]) -> int:
    """Show the file that the supervisor, which is of the user `owner`, has named."""
    wanted = Wanted(
        args.transaction, tasks, since=args.since, until=args.until, priority=args.priority, grep=args.grep
    )
    if args.show_query:
        _show_query(args, wanted.query(path))
        return 0
    return file_entries.show(
        path,
        owner,
        wanted,
        lines=args.lines,
        # As with journalctl: who looks for the last entries with a word sees the newest first.
        reverse=args.reverse or (args.grep is not None and args.lines is not None and not args.follow),
        follow=args.follow,
        pager=not args.no_pager,
        output=args.output or ("json" if args.json else None),
    )


# --- the last lines, for status


def last_lines(
    of: Writers, it: ContextStatus, wanted: Sequence[tuple[str, TaskStatus]], count: int
) -> dict[tuple[str, str], list[str]]:
    """The last lines that the log has of each task, by transaction and task."""
    some = wanted[:AT_ONCE]
    if it.log == "journal":
        return _journal_tails(of, some, count)
    try:
        with LogDirectory(Path(it.log.removesuffix("+stderr")), of.daemon) as log, log.open() as file:
            text = file_entries.end_of(file)
    except (OSError, PlaceError):
        return {(transaction, task.id): [] for transaction, task in some}
    return {
        (transaction, task.id): [
            line.rstrip("\n") for line in deque(_about(text, transaction, task.id), count)
        ]
        for transaction, task in some
    }


def _about(text: Iterable[str], transaction: str, task: str) -> Iterator[str]:
    return (
        line for entry in Wanted(transaction, [task]).pick(file_entries.entries(text)) for line in entry.lines
    )


def _journal_tails(
    of: Writers, wanted: Sequence[tuple[str, TaskStatus]], count: int
) -> dict[tuple[str, str], list[str]]:
    """One journalctl for each task, all at the same time."""
    readers = {}
    for transaction, task in wanted:
        groups = [task.cgroup] if task.cgroup else []
        command = ["journalctl", "--no-pager", "--quiet", f"--lines={count}", "--output=short"]
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
