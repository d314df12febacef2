"""The rows of `top`: one for each task, in the order in which they are shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from zmsvc.core.frozen import frozen

Key = tuple[str, str]
"""A transaction and a task; the task is empty for the heading of a transaction."""

SORTS = ("cpu", "rss", "pid", "id", "state", "missed", "restarts")
"""The columns to sort by."""
_STATES = ("failed", "activating", "deactivating", "reloading", "active", "inactive")
"""The states in the order of their urgency."""


DEEPEST = 8
"""The number of levels of a tree that are drawn. A chain of rules may have as many as there are tasks."""


class Tree(StrEnum):
    """The arrangement of the rows."""

    FLAT = "all tasks"
    TRANSACTION = "by transaction"
    CAUSE = "by cause"

    @property
    def following(self) -> Tree:
        """The arrangement that a key selects after this one."""
        every = list(Tree)
        return every[(every.index(self) + 1) % len(every)]


@frozen
class TaskRow:
    """One task of one transaction. Figures are None if they are not known, or if it has no process."""

    transaction: str
    task: str
    state: str
    instance: str = ""
    sub: str = ""
    pid: int | None = None
    cpu: float | None = None
    """The percentage of one processor since the last look."""
    rss: int | None = None
    """Bytes."""
    threads: int | None = None
    missed: int = 0
    restarts: int = 0
    cause: str = ""
    """The cause of its last launch, as text."""
    source: str = ""
    """The task of its transaction whose rule has started it."""

    @property
    def key(self) -> Key:
        return self.transaction, self.task


@frozen
class OpenTransaction:
    """A transaction that is shown."""

    id: str
    state: str


@frozen
class Snapshot:
    """The state of a context at one moment."""

    name: str
    rows: tuple[TaskRow, ...] = ()
    runs: tuple[OpenTransaction, ...] = ()


@frozen
class Entry:
    """One line of the table: a task, or the heading of a transaction, which has no row."""

    key: Key
    row: TaskRow | None
    run: OpenTransaction | None = None
    ancestors: tuple[bool, ...] = ()
    """For the entry and each entry above it in the tree, whether it is the last of its siblings. Only
    the lowest levels are noted.
    """


def rank(
    sort: str,
    *,
    task: str,
    state: str,
    pid: int | None,
    cpu: float,
    rss: float,
    missed: int,
    restarts: int,
    reverse: bool = False,
) -> tuple[bool, float, str]:
    """Return the sort key of a task: the largest figure comes first, equal ones by ID, tasks without a
    process last. `reverse` turns the figures around.
    """
    amount = {
        "cpu": -cpu,
        "rss": -rss,
        "pid": pid or 0,
        "state": _STATES.index(state) if state in _STATES else len(_STATES),
        "missed": -missed,
        "restarts": -restarts,
    }.get(sort, 0)
    # A task that has failed has no process.
    return sort != "state" and pid is None, -amount if reverse else amount, task


def matching(rows: Iterable[TaskRow], words: str) -> list[TaskRow]:
    """Return the rows that have each of these words in their names or their state, in small or capital
    letters, or as their PID.
    """
    wanted = words.casefold().split()
    if not wanted:
        return list(rows)
    return [row for row in rows if _has(row, wanted)]


def _has(row: TaskRow, words: Sequence[str]) -> bool:
    searched = f"{row.task} {row.instance} {row.transaction} {row.state} {row.sub}".casefold()
    # Only a whole PID matches: with many tasks, some PID contains any short number.
    pid = str(row.pid)
    return all(word in searched or word == pid for word in words)


def ordered(rows: Iterable[TaskRow], sort: str, *, reverse: bool = False) -> list[TaskRow]:
    """Return the rows sorted by a column. By ID, a task keeps its place when it starts or ends."""
    if sort == "id":
        return sorted(rows, key=lambda row: (row.task, row.transaction), reverse=reverse)
    return sorted(
        rows,
        key=lambda row: (
            rank(
                sort,
                task=row.task,
                state=row.state,
                pid=row.pid,
                cpu=row.cpu or 0.0,
                rss=row.rss or 0,
                missed=row.missed,
                restarts=row.restarts,
                reverse=reverse,
            ),
            row.transaction,
        ),
    )


def arranged(snapshot: Snapshot, rows: Sequence[TaskRow], tree: Tree) -> list[Entry]:
    """Return the lines of the table for sorted rows. In a tree, they keep their order among siblings."""
    match tree:
        case Tree.TRANSACTION:
            return _by_transaction(snapshot, rows)
        case Tree.CAUSE:
            return _by_cause(rows)
        case _:
            return [Entry(key=row.key, row=row) for row in rows]


def _by_transaction(snapshot: Snapshot, rows: Sequence[TaskRow]) -> list[Entry]:
    own: dict[str, list[TaskRow]] = {run.id: [] for run in snapshot.runs}
    for row in rows:
        own.setdefault(row.transaction, []).append(row)
    runs = {run.id: run for run in snapshot.runs}
    found = []
    for name, tasks in own.items():
        if not tasks:
            continue
        found.append(
            Entry(key=(name, ""), row=None, run=runs.get(name) or OpenTransaction(id=name, state=""))
        )
        found += [
            Entry(key=row.key, row=row, ancestors=(number == len(tasks),))
            for number, row in enumerate(tasks, 1)
        ]
    return found


def _by_cause(rows: Sequence[TaskRow]) -> list[Entry]:
    """Put each task below the one whose rule has started it. In a ring of rules, the first task of the order
    is the root.
    """
    shown = {row.key: row for row in rows}
    below: dict[Key, list[TaskRow]] = {}
    roots = []
    for row in rows:
        parent = (row.transaction, row.source)
        if row.source and parent != row.key and parent in shown:
            below.setdefault(parent, []).append(row)
        else:
            roots.append(row)
    found: list[Entry] = []
    seen: set[Key] = set()
    for row in roots:
        _descend(row, below, seen, found)
    for row in rows:
        if row.key not in seen:
            _descend(row, below, seen, found)
    return found


def _descend(
    root: TaskRow, below: Mapping[Key, Sequence[TaskRow]], seen: set[Key], found: list[Entry]
) -> None:
    # Not recursive: a chain of rules may be as long as there are tasks.
    seen.add(root.key)
    todo = [Entry(key=root.key, row=root)]
    while todo:
        entry = todo.pop()
        found.append(entry)
        children = [row for row in below.get(entry.key, ()) if row.key not in seen]
        seen.update(row.key for row in children)
        todo += [
            Entry(key=row.key, row=row, ancestors=(*entry.ancestors[1 - DEEPEST :], number == 0))
            for number, row in enumerate(reversed(children))
        ]
