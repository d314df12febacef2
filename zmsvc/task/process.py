"""Makes a forked child a task's process: limits, user, daemon, environment, streams. Nothing of the user's runs here."""

from __future__ import annotations

import grp
import json
import logging
import os
import pwd
import resource
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import daemon

from zmsvc.host import journal, linux
from zmsvc.host.lines import LineWriter

INHERITED_NO_MORE = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "JOURNAL_STREAM",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "MAINPID",
    "MANAGERPID",
    "ZMSVC_LOG",
    "ZMSVC_NOFILE",
)
"""What the daemon was told and a task must not take for its own."""


def become(spec: Mapping[str, Any]) -> None:
    """Be this task's process from here on."""
    parent = os.getppid()
    _limit(spec)
    if spec["pidfile"]:
        Path(spec["pidfile"]).write_text(f"{os.getpid()}\n")
    stream = journal.stream(spec["instance"], spec["log"])
    # A file that only its owner may open is opened before the owner changes.
    files = [stream, *([spec["exec_fd"]] if "exec_fd" in spec else [])]
    if _change_owner(spec):
        linux.die_with_parent(parent)
    _daemonise(stream, files)
    os.environ.update(_environment(spec, stream))
    os.close(stream)


def _limit(spec: Mapping[str, Any]) -> None:
    soft = os.environ.get("ZMSVC_NOFILE")
    if soft is not None:
        # The daemon raised its own soft limit; select() in a task would not survive descriptors above 1023.
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(soft), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for name, value in spec["rlimits"].items():
        number = getattr(resource, f"RLIMIT_{name.upper()}")
        resource.setrlimit(number, (value, value))
    if spec["nice"] is not None:
        os.setpriority(os.PRIO_PROCESS, 0, spec["nice"])


def _change_owner(spec: Mapping[str, Any]) -> bool:
    """Drop to the task's user and group, with all that user's groups. False when it stays what it is."""
    if spec["user"] is None and spec["group"] is None:
        return False
    gid = _gid(spec["group"]) if spec["group"] is not None else None
    if spec["user"] is None:
        assert gid is not None
        os.setgroups([gid])
        os.setgid(gid)
        return True
    user = pwd.getpwuid(int(spec["user"])) if spec["user"].isdecimal() else pwd.getpwnam(spec["user"])
    gid = user.pw_gid if gid is None else gid
    os.initgroups(user.pw_name, gid)
    os.setgid(gid)
    os.setuid(user.pw_uid)
    os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name, SHELL=user.pw_shell)
    return True


def _gid(name: str) -> int:
    return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid


def _daemonise(stream: int, files: list[int]) -> None:
    """python-daemon does the rest of a daemon's duties: directory, umask, every inherited descriptor, the standard streams.

    It does not detach: the nursery forked once into a session of its own, so the keeper knows the final PID from the fork on.
    """
    out = open(stream, "wb", buffering=0, closefd=False)  # noqa: SIM115 - it is the process's own from here on
    context = daemon.DaemonContext(
        detach_process=False,
        umask=0o022,
        prevent_core=False,
        signal_map={},
        files_preserve=files,
        stdout=out,
        stderr=out,
    )
    context.open()


def _environment(spec: Mapping[str, Any], stream: int) -> dict[str, str]:
    for name in INHERITED_NO_MORE:
        os.environ.pop(name, None)
    made = {
        "NOTIFY_SOCKET": spec["notify"],
        "ZMSVC_CONTEXT": spec["context"],
        "ZMSVC_TRANSACTION": spec["transaction"],
        "ZMSVC_TASK": spec["task"],
        "ZMSVC_INSTANCE": spec["instance"],
        "ZMSVC_LAUNCH": str(spec["launch"]),
        **_cause(spec["cause"]),
    }
    if spec["watchdog"]:
        made |= {"WATCHDOG_USEC": str(int(spec["watchdog"] * 1e6)), "WATCHDOG_PID": str(os.getpid())}
    if spec["log"] == "journal":
        about = os.fstat(stream)
        made["JOURNAL_STREAM"] = f"{about.st_dev}:{about.st_ino}"
    return made | {name: str(value) for name, value in spec["environment"].items()}


def _cause(cause: Mapping[str, Any]) -> dict[str, str]:
    """What started the task, for programs that read the environment. The last source stands for itself, all are in _SOURCES."""
    made = {"ZMSVC_CAUSE_BY": str(cause.get("by", "")), "ZMSVC_CAUSE_DEPTH": str(cause.get("depth", 0))}
    sources = cause.get("sources") or []
    if not sources:
        return made
    last = sources[-1]
    made |= {f"ZMSVC_CAUSE_{name.upper()}": str(last[name]) for name in ("task", "trigger", "rule")}
    for name, value in (last.get("exit") or {}).items():
        if value is not None:
            made[f"ZMSVC_CAUSE_EXIT_{name.upper()}"] = str(value)
    if last.get("update") is not None:
        made["ZMSVC_CAUSE_UPDATE"] = json.dumps(last["update"])
    return made | {"ZMSVC_CAUSE_SOURCES": json.dumps(sources)}


def take_streams(spec: Mapping[str, Any]) -> None:
    """From here on every line that Python logs or prints is one entry with the fields of this task."""
    fields = {
        "ZMSVC_CONTEXT": spec["context"],
        "ZMSVC_TRANSACTION": spec["transaction"],
        "ZMSVC_TASK": spec["task"],
        "ZMSVC_INSTANCE": spec["instance"],
    }
    sink = journal.configure(identifier=spec["instance"], fields=fields, target=spec["log"])
    sys.stdout = LineWriter(sink, name="stdout", level=logging.INFO, fd=1)
    sys.stderr = LineWriter(sink, name="stderr", level=logging.WARNING, fd=2)
    threading.excepthook = _log_thread


def _log_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        where = args.thread.name if args.thread else "?"
        logging.getLogger("task").error("Thread %s ended by an exception", where, exc_info=args.exc_value)
