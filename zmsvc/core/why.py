"""Explain the state of a task: the chain of causes that led to it, the reasons why it does not run, the rules
that would start it, and the commands that help. Pure; zmsvcctl shows it, and the supervisor or zmsvcctl reads
the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zmsvc.core.back_off import over_limit, recent_starts
from zmsvc.core.cause import rule_text
from zmsvc.core.cause_chain import History, Link, Row, chain, stop_text
from zmsvc.core.frozen import frozen
from zmsvc.core.host_choice import host_wait_text, obstacles
from zmsvc.core.hosts import HostState
from zmsvc.core.lifecycle import State, SubState
from zmsvc.core.model import Action, Rule, TaskDefinition, Trigger
from zmsvc.core.ordering import awaited_ends, awaited_starts, unmet
from zmsvc.core.probing import topic_of
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.replicas import is_named
from zmsvc.core.restart import fires_for
from zmsvc.core.rule_counts import counted
from zmsvc.core.service_options import Limits, ServiceType
from zmsvc.core.task_key import Key
from zmsvc.core.world import Exit, Reason, Task, World


@frozen
class TimeFormat:
    """Converts times to text. `wall` takes seconds of the epoch; `monotonic` returns None for a time of
    another boot.
    """

    now: float
    """Monotonic seconds."""
    wall: Callable[[float], str]
    monotonic: Callable[[float], str | None]


def keys_of(world: World, transaction: str | None, names: Sequence[str]) -> list[Key]:
    """Return the named tasks of a transaction. If none is named, those of the open ones; if none is open, of
    all.
    """
    opened = [name for name, each in world.transactions.items() if each.open] or [*world.transactions]
    chosen = opened if transaction is None else [transaction]
    return [key for key in world.tasks if key[0] in chosen and is_named(key[1], names)]


def explain(
    world: World, key: Key, rows: Sequence[Row], clock: TimeFormat, *, running: bool = True
) -> dict[str, Any]:
    """Return the explanation of a task as JSON values. `running` is False for a context that does not run,
    whose world is that of the state file.
    """
    task, history = world.tasks[key], History(rows, key[0])
    found = chain(world, key, history)
    case = _Case(world, key, history, clock, running)
    last = None if running or task.resting else f"{task.state.value} ({task.sub_state.value})"
    ended = next((link for link in found.links if link.event == "failed" or _is_killed(link)), None)
    about = ended or next((link for link in found.links if link.task), None)
    return {
        "transaction": key[0],
        "task": key[1],
        "state": "inactive" if last else task.state.value,
        "sub": "dead" if last else task.sub_state.value,
        "last": last,
        "pid": task.pid if running else None,
        "host": task.host or None if running else None,
        "since": None if last else clock.monotonic(task.since) if task.launch else None,
        "status": task.status,
        "reasons": [_reason_as_json(each, clock) for each in case.reasons()],
        "chain": [_link_as_json(each, clock) for each in found.links],
        "complete": found.complete,
        "rules": [] if task.state is State.ACTIVE and running else list(case.starting_rules()),
        "advice": list(case.advice(found.links)),
        "log": {
            "task": about.task,
            "until": None if ended is None or ended.at is None else clock.wall(ended.at),
            "stacks": ended is not None and _is_killed(ended) and case.is_python(ended.task),
        }
        if about
        else None,
    }


@frozen
class _Reason:
    """A reason why a task is in its state. `until` is monotonic."""

    kind: str
    text: str
    until: float | None = None
    task: str = ""
    at: float | None = None
    """The time of the order, in seconds of the epoch."""
    uid: int | None = None
    host: str = ""
    """The other host that the reason is about."""


def _reason_as_json(reason: _Reason, clock: TimeFormat) -> dict[str, Any]:
    return {
        "kind": reason.kind,
        "text": reason.text,
        "task": reason.task or None,
        "host": reason.host or None,
        "until": None if reason.until is None else clock.monotonic(reason.until),
        "at": None if reason.at is None else clock.wall(reason.at),
        "uid": reason.uid,
    }


def _link_as_json(link: Link, clock: TimeFormat) -> dict[str, Any]:
    return {
        "at": None if link.at is None else clock.wall(link.at),
        "event": link.event,
        "task": link.task or None,
        "text": link.text,
        "launch": link.launch or None,
        "pid": link.pid,
        "host": link.host or None,
        "rule": link.rule or None,
        "by": link.by or None,
        "uid": link.uid,
        "exit": link.exit,
        "update": link.update,
    }


class _Case:
    """One task with everything that is known about it."""

    def __init__(self, world: World, key: Key, history: History, clock: TimeFormat, running: bool) -> None:
        self.world = world
        self.key = key
        self.name = key[1]
        self.task = world.tasks[key]
        self.service = world.context.tasks.get(key[1])
        self.history = history
        self.clock = clock
        self.running = running
        self.transaction = world.transactions.get(key[0])

    def is_python(self, name: str) -> bool:
        service = self.world.context.tasks.get(name)
        return service is not None and service.service_type is not ServiceType.COMMAND

    # --- the reasons why it does not run

    def reasons(self) -> Iterator[_Reason]:
        if not self.running:
            yield self._context_down()
        yield from self._of_the_context()
        yield from self._of_the_host()
        if self.task.state is State.ACTIVE:
            if self.task.health_text:
                yield _Reason(kind="unhealthy", text=f"its probe has failed: {self.task.health_text}")
            return
        yield from self._of_orders()
        if self.running or self.task.resting:
            yield from self._of_the_state()
        yield from self._of_the_start_limit()
        resting = self.task.resting and not self.task.stopped_by_operator
        if resting and self.service and not self.service.entry and not any(self._rules()):
            text = "its <state> does not start it with its transaction, and no rule starts it"
            yield _Reason(kind="no-rule", text=text)

    def _context_down(self) -> _Reason:
        row = self.history.order((self.name,), ("exit",))
        ended = self.world.stopping and row is not None
        if ended and row is not None:
            by = {"signal": "a signal", "bus": "a message on the bus"}.get(
                str(row.detail.get("by")), "an operator"
            )
            uid = row.detail.get("uid")
            return _Reason(
                kind="context-down",
                text=f"the context does not run: {by} ended it",
                at=row.at,
                uid=uid if isinstance(uid, int) else None,
            )
        why = "it had no order to end, so its daemon was killed, or the machine went down"
        return _Reason(kind="context-down", text=f"the context does not run; {why}")

    def _of_the_context(self) -> Iterator[_Reason]:
        if self.running and self.world.stopping:
            yield _Reason(kind="context-stopping", text="the context is being stopped")
        if self.service is None:
            yield _Reason(kind="removed", text="the context file has this task no longer, since a reload")
        if self.transaction is not None and not self.transaction.open:
            yield self._closed()

    def _of_the_host(self) -> Iterator[_Reason]:
        """Yield the silence of the host of the task: what is known of the task is from before."""
        host = self.world.hosts.get(self.task.host)
        if self.running and host is not None and host.state is HostState.SILENT:
            text = (
                f"nothing is heard from its host {self.task.host}, where it may run on: nothing is decided "
                f"until the host joins again or is off for certain"
            )
            yield _Reason(kind="host-silent", text=text, host=self.task.host)

    def _closed(self) -> _Reason:
        for row in reversed(self.history.rows):
            stops = row.event == "requested" and row.detail.get("verb") == "stop"
            if stops and row.transaction == self.key[0] and not row.detail.get("tasks"):
                uid = row.detail.get("uid")
                who = "a message on the bus" if row.detail.get("by") == "bus" else "an operator"
                return _Reason(
                    kind="transaction-closed",
                    text=f"its transaction is stopped: {who} ordered it",
                    at=row.at,
                    uid=uid if isinstance(uid, int) else None,
                )
            if row.event == "failure-action" and row.detail.get("action") == "stop":
                text = f"its transaction is stopped: that is the failure_action of {row.task}"
                return _Reason(kind="transaction-closed", text=text, at=row.at, task=row.task)
        return _Reason(kind="transaction-closed", text="its transaction is stopped")

    def _of_orders(self) -> Iterator[_Reason]:
        if self.task.stopped_by_operator:
            row = self.history.order((self.name,), ("stop",))
            uid = row.detail.get("uid") if row else None
            yield _Reason(
                kind="held",
                text="an operator has stopped it, so no rule starts it until an operator does",
                at=row.at if row else None,
                uid=uid if isinstance(uid, int) else None,
            )
        if self.name in self.world.disabled:
            row = next(
                (row for row in reversed(self.history.rows) if (row.event, row.task) == _disabled(self.name)),
                None,
            )
            uid = row.detail.get("uid") if row else None
            yield _Reason(
                kind="disabled",
                text="it is disabled, so it does not start with its transaction",
                at=row.at if row else None,
                uid=uid if isinstance(uid, int) else None,
            )

    def _of_the_state(self) -> Iterator[_Reason]:
        task, limits = self.task, self._limits
        match task.sub_state:
            case SubState.BACK_OFF:
                why = f"after {task.failures} failures in a row" if task.failures > 1 else "after a failure"
                if task.quick_starts > task.failures:
                    why = "because rules start it too quickly"
                yield _Reason(kind="back-off", text=f"its next start waits, {why}", until=task.deadline)
            case SubState.START_AFTER:
                for name in awaited_starts(self.world, self.key):
                    other = self.world.tasks[self.key[0], name]
                    text = f"it starts after {name}, which is {_state(other)}"
                    yield _Reason(kind="after", text=text, task=name)
            case SubState.UNPLACED:
                host = next((name for name, _ in obstacles(self.world, self.key)), "")
                yield _Reason(kind="unplaced", text=f"it {host_wait_text(self.world, self.key)}", host=host)
            case SubState.STOP_AFTER:
                for name in awaited_ends(self.world, self.key):
                    yield _Reason(kind="stops-after", text=f"it stops after {name}", task=name)
            case SubState.LAUNCHING:
                yield _Reason(kind="launching", text="the keeper has the order to fork it")
            case SubState.START:
                within = f" within {limits.start_timeout:g} s" if task.deadline is not None else ""
                yield _Reason(
                    kind="not-ready-yet",
                    text=f"its process runs and {_has_to(self.world.context.tasks.get(self.key[1]))}{within}",
                    until=task.deadline,
                )
            case SubState.WAITING if task.status:
                missing = unmet(self.world, self.key)
                yield _Reason(kind="requires", text=task.status, task=missing or "")
            case SubState.STOP_SIGKILL | SubState.FINAL_SIGKILL if task.deadline is None:
                yield _Reason(kind="survivor", text=task.status)
            case _ if task.state is State.DEACTIVATING and task.stop_reason not in (None, Reason.REQUESTED):
                yield _Reason(
                    kind="stopping", text=f"it is being stopped: {stop_text(str(task.stop_reason))}"
                )
            case SubState.FAILED if task.exit is not None and task.exit.reason is Reason.CANNOT_LAUNCH:
                yield _Reason(kind="cannot-launch", text=f"it cannot be started: {task.status}")
            case _:
                pass

    def _of_the_start_limit(self) -> Iterator[_Reason]:
        limits = self._limits
        starts = sorted(recent_starts(self.task, limits, self.clock.now))
        if not (self.task.resting and self.running and over_limit(tuple(starts), limits)):
            return
        free = starts[len(starts) - limits.start_limit_burst] + limits.start_limit_interval
        text = (
            f"its start limit is reached: rules have started it {limits.start_limit_burst} times within "
            f"{limits.start_limit_interval:g} s"
        )
        yield _Reason(kind="start-limit", text=text, until=free)

    @property
    def _limits(self) -> Limits:
        return self.service.limits if self.service else Limits()

    # --- the rules that would start it

    def _rules(self) -> Iterator[tuple[str, Rule]]:
        """Yield the rules that start this task, each with the task that has it."""
        context = self.world.context
        if self.service is None:
            return
        for service in context.tasks.values():
            for rule in service.rules:
                if rule.call == self.name and rule.action is not Action.STOP:
                    yield service.id, rule
        for rule in context.on_any_fail:
            for name in context.named(rule.call):
                if name == self.name and rule.action is not Action.STOP:
                    yield "any other task", replace(rule, call=name)

    def starting_rules(self) -> Iterator[dict[str, Any]]:
        for source, rule in self._rules():
            other = self.world.tasks.get((self.key[0], source))
            yield {
                "source": source,
                "rule": rule_text(rule),
                "text": self._rule_text(source, rule, other),
                "counted": self._counted(rule, other),
                "of": rule.after.count if rule.after else None,
                "state": other.state.value if other else None,
                "sub": other.sub_state.value if other else None,
                "since": self.clock.monotonic(other.since) if other and other.launch else None,
            }

    def _rule_text(self, source: str, rule: Rule, other: Task | None) -> str:
        when = {
            Trigger.ON_START: "becomes ready",
            Trigger.ON_UPDATE: "reports an update",
            Trigger.ON_FAIL: "fails",
            Trigger.ON_EXIT: "ends well",
            Trigger.ON_RECOVER: "is ready again after a failure",
            Trigger.ON_ANY_FAIL: "fails",
        }[rule.trigger]
        who = "it" if source == self.name else source
        text = f"starts when {who} {when}"
        if rule.only is not None:
            text = f"{text} ({rule.only.value})"
        if rule.when:
            text = f"{text} ({' or '.join(map(str, rule.when))})"
        if other and other.exit and (rule.only or rule.when) and not fires_for(rule, other.exit):
            text = f"{text}, and its last end was another one ({_end_text(other.exit)})"
        if rule.after is not None:
            text = f"{text}, {rule.after.count} times within {rule.after.within:g} s"
            if (count := self._counted(rule, other)) is not None:
                text = f"{text}: {count} counted"
        return f"{text}; {source} is {_state(other)}" if other and source != self.name else text

    def _counted(self, rule: Rule, other: Task | None) -> int | None:
        """Return the number of events that a rule with an `after` has counted; None for any other rule. A
        rule of the context counts for each task; the highest number matters.
        """
        if rule.after is None or not self.running:
            return None
        of_all = [task for key, task in self.world.tasks.items() if key[0] == self.key[0]]
        tasks = of_all if rule.trigger is Trigger.ON_ANY_FAIL else [other] if other else []
        return max((len(counted(task, rule, self.clock.now)) for task in tasks), default=0)

    # --- what to do

    def advice(self, links: Sequence[Link]) -> Iterator[dict[str, str]]:
        """Yield the steps that help, with a command if there is one. The first one matters most."""
        ctl = f"zmsvcctl -c {self.world.context.name}"
        several = sum(each.open for each in self.world.transactions.values()) > 1
        chosen = f" --transaction {self.key[0]}" if several else ""
        kinds = {reason.kind: reason for reason in self.reasons()}
        if "context-down" in kinds:
            yield _step("start the context", f"zmsvcd --detach {self.world.context.name}")
            return
        if self.running and self.task.state is State.ACTIVE and "unhealthy" not in kinds:
            yield from self._of_hosts(kinds, ctl)
            return
        if "transaction-closed" in kinds:
            yield _step("start its transaction again", f"{ctl} start --transaction {self.key[0]}")
            return
        if "removed" in kinds:
            yield _step("put it into the context file again, then", f"{ctl} reload")
            return
        yield from self._mend(links, ctl)
        yield from self._of_hosts(kinds, ctl)
        if waited := next((each.task for each in kinds.values() if each.task), ""):
            yield _step(f"find out about {waited}", f"{ctl} why{chosen} {waited}")
        if "survivor" in kinds:
            yield _step("find what its process waits for in the kernel (a disk, a network file system)", "")
            return
        if "start-limit" in kinds:
            yield _step("forget its start limit", f"{ctl} reset-failed{chosen} {self.name}")
        if "disabled" in kinds:
            yield _step("let it start with its transaction again", f"{ctl} enable {self.name}")
        if self.task.resting or self.task.sub_state is SubState.BACK_OFF:
            at_once = " at once" if self.task.sub_state is SubState.BACK_OFF else ""
            yield _step(f"start it{at_once}", f"{ctl} start{chosen} {self.name}")

    def _of_hosts(self, kinds: Mapping[str, _Reason], ctl: str) -> Iterator[dict[str, str]]:
        """Yield the step against a host that is silent, or that keeps the task waiting."""
        if "host-silent" in kinds:
            host = kinds["host-silent"].host
            yield _step(
                f"if {host} is off and the cluster cannot make certain of it", f"pcs stonith confirm {host}"
            )
        elif "unplaced" in kinds:
            drained = [
                name
                for name, _ in obstacles(self.world, self.key)
                if name in self.world.hosts and self.world.hosts[name].drained
            ]
            for name in drained[:1]:
                yield _step(f"let tasks run on {name} again", f"{ctl} cluster undrain {name}")
            yield _step("see which hosts have joined", f"{ctl} status")

    def _mend(self, links: Sequence[Link], ctl: str) -> Iterator[dict[str, str]]:
        """Yield the step against the failure that the chain begins with."""
        name, reason, end = self._failure(links)
        signal = str((end.exit or {}).get("signal") or "") if end else ""
        if end is not None and [link.event for link in links[links.index(end) :][1:2]] == ["signaled"]:
            return  # The chain names who sent it.
        if reason is None or reason not in _MENDING:
            return
        text, command = _MENDING[reason]
        if reason is Reason.SIGNAL and signal not in _CORE_SIGNALS:
            text, command = "find who sent {signal} to {task}; it leaves no core dump", _LOGS
        file, pid, host = self.world.context.path or "FILE", end.pid if end else None, end.host if end else ""
        if host and reason is Reason.LOST:
            text, command = (
                "find what happened to {host}",
                "{ctl} events --event host-lost --event host-joined",
            )
        there = f"zmsvcctl -H {host} -c {self.world.context.name}" if host else ctl
        yield _step(
            text.format(task=name, host=host, signal=signal or "the signal"),
            command.format(ctl=ctl, there=there, task=name, file=file, pid=pid or "PID"),
        )

    def _failure(self, links: Sequence[Link]) -> tuple[str, Reason | None, Link | None]:
        """Return the task, the reason and the end of the failure to explain. If the task hit its start limit,
        that is the failure before it.
        """
        if self.task.state is State.DEACTIVATING:
            return self.name, self.task.stop_reason, None
        for link in links:
            if _is_killed(link):
                return link.task, Reason.WATCHDOG, link
            reason = str((link.exit or {}).get("reason") or "")
            if link.event == "failed" and reason != Reason.START_LIMIT.value:
                return link.task, next((each for each in Reason if each.value == reason), None), link
        return self.name, None, None


_CORE_SIGNALS = frozenset(
    f"SIG{each}" for each in ("ABRT", "BUS", "FPE", "ILL", "QUIT", "SEGV", "SYS", "TRAP", "XCPU", "XFSZ")
)
"""The signals that leave a core dump: see signal(7)."""
_LOGS = "{there} logs -n 50 {task}"
_MENDING: Mapping[Reason, tuple[str, str]] = {
    Reason.EXIT_CODE: ("find the cause in the log of {task}", _LOGS),
    Reason.SIGNAL: ("find who sent the signal, or the core dump of {task}", "coredumpctl info {pid}"),
    Reason.OOM_KILL: ("give {task} more memory (<memory_max>, RAM), or find its leak", "{ctl} top --once"),
    Reason.WATCHDOG: ("find where {task} hung: a Python task has written its stacks to its log", _LOGS),
    Reason.UNHEALTHY: ("find why the probe of {task} fails, or change its <health>", _LOGS),
    Reason.SILENT: ("find why {task} publishes nothing, or change its <expect>", _LOGS),
    Reason.MEMORY_LIMIT: ("find the leak of {task}, or raise its <memory_restart>", "{ctl} top --once"),
    Reason.NOT_READY: ("find why {task} is not ready, or raise its <start_timeout>", _LOGS),
    Reason.CANNOT_LAUNCH: (
        "mend what the reason names; this finds other faults of the file",
        "zmsvcctl check {file}",
    ),
    Reason.LOST: ("find what killed the daemon of the context", "{ctl} logs -n 50"),
}


def _step(text: str, command: str) -> dict[str, str]:
    return {"text": text, "command": command}


def _is_killed(link: Link) -> bool:
    """Return True for the end of a task that did not react: to its watchdog, or to the order to stop."""
    end = link.exit or {}
    killed = end.get("signal") == "SIGKILL" and end.get("reason") in _ASKED
    return killed or end.get("reason") == Reason.WATCHDOG.value


_ASKED = (Reason.REQUESTED, Reason.NOT_READY, Reason.UNHEALTHY, Reason.MEMORY_LIMIT)
"""The reasons of ends that a stop signal asks for."""


def _disabled(name: str) -> tuple[str, str]:
    return "disabled", name


def _has_to(service: TaskDefinition | None) -> str:
    """Return what a task that starts has to do to become ready."""
    if service is None or service.ready is None:
        return "has to report READY=1"
    if topic := topic_of(service.ready):
        return f"has to publish on {topic}"
    line = isinstance(service.ready, ReadyLine)
    return "has to write the line of its <ready>" if line else "the probe of its <ready> has to succeed"


def _end_text(end: Exit) -> str:
    detail = {Reason.EXIT_CODE: end.code, Reason.SIGNAL: end.signal}.get(end.reason)
    return end.reason.value if detail is None else f"{end.reason.value}:{detail}"


def _state(task: Task) -> str:
    return f"{task.state.value} ({task.sub_state.value})"
