"""Save the world and the history in the state file: SQLite in WAL mode, one transaction per step, changed
rows only.

A decision is in the file before a process acts on it. The `sqlite3` shell can read the file while the daemon
runs. A damaged file is renamed, and a file of a newer zmsvc is refused; neither is overwritten. To read the
file takes no space on the disk, because a supervisor that takes over must start even if the disk is full or
read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from zmsvc.core.effects import Quarantine, Record
from zmsvc.core.errors import StateError
from zmsvc.core.hosts import hosts_from_json, hosts_to_json
from zmsvc.core.model import Context, ContextFiles
from zmsvc.core.replicas import MARK
from zmsvc.core.task_key import Key
from zmsvc.core.totals import MAX_TOTALS
from zmsvc.core.world import (
    Task,
    Transaction,
    World,
    barrier_to_row,
    launches_of,
    load_of,
    starts_of,
    task_from_row,
    task_to_row,
    with_barrier,
)
from zmsvc.host import quarantine
from zmsvc.host.config.context_files import parts_of_saved, saved_parts

_dumps = json.JSONEncoder(separators=(",", ":")).encode

T = TypeVar("T")

SCHEMA = 1
HISTORY = 100_000
"""Rows of history to keep; there may be up to TRIM more."""
TRIM = 1000
"""New rows after which the oldest are deleted."""

_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")
_NO_ROOM = ("SQLITE_IOERR_SHM", "SQLITE_FULL")
"""The errors of SQLite if it cannot create the index of the write-ahead log. The index is a file beside the
log, which the last process that closes the state file removes.
"""

_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE transactions (id TEXT PRIMARY KEY, open INTEGER NOT NULL, opened REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE tasks (
    transaction_id TEXT NOT NULL, task TEXT NOT NULL, sub TEXT NOT NULL, pid INTEGER, row TEXT NOT NULL,
    PRIMARY KEY (transaction_id, task)
) WITHOUT ROWID;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, transaction_id TEXT NOT NULL, task TEXT NOT NULL,
    event TEXT NOT NULL, detail TEXT NOT NULL
);
"""

_BARRIERS = """
CREATE TABLE IF NOT EXISTS barriers (
    transaction_id TEXT NOT NULL, task TEXT NOT NULL, row TEXT NOT NULL, PRIMARY KEY (transaction_id, task)
) WITHOUT ROWID;
"""
"""The table of core.world.barrier_to_row, which files of earlier releases do not have."""


_TOTALS = """
CREATE TABLE IF NOT EXISTS totals (
    total TEXT NOT NULL, task TEXT NOT NULL, detail TEXT NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (total, task, detail)
) WITHOUT ROWID;
"""
"""The table of core.totals, which files of earlier releases do not have."""

TotalKey = tuple[str, str, str]
"""A total: its name, its task and its detail."""
NO_COUNTS: Mapping[TotalKey, float] = {}


def disabled_of_saved(saved: object) -> frozenset[str]:
    """Return the IDs of the disabled tasks. A file of an earlier release has none."""
    try:
        return frozenset(map(str, json.loads(saved))) if isinstance(saved, str) else frozenset()
    except (TypeError, ValueError):
        return frozenset()


class _DamageError(sqlite3.DatabaseError):
    """The error of a file that SQLite can read and whose check fails."""

    sqlite_errorname = "SQLITE_CORRUPT"


def _is(error: sqlite3.Error, kinds: tuple[str, ...]) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(kinds)


def _of_keeper(world: World) -> tuple[str, bool, int, bool]:
    return world.keeper_id, world.stopping, world.exit_status, world.hands_over


