"""The rows of the history as trees: each row is below the row of its cause. Pure.

A launch is below the order, or the firing of a rule, that has caused it. A firing is below the transition of
the task that has the rule. An end is below the stop, the signal of an operator, or the launch that it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zmsvc.core.cause_chain import Row
from zmsvc.core.replicas import base

_Task = tuple[str, str]
_ENDS = ("stopped", "failed", "lost")
_PENDING = ("rule", "back-off", "start-after")
"""Rows after which a launch follows."""


def tree(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Return the depth and the index of each row, in the order of the trees: a row comes after its parent,
    and rows with the same parent come in the order of the history.
    """
    parents = _Parents(rows).found
    below: dict[int | None, list[int]] = {}
    for index in range(len(rows)):
        below.setdefault(parents.get(index), []).append(index)
    # Not recursive: a ring of rules makes a tree of any depth.
    found: list[tuple[int, int]] = []
    todo = [(0, index) for index in reversed(below.get(None, ()))]
    while todo:
        depth, index = todo.pop()
        found.append((depth, index))
        todo += [(depth + 1, child) for child in reversed(below.get(index, ()))]
    # Rows of a damaged history might be each other's parents.
    reached = {index for _, index in found}
    return found + [(0, index) for index in range(len(rows)) if index not in reached]


class _Parents:
    """The parent of each row by index, found in one pass."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.found: dict[int, int] = {}
        self._order: dict[str, int] = {}
        """The last order or failure action of each transaction."""
        self._pending: dict[_Task, int] = {}
        self._stopping: dict[_Task, int] = {}
        self._signaled: dict[_Task, int] = {}
        """The last order of a signal since the last launch of each task."""
        self._current: dict[_Task, int] = {}
        """The last launch of each task."""
        self._of_launch: dict[tuple[str, str, str, Any], int] = {}
        for index, row in enumerate(rows):
            parent = self._parent(index, row)
            if parent is not None and parent != index:
                self.found[index] = parent
            self._remember(index, row)

    def _parent(self, index: int, row: Row) -> int | None:
        key, launch = (row.transaction, row.task), row.detail.get("launch")
        current = self._launch(key, launch)
        if row.event in ("requested", "reloaded", "disabled", "enabled", "forgotten") or not row.task:
            return None
        if row.event in ("rule", "rule-refused"):
            return self._firing(index, row)
        if row.event in ("back-off", "start-after", "dependency", "launching"):
            pending = self._pending.get(key)
            return self._ordered(row) if pending is None else pending
        if row.event in ("stopping", "stop-after"):
            earlier = self._stopping.get(key)
            if earlier is not None:
                return earlier
            return self._ordered(row) if row.detail.get("reason") in (None, "requested") else current
        if row.event in ("killing", "survivor", *_ENDS):
            before = self._stopping.get(key)
            if before is None and "launch" not in row.detail:
                before = self._pending.get(key)
            if before is None and row.event in _ENDS:
                before = self._signal(key, row)
            return current if before is None else before
        if row.event == "failure-action":
            return self._of_launch.get((*key, "end", None))
        return current

    def _signal(self, key: _Task, end: Row) -> int | None:
        """Return the order of the signal that has ended a task."""
        index = self._signaled.get(key)
        name = end.detail.get("signal")
        return index if index is not None and name and self.rows[index].detail.get("signal") == name else None

    def _launch(self, key: _Task, launch: object) -> int | None:
        return self._of_launch.get((*key, "launching", launch), self._current.get(key))

    def _firing(self, index: int, row: Row) -> int | None:
        """Return the transition that has fired a rule. The record of a stop by a rule precedes that of the
        rule.
        """
        key = (row.transaction, row.task)
        stop = self._stopping.get(key)
        if stop is not None and self.rows[stop].at == row.at and stop not in self.found:
            self.found[stop] = index
        source, launch = str(row.detail.get("source")), row.detail.get("launch")
        trigger = str(row.detail.get("rule")).partition(":")[0]
        kinds = {"on_start": ("started",), "on_recover": ("started",), "on_update": ()}.get(trigger, ("end",))
        for kind in (*kinds, "launching"):
            if (found := self._of_launch.get((row.transaction, source, kind, launch))) is not None:
                return found
        return None

    def _ordered(self, row: Row) -> int | None:
        """Return the order or failure action that has the same time as a row and concerns its task."""
        for transaction in (row.transaction, ""):
            index = self._order.get(transaction)
            if index is None or self.rows[index].at != row.at:
                continue
            order = self.rows[index]
            named = order.detail.get("tasks") or ()
            if order.event == "failure-action" or not named or {row.task, base(row.task)} & {*named}:
                return index
        return None

    def _remember(self, index: int, row: Row) -> None:
        key, launch = (row.transaction, row.task), row.detail.get("launch")
        if row.event in ("requested", "failure-action"):
            self._order[row.transaction] = index
        elif row.event in _PENDING:
            self._pending[key] = index
        elif row.event == "launching":
            self._of_launch[(*key, "launching", launch)] = self._current[key] = index
            for each in (self._pending, self._stopping, self._signaled):
                each.pop(key, None)
        elif row.event == "signaled":
            self._signaled[key] = index
        elif row.event == "started":
            self._of_launch[(*key, "started", launch)] = index
        elif row.event in ("stopping", "stop-after"):
            self._stopping[key] = index
        elif row.event in _ENDS:
            self._of_launch[(*key, "end", launch)] = self._of_launch[(*key, "end", None)] = index
            self._stopping.pop(key, None)


def as_rows(values: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield rows of a supervisor's answer as rows of the tree. Their times are texts, which are only
    compared.
    """
    numbers: dict[object, float] = {}
    for each in values:
        detail = each.get("detail")
        at = numbers.setdefault(each.get("at"), float(len(numbers)))
        yield Row(
            at=at,
            transaction=str(each.get("transaction") or ""),
            task=str(each.get("task") or ""),
            event=str(each.get("event") or ""),
            detail=detail if isinstance(detail, dict) else {},
        )
