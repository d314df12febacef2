"""The quarantine: the poison messages of tasks, as a table of the state file. The first message makes the
table, so most state files have none. core.poison has the bounds.

Only the user of the daemon can read the file and write to it. A task reports its messages to the supervisor,
which knows the task from the kernel, so no task can read the messages of another, or write in its name.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zmsvc.core import poison
from zmsvc.core.effects import Quarantine
from zmsvc.core.replicas import is_named

_TABLE = """
CREATE TABLE IF NOT EXISTS quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, transaction_id TEXT NOT NULL, task TEXT NOT NULL,
    size INTEGER NOT NULL, detail TEXT NOT NULL, frame BLOB
)
"""
LOST = "quarantine_lost"
"""The name in `meta` of the count of messages that were lost, by task."""
_DETAIL = ("topic", "sender", "sender_transaction", "sequence", "error", "traceback", "bytes")


def bounded(waiting: Sequence[Quarantine]) -> list[Quarantine]:
    """Return the messages that wait until the state file can be written, as far as the bounds of the
    quarantine allow. The others are only counted.
    """
    entries = [(at, each.key[1], each.message.size if each.message else 0) for at, each in enumerate(waiting)]
    gone = poison.excess(entries)
    lost: Counter[tuple[str, str]] = Counter()
    kept: dict[tuple[str, str], Quarantine] = {}
    found: list[Quarantine] = []
    for at, each in enumerate(waiting):
        if each.message is not None and at not in gone:
            found.append(each)
        else:
            kept[each.key] = each
            lost[each.key] += each.lost + (1 if each.message else 0)
    return [*(replace(each, lost=lost[key], message=None) for key, each in kept.items()), *found]


def add(db: sqlite3.Connection, quarantined: Sequence[Quarantine], at: float) -> None:
    """Add messages, and remove the oldest ones beyond the bounds."""
    db.execute(_TABLE)
    lost: Counter[str] = Counter()
    for each in quarantined:
        lost[each.key[1]] += each.lost
        if each.message is None:
            continue
        detail = {"launch": each.launch, "number": each.number}
        detail |= {name: getattr(each.message, name) for name in _DETAIL}
        frame = each.message.frame
        data = None if frame is None else frame.encode("utf-8", "surrogatepass")
        # JSON in ASCII, because SQLite takes no lone surrogate.
        db.execute(
            "INSERT INTO quarantine VALUES (NULL, ?, ?, ?, ?, ?, ?)",
            (at, *each.key, each.message.size, json.dumps(detail), data),
        )
    gone = poison.excess(db.execute("SELECT id, task, size FROM quarantine ORDER BY id"))
    lost.update(gone.values())
    db.executemany("DELETE FROM quarantine WHERE id = ?", [(number,) for number in gone])
    if lost := +lost:
        total = Counter(_lost(db)) + lost
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (LOST, json.dumps(total)))


def is_number(value: object) -> bool:
    """Return True for a number that a message can have."""
    return type(value) is int and 0 < value < 2**63


def exists(db: sqlite3.Connection) -> bool:
    found = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'quarantine'").fetchone()
    return found is not None


def listed(
    db: sqlite3.Connection, *, transaction: str | None = None, tasks: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the messages, oldest first, without their tracebacks and frames, and how many were lost, by
    task.
    """
    rows = _rows(db, "frame IS NOT NULL", "1", ()) if exists(db) else []
    return {
        "messages": [
            {name: value for name, value in row.items() if name not in ("traceback", "frame")}
            | {"kept": bool(row["frame"])}
            for row in rows
            if (transaction is None or row["transaction"] == transaction)
            and (not tasks or is_named(row["task"], tasks))
        ],
        "lost": {task: count for task, count in _lost(db).items() if not tasks or is_named(task, tasks)},
    }


def message(db: sqlite3.Connection, number: int) -> dict[str, Any] | None:
    """Return one message with its traceback and its frame; None if there is none of this number."""
    for row in _rows(db, "frame", "id = ?", (number,)) if exists(db) else []:
        frame = row["frame"]
        return {**row, "frame": None if frame is None else frame.decode("utf-8", "surrogatepass")}
    return None


def drop(db: sqlite3.Connection, numbers: Sequence[int] | None) -> list[int]:
    """Remove the messages of these numbers, or all and the counts of the lost ones. Return the numbers that
    were there.
    """
    if not exists(db):
        return []
    there = [row[0] for row in db.execute("SELECT id FROM quarantine ORDER BY id")]
    gone = there if numbers is None else [number for number in there if number in set(numbers)]
    db.executemany("DELETE FROM quarantine WHERE id = ?", [(number,) for number in gone])
    if numbers is None:
        db.execute("DELETE FROM meta WHERE name = ?", (LOST,))
    return gone


def _lost(db: sqlite3.Connection) -> dict[str, int]:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (LOST,)).fetchone()
    return {str(task): int(count) for task, count in json.loads(row[0]).items()} if row else {}


def _rows(db: sqlite3.Connection, frame: str, where: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    query = f"SELECT id, at, transaction_id, task, detail, {frame} FROM quarantine WHERE {where} ORDER BY id"
    return [
        {
            "id": number,
            "at": at,
            "transaction": transaction,
            "task": task,
            **json.loads(detail),
            "frame": data,
        }
        for number, at, transaction, task, detail, data in db.execute(query, values)
    ]
