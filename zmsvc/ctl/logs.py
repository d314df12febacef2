"""The log of a context: journald's by matches that find all of it, else the daemon's file by the heads of its lines."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from zmsvc.core.errors import PlaceError
from zmsvc.ctl import terminal
from zmsvc.ctl.answers import Context, Task
from zmsvc.ctl.client import Client, CtlError
from zmsvc.ctl.logfile import LogFile
from zmsvc.ctl.matches import Writers, matches, writers
from zmsvc.ctl.which import choose
from zmsvc.host.paths import Places

PATIENCE = 5.0
"""Seconds that a supervisor, and journalctl for `status`, have: a log can be read without the one and left out without the other."""
AT_ONCE = 16
"""Tasks whose log is shown by one `status`; of more, all journalctls together would take longer than anybody wants to wait."""
TAIL = 1 << 20
"""Bytes of the end of a log file that are searched for the last lines of a task."""
_RAW = ("cat", "export")
"""Formats of journalctl that escape nothing; those of the others are safe for a terminal."""
FOLLOWED = 10
"""Lines that `-f` begins with, as with journalctl and tail."""

# `STAMP IDENTIFIER[PID] TRANSACTION/TASK LEVEL: text`; what is about the context as a whole has no TRANSACTION/TASK.
_HEAD = re.compile(r"\d{4}-\d\d-\d\dT\S+ .*?\[\d+\] (?:(\S+?)(?:/(\S+))? )?[A-Z]+: ")


def logs(args: argparse.Namespace) -> int:
    """logs: of a context, a transaction or tasks."""
    places = choose(args.context, args.transaction)
    tasks = [*args.tasks, *args.task]
    client = Client(places, args.timeout, patience=PATIENCE)
    try:
        it = Context(client.ask("status", transaction=args.transaction, tasks=tasks))
    except CtlError as error:
        if error.code == 124:
            raise
        # It does not run, or has forgotten the transaction; its log is there all the same.
        it = None
    log, of = _where(it, places), writers(it, places, client.uid)
    if log == "journal":
        return _journal(args, of, it, tasks)
    return _file(args, log, of.daemon, tasks)


def _where(it: Context | None, places: Places) -> str:
    """`journal` or a path: as the supervisor says, else the daemon's file if it has ever written one."""
    if it is not None and it.log.startswith("/"):
        return it.log.removesuffix("+stderr")
    if it is not None and it.log == "journal":
        return "journal"
    file = str(places.log_file)
    return file if os.path.exists(file) else "journal"


# --- journald


def cgroups(it: Context | None, name: str, transaction: str | None, tasks: Sequence[str]) -> list[str]:
    """The cgroups of what is meant: from the supervisor, or when it does not know them any more from the journal's own list."""
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
    return unit.endswith(f"/zmsvc@{name}.service") and transaction in (None, found) and (not tasks or task in tasks)


def _written_from() -> list[str]:
    try:
        done = subprocess.run(["journalctl", "-q", "-F", "_SYSTEMD_CGROUP"], capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines()


def _journal(args: argparse.Namespace, of: Writers, it: Context | None, tasks: list[str]) -> int:
    command = ["journalctl"]
    command += ["--follow"] if args.follow else []
    command += ["--no-pager"] if args.no_pager else []
    command += [f"--lines={args.lines}"] if args.lines is not None else []
    output = args.output or ("json" if args.json else None)
    command += [f"--output={output}"] if output else []
    command += matches(of, args.transaction, tasks, cgroups(it, of.name, args.transaction, tasks))
    sys.stdout.flush()
    try:
        if output in _RAW and terminal.on_terminal():
            return _cleaned(command)
        os.execvp(command[0], command)
    except OSError as error:
        raise CtlError(1, f"cannot run journalctl: {(error.strerror or str(error)).lower()} (is systemd installed?)") from None


def _cleaned(command: list[str]) -> int:
    """Show on a terminal what journalctl would write there as the task has."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:
        try:
            assert reader.stdout is not None
            for line in _texts(reader.stdout):
                terminal.out(line, flush=True)
        except KeyboardInterrupt:
            return 0  # That is how one ends it.
        finally:
            reader.terminate()
    return max(0, reader.returncode)


# --- the daemon's file


def _file(args: argparse.Namespace, path: str, owner: int, tasks: list[str]) -> int:
    """Show the file that the supervisor, which is of the user `owner`, has named."""
    wanted = FOLLOWED if args.follow and args.lines is None else args.lines
    try:
        with LogFile(Path(path), owner) as log, log.open() as file:
            lines: Iterable[str] = about(_texts(file), args.transaction, tasks)
            shown = "".join(deque(lines, wanted))
            if not args.follow:
                terminal.page(shown, wanted=not args.no_pager)
                return 0
            terminal.out(shown, flush=True)
            for line in about(_texts(log.follow(file)), args.transaction, tasks):
                terminal.out(line, flush=True)
    except KeyboardInterrupt:
        return 0  # That is how one ends it.
    except PlaceError as error:
        raise CtlError(1, f"cannot read the log: {error}") from None
    except BrokenPipeError:
        raise  # Nobody reads us any more: no fault of the log.
    except OSError as error:
        raise CtlError(1, f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    return 0


def _texts(file: Iterable[bytes]) -> Iterator[str]:
    return (line.decode(errors="replace") for line in file)


def about(lines: Iterable[str], transaction: str | None, tasks: Sequence[str]) -> Iterator[str]:
    """The lines about these; a line without a head of its own belongs to the one before it."""
    keep = transaction is None and not tasks
    if keep:
        yield from lines
        return
    for line in lines:
        if head := _HEAD.match(line):
            keep = transaction in (None, head[1]) and (not tasks or head[2] in tasks)
        if keep:
            yield line


# --- the last lines, for status


def last_lines(of: Writers, it: Context, wanted: Sequence[tuple[str, Task]], count: int) -> dict[tuple[str, str], list[str]]:
    """The last lines that the log has of each task, by transaction and task."""
    some = wanted[:AT_ONCE]
    if it.log == "journal":
        return _journal_tails(of, some, count)
    try:
        with LogFile(Path(it.log.removesuffix("+stderr")), of.daemon) as log, log.open() as file:
            text = _end_of(file)
    except (OSError, PlaceError):
        return {(transaction, task.id): [] for transaction, task in some}
    return {
        (transaction, task.id): [line.rstrip("\n") for line in deque(about(text, transaction, [task.id]), count)]
        for transaction, task in some
    }


def _end_of(file: IO[bytes]) -> list[str]:
    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
    return file.read(TAIL).decode(errors="replace").splitlines()


def _journal_tails(of: Writers, wanted: Sequence[tuple[str, Task]], count: int) -> dict[tuple[str, str], list[str]]:
    """One journalctl for each task, all at the same time."""
    readers = {}
    for transaction, task in wanted:
        groups = [task.cgroup] if task.cgroup else []
        command = ["journalctl", "--no-pager", "--quiet", f"--lines={count}", "--output=short"]
        try:
            readers[transaction, task.id] = subprocess.Popen(
                [*command, *matches(of, transaction, [task.id], groups)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
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
