"""The state file of a context that does not run, read as it lies there: its history. Nothing is written or repaired."""

from __future__ import annotations

import json
import sqlite3
import time

from zmsvc.ctl.client import CtlError

TYPE_CHECKING = False  # As in client: typing is not worth its import.
if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zmsvc.ctl.client import Json


def events(path: Path, *, transaction: str | None, tasks: Sequence[str], limit: int) -> list[Json]:
    """Return the last rows of the history, as a supervisor tells them. Raises CtlError where there is none to be read."""
    where, arguments = ["1"], []
    if transaction is not None:
        where.append("transaction_id = ?")
        arguments.append(transaction)
    if tasks:
        where.append(f"task IN ({', '.join('?' * len(tasks))})")
        arguments += tasks
    query = f"SELECT seq, at, transaction_id, task, event, detail FROM events WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
    try:
        with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as file:
            rows = file.execute(query, (*arguments, limit)).fetchall()
        file.close()
        names = ("seq", "at", "transaction", "task", "event", "detail")
        found = [dict(zip(names, (*row[:5], json.loads(row[5])), strict=True)) for row in reversed(rows)]
    except (sqlite3.Error, ValueError) as error:
        raise CtlError(5, f"cannot read {path}: {error}") from None
    return [{**row, "at": moment(float(row["at"]))} for row in found]


def moment(at: float) -> str:
    """A time of the epoch as RFC 3339, as a supervisor writes it."""
    zone = time.strftime("%z", time.localtime(at))
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at))
    return f"{text}.{int(at * 1000) % 1000:03}{zone[:3]}:{zone[3:]}"
