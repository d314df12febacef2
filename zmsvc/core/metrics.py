"""The metrics of contexts, made of the answers of their supervisors to `status` with `usage`. Pure;
core/exposition.py writes them as text.

Labels are `context`, `task` (the ID), and `service` (the instance; `instance` is a label of Prometheus
itself). The series of a task add up all its open transactions, because a transaction in the labels would make
new series for each run. A supervisor of an earlier release sends no usage and no totals: then those series
are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zmsvc.core.exposition import Family, Kind, Sample
from zmsvc.core.frozen import frozen
from zmsvc.core.lifecycle import State
from zmsvc.core.totals import Total

Json = Mapping[str, Any]
Epoch = Callable[[str], float | None]
"""A function that converts an RFC 3339 time to seconds of the epoch; None if it is not a valid one."""

OPEN = frozenset({"active", "activating", "deactivating", "failed", "reloading"})
"""States of an open transaction."""
CAUSES = ("operator", "context", "bus", "rule")
"""The causes of launches. The series of each exists from the beginning, so that the first launch is an
increase.
"""
HOST_STATES = ("joined", "silent", "lost", "not-joined", "drained")
"""The words of `status` about another host."""
COMMON_REASONS = ("exit-code", "signal")
"""The reasons of failures that have a series from the beginning; others get theirs with the first failure."""
_MOST = 2.0**63
"""A larger value is taken as 0, so that a sum of many values fits into a float."""


@frozen
class Definition:
    """A family without its samples."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


def _gauge(name: str, labels: str, text: str) -> Definition:
    return Definition(name=name, kind=Kind.GAUGE, labels=tuple(labels.split()), help=text)


def _counter(name: str, labels: str, text: str) -> Definition:
    return Definition(name=name, kind=Kind.COUNTER, labels=tuple(labels.split()), help=text)


_TASK = "context task service"
_TRANSACTION = "transaction"

DEFINITIONS = (
    _gauge("zmsvc_up", "context", "1 if the supervisor of the context has answered, else 0."),
    _gauge("zmsvc_build_info", "version", "1; the version of zmsvcctl, which has collected this."),
    _gauge("zmsvc_collected_timestamp_seconds", "", "Unix time at which this was collected."),
    _gauge("zmsvc_task_state", f"{_TASK} state", "1 for each state that the task is in, else 0."),
    _counter(
        "zmsvc_task_launches_total", f"{_TASK} cause", "Launches, by cause: operator, context, bus or rule."
    ),
    _counter("zmsvc_task_restarts_total", _TASK, "Starts by a rule after a failure of the task itself."),
    _counter("zmsvc_task_failures_total", f"{_TASK} reason", "Failures, by reason."),
    _gauge(
        "zmsvc_task_active_since_timestamp_seconds",
        _TASK,
        "Unix time since which the task is active, of its newest start.",
    ),
    _gauge(
        "zmsvc_task_last_exit_code",
        _TASK,
        "Exit code of the last end; missing if a signal has ended the task.",
    ),
    _counter(
        "zmsvc_task_cpu_seconds_total",
        _TASK,
        "CPU seconds of the processes of the task and of the children that they have waited for.",
    ),
    _gauge("zmsvc_task_resident_memory_bytes", _TASK, "Resident memory of the main process."),
    _counter(
        "zmsvc_rule_firings_total",
        "context task trigger action call condition",
        "Firings of a rule of the task that were not refused.",
    ),
    _gauge(
        "zmsvc_host_state",
        "context host state",
        "1 for each state that another host of the context is in, else 0: joined, silent, lost, not-joined "
        "or drained.",
    ),
    _gauge("zmsvc_host_tasks", "context host", "Tasks that run on another host of the context, or may."),
    _counter(
        "zmsvc_host_dropped_facts_total",
        "context host",
        "Results and notifications of tasks that another host has dropped while it was not connected.",
    ),
    _counter(
        "zmsvc_supervisor_restarts_total", "context", "Starts of a supervisor that took over running tasks."
    ),
    _counter("zmsvc_state_write_errors_total", "context", "Failed attempts to write the state file."),
)
"""All families, in the order of the output. zmsvcctl(1) lists them; a test compares both."""


