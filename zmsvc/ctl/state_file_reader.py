"""The state file of a context that does not run: its history, and the last known state of its tasks.

zmsvcctl reads a copy, because SQLite would write an index beside the file if the daemon was killed. The
directory may belong to another user, so zmsvcctl follows no link in it. It repairs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from zmsvc.core.cause_chain import Row
from zmsvc.core.errors import ConfigError, PlaceError
from zmsvc.core.model import Context
from zmsvc.core.world import Task, Transaction, World, service_of, task_as_json, task_from_row
from zmsvc.ctl.client import CtlError
from zmsvc.host import directories, quarantine
from zmsvc.host.config import reader
from zmsvc.host.config.context_files import parts_of_saved
from zmsvc.host.kernel import processes
from zmsvc.host.state_file import SCHEMA, disabled_of_saved, history

TYPE_CHECKING = False  # As in client: an import of typing is too slow.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmsvc.ctl.client import Json
    from zmsvc.host.paths import Places

    Key = tuple[str, str]
    When = Callable[[Key, float], str | None]
    """A function that converts a monotonic time of a task to RFC 3339; it returns None for an
    unknown time.
    """

MAX_SIZE = 512 << 20
"""The largest file that is copied, in bytes; a history of 100,000 rows has 30 MB."""
MAX_VALUE = 64 << 20
"""The largest value, in bytes; the longest one is the context file."""
MAX_ROWS = 20_000
"""The number of history rows in which `why` looks for causes."""
_PATIENCE_S = 10.0
"""Seconds for the whole reading; a history of 100,000 rows takes 0.1 s."""
_COPY_ATTEMPTS = 3
"""Attempts to copy a file that changes meanwhile: the context may be starting."""
_TABLES = ("events", "meta", "tasks", "transactions")


def exists(path: Path) -> bool:
    """Return True if there is a state file, even if this user may not read it: the attempt to read it then
    reports the reason.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def note(places: Places) -> str:
    """Return the note for stderr that precedes data from a state file."""
    try:
        written = max(os.stat(file).st_mtime for file in _files(places.state_file) if os.path.exists(file))
    except (OSError, ValueError):
        return f"{places.name} does not run; this is from its state file"
    return f"{places.name} does not run; this is from its state file, {moment(written)}"


def _files(path: Path) -> tuple[Path, Path]:
    """Return the file and its write-ahead log, which exists if the daemon was killed."""
    return path, path.with_name(f"{path.name}-wal")


