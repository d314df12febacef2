"""The cause of a launch: the operator, the context, the bus or a rule. The core has a cause as a dataclass.
`as_json` makes the mapping that tasks (`self.cause`) and the state file have; `summary` makes the shorter one
of `status` and the history.

transitions.py decides when a rule fires.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.core.model import Rule

MAX_SOURCES = 64
"""The number of sources that a cause keeps: the latest ones."""
MAX_UPDATES = 1 << 20
"""Bytes of JSON of the updates of these sources. The latest source is kept whatever the size of its update,
which the notify protocol limits to 1 MiB. 64 such updates in a launch would be more than a connection to
another host carries.
"""
SUMMARY_UPDATES = 4096
"""Bytes of JSON of the updates in a summary. `status` has one for each task, and the history has 100,000."""


@frozen
class SourceExit:
    """The last exit of the task that fired a rule. `reason` is a word of `world.Reason`."""

    code: int | None = None
    signal: str | None = None
    reason: str = ""


@frozen
class CauseSource:
    """One firing of a rule: the task whose transition fired it, the launch of that task, its last exit and
    its last update.
    """

    task: str
    trigger: str
    rule: str
    launch: int
    exit: SourceExit | None = None
    """None if the trigger is neither on_exit nor on_fail: the last exit is then that of an earlier launch."""
    update: Mapping[str, Any] | None = None
    update_bytes: int = field(default=0, compare=False)
    """The size of the update as JSON, also where a summary has left it out."""


@frozen
class LaunchCause:
    """The cause of a launch. The default is the cause of a task that has never been started."""

    by: str = ""
    """operator, context, bus or rule."""
    uid: int | None = None
    """The user who gave the order, where the kernel knows it."""
    depth: int = 0
    """The length of the chain of rules that led here."""
    sources: tuple[CauseSource, ...] = ()

    @property
    def by_rule(self) -> bool:
        return self.by == "rule"


NO_CAUSE = LaunchCause()
BY_CONTEXT = LaunchCause(by="context")


def rule_text(rule: Rule) -> str:
    """Return a rule as causes and records name it: `on_exit:start:ts002`, followed by its conditions: ` when
    watchdog after 3 in 60s`.
    """
    conditions = f" {rule.conditions}" if rule.when or rule.after else ""
    return f"{rule.trigger.value}:{rule.action.value}:{rule.call}{conditions}"


def by_rule(before: LaunchCause, source: CauseSource, depth: int, *, join: bool) -> LaunchCause:
    """Return the cause of a launch that a rule asks for. `join` is True if a start is pending already: then
    the new source is added to its cause.
    """
    if not join:
        return LaunchCause(by="rule", depth=depth, sources=(source,))
    sources = (*before.sources, source)[-MAX_SOURCES:]
    return replace(
        before,
        by=before.by or "rule",
        depth=max(depth, before.depth),
        sources=sources[-max(1, _fitting(sources, MAX_UPDATES)) :],
    )


def _fitting(sources: tuple[CauseSource, ...], room: int) -> int:
    """Return the number of the latest sources whose updates have at most `room` bytes in all."""
    for number, source in enumerate(reversed(sources)):
        room -= source.update_bytes
        if room < 0:
            return number
    return len(sources)


def size_of(update: Mapping[str, Any] | None) -> int:
    """Return the bytes of an update as compact JSON; 0 without one."""
    return 0 if update is None else len(json.dumps(update, separators=(",", ":")))


def as_json(cause: LaunchCause) -> dict[str, Any]:
    """Return a cause as plain JSON values; an empty mapping for a task that has never been started."""
    if cause == NO_CAUSE:
        return {}
    return {
        "by": cause.by,
        "uid": cause.uid,
        "depth": cause.depth,
        "sources": [_source_as_json(source) for source in cause.sources],
    }


def summary(cause: LaunchCause) -> dict[str, Any]:
    """Return a cause as `as_json` does, but with the latest updates only, as many as SUMMARY_UPDATES allows.
    The sources of the others have `update_bytes`.
    """
    values = as_json(cause)
    left_out = len(cause.sources) - _fitting(cause.sources, SUMMARY_UPDATES)
    for source, row in zip(cause.sources[:left_out], values.get("sources", ()), strict=False):
        if source.update_bytes:
            row |= {"update": None, "update_bytes": source.update_bytes}
    return values


def _source_as_json(source: CauseSource) -> dict[str, Any]:
    end = source.exit
    return {
        "task": source.task,
        "trigger": source.trigger,
        "rule": source.rule,
        "launch": source.launch,
        "exit": end and {"code": end.code, "signal": end.signal, "reason": end.reason},
        "update": source.update,
    }


def from_json(values: Mapping[str, Any]) -> LaunchCause:
    """Read what `as_json` wrote, in this release or in an earlier one. Raises KeyError, TypeError or
    ValueError for anything else.
    """
    read = dict(values)
    return LaunchCause(**{**read, "sources": tuple(map(_source_from_json, read.get("sources", ())))})


def _source_from_json(values: Mapping[str, Any]) -> CauseSource:
    read = dict(values)
    end = read.get("exit")
    size = read.get("update_bytes") or size_of(read.get("update"))
    return CauseSource(**{**read, "exit": None if end is None else SourceExit(**end), "update_bytes": size})
