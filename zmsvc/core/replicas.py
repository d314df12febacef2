"""The IDs of replicas: a task of the file with `<replicas>` stands for the tasks `ts_100@1`, `ts_100@2` and
so on, and its ID in the file names all of them. Pure.

zmsvcctl imports this module, so it imports little.
"""

from __future__ import annotations

from collections.abc import Collection

MARK = "@"
"""The sign between the ID in the file and the number of a replica. No ID in a file has it."""


def base(task_id: str) -> str:
    """Return the ID in the file: that of a replica without its number."""
    return task_id.partition(MARK)[0]


def number(task_id: str) -> int | None:
    """Return the number of a replica, from 1; None for the ID of any other task."""
    digits = task_id.partition(MARK)[2]
    return int(digits) if digits.isascii() and digits.isdecimal() else None


def is_named(task_id: str, names: Collection[str]) -> bool:
    """Return True if one of these names means the task: its own ID, or that of the file for a replica."""
    return task_id in names or base(task_id) in names