# --- the copy


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of a state file. Raises CtlError 5 if the file, or data in it, cannot be read."""
    try:
        with tempfile.TemporaryDirectory(prefix="zmsvcctl-") as directory:
            copy = Path(directory) / path.name
            _copy(path, copy)
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
                bound(db)
                _check(db)
                yield db
    except (
        sqlite3.Error,
        ArithmeticError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
        PlaceError,
    ) as error:
        raise CtlError(
            5,
            f"cannot read {path}: {error} (it is damaged, or of another release; without it the context "
            f"starts afresh)",
        ) from None
    except OSError as error:
        way = " (root and the daemon's user may)" if isinstance(error, PermissionError) else ""
        raise CtlError(5, f"cannot read {path}: {(error.strerror or str(error)).lower()}{way}") from None


def _copy(path: Path, to: Path) -> None:
    directory = directories.hold(path.parent, os.stat(path.parent).st_uid)
    try:
        for _ in range(_COPY_ATTEMPTS):
            before = _file_identities(path, directory)
            if before[path.name] is None:
                raise FileNotFoundError(2, "no such file or directory")
            for name, found_stat in before.items():
                to.with_name(name).unlink(missing_ok=True)
                if found_stat is not None:
                    _copy_one(name, directory, to.with_name(name))
            if _file_identities(path, directory) == before:
                return
    finally:
        os.close(directory)
    raise ValueError("it is being written to: the context is starting, or has just ended")


def _file_identities(path: Path, directory: int) -> dict[str, tuple[int, ...] | None]:
    found: dict[str, tuple[int, ...] | None] = {}
    for file in _files(path):
        try:
            found_stat = os.stat(file.name, dir_fd=directory, follow_symlinks=False)
            found[file.name] = (found_stat.st_ino, found_stat.st_size, found_stat.st_mtime_ns)
        except FileNotFoundError:
            found[file.name] = None
    return found


def _copy_one(name: str, directory: int, to: Path) -> None:
    with (
        open(directories.open_file(Path(name), os.O_RDONLY, dir_fd=directory), "rb") as source,
        open(to, "wb") as target,
    ):
        left = os.fstat(source.fileno()).st_size
        if left > MAX_SIZE:
            raise ValueError(f"it is larger than {MAX_SIZE >> 20} MiB")
        # Copy no more than that, because the owner of the file may let it grow meanwhile.
        while left and (data := source.read(min(left, 1 << 20))):
            target.write(data)
            left -= len(data)


def bound(db: sqlite3.Connection, patience_s: float = _PATIENCE_S) -> None:
    """Limit time and size of values in SQLite: another user may have made this file to harm its reader."""
    until = time.monotonic() + patience_s
    db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    db.execute("PRAGMA trusted_schema=OFF")


def _check(db: sqlite3.Connection) -> None:
    """Refuse an unknown schema, and everything that is not a plain table. To read a plain table takes time in
    proportion to its size. But a view may have endless rows, a generated column may be any computation, and a
    virtual table parses the contents of other tables.
    """
    if (version := db.execute("PRAGMA user_version").fetchone()[0]) > SCHEMA:
        raise ValueError(f"it is of schema {version}, and this zmsvc knows {SCHEMA}")
    tables = (*_TABLES, "quarantine") if quarantine.exists(db) else _TABLES
    statements = dict(db.execute("SELECT name, sql FROM sqlite_master"))
    for name in tables:
        # SQLite stores the statement of each table with these first words, whatever its spelling was. A
        # virtual table and a view begin with other words.
        if not str(statements.get(name)).startswith("CREATE TABLE "):
            raise ValueError(f"it has no table {name}")
        if any(hidden for *_, hidden in db.execute(f"PRAGMA table_xinfo({name})")):
            raise ValueError(f"it computes a column of {name}")


# --- the history


def events(
    path: Path,
    *,
    transaction: str | None,
    tasks: Sequence[str],
    limit: int,
    kinds: Sequence[str] = (),
    since: float | None = None,
) -> list[Json]:
    """Return the last rows of the history, in the form of a supervisor's answer. Raises CtlError if it cannot
    be read.
    """
    with _opened(path) as db:
        rows = history(db, transaction=transaction, tasks=tasks, limit=limit, kinds=kinds, since=since)
        return [{**row, "at": moment(float(row["at"]))} for row in rows]


def quarantined(
    path: Path, *, number: int | None = None, transaction: str | None = None, tasks: Sequence[str] = ()
) -> Json:
    """Return the messages in the quarantine, or the one of this number, in the form of a supervisor's answer.
    Raises CtlError if there is none, or if it cannot be read.
    """
    with _opened(path) as db:
        if number is None:
            found = quarantine.listed(db, transaction=transaction, tasks=tasks)
            return {
                **found,
                "messages": [{**row, "at": moment(float(row["at"]))} for row in found["messages"]],
            }
        message = quarantine.message(db, number)
    if message is None:
        raise CtlError(4, f"cannot show message {number}: it is not in the quarantine")
    return {**message, "at": moment(float(message["at"]))}


# --- the last known state


class Saved:
    """The world of a state file, the newest rows of its history, and the times of its tasks."""

    __slots__ = ("rows", "when", "world")

    def __init__(self, world: World, rows: list[Row], when: When) -> None:
        self.world = world
        self.rows = rows
        self.when = when


def saved(places: Places) -> Saved:
    """Return the contents of the state file. Raises CtlError if it cannot be read."""
    with _opened(places.state_file) as db:
        meta = dict(db.execute("SELECT name, value FROM meta"))
        context = _context(meta, places)
        if context is None:
            raise ValueError("this release cannot read the context file in it")
        tasks = db.execute("SELECT transaction_id, task, sub, row FROM tasks").fetchall()
        transactions = db.execute("SELECT id, open, opened FROM transactions").fetchall()
        query = "SELECT at, transaction_id, task, event, detail FROM events ORDER BY seq DESC LIMIT ?"
        rows = [
            Row(at=at, transaction=tx, task=task, event=event, detail=json.loads(detail))
            for at, tx, task, event, detail in reversed(db.execute(query, (MAX_ROWS,)).fetchall())
        ]
        world = World(
            context=context,
            stopping=meta.get("stopping") == "1",
            disabled=disabled_of_saved(meta.get("disabled")),
            transactions={
                name: Transaction(id=name, open=bool(is_open), opened=float(opened))
                for name, is_open, opened in transactions
            },
            tasks={(tx, task): task_from_row(json.loads(row), sub) for tx, task, sub, row in tasks},
        )
        return Saved(world, rows, _time_converter(db, same_boot=meta.get("boot_id") == processes.boot_id()))


def status(places: Places) -> Json:
    """Return the data of `status` in the form of a supervisor's answer. No task in it is alive.

    A task that was not at rest is `inactive`, `dead`, and `last` has its last state. Raises CtlError if the
    file cannot be read.
    """
    with _opened(places.state_file) as db:
        meta = dict(db.execute("SELECT name, value FROM meta"))
        context = _context(meta, places)
        disabled = disabled_of_saved(meta.get("disabled"))
        rows = db.execute("SELECT transaction_id, task, sub, row FROM tasks").fetchall()
        tasks = {(tx, task): task_from_row(json.loads(row), sub) for tx, task, sub, row in rows}
        when = _time_converter(db, same_boot=meta.get("boot_id") == processes.boot_id())
        order = {name: at for at, name in enumerate(context.tasks)} if context else {}
        keys = sorted(tasks, key=lambda key: (order.get(key[1], len(order)), key[1]))
        transactions = [
            {
                "id": name,
                "state": "inactive",
                "opened": when((name, ""), float(opened)) if opened else None,
                "since": None,
                "resumes": bool(is_open),
                "tasks": [
                    _task(context, key, tasks[key], when, disabled=key[1] in disabled)
                    for key in keys
                    if key[0] == name
                ],
            }
            for name, is_open, opened in db.execute(
                "SELECT id, open, opened FROM transactions ORDER BY opened, id"
            )
        ]
    return {
        "id": context.id if context else None,
        "log": _log(meta.get("log"), places),
        "transactions": transactions,
    }


def _log(target: object, places: Places) -> str:
    """Return the log of the last run. An earlier release has not saved it; then it is the log file, if there
    is one.
    """
    in_file = target == "file" or (target != "journal" and os.path.exists(places.log_file))
    return str(places.log_file) if in_file else "journal"


def _context(meta: Mapping[str, object], places: Places) -> Context | None:
    """Return the context from the saved texts of its files; None if this release cannot read them."""
    text, path = meta.get("context_file"), str(places.config_file)
    if not isinstance(text, bytes):
        return None
    try:
        parts = parts_of_saved(meta.get("context_parts"), text, path)
        return reader.parse(text, path=path, name=places.name, parts=parts)
    except ConfigError:
        return None


def _task(context: Context | None, key: Key, task: Task, when: When, *, disabled: bool) -> Json:
    service = service_of(context, key[1], task) if context else None
    last = None if task.resting else {"state": task.state.value, "sub": task.sub_state.value, "pid": task.pid}
    if last and task.host:
        last["host"] = task.host
    entry = task_as_json(key[1], task, service, lambda at: when(key, at), disabled=disabled)
    return {
        **entry,
        "pid": None,
        "host": None,
        "state": "inactive" if last else entry["state"],
        "sub": "dead" if last else entry["sub"],
        "last": last,
        "health": None,
        "health_text": "",
        "since": None if last or not task.launch else entry["since"],
    }


def _time_converter(db: sqlite3.Connection, *, same_boot: bool) -> When:
    """Return a function that converts monotonic times. Times of another boot mean nothing now, so for those
    it returns the time of the last end of the task in the history.
    """
    if same_boot:
        shift = time.time() - time.monotonic()
        return lambda _key, at: moment(shift + at)
    ends = (
        "SELECT transaction_id, task, max(at) FROM events WHERE event IN ('stopped', 'failed', 'lost') "
        "GROUP BY transaction_id, task"
    )
    ended = {(transaction, task): float(at) for transaction, task, at in db.execute(ends)}
    return lambda key, _at: moment(ended[key]) if key in ended else None


def moment(at: float) -> str:
    """Format a time of the epoch as RFC 3339, as a supervisor does."""
    zone = time.strftime("%z", time.localtime(at))
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at))
    return f"{text}.{int(at * 1000) % 1000:03}{zone[:3]}:{zone[3:]}"
