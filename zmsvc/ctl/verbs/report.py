"""The verb `report`: it packs the context file, the record, the history, the state and the log of a context
into one file, for a person who is to find out what happened.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zmsvc import __version__
from zmsvc.core.errors import ConfigError, UsageError, ZmsvcError, reason
from zmsvc.core.model import ContextFiles
from zmsvc.ctl import bundle, record, state_file_reader, status_source, terminal
from zmsvc.ctl.client import Client, CtlError, NotRunningError
from zmsvc.ctl.redaction import Redaction
from zmsvc.ctl.select_context import choose
from zmsvc.host.config import context_files
from zmsvc.host.config.xml_text import tree

if TYPE_CHECKING:
    from zmsvc.ctl.client import Json
    from zmsvc.host.paths import Places

HISTORY = 100_000
"""The most rows of history."""
MAX_HISTORY = 32 << 20
"""The most bytes of them. A report may have 128 MiB, or `replay` refuses it: the record takes 32 of them."""
LOG_LINES = 10_000
MAX_LOG = 16 << 20
"""The most bytes of the log."""


class _Contents:
    """The files of a report, with a line about each, and the reasons why others are missing."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.about: dict[str, str] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, about: str, data: bytes) -> None:
        self.files[name] = data
        self.about[name] = about

    def collect(self, name: str, collect: Callable[[], None]) -> None:
        """Call a function that adds files. A part that cannot be read must not keep the others out."""
        try:
            collect()
        except OSError as error:
            self.missing[name] = reason(error)
        except (ZmsvcError, ValueError) as error:
            self.missing[name] = str(error)


def report(args: argparse.Namespace) -> int:
    """report: write the file when the user agrees to its contents."""
    places = choose(args.name or args.context)
    made = time.time()
    stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(made))
    path = Path(args.output or f"zmsvc-report-{places.name}-{stamp}.tar.gz")
    contents = _collected(places, args, made)
    rows = [
        {"name": name, "bytes": len(data), "about": contents.about[name]}
        for name, data in contents.files.items()
    ]
    if not args.json:
        terminal.out("".join(f"{row['bytes']:>10}  {row['name']}: {row['about']}\n" for row in rows))
    for name, why in contents.missing.items():
        terminal.complain(f"{name} is not in the report: {why}")
    if not args.yes and not _agrees(path):
        terminal.complain("nothing was written")
        return 1
    bundle.write(path, contents.files, made)
    if args.json:
        terminal.out(json.dumps({"file": str(path), "contents": rows, "missing": contents.missing}) + "\n")
    else:
        terminal.say(str(path))
    return 0


def _agrees(path: Path) -> bool:
    """Ask the user."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"cannot ask if {path} may be written: standard input is not a terminal (--yes writes it without "
            f"a question)"
        )
    terminal.err(f"Values of <environment> and keys are left out. Write this to {path}? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _collected(places: Places, args: argparse.Namespace, made: float) -> _Contents:
    redaction, contents = Redaction(), _Contents()
    contents.add(bundle.MANIFEST, "versions of the programs, and the format of this file", b"")
    contents.collect("the record", lambda: _record(places, redaction, contents))
    state = _state(places, args)
    file = Path(state.get("file") or places.config_file)
    contents.collect("the context file", lambda: _context(file, redaction, contents))
    text = redaction.text(json.dumps(redaction.value(state), indent=1))
    contents.add("status.json", "the state of the tasks", text.encode())
    contents.collect("the history", lambda: _history(places, args, redaction, contents))
    contents.collect("the log", lambda: _log(places, redaction, contents))
    manifest = {
        "kind": "zmsvc report",
        "format": bundle.FORMAT,
        "context": places.name,
        "made": record.rfc3339(made),
        "versions": _versions(state),
        "missing": contents.missing,
    }
    contents.files[bundle.MANIFEST] = json.dumps(manifest, indent=1).encode()
    return contents


def _versions(state: Json) -> Json:
    # Imported here because a report is rare, and this loads libzmq.
    import zmq

    names = ("supervisor_version", "keeper_version", "zygote_version")
    return {
        "zmsvc": __version__,
        **{name: state.get(name) for name in names},
        "python": platform.python_version(),
        "pyzmq": zmq.pyzmq_version(),
        "libzmq": zmq.zmq_version(),
        "kernel": platform.release(),
    }


def _record(places: Places, redaction: Redaction, contents: _Contents) -> None:
    for number, data in enumerate(record.local(places), start=1):
        about = "recorded facts and decisions, with updates that tasks reported"
        contents.add(bundle.segment_name(number), about, redaction.lines(data))


def _context(file: Path, redaction: Redaction, contents: _Contents) -> None:
    try:
        files: ContextFiles = context_files.read(file)
        root = tree(files.text, str(file))
        parts = {Path(each.path).name: tree(each.text, each.path) for each in files.parts}
    except ConfigError as error:
        raise ValueError("; ".join(error.faults)) from None
    about = "without comments"
    contents.add("context.xml", f"{file} {about}", redaction.xml(root))
    for name, part in parts.items():
        contents.add(f"context.d/{name}", f"a file that adds tasks, {about}", redaction.xml(part))


def _state(places: Places, args: argparse.Namespace) -> Json:
    """Return the answer to `status`, or what the state file has."""
    chosen = argparse.Namespace(transaction=None, tasks=[], task=[], timeout=args.timeout)
    return status_source.current(chosen, places, quiet=True)


def _history(places: Places, args: argparse.Namespace, redaction: Redaction, contents: _Contents) -> None:
    try:
        rows: Iterable[Json] = list(Client(places, args.timeout).stream("events", limit=HISTORY))
    except NotRunningError:
        rows = state_file_reader.events(places.state_file, transaction=None, tasks=(), limit=HISTORY)
    lines = (json.dumps(redaction.value(row)).encode() + b"\n" for row in rows)
    last, left_out = newest(lines, MAX_HISTORY)
    without = f", without the first {left_out} rows" if left_out else ""
    text = redaction.text(b"".join(last).decode())
    contents.add("history.jsonl", f"the history, as events shows it{without}", text.encode())


def newest(parts: Iterable[bytes], most: int) -> tuple[list[bytes], int]:
    """Return the last parts that have at most `most` bytes together, and the number of those before."""
    kept, size, left_out = deque[bytes](), 0, 0
    for part in parts:
        kept.append(part)
        size += len(part)
        while size > most:
            size -= len(kept.popleft())
            left_out += 1
    return [*kept], left_out


def _log(places: Places, redaction: Redaction, contents: _Contents) -> None:
    """Add the end of the log, as `logs` shows it. That verb executes journalctl in its place, so it runs in a
    process of its own.
    """
    command = [sys.executable, "-P", "-m", "zmsvc.ctl", "-c", str(places.config_file), "logs"]
    with subprocess.Popen(
        [*command, "--no-pager", f"--lines={LOG_LINES}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as reader:
        assert reader.stdout is not None
        data = b"".join(newest(reader.stdout, MAX_LOG)[0])
    if reader.returncode and not data:
        raise CtlError(1, f"zmsvcctl -c {places.name} logs ends with {reader.returncode}")
    text = redaction.text(data.decode(errors="replace"))
    contents.add("log.txt", f"the last {LOG_LINES} lines of the log", text.encode())
