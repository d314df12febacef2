"""The chain of causes of a task's present state, newest first: its end, the rule or the order behind it, the
task that fired the rule, and so on to an operator, the start of the context, or the bus. It is made of the
world and the history. Pure.

The texts name no user and no time: the reader converts `uid` and `at`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from zmsvc.core.cause import NO_CAUSE, CauseSource, LaunchCause, from_json
from zmsvc.core.frozen import frozen
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.model import TRIGGERS_OF_ENDS
from zmsvc.core.ordering import unmet
from zmsvc.core.replicas import base, is_named
from zmsvc.core.task_key import Key
from zmsvc.core.world import Reason, Task, World

FIRST, LAST = 9, 2
"""The number of links that are shown of a longer chain: at its beginning and at its end."""
_ENDS = ("failed", "stopped", "lost")
_STOPPING_ACTIONS = ("stop", "restart")
_OF_A_STOP = ("stop-after", "stopping", "stopped")
_BEFORE_A_STOP = ("launching", "started", "back-off", "start-after", "failed", "lost")


@frozen
class Row:
    """One row of the history. `at` is in seconds of the epoch."""

    at: float
    transaction: str
    task: str
    event: str
    detail: Mapping[str, Any]


@frozen
class Link:
    """One step of the chain. `event` is a word of the history, or `omitted` for links that are left out."""

    event: str
    text: str
    at: float | None = None
    task: str = ""
    launch: int = 0
    pid: int | None = None
    host: str = ""
    """The other host on which the launch was; empty: that of the context."""
    rule: str = ""
    by: str = ""
    """The origin of an order: operator, bus, context or signal. The chain ends there."""
    uid: int | None = None
    exit: Mapping[str, Any] | None = None
    update: Mapping[str, Any] | None = None


@frozen
class Chain:
    """The links, newest first. `complete` is False if the history did not reach back to the first cause."""

    links: tuple[Link, ...]
    complete: bool


class History:
    """The rows of one transaction and those without any, and an index of its launches."""

    def __init__(self, rows: Sequence[Row], transaction: str) -> None:
        self.rows = [row for row in rows if row.transaction in ("", transaction)]
        self._launches: dict[tuple[str, str, int], Row] = {}
        for row in self.rows:
            launch = row.detail.get("launch")
            if isinstance(launch, int) and row.task:
                self._launches[row.event, row.task, launch] = row

    def of_launch(self, task: str, launch: int, *events: str) -> Row | None:
        return next((row for event in events if (row := self._launches.get((event, task, launch)))), None)

    def last(self, task: str, *events: str) -> Row | None:
        """Return the newest row of a task with one of these events."""
        return next((row for row in reversed(self.rows) if row.task == task and row.event in events), None)

    def order(self, tasks: Collection[str], verbs: Sequence[str], until: float | None = None) -> Row | None:
        """Return the newest order that names one of the tasks, or names none and so means all."""
        for row in reversed(self.rows):
            if row.event != "requested" or row.detail.get("verb") not in verbs:
                continue
            if until is not None and row.at > until:
                continue
            named = row.detail.get("tasks") or ()
            if not named or any(is_named(task, named) for task in tasks):
                return row
        return None


def chain(world: World, key: Key, history: History) -> Chain:
    """Return the chain of causes of the present state of a task."""
    walk = _Walk(world, key[0], history)
    links = tuple(walk.from_state(key[1]))
    if len(links) > FIRST + LAST + 1:
        number = len(links) - FIRST - LAST
        gap = Link(event="omitted", text=f"{number} more steps of this kind")
        links = (*links[:FIRST], gap, *links[-LAST:])
    return Chain(links=links, complete=walk.complete)


class _Walk:
    """A walk from the present state of a task back to the first cause."""

    def __init__(self, world: World, transaction: str, history: History) -> None:
        self.world = world
        self.transaction = transaction
        self.history = history
        self.complete = True
        self._seen: set[tuple[str, int]] = set()

    def _task(self, name: str) -> Task | None:
        return self.world.tasks.get((self.transaction, name))

    def from_state(self, name: str) -> Iterator[Link]:
        task = self._task(name)
        if task is None:
            return
        if task.sub_state in (SubState.STOPPED, SubState.EXITED, SubState.FAILED):
            yield from self._ended(name, task)
        elif task.sub_state is SubState.WAITING:
            yield from self._waiting(name, task)
        elif task.state is State.DEACTIVATING:
            yield from self._stopping(name, task)
        elif task.sub_state in (SubState.BACK_OFF, SubState.START_AFTER, SubState.UNPLACED):
            yield from self._pending(name, task)
        else:
            yield from self._launch(name, task.launch, ready=task.state is State.ACTIVE)

    # --- the present state

    def _pending(self, name: str, task: Task) -> Iterator[Link]:
        event = task.sub_state.value
        row = self.history.last(name, event)
        text = f"{name} waits for its next start"
        if task.sub_state is SubState.START_AFTER:
            others = ", ".join(map(str, row.detail.get("waits_for") or ())) if row else ""
            text = f"the start of {name} waits for {others or 'other tasks'}"
        elif task.sub_state is SubState.UNPLACED:
            text = f"{name} {row.detail.get('message') if row else 'waits for a host'}"
        elif row is not None:
            text = f"{name} starts again {row.detail.get('delay')} s after this"
        yield Link(event=event, text=text, at=row.at if row else None, task=name)
        yield from self._cause(name, task.cause, row.at if row else None)

    def _waiting(self, name: str, task: Task) -> Iterator[Link]:
        """A task that has not been started in this run, or could not be because of another one."""
        if task.status and (row := self.history.last(name, "dependency")) is not None:
            yield Link(event="dependency", text=f"{name} was {task.status}", at=row.at, task=name)
            missing = unmet(self.world, (self.transaction, name))
            if missing is not None and missing != name:
                yield from self.from_state(missing)
        elif task.launch and task.exit is not None:
            # The keeper has died, and with it the process of the last run.
            yield from self._ended(name, task)

    def _ended(self, name: str, task: Task) -> Iterator[Link]:
        row = self.history.of_launch(name, task.launch, *_ENDS) if task.launch else None
        limit = task.exit is not None and task.exit.reason is Reason.START_LIMIT
        last = self.history.last(name, *_ENDS)
        if last is not None and (row is None or (limit and last.detail.get("reason") == "start-limit")):
            yield self._end_link(name, last.detail, last.at, 0)
        elif last is None and row is None:
            yield self._end_of(name, task)
        if row is not None:
            yield self._end_link(name, row.detail, row.at, task.launch)
        end_at = row.at if row else (last.at if last else None)
        if task.exit is not None and task.exit.reason is Reason.REQUESTED:
            yield from self._stop_cause(name, end_at)
        elif task.sub_state is SubState.STOPPED and row is None:
            # The start was canceled before there was a process.
            yield from self._stop_cause(name, end_at)
        elif task.launch:
            yield from self._cause_of_end(name, task.launch, row)

    def _cause_of_end(self, name: str, launch: int, end: Row | None) -> Iterator[Link]:
        """Yield the order of the signal that ended a launch. Without one, yield the causes of the launch."""
        order = self._order_of_signal(name, launch, end)
        if order is None:
            yield from self._launch(name, launch, ready=False)
        else:
            yield _signal_link(order, name)

    def _order_of_signal(self, name: str, launch: int, end: Row | None) -> Row | None:
        start = self.history.of_launch(name, launch, "launching")
        if end is None or not end.detail.get("signal"):
            return None
        for row in reversed(self.history.rows):
            if row.at > end.at or row.task != name:
                continue
            if start is not None and row.at < start.at:
                break
            is_sent = row.event == "signaled" and row.detail.get("signal") == end.detail.get("signal")
            if is_sent and (start is not None or row.detail.get("pid") == end.detail.get("pid")):
                return row
        return None

    def _end_of(self, name: str, task: Task) -> Link:
        """The end of a task whose row the history has lost: the world has the exit without its time."""
        end = task.exit
        detail = {
            "reason": end.reason.value if end else "",
            "exit_code": end.code if end else None,
            "signal": end.signal if end else None,
            "message": task.status,
        }
        self.complete = False
        return self._end_link(name, detail, None, task.launch)

    def _end_link(self, name: str, detail: Mapping[str, Any], at: float | None, launch: int) -> Link:
        reason = str(detail.get("reason") or "lost")
        return Link(
            event="failed" if reason not in ("exited", "requested") else "stopped",
            text=f"{name} {end_text(detail)}",
            at=at,
            task=name,
            launch=launch,
            pid=detail.get("pid") if isinstance(detail.get("pid"), int) else None,
            host=_host(detail),
            exit={"code": detail.get("exit_code"), "signal": detail.get("signal"), "reason": reason},
            update=self._update(name, launch),
        )

    def _update(self, name: str, launch: int) -> Mapping[str, Any] | None:
        task = self._task(name)
        return task.update if task is not None and launch and task.launch == launch else None

    def _stopping(self, name: str, task: Task) -> Iterator[Link]:
        row = self.history.last(name, "stopping", "stop-after")
        reason = task.stop_reason
        if reason in (None, Reason.REQUESTED):
            yield Link(
                event="stopping", text=f"{name} was asked to stop", at=row.at if row else None, task=name
            )
            yield from self._stop_cause(name, None)
            return
        text = f"{name} is being stopped: {stop_text(str(reason))}"
        yield Link(event="stopping", text=text, at=row.at if row else None, task=name, launch=task.launch)
        yield from self._launch(name, task.launch, ready=False)

    # --- the cause of a stop

    def _stop_cause(self, name: str, until: float | None) -> Iterator[Link]:
        """Yield the order, rule or failure action that stopped a task. The records of one decision have the
        same time.
        """
        asked = self._asked_at(name, until)
        found = [row for row in self.history.rows if row.at == asked and self._stops(row, name)]
        if not found:
            self.complete = False
            return
        yield from self._from_stopping_row(name, found[-1])

    def _asked_at(self, name: str, until: float | None) -> float | None:
        """Return the time at which the task was asked to stop, which is earlier than its end."""
        asked = until
        for row in reversed(self.history.rows):
            if row.task != name or (until is not None and row.at > until):
                continue
            if row.event in _BEFORE_A_STOP:
                break
            if row.event in _OF_A_STOP:
                asked = row.at
        return asked

    def _stops(self, row: Row, name: str) -> bool:
        if row.event == "rule":
            words = str(row.detail.get("rule")).split(":", 2)
            return row.task == name and len(words) == 3 and words[1] in _STOPPING_ACTIONS
        if row.event == "requested":
            named = row.detail.get("tasks") or ()
            stops = row.detail.get("verb") in ("stop", "restart", "exit", "kill")
            return stops and (not named or name in named or self._is_required(name, named))
        if row.event == "reloaded":
            changed = (*_names(row.detail.get("removed")), *_names(row.detail.get("changed")))
            return name in changed or base(name) in changed
        return row.event == "failure-action"

    def _is_required(self, name: str, named: Sequence[str]) -> bool:
        """Return True if the task requires one of these, directly or not: it is stopped together with it."""
        return any(name in self._requirers(other) for other in named)

    def _requirers(self, name: str) -> set[str]:
        """Return the tasks that require this one, directly or not, and itself."""
        todo, found = [name], {name}
        while todo:
            new = {*self.world.context.requirers.get(todo.pop(), ())} - found
            found |= new
            todo += new
        return found

    def _from_stopping_row(self, name: str, row: Row) -> Iterator[Link]:
        if row.event == "requested":
            yield order_link(row, name)
        elif row.event == "reloaded":
            yield Link(event="reloaded", text=f"a reload of the context file stopped {name}", at=row.at)
        elif row.event == "failure-action":
            action = row.detail.get("action")
            text = f"the failure_action {action} of {row.task} stopped {_what(action)}"
            yield Link(event="failure-action", text=text, at=row.at, task=row.task)
            if row.task != name:
                yield from self.from_state(row.task)
        else:
            source, launch = str(row.detail.get("source")), row.detail.get("launch")
            yield self._rule_link(str(row.detail.get("rule")), source, row.at)
            yield from self._transition(source, launch if isinstance(launch, int) else 0, row)

    # --- the cause of a start

    def _launch(self, name: str, launch: int, *, ready: bool) -> Iterator[Link]:
        """The start of a launch and all that led to it."""
        if (name, launch) in self._seen:
            return
        self._seen.add((name, launch))
        row = self.history.of_launch(name, launch, "launching")
        started = self.history.of_launch(name, launch, "started") if ready else None
        shown = started or row
        task = self._task(name)
        current = task is not None and task.launch == launch
        host = _host(shown.detail) if shown else task.host if current and task else ""
        text = (f"{name} became ready" if started else f"{name} was started") + (
            f" on {host}" if host else ""
        )
        yield Link(
            event="started" if started else "launching",
            text=text,
            at=shown.at if shown else None,
            task=name,
            launch=launch,
            pid=task.pid if current and task else None,
            host=host,
            update=self._update(name, launch) if ready else None,
        )
        cause = self._cause_of(row) if row else task.cause if current and task else None
        if cause is None:
            self.complete = False
            return
        yield from self._cause(name, cause, row.at if row else None)

    def _cause_of(self, row: Row) -> LaunchCause | None:
        """Return the cause in a row. The history may be of another release."""
        values = row.detail.get("cause")
        try:
            return from_json(values) if isinstance(values, Mapping) else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def _cause(self, name: str, cause: LaunchCause, at: float | None) -> Iterator[Link]:
        if cause == NO_CAUSE:
            self.complete = False
            return
        if not cause.by_rule:
            yield self._origin(name, cause, at)
            return
        if not cause.sources:
            self.complete = False
            return
        source = cause.sources[-1]
        yield self._rule_link(source.rule, source.task, at, others=len(cause.sources) - 1)
        yield from self._transition(source.task, source.launch, None, source)

    def _origin(self, name: str, cause: LaunchCause, at: float | None) -> Link:
        if cause.by == "context":
            reload = self._reload_before(name, at)
            text = f"a reload of the context file started {name}"
            if reload is None:
                text = "the start of the context started its entry tasks"
            return Link(event="context", text=text, at=at, by="context")
        # An order starts the tasks that the named ones require as well.
        row = self.history.order(self._requirers(name), ("start", "restart"), at)
        drain = self._drain_before(name, at)
        if drain is not None and (row is None or drain.at > row.at):
            return _ordered("drained", drain, "operator", f"drain of {drain.detail.get('host')}")
        if row is not None:
            return order_link(row, name)
        who = "a message on the bus" if cause.by == "bus" else "an operator"
        return Link(event="requested", text=f"{who} ordered it", at=at, by=cause.by, uid=cause.uid)

    def _drain_before(self, name: str, at: float | None) -> Row | None:
        """Return the drain that moved a task: the last one of the host of its launch before this one."""
        drain: Row | None = None
        for row in reversed(self.history.rows):
            if at is not None and row.at > at:
                continue
            if row.event == "drained" and drain is None:
                drain = row
            elif row.event == "launching" and row.task == name and row.at != at:
                return drain if drain is not None and _host(row.detail) == _host(drain.detail) else None
        return None

    def _reload_before(self, name: str, at: float | None) -> Row | None:
        """Return the last reload up to this time that added or changed the task, if it came after the
        previous launch of the task.
        """
        for row in reversed(self.history.rows):
            if at is not None and row.at > at:
                continue
            if row.event == "launching" and row.task == name and row.at != at:
                return None
            changed = (*_names(row.detail.get("added")), *_names(row.detail.get("changed")))
            if row.event == "reloaded" and (name in changed or base(name) in changed):
                return row
        return None

    def _rule_link(self, rule: str, source: str, at: float | None, others: int = 0) -> Link:
        more = f" (and {others} more firings)" if others else ""
        return Link(
            event="rule", text=f"the rule {rule} of {source} fired{more}", at=at, task=source, rule=rule
        )

    def _transition(
        self, source: str, launch: int, rule: Row | None, known: CauseSource | None = None
    ) -> Iterator[Link]:
        """The transition of a task that fired a rule, and the causes of that launch."""
        trigger = known.trigger if known else str(rule.detail.get("rule") if rule else "").partition(":")[0]
        if trigger in TRIGGERS_OF_ENDS:
            row = self.history.of_launch(source, launch, *_ENDS)
            end = known.exit if known else None
            detail: Mapping[str, Any] = {}
            if row is not None:
                detail = row.detail
            elif end is not None:
                detail = {"reason": end.reason, "exit_code": end.code, "signal": end.signal}
            link = self._end_link(source, detail, row.at if row else None, launch)
            update = known.update if known else link.update
            yield Link(**{**_fields(link), "update": update})
            if detail.get("reason") == "requested" and (row is not None):
                yield from self._stop_cause(source, row.at)
                return
            yield from self._cause_of_end(source, launch, row)
            return
        elif trigger == "on_update":
            text = f"{source} reported an update"
            update = known.update if known else self._update(source, launch)
            yield Link(event="updated", text=text, task=source, launch=launch, update=update)
        yield from self._launch(source, launch, ready=trigger in ("on_start", "on_recover"))


def order_link(row: Row, name: str) -> Link:
    """Return the link of an order, at which a chain ends."""
    by, verb = str(row.detail.get("by") or "operator"), str(row.detail.get("verb"))
    what = {"exit": "the end of the context", "kill": "the end of the context by force"}.get(verb)
    if what is None:
        named = _names(row.detail.get("tasks"))
        tasks = name if is_named(name, named) else ", ".join(named[:3]) + (" and others" if named[3:] else "")
        what = f"{verb} of {tasks if named else f'the transaction {row.transaction}'}"
    return _ordered("requested", row, by, what.removeprefix("the "))


def _signal_link(row: Row, name: str) -> Link:
    by = str(row.detail.get("by") or "operator")
    return _ordered("signaled", row, by, f"signal {row.detail.get('signal')} for {name}")


def _ordered(event: str, row: Row, by: str, what: str) -> Link:
    who = {"bus": "a message on the bus", "signal": "a signal", "context": "the context"}
    uid = row.detail.get("uid")
    return Link(
        event=event,
        text=f"{who.get(by, 'an operator')} ordered the {what}",
        at=row.at,
        by=by,
        uid=uid if isinstance(uid, int) else None,
    )


def end_text(detail: Mapping[str, Any]) -> str:
    """Return the end of a task in words, as a sentence without its subject."""
    reason, code, name = detail.get("reason") or "lost", detail.get("exit_code"), detail.get("signal")
    if reason == Reason.REQUESTED.value and name == "SIGKILL":
        return "was killed, because it had not ended within its stop_timeout"
    how = f" ({name})" if name else f" (status {code})" if code is not None else ""
    text = {
        Reason.EXITED.value: f"ended by itself with status {code or 0}",
        Reason.REQUESTED.value: f"was stopped{how}",
        Reason.EXIT_CODE.value: f"failed with exit status {code}",
        Reason.SIGNAL.value: f"was ended by the signal {name}",
        Reason.OOM_KILL.value: f"was killed because memory ran out{how}",
        Reason.NOT_READY.value: (
            f"was not ready in time and was stopped{how}" if name else "ended before it was ready"
        ),
        Reason.CANNOT_LAUNCH.value: "could not be started",
        Reason.START_LIMIT.value: "reached its start limit",
        Reason.LOST.value: "was lost: its process ended when the keeper of the context had died",
    }.get(str(reason))
    if reason == Reason.LOST.value and _host(detail):
        text = f"was lost on {_host(detail)}"
    if text is None:
        text = f"was stopped: {stop_text(str(reason))}{how}"
    message = str(detail.get("message") or "")
    return f"{text}: {message}" if message and message not in text else text


def stop_text(reason: str) -> str:
    """Return the reason of a stop without an order, in words."""
    return {
        Reason.WATCHDOG.value: "it sent no WATCHDOG=1 within its watchdog interval",
        Reason.UNHEALTHY.value: "its <health> probe failed too often in a row",
        Reason.SILENT.value: "it published nothing for longer than its <expect> allows",
        Reason.MEMORY_LIMIT.value: "it used more memory than its memory_restart",
        Reason.NOT_READY.value: "it was not ready within its start_timeout",
    }.get(reason, reason)


def _host(detail: Mapping[str, Any]) -> str:
    host = detail.get("host")
    return host if isinstance(host, str) else ""


def _what(action: object) -> str:
    return "the context" if action == "exit" else "its transaction"


def _names(value: object) -> tuple[str, ...]:
    """Return task IDs of a list in a record. Another release may have another form."""
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def _fields(link: Link) -> dict[str, Any]:
    return {each.name: getattr(link, each.name) for each in fields(link)}
