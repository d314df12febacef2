"""The log of a context: journald's by matches that find all of it, else the daemon's file by its line heads. And the pager."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from zmsvc.ctl.client import Client, CtlError, choose
from zmsvc.host import paths

TAIL = 1 << 20
"""Bytes of the end of a log file that are searched for the last lines of a task."""


def logs(args: argparse.Namespace) -> int:
    """logs: of a context, a transaction or a task."""
    name = choose(args.context, args.transaction)
    data: dict[str, Any] | None
    try:
        answer = Client(name, args.timeout or 10.0).ask("status")
        data = answer["data"] if answer["ok"] else None
    except CtlError:
        data = None
    log = data["log"] if data else str(paths.places(name).log_file)
    if data is None and not os.path.exists(log):
        log = "journal"
    if log == "journal":
        return _journal(args, name, data)
    return _file(args, log)


# --- journald


def matches(name: str, data: dict[str, Any] | None, transaction: str | None, tasks: list[str]) -> list[str]:
    """journalctl's matches: entries with our fields, or lines that other programs wrote from the task's own cgroup."""
    fields = [f"ZMSVC_CONTEXT={name}"]
    fields += [f"ZMSVC_TRANSACTION={transaction}"] if transaction else []
    fields += [f"ZMSVC_TASK={task}" for task in tasks]
    if not transaction and not tasks:
        return fields
    groups = [
        f"_SYSTEMD_CGROUP={_in_journal(task['cgroup'])}"
        for each in (data["transactions"] if data else ())
        if transaction in (None, each["id"])
        for task in each["tasks"]
        if task["cgroup"] and (not tasks or task["id"] in tasks)
    ]
    return [*fields, "+", *groups] if groups else fields


def _in_journal(cgroup: str) -> str:
    """A cgroup as journald writes it: the path below the hierarchy's root."""
    for mount in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if cgroup.startswith(mount + "/"):
            return cgroup[len(mount) :]
    return cgroup


def _journal(args: argparse.Namespace, name: str, data: dict[str, Any] | None) -> int:
    command = ["journalctl", *matches(name, data, args.transaction, args.tasks)]
    command += ["-f"] * args.follow + ["--no-pager"] * args.no_pager
    command += ["-n", str(args.lines)] if args.lines is not None else []
    command += ["-o", "json"] if args.json else []
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise CtlError(1, f"cannot run journalctl: {error.strerror}") from None


# --- the daemon's file


def _file(args: argparse.Namespace, path: str) -> int:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = list(_wanted(file, args.transaction, args.tasks))
    except OSError as error:
        raise CtlError(1, f"cannot read {path}: {error.strerror}") from None
    shown = lines[-args.lines :] if args.lines is not None else lines[-10:] if args.follow else lines
    if not args.follow:
        page([line.rstrip("\n") for line in shown], args.no_pager)
        return 0
    sys.stdout.writelines(shown)
    sys.stdout.flush()
    return _follow(args, path)


def _follow(args: argparse.Namespace, path: str) -> int:
    # Imported here for start-up time: only `logs -f` without journald needs a child process.
    import subprocess

    with subprocess.Popen(["tail", "-n", "0", "-F", path], stdout=subprocess.PIPE, text=True, errors="replace") as tail:
        try:
            assert tail.stdout is not None
            for line in _wanted(tail.stdout, args.transaction, args.tasks):
                print(line, end="", flush=True)
        finally:
            tail.terminate()
    return 0


def _wanted(lines: Iterable[str], transaction: str | None, tasks: list[str]) -> Iterator[str]:
    """The lines about these; a line that is indented belongs to the one before it."""
    keep = False
    for line in lines:
        if not line.startswith(" "):
            keep = _is_about(line, transaction, tasks)
        if keep:
            yield line


def _is_about(line: str, transaction: str | None, tasks: list[str]) -> bool:
    if transaction is None and not tasks:
        return True
    words = line.split(" ", 3)
    found, _, task = words[2].partition("/") if len(words) > 2 else ("", "", "")
    return (transaction is None or found == transaction) and (not tasks or task in tasks)


def last_lines(data: dict[str, Any], transaction: str, task: dict[str, Any], count: int) -> list[str]:
    """The last lines that the log has of one task."""
    if data["log"] != "journal":
        return _tail(data["log"], transaction, task["id"], count)
    # Imported here for start-up time: only a failed task needs journalctl.
    import subprocess

    narrowed = {**data, "transactions": [{"id": transaction, "tasks": [task]}]}
    command = [
        "journalctl",
        "--no-pager",
        "-q",
        "-n",
        str(count),
        "-o",
        "short",
        *matches(data["name"], narrowed, transaction, [task["id"]]),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()


def _tail(path: str, transaction: str, task: str, count: int) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip("\n") for line in _wanted(text.splitlines(), transaction, [task])][-count:]


def page(lines: list[str], no_pager: bool) -> None:
    """Print, through a pager where systemctl would use one."""
    text = "".join(f"{line}\n" for line in lines)
    if not no_pager and sys.stdout.isatty() and len(lines) >= shutil.get_terminal_size().lines:
        pager = os.environ.get("SYSTEMD_PAGER", os.environ.get("PAGER", "less"))
        if pager not in ("", "cat") and shutil.which(pager.split()[0]):
            # Imported here for start-up time: only a long answer on a terminal is paged.
            import subprocess

            environment = os.environ | {"LESS": os.environ.get("SYSTEMD_LESS", "FRSXMK")}
            subprocess.run(pager.split(), input=text, text=True, env=environment, check=False)
            return
    sys.stdout.write(text)
