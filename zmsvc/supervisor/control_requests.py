"""The verbs of the control socket: a method for each. An order becomes a fact; a question is answered from
the current world.
"""

from __future__ import annotations

import asyncio
import logging
import operator
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from zmsvc.core import checks, transitions, why
from zmsvc.core import facts as ft
from zmsvc.core import reload as core_reload
from zmsvc.core.access import Verb
from zmsvc.core.cause import rule_text
from zmsvc.core.cause_chain import Row
from zmsvc.core.errors import ConfigError, ZmsvcError, reason
from zmsvc.core.facts import Origin, Requested
from zmsvc.core.model import Context
from zmsvc.core.replicas import is_named
from zmsvc.core.service_options import ServiceType
from zmsvc.core.similar import similar_id
from zmsvc.core.world import World
from zmsvc.host import quarantine
from zmsvc.host.bus import bus_permissions
from zmsvc.host.config import context_files, separate_reader
from zmsvc.host.kernel import signals
from zmsvc.host.systemd import journal
from zmsvc.protocol import PROTOCOL_AUXILIARY, PROTOCOL_SIGNALS_ALL
from zmsvc.protocol.supervision import Reexec, RestartDevice, SignalTask
from zmsvc.supervisor import installed_version, status_report
from zmsvc.supervisor.control import Answer, Verbs, Write, failure, success
from zmsvc.supervisor.loop import Loop
from zmsvc.supervisor.usage_gauge import UsageGauge

FOLLOW = 1000
"""The number of history rows that are read at once."""
WHY_ROWS = (1000, 8000)
"""The numbers of history rows in which `why` looks for causes: at first, and if those do not reach back to
the first cause. 8,000 rows take 60 ms.
"""
WAITED_FOR = ("active", "inactive", "failed")
"""The states for which a client can wait. A task in any other state is on the way to one of them."""
DEVICE_PATIENCE = 10.0
"""Seconds in which the device has to end and the next one has to become ready. After SIGTERM from the keeper,
the device ends itself within 2 s.
"""

log = logging.getLogger(__name__)