@frozen
class Asked:
    """One context: the answer of its supervisor, or None if it gave none."""

    name: str
    status: Json | None
    transaction: str | None = None
    """The transaction to which the series of tasks are restricted. They then have it as a label. The counters
    of events count all transactions, and are left out.
    """


Samples = dict[str, dict[tuple[str, ...], float]]
"""The values by family and labels, in the order of `Definition.labels`."""


def families(contexts: Iterable[Asked], *, version: str, now: float, epoch: Epoch) -> list[Family]:
    """Return all metrics. `now` is in seconds of the epoch."""
    found: Samples = {each.name: {} for each in DEFINITIONS}
    found["zmsvc_build_info"][version,] = 1
    found["zmsvc_collected_timestamp_seconds"][()] = now
    named: tuple[str, ...] = ()
    for context in contexts:
        found["zmsvc_up"][context.name,] = float(context.status is not None)
        if context.status is None:
            continue
        named = () if context.transaction is None else (_TRANSACTION,)
        view = _View(context, context.status, epoch)
        _tasks(found, view)
        _hosts(found, view)
        if context.transaction is None and isinstance(context.status.get("totals"), list):
            _totals(found, view)
    return [_family(each, found[each.name], named) for each in DEFINITIONS]


def _family(
    definition: Definition, values: Mapping[tuple[str, ...], float], named: tuple[str, ...]
) -> Family:
    samples = []
    for labels, value in values.items():
        # The label of a named transaction comes after the others of a task.
        names = (*definition.labels, *(named if len(labels) > len(definition.labels) else ()))
        samples.append(Sample(labels=dict(zip(names, labels, strict=True)), value=value))
    return Family(name=definition.name, kind=definition.kind, help=definition.help, samples=tuple(samples))


class _View:
    """One context as its supervisor answered. `tasks` has the entries of each task in all transactions, and
    `current` those in the open ones, or in the named one.
    """

    def __init__(self, context: Asked, status: Json, epoch: Epoch) -> None:
        self.name, self.status, self._epoch = context.name, status, epoch
        self.suffix = () if context.transaction is None else (context.transaction,)
        self.tasks: dict[str, list[Json]] = {}
        self.current: dict[str, list[Json]] = {}
        for transaction in _objects(status.get("transactions")):
            named = transaction.get("id") == context.transaction
            if context.transaction is not None and not named:
                continue
            for task in _objects(transaction.get("tasks")):
                name = _text(task.get("id"))
                self.tasks.setdefault(name, []).append(task)
                if named or transaction.get("state") in OPEN:
                    self.current.setdefault(name, []).append(task)

    def time(self, value: object) -> float | None:
        return self._epoch(value) if isinstance(value, str) else None

    def labels(self, task: str) -> tuple[str, str, str]:
        entries = self.tasks.get(task)
        return self.name, task, _text(entries[-1].get("instance")) if entries else ""


def _tasks(found: Samples, view: _View) -> None:
    """Add the gauges of tasks."""
    for name, entries in view.tasks.items():
        labels, current = view.labels(name), view.current.get(name, ())
        states = {_text(task.get("state")) for task in current} or {State.INACTIVE.value}
        for state in State:
            found["zmsvc_task_state"][*labels, state.value, *view.suffix] = float(state.value in states)
        since = [view.time(task.get("since")) for task in current if task.get("state") == State.ACTIVE]
        if known := [at for at in since if at is not None]:
            found["zmsvc_task_active_since_timestamp_seconds"][*labels, *view.suffix] = max(known)
        code = _last_exit_code(view, entries)
        if code is not None:
            found["zmsvc_task_last_exit_code"][*labels, *view.suffix] = code
        if usages := _usages(entries):
            sizes = [_number(usage.get("memory_bytes")) for usage in usages]
            found["zmsvc_task_resident_memory_bytes"][*labels, *view.suffix] = sum(sizes)


