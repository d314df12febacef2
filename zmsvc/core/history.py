"""The details of a history event: their names and types, and their text, which the log and `zmsvcctl events`
show: `reason=exited pid=12`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Detail(TypedDict, total=False):
    """The details that an event may have. `Draft.record` writes them, and no others. A reader takes any: the
    row may be of another release.
    """

    by: str
    """The origin of an order, as in `facts.Origin`, and its user."""
    uid: int | None
    verb: str
    tasks: list[str]
    signal: str | None
    """The signal of an order, or that of an end."""
    all: bool
    """True if the signal was for every process of the task."""
    command: list[str]
    """The reload_command that was executed."""
    action: str
    """The failure action of the task."""
    cause: Mapping[str, Any]
    """The cause of a launch, as `cause.summary` has it."""
    launch: int
    """The launch of the task; of a firing, that of the task with the rule."""
    pid: int | None
    reason: str
    exit_code: int | None
    ended: Sequence[Mapping[str, Any]]
    """The other processes of the launch, as `facts.leftover_as_json` has them."""
    ended_more: int
    """The number of processes that are not in `ended`, since there are more than 100."""
    for_good: bool
    """True if a failed task is not started again."""
    message: str
    """A text about the event, for example the status of a failed task."""
    why: str
    """The reason why a firing or an update had no effect."""
    rule: str
    source: str
    """The task with the rule that has fired."""
    firings: int
    """The number of firings, if not each of them is recorded."""
    delay: float
    failures: int
    quick_starts: int
    waits_for: list[str]
    name: str
    """The auxiliary process that has ended."""
    before: int | None
    """The earlier main process; of dropped updates, the number of those before."""
    orders: int
    """The number of orders that no supervisor received."""
    topic: str
    sender: str
    sequence: int | None
    number: int
    """The number of a message that the task could not handle."""
    host: str
    epoch: str
    added: list[str]
    """This and the next five are what a reload has found, see reload.py."""
    removed: list[str]
    changed: list[str]
    unchanged: list[str]
    in_place: list[str]
    context: list[str]


def fields(detail: Mapping[str, Any]) -> dict[str, str]:
    """Return the details as text, by name. Empty values and booleans that are false are left out. So is the
    cause, which has a form of its own.
    """
    return {
        name: _text(value)
        for name, value in detail.items()
        if name != "cause" and value is not False and value not in (None, "", [], (), {})
    }


def as_text(details: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in details.items())


def _text(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, Mapping):
        # An event of another release may contain more.
        return (
            _process(value)
            if "pid" in value
            else ":".join(f"{name}={_text(each)}" for name, each in value.items())
        )
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _process(entry: Mapping[str, Any]) -> str:
    """Return a process and the way it ended, as `redis(12):SIGTERM`."""
    code = entry.get("code")
    end = entry.get("signal") or ("" if code is None else code)
    return f"{entry.get('name')}({entry.get('pid')}){f':{end}' if end != '' else ''}"