class StateFile:
    """An open state file. Raises StateError if it cannot be used. With `trusted`, which says that a
    predecessor had the file open until now, the large history is not checked for damage.
    """

    def __init__(
        self,
        path: Path,
        *,
        trusted: bool = False,
        history: int = HISTORY,
        trim: int = TRIM,
        most_totals: int = MAX_TOTALS,
    ) -> None:
        self.path = path
        self._trusted = trusted
        self._history, self._trim_after, self._most_totals = history, trim, most_totals
        self.saved: World | None = None
        self.notes: list[str] = []
        """Messages for the operator about opening the file."""
        self._untrimmed = 0
        self._unsaved_meta: dict[str, str] = {}
        """Values to write with the next save."""
        self._alone = False
        """True while this process holds the file exclusively, and no other can read it."""
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        # SQLite would follow a link at the end of the path. Only we can write to the directory, so none can
        # appear after this check.
        for suffix in ("", "-wal", "-shm", "-journal"):
            file = self.path.with_name(f"{self.path.name}{suffix}")
            if file.is_symlink():
                raise StateError(f"cannot open state file {file}: it is a symbolic link")
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not _is(error, _DAMAGE):
                raise StateError(f"cannot open state file {self.path}: {error}") from error
            aside = self._set_aside()
            self.notes.append(
                f"state file {self.path} is damaged ({error}): set aside as {aside}, beginning afresh"
            )
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        self._alone = False
        try:
            return self._opened()
        except sqlite3.OperationalError as error:
            if not _is(error, _NO_ROOM):
                raise
        # With an exclusive lock SQLite keeps the index in memory.
        self._alone = True
        return self._opened()

    def _opened(self) -> sqlite3.Connection:
        # Only the owner may read the file, because it has reports of tasks, and the text of the context file,
        # which may have secrets.
        old = os.umask(0o077)
        try:
            db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
        finally:
            os.umask(old)
        try:
            db.execute(f"PRAGMA locking_mode={'EXCLUSIVE' if self._alone else 'NORMAL'}")
            db.execute("PRAGMA journal_mode=WAL")
            # With NORMAL, kill -9 loses nothing. A power cut may lose the last moments, but it also ends all
            # processes.
            db.execute("PRAGMA synchronous=NORMAL")
            self._check_schema(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check_schema(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise StateError(
                f"cannot use state file {self.path}: it is of schema {version}, this zmsvc knows {SCHEMA}; "
                "install the newer zmsvc again, or move the file away to begin afresh"
            )
        if version == 0:
            db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
        later = [name for name in ("barriers", "totals") if _has(db, name)]
        names = ["meta", "transactions", "tasks", *later]
        tables = [f"('{name}')" for name in names] if self._trusted else ["(1)"]
        for table in tables:
            problem = db.execute(f"PRAGMA quick_check{table}").fetchone()[0]
            if problem != "ok":
                raise _DamageError(problem)

    def _set_aside(self) -> Path:
        stamp = time.strftime("%Y%m%dT%H%M%S")
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{os.getpid()}")
        self.path.rename(aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(str(aside) + suffix)
        return aside

    def close(self) -> None:
        self._db.close()

    # --- meta

    def meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def origin(self) -> str:
        """Return the origin that the supervisors of this context write into their messages. By it a
        supervisor recognizes messages of its predecessor and does not take them for orders. The origin is
        created once, and saved with the next world.
        """
        origin = self.meta("origin")
        if origin is None:
            origin = self._unsaved_meta.setdefault("origin", os.urandom(4).hex())
        return origin

    def remember(self, name: str, value: str) -> None:
        """Save this value with the next world, for readers of the file while the context does not run."""
        self._unsaved_meta[name] = value

    # --- the world

    def context_files(self, epoch: str, path: Path) -> ContextFiles | None:
        """Return the files of the saved world, whose context file is `path`; None if a supervisor of another
        keeper has saved it.
        """
        if self.meta("epoch") != epoch:
            return None
        row = self._db.execute("SELECT value FROM meta WHERE name = 'context_file'").fetchone()
        if row is None:
            return None
        text = bytes(row[0])
        return ContextFiles(text=text, parts=parts_of_saved(self.meta("context_parts"), text, path))

    def _set_context_files(self, context: Context) -> None:
        # Store raw bytes: an XML file declares its encoding.
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('context_file', ?)", (context.text,))
        self._set_meta("context_parts", saved_parts(context.text, context.parts))

    def load(self, context: Context, boot: str) -> World:
        """Return the last saved world, with `context`. Of an earlier boot only the state to resume is kept,
        without its times.
        """
        same = self.meta("boot_id") == boot
        try:
            rows = self._rows("tasks", "transaction_id, task, sub, row")
            tasks = {(tx, task): task_from_row(json.loads(row), sub) for tx, task, sub, row in rows}
            for tx, name, row in self._barriers():
                if (tx, name) in tasks:
                    tasks[tx, name] = with_barrier(tasks[tx, name], json.loads(row))
            transactions = self._transactions(same_boot=same)
            hosts = hosts_from_json(json.loads(self.meta("hosts") or "{}"))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateError(
                f"cannot use state file {self.path}: a task or a host in it cannot be read ({error!r})"
            ) from error
        launches, auxiliaries = launches_of(tasks)
        world = World(
            context=context,
            keeper_id=(self.meta("epoch") or "") if same else "",
            stopping=self.meta("stopping") == "1",
            exit_status=int(self.meta("exit_status") or 0),
            hands_over=self.meta("hands_over") == "1",
            next_launch=int(self.meta("next_launch") or 1),
            disabled=disabled_of_saved(self.meta("disabled")),
            transactions=transactions,
            tasks=tasks,
            launches=launches,
            auxiliaries=auxiliaries,
            starts=starts_of(tasks),
            hosts=hosts,
            load=load_of(tasks),
        )
        self.saved = world
        self._unsaved_meta |= {"boot_id": boot}
        self._untrimmed = self._trim_after
        return world

    def _transactions(self, *, same_boot: bool) -> dict[str, Transaction]:
        closed = self._closed(same_boot=same_boot)
        return {
            name: Transaction(
                id=name,
                open=bool(is_open),
                opened=opened if same_boot else 0.0,
                closed=0.0 if is_open else closed.get(name, 0.0),
            )
            for name, is_open, opened in self._rows("transactions", "id, open, opened")
        }

    def _closed(self, *, same_boot: bool) -> dict[str, float]:
        """Return the times at which transactions were stopped. Of an earlier boot only their order is kept.
        The times have no column in the table, because an earlier release could not write to a table with it.
        """
        times = {str(name): float(at) for name, at in json.loads(self.meta("closed") or "{}").items()}
        if same_boot:
            return times
        return {
            name: float(at - len(times))
            for at, name in enumerate(sorted(times, key=lambda name: (times[name], name)))
        }

    def _rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        return self._db.execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()

    def _barriers(self) -> list[tuple[Any, ...]]:
        return self._rows("barriers", "transaction_id, task, row") if _has(self._db, "barriers") else []

    def _trim(self) -> None:
        self._untrimmed = 0
        self._db.execute(
            "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (self._history,)
        )

    def save(
        self,
        world: World,
        records: Iterable[Record],
        at: float,
        quarantined: Sequence[Quarantine] = (),
        counts: Mapping[TotalKey, float] = NO_COUNTS,
    ) -> None:
        """Write the difference to the last saved world, the history and the quarantine, and add to the
        totals, in one transaction.

        Raises OSError if the file cannot be written (disk full, read-only). The next save then writes this
        difference, too.
        """
        try:
            self._transact(lambda: self._write(world, records, at, quarantined, counts))
            self._unsaved_meta.clear()
            self.saved = world
            if self._alone:
                self._reopen()
        except sqlite3.Error as error:
            if _is(error, ("SQLITE_READONLY",)):
                # The open connection stays read-only even when the disk is writable again.
                with contextlib.suppress(sqlite3.Error):
                    self._reopen()
            raise OSError(f"cannot save state to {self.path}: {error}") from error

    def _transact(self, write: Callable[[], T]) -> T:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            result = write()
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        return result

    def _reopen(self) -> None:
        self._db.close()
        self._db = self._connect()

    def _write(
        self,
        world: World,
        records: Iterable[Record],
        at: float,
        quarantined: Sequence[Quarantine],
        counts: Mapping[TotalKey, float],
    ) -> None:
        old = self.saved
        for name, value in self._unsaved_meta.items():
            self._set_meta(name, value)
        if old is None or old.context is not world.context or "boot_id" in self._unsaved_meta:
            self._set_context_files(world.context)
        if old is None or old.tasks is not world.tasks:
            self._write_tasks(old.tasks if old else {}, world.tasks)
        if old is None or old.transactions is not world.transactions:
            self._write_transactions(old.transactions if old else {}, world.transactions)
        if old is None or old.next_launch != world.next_launch:
            self._set_meta("next_launch", str(world.next_launch))
        # A context without placements has no such row.
        if world.hosts if old is None else old.hosts is not world.hosts:
            self._set_meta("hosts", _dumps(hosts_to_json(world.hosts)))
        if old is None or old.disabled != world.disabled:
            self._set_meta("disabled", json.dumps(sorted(world.disabled)))
        if old is None or _of_keeper(old) != _of_keeper(world):
            self._set_meta("epoch", world.keeper_id)
            self._set_meta("stopping", "1" if world.stopping else "0")
            self._set_meta("exit_status", str(world.exit_status))
            self._set_meta("hands_over", "1" if world.hands_over else "0")
        rows = [(at, r.transaction, r.task, r.event, _dumps(r.detail)) for r in records]
        if rows:
            self._db.executemany(
                "INSERT INTO events (at, transaction_id, task, event, detail) VALUES (?, ?, ?, ?, ?)", rows
            )
            self._untrimmed += len(rows)
            if self._untrimmed >= self._trim_after:
                self._trim()
                self._trim_totals(world)
        if counts:
            self._add(counts)
        if quarantined:
            quarantine.add(self._db, quarantined, at)

    def _add(self, counts: Mapping[TotalKey, float]) -> None:
        self._db.execute(_TOTALS)
        self._db.executemany(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(*key, amount) for key, amount in counts.items()],
        )

    def _trim_totals(self, world: World) -> None:
        """Remove the totals of tasks that the context no longer has, if there are very many: each reload may
        have brought other IDs.
        """
        if not _has(self._db, "totals"):
            return
        if self._db.execute("SELECT count(*) FROM totals").fetchone()[0] <= self._most_totals:
            return
        kept = json.dumps(["", *world.context.tasks, *(task for _, task in world.tasks)])
        self._db.execute("DELETE FROM totals WHERE task NOT IN (SELECT value FROM json_each(?))", (kept,))

    def _write_tasks(self, old: Mapping[Key, Task], new: Mapping[Key, Task]) -> None:
        differ = [(key, task) for key, task in new.items() if old.get(key) is not task]
        changed = [(*key, task.sub_state.value, task.pid, _dumps(task_to_row(task))) for key, task in differ]
        self._write_barriers(old, differ)
        self._db.executemany("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?)", changed)
        added = sum((transaction, task) not in old for transaction, task, *_ in changed)
        gone = [key for key in old if key not in new] if len(old) + added != len(new) else []
        self._db.executemany("DELETE FROM tasks WHERE transaction_id = ? AND task = ?", gone)

    def _write_barriers(self, old: Mapping[Key, Task], changed: Iterable[tuple[Key, Task]]) -> None:
        barriers = [
            (*key, barrier_to_row(task))
            for key, task in changed
            if task.barrier is not (old[key].barrier if key in old else None)
        ]
        if not barriers:
            return
        self._db.execute(_BARRIERS)
        self._db.executemany(
            "INSERT OR REPLACE INTO barriers VALUES (?, ?, ?)",
            [(tx, task, _dumps(row)) for tx, task, row in barriers if row is not None],
        )
        self._db.executemany(
            "DELETE FROM barriers WHERE transaction_id = ? AND task = ?",
            [(tx, task) for tx, task, row in barriers if row is None],
        )

    def _write_transactions(self, old: Mapping[str, Transaction], new: Mapping[str, Transaction]) -> None:
        changed = [(t.id, int(t.open), t.opened) for t in new.values() if old.get(t.id) is not t]
        self._db.executemany("INSERT OR REPLACE INTO transactions VALUES (?, ?, ?)", changed)
        self._db.executemany(
            "DELETE FROM transactions WHERE id = ?", [(name,) for name in old if name not in new]
        )
        self._set_meta("closed", json.dumps({t.id: t.closed for t in new.values() if not t.open}))

    # --- the history

    def events(
        self,
        *,
        after: int = 0,
        limit: int = 1000,
        transaction: str | None = None,
        tasks: tuple[str, ...] = (),
        kinds: tuple[str, ...] = (),
        since: float | None = None,
        first: bool = False,
    ) -> list[dict[str, Any]]:
        """Return the last `limit` rows of history after row `after`, or with `first` the first ones. The
        oldest one comes first. `at` is in seconds since the epoch.
        """
        return history(
            self._db,
            after=after,
            limit=limit,
            transaction=transaction,
            tasks=tasks,
            kinds=kinds,
            since=since,
            first=first,
        )

    def before_last(
        self,
        limit: int,
        *,
        transaction: str | None = None,
        tasks: tuple[str, ...] = (),
        kinds: tuple[str, ...] = (),
        since: float | None = None,
    ) -> int:
        """Return the number of the row after which `events` returns the last `limit` rows."""
        where, arguments = _conditions(0, transaction, tasks, kinds, since)
        query = f"SELECT seq FROM events WHERE {where} ORDER BY seq DESC LIMIT 1 OFFSET ?"
        row = self._db.execute(query, (*arguments, limit)).fetchone()
        return int(row[0]) if row else 0

    # --- the totals

    def totals(self) -> dict[TotalKey, float]:
        """Return what has been counted since the state file was made."""
        if not _has(self._db, "totals"):
            return {}
        rows = self._db.execute("SELECT total, task, detail, value FROM totals").fetchall()
        return {(total, task, detail): value for total, task, detail, value in rows}

    # --- the quarantine

    def quarantined(self, *, transaction: str | None = None, tasks: Sequence[str] = ()) -> dict[str, Any]:
        """Return the messages in the quarantine, oldest first, and how many were lost, by task."""
        return quarantine.listed(self._db, transaction=transaction, tasks=tasks)

    def quarantined_message(self, number: int) -> dict[str, Any] | None:
        """Return one message with its traceback and its frame; None if there is none of this number."""
        return quarantine.message(self._db, number)

    def drop_quarantined(self, numbers: Sequence[int] | None) -> list[int]:
        """Remove the messages of these numbers, or all. Return the numbers that were there. Raises OSError if
        the file cannot be written.
        """
        try:
            return self._transact(lambda: quarantine.drop(self._db, numbers))
        except sqlite3.Error as error:
            raise OSError(f"cannot write {self.path}: {error}") from error


def history(
    db: sqlite3.Connection,
    *,
    after: int = 0,
    limit: int,
    transaction: str | None = None,
    tasks: Sequence[str] = (),
    kinds: Sequence[str] = (),
    since: float | None = None,
    first: bool = False,
) -> list[dict[str, Any]]:
    """Return the last rows of the history that fit, oldest first; with `first` the first ones that fit.
    `kinds` are words of `event`; `at` and `since` are in seconds since the epoch.
    """
    where, arguments = _conditions(after, transaction, tasks, kinds, since)
    query = (
        f"SELECT seq, at, transaction_id, task, event, detail FROM events WHERE {where} "
        f"ORDER BY seq {'ASC' if first else 'DESC'} LIMIT ?"
    )
    rows = db.execute(query, (*arguments, limit)).fetchall()
    names = ("seq", "at", "transaction", "task", "event", "detail")
    return [
        dict(zip(names, (*row[:5], json.loads(row[5])), strict=True))
        for row in (rows if first else reversed(rows))
    ]


def _conditions(
    after: int, transaction: str | None, tasks: Sequence[str], kinds: Sequence[str], since: float | None
) -> tuple[str, list[Any]]:
    """Return the condition of SQL for rows of the history, and its parameters."""
    where = ["seq > ?"]
    arguments: list[Any] = [after]
    # Lists are one parameter, because SQLite limits their number and a client may name more.
    any_of = "(SELECT value FROM json_each(?))"
    if transaction is not None:
        where.append("transaction_id = ?")
        arguments.append(transaction)
    if tasks:
        # The name of a replica before its number stands for all replicas.
        where.append(f"(task IN {any_of} OR substr(task, 1, instr(task, '{MARK}') - 1) IN {any_of})")
        arguments += [json.dumps(tasks)] * 2
    if kinds:
        where.append(f"event IN {any_of}")
        arguments.append(json.dumps(kinds))
    if since is not None:
        where.append("at >= ?")
        arguments.append(since)
    return " AND ".join(where), arguments


def _has(db: sqlite3.Connection, table: str) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone() is not None