def _hosts(found: Samples, view: _View) -> None:
    """Add the gauges of other hosts."""
    for each in _objects(view.status.get("hosts")):
        name = _text(each.get("name"))
        states = {_text(each.get("state")), *(("drained",) if each.get("drained") is True else ())}
        for state in HOST_STATES:
            found["zmsvc_host_state"][view.name, name, state] = float(state in states)
        found["zmsvc_host_tasks"][view.name, name] = _number(each.get("tasks"))
        found["zmsvc_host_dropped_facts_total"][view.name, name] = _number(each.get("dropped"))


def _usages(entries: Iterable[Json]) -> list[Json]:
    return [task["usage"] for task in entries if isinstance(task.get("usage"), dict)]


def _last_exit_code(view: _View, entries: Sequence[Json]) -> float | None:
    ends = [task["exit"] for task in entries if isinstance(task.get("exit"), dict)]
    last = max(ends, key=lambda end: view.time(end.get("at")) or 0.0, default=None)
    code = None if last is None else last.get("code")
    return _number(code) if isinstance(code, int) else None


def _totals(found: Samples, view: _View) -> None:
    """Add the counters, those of tasks with a series from the beginning."""
    for name in view.tasks:
        labels = view.labels(name)
        for cause in CAUSES:
            found["zmsvc_task_launches_total"][*labels, cause] = 0
        for reason in COMMON_REASONS:
            found["zmsvc_task_failures_total"][*labels, reason] = 0
        found["zmsvc_task_restarts_total"][labels] = 0
    for each in _objects(view.status.get("rules")):
        found["zmsvc_rule_firings_total"][view.name, _text(each.get("task")), *_rule(each.get("rule"))] = 0
    for name in ("zmsvc_supervisor_restarts_total", "zmsvc_state_write_errors_total"):
        found[name][view.name,] = 0
    used = {
        name: sum(_number(usage.get("cpu_seconds")) for usage in usages)
        for name, entries in view.tasks.items()
        if (usages := _usages(entries))
    }
    for each in _objects(view.status.get("totals")):
        task, detail, value = _text(each.get("task")), _text(each.get("detail")), _number(each.get("value"))
        match each.get("total"):
            case Total.LAUNCHES:
                found["zmsvc_task_launches_total"][*view.labels(task), detail] = value
            case Total.RESTARTS:
                found["zmsvc_task_restarts_total"][view.labels(task)] = value
            case Total.FAILURES:
                found["zmsvc_task_failures_total"][*view.labels(task), detail] = value
            case Total.FIRINGS:
                found["zmsvc_rule_firings_total"][view.name, task, *_rule(detail)] = value
            case Total.CPU:
                used[task] = used.get(task, 0.0) + value
            case Total.SUPERVISOR_RESTARTS:
                found["zmsvc_supervisor_restarts_total"][view.name,] = value
            case Total.WRITE_ERRORS:
                found["zmsvc_state_write_errors_total"][view.name,] = value
    for task, seconds in used.items():
        found["zmsvc_task_cpu_seconds_total"][view.labels(task)] = seconds


def _rule(text: object) -> tuple[str, str, str, str]:
    """Return trigger, action, call and condition of a rule such as `on_fail:restart:ts_1 when watchdog`."""
    name, _, condition = _text(text).partition(" ")
    trigger, _, rest = name.partition(":")
    action, _, call = rest.partition(":")
    return trigger, action, call, condition


def _objects(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float:
    # JSON has integers that are too large for a float.
    return float(value) if isinstance(value, int | float) and -_MOST <= value <= _MOST else 0.0