class Requests:
    """The verbs of one supervisor. `about` is the part of `status` about the supervisor itself: its keeper,
    versions, number of restarts and cgroup.
    """

    def __init__(self, loop: Loop, about: Mapping[str, Any]) -> None:
        self._loop = loop
        self._about = about
        self._digest: tuple[Context, str] | None = None
        self._usage = UsageGauge()

    def table(self) -> Verbs:
        orders = {verb.value: self._order for verb in Verb if verb is not Verb.RELOAD}
        return {
            **orders,
            "status": self._status,
            "events": self._events,
            "why": self._why,
            "stack": self._stack,
            "wait": self._wait,
            "quarantine": self._quarantine,
            "quarantine-drop": self._drop_quarantined,
            "signal": self._signal,
            "reload-tasks": self._reload_tasks,
            "drain": self._drain,
            "undrain": self._drain,
            "reload": self._reload,
            "reload-dry-run": self._plan_reload,
            "reexec": self._reexec,
            "restart-device": self._restart_device,
        }

    async def _order(self, request: Mapping[str, Any], uid: int, _write: Write) -> Answer:
        number = self._loop.next_request()
        asked = Requested(
            verb=Verb(request["verb"]),
            origin=Origin(by="operator", uid=uid),
            request=number,
            transaction=request.get("transaction"),
            tasks=tuple(dict.fromkeys(request.get("tasks") or ())),
            block=bool(request.get("block", True)),
            triggers=bool(request.get("triggers", True)),
            new=bool(request.get("new", False)),
            home=bool(request.get("home", False)),
        )
        return await self._answered(asked, asked.verb.word, request.get("timeout"))

    async def _signal(self, request: Mapping[str, Any], uid: int, _write: Write) -> Answer:
        """Send a signal to tasks. The name of the signal is read here and not in the core, because it depends
        on the machine.
        """
        every = bool(request.get("all", False))
        try:
            name = signals.name(str(request.get("signal") or ""))
        except ValueError as error:
            return failure(2, f"cannot signal: {error}")
        if unknown := self._unknown_to_keeper(name, every):
            return self._too_old_keeper("signal", unknown)
        asked = Requested(
            verb=Verb.SIGNAL,
            origin=Origin(by="operator", uid=uid),
            request=self._loop.next_request(),
            transaction=request.get("transaction"),
            tasks=tuple(dict.fromkeys(request.get("tasks") or ())),
            signal=name,
            all=every,
        )
        return await self._answered(asked, asked.verb.word, None)

    async def _reload_tasks(self, request: Mapping[str, Any], uid: int, write: Write) -> Answer:
        """Have tasks reload. No keeper gets an order that it does not know."""
        context = self._loop.world.context
        for name in request.get("tasks") or ():
            for task in map(context.tasks.__getitem__, context.named(str(name))):
                unknown = task.signal_to_reload and self._unknown_to_keeper(task.signal_to_reload, False)
                if task.reload_command and self._loop.children.protocol < PROTOCOL_AUXILIARY:
                    unknown = "<reload_command>"
                if unknown:
                    return self._too_old_keeper("reload", unknown)
        return await self._order(request, uid, write)

    async def _drain(self, request: Mapping[str, Any], uid: int, _write: Write) -> Answer:
        """Move all tasks away from a host, or let tasks run there again."""
        host, verb = request.get("host"), str(request["verb"])
        if not isinstance(host, str) or not host:
            return failure(2, f"cannot {verb}: expected the name of a host")
        asked = ft.DrainRequested(
            host=host,
            drained=verb == "drain",
            origin=Origin(by="operator", uid=uid),
            request=self._loop.next_request(),
            block=bool(request.get("block", True)),
        )
        return await self._answered(asked, verb, request.get("timeout"))

    def _too_old_keeper(self, verb: str, unknown: str) -> Answer:
        return failure(
            1,
            f"cannot {verb}: the keeper (zmsvc {self._about['keeper_version'] or '1.0'}) does not know "
            f"{unknown}; a restart of the context renews it",
        )

    def _unknown_to_keeper(self, name: str, every: bool) -> str:
        """Return the part of an order to signal that the keeper does not know, since it is of an earlier
        release; empty if it knows all.
        """
        if not self._loop.children.knows_signal(name):
            return name
        return "--all" if every and self._loop.children.protocol < PROTOCOL_SIGNALS_ALL else ""

    async def _answered(
        self, asked: Requested | ft.ContextReloaded | ft.DrainRequested, word: str, seconds: Any
    ) -> Answer:
        """Queue an order and wait for its reply, for at most `seconds` if that is a number above 0. `word` is
        the order in messages.
        """
        limit = _limit(seconds)
        try:
            async with asyncio.timeout(limit):
                reply = await self._loop.ask(asked)
        except TimeoutError:
            return failure(
                124, f"cannot say that {word} is done: it takes longer than {limit:g} s, and goes on"
            )
        return {"ok": reply.ok, "code": reply.code, "error": reply.error, "data": dict(reply.data)}

    async def _status(self, request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """Answer the state; with `usage` also what each task uses of the machine, the rules, and the totals
        of the context.
        """
        loop, wanted = self._loop, bool(request.get("usage"))
        measured = await self._usage.measure(loop.world) if wanted else None
        # Nothing below awaits, so all values are of one moment.
        world = loop.world
        transaction, tasks = request.get("transaction"), tuple(request.get("tasks") or ())
        if unknown := _unknown(world, transaction, tasks):
            return failure(4, f"cannot show {unknown}")
        device = loop.children.device
        endpoints = world.context.endpoints
        return success(
            {
                "name": world.context.name,
                "id": world.context.id,
                "pid": os.getpid(),
                **self._about,
                "zygote_version": loop.children.zygote_version,
                "device_pid": device.pid,
                "device_restarts": device.restarts,
                "state": status_report.context_state(world).value,
                "frontend": endpoints.subscribe_endpoint,
                "backend": endpoints.publish_endpoint,
                "curve": loop.curve is not None,
                "file": world.context.path,
                "file_digest": self._file_digest(),
                "log": "journal" if loop.log_target == "journal" else str(loop.places.log_file),
                "unsaved": loop.unsaved,
                "hosts": status_report.hosts(world, {} if loop.hosts is None else loop.hosts.dropped()),
                "dropped": self._dropped(),
                "transactions": status_report.transactions(
                    world,
                    transaction,
                    tasks,
                    self._about["cgroup"],
                    loop.children.store.number,
                    None if measured is None else self._usage.of_tasks(world, measured),
                ),
                **({} if measured is None else self._figures()),
            }
        )

    def _figures(self) -> dict[str, Any]:
        """Return the rules of the context, and its totals."""
        return {
            "rules": [
                {"task": task, "rule": rule_text(rule)}
                for task, rule in transitions.rules_of_tasks(self._loop.world.context)
            ],
            "totals": [
                {"total": total, "task": task, "detail": detail, "value": value}
                for (total, task, detail), value in sorted(self._loop.totals().items())
            ],
        }

    def _file_digest(self) -> str:
        """Return the digest of the files that are in effect. zmsvcctl compares it with the files. The
        supervisor itself does not, because their disk may not answer.
        """
        context = self._loop.world.context
        if self._digest is None or self._digest[0] is not context:
            self._digest = context, context_files.digest(context.text, context.parts)
        return self._digest[1]

    def _dropped(self) -> dict[str, Any]:
        loop = self._loop
        return {
            "updates": sum(task.dropped for task in loop.world.tasks.values()),
            "notifications": loop.children.refused.count,
            "descriptors": loop.children.store.refused.count,
            "messages_in": loop.bus.refused.count if loop.bus else 0,
            "unheard_orders": loop.bus.unheard_orders if loop.bus else 0,
            "messages_out": loop.bus.dropped if loop.bus else 0,
            "subscriptions": loop.bus.forgotten if loop.bus else 0,
            "unrecorded_facts": loop.recorder.unrecorded if loop.recorder else 0,
            # The counters of the device, by reason.
            **loop.children.device.dropped,
        }

    async def _events(self, request: Mapping[str, Any], _uid: int, write: Write) -> Answer:
        """Send the history. With `follow`, go on with every new row until the client hangs up. Other clients
        and tasks have their turn after each FOLLOW rows, of which one may have 20 kB.
        """
        store, news = self._loop.store, asyncio.Event()
        since = request.get("since")
        limit = request.get("limit")
        limit = limit if isinstance(limit, int) and 0 <= limit <= 100_000 else FOLLOW
        wanted: dict[str, Any] = {
            "transaction": request.get("transaction"),
            "tasks": tuple(request.get("tasks") or ()),
            "kinds": tuple(map(str, request.get("events") or ())),
            "since": since if isinstance(since, int | float) else None,
        }
        last = store.before_last(limit, **wanted)
        self._loop.on_history.append(news.set)
        try:
            while True:
                while rows := store.events(after=last, limit=FOLLOW, first=True, **wanted):
                    for row in rows:
                        last = row["seq"]
                        data = {**row, "at": status_report.rfc3339(row["at"])}
                        await write({"ok": True, "more": True, "data": data})
                    await asyncio.sleep(0)
                if not request.get("follow"):
                    return success({})
                await news.wait()
                news.clear()
        finally:
            self._loop.on_history.remove(news.set)

    async def _why(self, request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """Explain the states of tasks. More of the history is read if the newest part does not reach back to
        their first causes.
        """
        world, transaction = self._loop.world, request.get("transaction")
        tasks = tuple(dict.fromkeys(request.get("tasks") or ()))
        if not tasks:
            return failure(2, "cannot explain: expected at least one task")
        if unknown := _unknown(world, transaction, tasks):
            return failure(4, f"cannot explain {unknown}")
        told = []
        for key in why.keys_of(world, transaction, tasks):
            for limit in WHY_ROWS:
                clock = why.TimeFormat(
                    now=time.monotonic(), wall=status_report.rfc3339, monotonic=status_report.as_wall_clock
                )
                explained = why.explain(world, key, self._history(key[0], limit), clock)
                if explained["complete"]:
                    break
                await asyncio.sleep(0)
            told.append(explained)
        return success({"name": world.context.name, "tasks": told})

    async def _stack(self, request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """Have running tasks write the stacks of their threads to their logs. The client reads them there."""
        world, transaction = self._loop.world, request.get("transaction")
        tasks = tuple(dict.fromkeys(request.get("tasks") or ()))
        if unknown := _unknown(world, transaction, tasks):
            return failure(4, f"cannot show the stacks of {unknown}")
        running = [
            (key, task)
            for key in why.keys_of(world, transaction, tasks)
            if (task := world.tasks[key]).live and task.pid is not None
        ]
        for name in tasks:
            if not any(is_named(key[1], (name,)) for key, _ in running):
                return failure(1, f"cannot show the stacks of {name}: it does not run")
        for key, task in running:
            if task.host:
                return failure(
                    1, f"cannot show the stacks of {key[1]}: it runs on {task.host}, and so its log is"
                )
            if problem := self._why_no_stacks(key[1], task.pid):
                return failure(1, f"cannot show the stacks of {key[1]}: {problem}")
        for _, task in running:
            self._loop.children.tell(SignalTask(launch=task.launch, signal=signals.STACKS))
        told = [{"id": key[1], "transaction": key[0], "pid": task.pid} for key, task in running]
        return success({"tasks": told, "at": time.time()})

    def _why_no_stacks(self, name: str, pid: int | None) -> str:
        service = self._loop.world.context.tasks.get(name)
        if service is not None and service.service_type is ServiceType.THREAD:
            return "it shares its process, and so its log, with other tasks"
        if pid is None or not self._loop.writes_stacks(pid):
            return "it is not a Python task that has begun to run, or an earlier zmsvc has started it"
        return ""

    def _history(self, transaction: str, limit: int) -> list[Row]:
        """Return the last rows of a transaction, together with those that belong to no transaction."""
        rows = [
            row
            for name in ("", transaction)
            for row in self._loop.store.events(limit=limit, transaction=name)
        ]
        return [
            Row(**{each.name: row[each.name] for each in fields(Row)})
            for row in sorted(rows, key=operator.itemgetter("seq"))
        ]

    async def _wait(self, request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """Answer when all tasks are in the state that the client waits for, or its time has passed."""
        transaction, wanted = request.get("transaction"), request.get("for")
        tasks = tuple(dict.fromkeys(request.get("tasks") or ()))
        if not tasks or wanted not in WAITED_FOR:
            states = ", ".join(WAITED_FOR)
            return failure(2, f"cannot wait: expected at least one task, and one state of {states}")
        limit = _limit(request.get("timeout"))
        others: list[str] = []
        changes = asyncio.Event()
        self._loop.on_change.append(changes.set)
        try:
            async with asyncio.timeout(limit):
                while True:
                    world = self._loop.world
                    # A reload may remove a task, and an operator may forget the transaction.
                    if unknown := _unknown(world, transaction, tasks):
                        return failure(4, f"cannot wait for {unknown}")
                    others = status_report.others_than(world, transaction, tasks, wanted)
                    if not others:
                        about = {"task": tasks[0]} if len(tasks) == 1 else {"tasks": list(tasks)}
                        return success({"transaction": transaction, **about, "state": wanted})
                    await changes.wait()
                    changes.clear()
        except TimeoutError:
            return failure(124, f"timed out: {'; '.join(others)} after {limit:g} s, not {wanted}")
        finally:
            self._loop.on_change.remove(changes.set)

    async def _quarantine(self, request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """List the messages in the quarantine, or show the one with `number`."""
        store, number = self._loop.store, request.get("number")
        if number is None:
            tasks = tuple(request.get("tasks") or ())
            found = store.quarantined(transaction=request.get("transaction"), tasks=tasks)
            return success({**found, "messages": list(map(_with_time, found["messages"]))})
        if not quarantine.is_number(number):
            return failure(2, "cannot show a message: its number is not a number")
        message = store.quarantined_message(number)
        if message is None:
            return failure(4, f"cannot show message {number}: it is not in the quarantine")
        return success(_with_time(message))

    async def _drop_quarantined(self, request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        numbers = request.get("numbers")
        if numbers is not None and not (
            isinstance(numbers, list) and all(map(quarantine.is_number, numbers))
        ):
            return failure(2, "cannot drop messages: their numbers are not a list of numbers")
        try:
            gone = self._loop.store.drop_quarantined(numbers)
        except OSError as error:
            return failure(1, f"cannot drop messages: {error}")
        missing = sorted({*(numbers or ())}.difference(gone))
        if missing:
            named = ", ".join(map(str, missing))
            return failure(4, f"cannot drop message {named}: not in the quarantine", dropped=gone)
        return success({"dropped": gone})

    async def _reload(self, request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        return await self.reload(block=bool(request.get("block", True)), seconds=request.get("timeout"))

    async def reload(self, *, block: bool = True, seconds: Any = None) -> Answer:
        """Read the context file again and change what differs. A bad file changes nothing.

        For systemd the reload is over when the file has been read, because tasks may take as long as their
        limits allow.
        """
        loop = self._loop
        loop.notifier.reloading()
        try:
            context = self._read_again()
            # Do this before the change: a new task may start at once, as a user who could not connect to the
            # bus so far.
            bus_permissions.write(loop.places.members_file, context)
            loop.granted, problems = bus_permissions.open_sockets(loop.places, context)
            for warning in self._new_warnings(context):
                log.warning("%s", warning)
            for problem in problems:
                log.warning("%s: %s", context.path, problem)
        except OSError as error:
            # Status 2 means that the context file is bad. Its author is not at fault for errors of other
            # files.
            own = str(error.filename or loop.places.config_file) == str(loop.places.config_file)
            return failure(2 if own else 1, f"cannot reload: cannot read {reason(error)}")
        except ConfigError as error:
            return failure(2, f"cannot reload: {'; '.join(error.faults)}", faults=error.faults)
        except ZmsvcError as error:
            return failure(1, f"cannot reload: {error}")
        finally:
            loop.notifier.ready()
        asked = ft.ContextReloaded(context=context, request=loop.next_request(), block=block)
        return await self._answered(asked, Verb.RELOAD.word, seconds)

    async def _plan_reload(self, _request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """Answer what a reload would do, and change nothing."""
        loop = self._loop
        try:
            context = self._read_again()
        except OSError as error:
            return failure(2, f"cannot reload: cannot read {reason(error)}")
        except ConfigError as error:
            return failure(2, f"cannot reload: {'; '.join(error.faults)}", faults=error.faults)
        except ZmsvcError as error:
            return failure(1, f"cannot reload: {error}")
        refusal, plan = core_reload.plan(loop.world, context, asyncio.get_running_loop().time())
        return failure(1, f"cannot reload: {refusal}") if refusal else success(plan)

    def _read_again(self) -> Context:
        """Read the context file and the files of its directory. Raises OSError, ConfigError, ZmsvcError."""
        places = self._loop.places
        files = context_files.read(places.config_file)
        return separate_reader.parse(files, path=places.config_file, name=places.name)

    async def reload_by_signal(self) -> None:
        """Reload because of SIGHUP. The log file is reopened first, so an administrator who has moved it
        finds the outcome in the new file.
        """
        journal.reopen()
        answer = await self.reload()
        if answer["ok"]:
            log.info("Reloaded: %s", answer["data"])
        else:
            log.error("%s", answer["error"])

    def _new_warnings(self, context: Context) -> list[str]:
        """Return those warnings of a context file that the file in effect does not have."""
        curve = self._loop.curve is not None
        before = set(checks.logged_warnings(self._loop.world.context, curve=curve))
        return [warning for warning in checks.logged_warnings(context, curve=curve) if warning not in before]

    async def _restart_device(self, _request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """Restart the device in order to end all connections to the bus, for example that of a client whose
        key was revoked. Clients that may connect do so again by themselves.
        """
        children, news = self._loop.children, asyncio.Event()
        before = children.device.restarts
        children.on_device.append(news.set)
        try:
            children.tell(RestartDevice())
            async with asyncio.timeout(DEVICE_PATIENCE):
                while not (children.device.restarts > before and children.device.ready):
                    await news.wait()
                    news.clear()
        except TimeoutError:
            why = (
                children.device.problem
                or f"the keeper (zmsvc {self._about['keeper_version'] or '1.0'}) does not say that it has"
            )
            return failure(
                1,
                f"cannot restart the device: {why} (a restart of the context does it: zmsvcctl exit, then "
                f"start it again)",
            )
        finally:
            children.on_device.remove(news.set)
        return success({"pid": children.device.pid})

    async def _reexec(self, _request: Mapping[str, Any], _uid: int, _write: Write) -> Answer:
        """Make room for a new supervisor, for example after an upgrade. The answer goes out first, since this
        process cannot send it later.
        """
        try:
            version = await installed_version.check(self._about["protocol"], self._about["keeper_version"])
        except (OSError, ZmsvcError) as error:
            return failure(1, f"cannot reexec: {error}. This supervisor goes on")
        self._loop.children.tell(Reexec())
        asyncio.get_running_loop().call_later(0.05, self._loop.over.set)
        return success({"version": version})


def _with_time(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**message, "at": status_report.rfc3339(message["at"])}


def _limit(seconds: Any) -> float | None:
    """Return the time limit of a request in seconds; None if it has none, or one that is too large for a
    clock.
    """
    # JSON has integers that are too large for a float.
    known = isinstance(seconds, int | float) and 0 < seconds <= sys.float_info.max
    return float(seconds) if known else None


def _unknown(world: World, transaction: str | None, tasks: tuple[str, ...]) -> str:
    """Return the reason why a transaction or a task is unknown; empty if all are known."""
    if transaction is not None and transaction not in world.transactions:
        return f"{transaction}: no such transaction{similar_id(transaction, world.transactions)}"
    for task in tasks:
        if not world.context.named(task) and not any(is_named(key[1], (task,)) for key in world.tasks):
            place = world.context.path or world.context.name
            return f"{task}: no such task in {place}{similar_id(task, world.context.tasks)}"
    return ""
