"""The loop that carries out the decisions of the core: take facts, call `step`, save, perform. It decides
nothing itself.

A turn takes all waiting facts, saves once, performs the effects, and acknowledges last. After a crash at any
line either the sender repeats the fact, or the state file has the decision and the next supervisor carries it
out.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, assert_never

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.carried import Carried
from zmsvc.core.effects import Effect
from zmsvc.core.engine import step
from zmsvc.core.facts import Fact, Requested
from zmsvc.core.service_options import NotifyAccess
from zmsvc.core.task_key import Key
from zmsvc.core.totals import Total
from zmsvc.core.world import World
from zmsvc.host import crashpoint, ids, quarantine
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.kernel import signals
from zmsvc.host.paths import Places
from zmsvc.host.state_file import StateFile, TotalKey
from zmsvc.host.systemd import journal
from zmsvc.host.systemd.queued_notifier import QueuedNotifier
from zmsvc.keeper_client.children import Children, children_and_ends
from zmsvc.keeper_client.remains import kill_remains
from zmsvc.protocol import (
    PROTOCOL_BARRIER,
    PROTOCOL_SIGNALS_OTHERS,
    PROTOCOL_SOCKETS,
    PROTOCOL_STORES,
    PROTOCOL_WATCHER,
    watching,
)
from zmsvc.protocol import supervision as sv
from zmsvc.supervisor import records
from zmsvc.supervisor.bus import ECHO, Bus
from zmsvc.supervisor.launch_spec import (
    NOT_IN_FILE,
    auxiliary_spec,
    cgroup_name,
    dropped_options,
    own_endpoints,
    socket_spec,
    spec_of,
)
from zmsvc.supervisor.unit_status import UnitNotifier, UnitStatus

if TYPE_CHECKING:
    from zmsvc.supervisor.fact_recorder import FactRecorder

SAVE_AGAIN = 1.0
"""Seconds until the next attempt to write the state file."""
STACKS_TIME = 0.25
"""Seconds that a task has to write the stacks of its threads before it is killed; 100 threads take 20 ms."""

LEAVING = "leaving"
"""The entry of the state file with the hosts that are drained only until their next keeper joins."""

log = logging.getLogger(__name__)


class OtherHosts(Protocol):
    """The part of the supervisor that has the connections to other hosts: hosts.py."""

    def perform(self, effect: fx.ProcessOrder | fx.Forget) -> None:
        """Order an effect of a task on another host."""

    def turn_ended(self, *, saved: bool) -> None:
        """Confirm the facts that this turn has acted on."""

    def dropped(self) -> Mapping[str, int]:
        """Return the number of facts that each of them has dropped."""

    def close(self, linger: int = 0) -> None:
        """Hear nothing more of them. Orders on their way have `linger` milliseconds."""


class Loop:
    """The main loop of a supervisor. `over` is set when the supervisor has to leave."""

    def __init__(
        self,
        world: World,
        store: StateFile,
        children: Children,
        places: Places,
        log_target: str,
        curve: Curve | None = None,
        notifier: UnitNotifier | None = None,
    ) -> None:
        self.world = world
        self.store = store
        self.children = children
        self.places = places
        self.log_target = log_target
        self.curve = curve
        self.bus: Bus | None = None
        self.granted: frozenset[int] = frozenset()
        """The users of tasks, other than the daemon's own, who can open the sockets of the bus."""
        self.notifier: UnitNotifier = notifier or QueuedNotifier()
        self._unit_status = UnitStatus(self.notifier)
        self.over = asyncio.Event()
        self.leaving: int | None = None
        """The exit status of the daemon, when everything has stopped; None before that."""
        self.start_notes: list[str] = []
        """Messages for the person who started the context."""
        self.unsaved = ""
        """The reason why the last write of the state file failed; empty if it succeeded."""
        self.recorder: FactRecorder | None = None
        self.hosts: OtherHosts | None = None
        """The other hosts; None if the context has none."""
        self.on_history: list[Callable[[], None]] = []
        self.on_change: list[Callable[[], None]] = []
        """Functions that are called at the end of each turn that has changed the world."""
        self._loop = asyncio.get_running_loop()
        self._facts: list[Fact] = []
        self._scheduled = False
        self._alarms: dict[Key, asyncio.TimerHandle] = {}
        self._replies: dict[int, asyncio.Future[fx.Reply]] = {}
        self._requests = itertools.count(1)
        self._unforgotten: list[int] = []
        self._records: list[fx.Record] = []
        self._quarantined: list[fx.Quarantine] = []
        """Poison messages that are not in the state file yet."""
        self._counts: Counter[TotalKey] = Counter()
        """Counts that are not in the state file yet."""
        self._due_timer: asyncio.TimerHandle | None = None
        children.context_mark, children.notify_policy = places.context_mark, self

    def admits_all(self, launch: int) -> bool:
        key = self.world.launches.get(launch)
        service = self.world.context.tasks.get(key[1]) if key is not None else None
        return service is not None and service.notify_access is NotifyAccess.ALL

    def store_of(self, launch: int) -> tuple[str, int]:
        key = self.world.launches.get(launch)
        service = self.world.context.tasks.get(key[1]) if key is not None else None
        if key is None or service is None:
            return f"launch {launch}", 0
        return cgroup_name(key), service.file_descriptor_store_max

    # --- other hosts

    def is_leaving(self, host: str) -> bool:
        return host in (self.store.meta(LEAVING) or "").split()

    def remember_leaving(self, host: str, *, leaving: bool) -> None:
        names = dict.fromkeys((self.store.meta(LEAVING) or "").split())
        names.pop(host, None)
        self.store.remember(LEAVING, " ".join([*names, *[host] * leaving]))

    # --- facts in

    def take(self, *facts: Fact) -> None:
        """Queue facts. The turn that takes them comes after all other events that are pending now."""
        self._facts.extend(facts)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def read_children(self) -> None:
        """Take the messages of the keeper and of tasks."""
        if self.over.is_set():
            # The next supervisor reads them.
            return
        self.take(*self.children.facts())
        if self._due_timer is None and (seconds := self.children.seconds_until_due()) is not None:
            self._due_timer = self._loop.call_later(seconds, self._read_due_ends)
        if self.children.lost:
            log.error(
                "The keeper is gone: the context ends (systemd restarts its unit; otherwise start it with "
                "zmsvcd %s)",
                self.places.name,
            )
            try:
                self._end_context()
            finally:
                self.over.set()

    def _read_due_ends(self) -> None:
        self._due_timer = None
        self.read_children()

    def _end_context(self) -> None:
        """Kill all processes of the context. The kernel kills the tasks with the keeper, but not the
        processes that they started.
        """
        sessions = {task.pid for task in self.world.tasks.values() if task.pid is not None and not task.host}
        kill_remains(self.children.outside, sessions, self.places, self._loop.time)

    async def ask(self, request: Requested | ft.ContextReloaded | ft.DrainRequested) -> fx.Reply:
        """Queue a request and wait for its reply."""
        assert request.request is not None
        future: asyncio.Future[fx.Reply] = self._loop.create_future()
        self._replies[request.request] = future
        self.take(request)
        try:
            return await future
        finally:
            del self._replies[request.request]

    def next_request(self) -> int:
        return next(self._requests)

    def order(self, request: Requested | ft.OrdersUnheard) -> None:
        """Queue an order from the bus, or the device's count of the orders that no supervisor received. No
        client waits for a reply.
        """
        if isinstance(request, Requested) and request.verb is Verb.START and request.transaction is None:
            request = replace(request, transaction=ids.transaction_id(), new=True)
        self.take(request)

    def device_hangs(self) -> None:
        """Have the keeper replace a device that has forwarded nothing for ECHO seconds."""
        device = self.children.device
        if device.pid is not None and device.ready:
            log.error(
                "The device hangs: it forwarded nothing for %g s, and the keeper replaces it",
                ECHO,
                extra={"journal": {"MESSAGE_ID": journal.MESSAGE_ID["device"]}},
            )
            self.children.tell(sv.ReplaceDevice(pid=device.pid))

    # --- the turn

    def _turn(self) -> None:
        self._scheduled = False
        if self.over.is_set():
            # This supervisor saves no more. The next one gets these facts again, from the keeper, tasks and
            # clients.
            return
        facts, self._facts = self._facts, []
        now, at, before = self._loop.time(), time.time(), self.world
        decided: list[tuple[Effect, ...]] = []
        try:
            for fact in facts:
                self.world, more = step(self.world, fact, now)
                decided.append(more)
        finally:
            if len(decided) < len(facts):
                # The engine has failed: the last of these facts shows why.
                self._record(before, facts[: len(decided) + 1], decided, now, at)
        effects = [effect for each in decided for effect in each]
        self._quarantined += [effect for effect in effects if isinstance(effect, fx.Quarantine)]
        for effect in effects:
            if isinstance(effect, fx.Count):
                self.count(effect.total, effect.task, effect.detail, effect.amount)
        effects = [effect for effect in effects if not isinstance(effect, fx.Count)]
        self._save([effect for effect in effects if isinstance(effect, fx.Record)])
        # Orders to the keeper go first, so processes start or end while the messages are published.
        for effect in sorted(effects, key=_rank):
            crashpoint.reached(type(effect).__name__)
            self._perform(effect)
        self._acknowledge()
        self._unit_status.turn(self.world, self.unsaved, effects)
        for call in self.on_change if self.world is not before else ():
            call()
        # This comes last, because a process starts or ends later for everything that is done before.
        self._record(before, facts, decided, now, at)

    def _record(
        self, before: World, facts: list[Fact], decided: list[tuple[Effect, ...]], now: float, at: float
    ) -> None:
        """Record a turn if the context file says so. A reload may begin or end that."""
        if not (before.context.record or self.world.context.record):
            return
        if self.recorder is None:
            # Imported here for start-up time: most contexts have no record.
            from zmsvc.supervisor import fact_recorder

            self.recorder = fact_recorder.recorder(self.places, self._loop.call_soon)
        if facts:
            self.recorder.turn(before, facts, decided, now, at)
        if not self.world.context.record:
            self.close_record()

    def close_record(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
        self.recorder = None

    def _save(self, records: list[fx.Record]) -> None:
        self._records += records
        if self.world is self.store.saved and not self._records and not self._counts:
            return
        crashpoint.reached("save")
        try:
            self.store.save(self.world, self._records, time.time(), self._quarantined, self._counts)
        except OSError as error:
            self._cannot_save(error)
            return
        if self.unsaved:
            log.warning(
                "The state file can be written again",
                extra={"journal": {"MESSAGE_ID": journal.MESSAGE_ID["context"]}},
            )
        self.unsaved, self._records, self._quarantined = "", [], []
        self._counts.clear()
        for call in self.on_history if records else ():
            call()

    def _cannot_save(self, error: OSError) -> None:
        """Go on without the state file, because a full disk must not keep the operator from stopping a task.
        Meanwhile no end is acknowledged.
        """
        if not self.unsaved:
            log.error(
                "%s; trying again every %g s, a crash now would lose what was decided since (free space, or "
                "make the file writable)",
                error,
                SAVE_AGAIN,
            )
            self._loop.call_later(SAVE_AGAIN, self._save_again)
        self.unsaved = str(error)
        self.count(Total.WRITE_ERRORS)
        self._quarantined = quarantine.bounded(self._quarantined)

    def count(self, total: Total, task: str = "", detail: str = "", amount: float = 1) -> None:
        """Add to a total. The next save writes it."""
        # Counter is typed for integers, and adds floating-point numbers as well.
        self._counts[total.value, task, detail] += amount  # type: ignore[assignment]

    def totals(self) -> dict[TotalKey, float]:
        """Return the totals, with what is not in the state file yet."""
        found = self.store.totals()
        for key, amount in self._counts.items():
            found[key] = found.get(key, 0.0) + amount
        return found

    def _save_again(self) -> None:
        if self.over.is_set():
            return
        # This is a turn without facts: save, then acknowledge.
        self._save([])
        if self.unsaved:
            self._loop.call_later(SAVE_AGAIN, self._save_again)
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Discard the datagrams of this turn and acknowledge its ends. After a failed save only the datagrams
        are discarded: a full queue would block every task, and their watchdogs would kill them. The keeper
        keeps an end until it is in the state file, which costs nothing.
        """
        crashpoint.reached("discard datagrams")
        self.children.discard_peeked()
        if self.hosts is not None and self.world.hands_over:
            # The next supervisor acts on what they say, and repeats the orders.
            self.hosts.close()
            self.hosts = None
        # Facts that wait for the next turn may be among those that another host has sent.
        if self.hosts is not None and not self._facts:
            self.hosts.turn_ended(saved=not self.unsaved)
        if self.unsaved:
            return
        for launch in self._unforgotten:
            crashpoint.reached("acknowledge end")
            self.children.forget(launch)
        self._unforgotten = []

    # --- orders out

    def _kill(self, effect: fx.KillAll) -> None:
        """Kill a task, after it has had the time to write its stacks. If this supervisor dies meanwhile, the
        next one repeats the order.
        """
        task = self.world.tasks.get(effect.key)
        pid = task.pid if task is not None and effect.stacks and not task.host else None
        if pid is None or not self.writes_stacks(pid):
            self._kill_now(effect.launch)
            return
        self.children.tell(sv.SignalTask(launch=effect.launch, signal=signals.STACKS))
        self._loop.call_later(STACKS_TIME, self._kill_now, effect.launch)

    def writes_stacks(self, pid: int) -> bool:
        """Return True if a process writes the stacks of its threads when it gets the signal for that. It may
        be of an earlier release, and so may the keeper.
        """
        return self.children.knows_signal(signals.STACKS) and signals.catches(pid, signals.STACKS)

    def _kill_now(self, launch: int) -> None:
        self.children.tell(sv.KillTask(launch=launch))

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, fx.ProcessOrder | fx.Forget) and effect.host:
            if self.hosts is not None:
                self.hosts.perform(effect)
            return
        match effect:
            case fx.Launch():
                self._launch(effect)
            case fx.LaunchAuxiliary():
                self._launch_auxiliary(effect)
            case fx.Terminate():
                self.children.ask_to_end(effect.launch, effect.signal, effect.others)
            case fx.SendSignal():
                self.children.tell(sv.SignalTask(launch=effect.launch, signal=effect.signal, all=effect.all))
            case fx.SetMain():
                self.children.tell(
                    sv.SetMain(launch=effect.launch, pid=effect.pid, start_time=effect.start_time)
                )
            case fx.KillAll():
                self._kill(effect)
            case fx.OpenBarrier():
                if self.children.protocol >= PROTOCOL_BARRIER:
                    self.children.tell(sv.OpenBarrier(launches=effect.launches))
            case fx.HoldSockets():
                self._hold_sockets(effect)
            case fx.HoldStores():
                self._hold_stores(effect)
            case fx.KeepWatches():
                if self.children.protocol >= PROTOCOL_WATCHER:
                    self.children.tell(sv.KeepWatches(launches=tuple(effect.launches)))
            case fx.WatchTopics():
                self._watch_topics(effect)
            case fx.Forget():
                self._unforgotten.append(effect.launch)
            case fx.WakeAt():
                self._wake_at(effect)
            case fx.PublishControl() | fx.PublishProcess() | fx.PublishInfo():
                self._publish(effect)
            case fx.Record():
                records.write(effect)
            case fx.Quarantine() | fx.Count():
                pass  # It was saved with the world.
            case fx.Reply():
                self._reply(effect)
            case fx.Ready():
                self._unit_status.ready(self.world, effect.error, self.start_notes)
            case fx.Leave():
                self.leaving = effect.status
                self.over.set()
            case _:
                assert_never(effect)

    def _launch(self, effect: fx.Launch) -> None:
        task = self.world.tasks.get(effect.key)
        if task is None or task.launch != effect.launch or effect.key[1] not in self.world.context.tasks:
            self.take(ft.LaunchFailed(launch=effect.launch, why=NOT_IN_FILE))
            return
        dropped = dropped_options(self.world.context.tasks[effect.key[1]], self.children.protocol)
        if dropped:
            options = ", ".join(f"<{name}>" for name in dropped)
            why = f"the keeper of an earlier zmsvc does not know {options}: restart the context"
            self.take(ft.LaunchFailed(launch=effect.launch, why=why))
            return
        self.children.tell(
            spec_of(
                self.world,
                effect.key,
                self.places,
                self.log_target,
                self.granted,
                curve=self.curve is not None,
            )
        )

    def _launch_auxiliary(self, effect: fx.LaunchAuxiliary) -> None:
        task = self.world.tasks.get(effect.key)
        if task is None or task.launch != effect.of or effect.key[1] not in self.world.context.tasks:
            self.take(ft.LaunchFailed(launch=effect.launch, why="its task has ended meanwhile"))
            return
        spec = auxiliary_spec(self.world, effect, self.places, self.log_target, self.granted)
        if spec is None:
            self.take(ft.LaunchFailed(launch=effect.launch, why=NOT_IN_FILE))
        else:
            self.children.tell(spec)

    def _hold_sockets(self, effect: fx.HoldSockets) -> None:
        if self.children.protocol >= PROTOCOL_SOCKETS:
            listed = sorted(effect.sockets, key=lambda each: each.address)
            self.children.tell(sv.HoldSockets(sockets=tuple(map(socket_spec, listed))))

    def _hold_stores(self, effect: fx.HoldStores) -> None:
        if self.children.protocol >= PROTOCOL_STORES:
            limits = {cgroup_name(key): limit for key, limit in sorted(effect.stores)}
            self.children.tell(sv.HoldStores(limits=limits))

    def _watch_topics(self, effect: fx.WatchTopics) -> None:
        if self.children.protocol < PROTOCOL_WATCHER:
            return  # Under this keeper no task with such topics was launched, see `dropped_options`.
        transaction, task = effect.key
        self.children.tell(
            watching.WatchTopics(
                launch=effect.launch,
                transaction=transaction,
                task=task,
                endpoint=own_endpoints(self.world.context, self.places)[0],
                ready=effect.ready,
                has_process=effect.has_process,
                expect=tuple(each.as_json() for each in effect.expect),
            )
        )

    def _wake_at(self, effect: fx.WakeAt) -> None:
        alarm = self._alarms.pop(effect.key, None)
        if alarm is not None:
            alarm.cancel()
        if effect.when is not None:
            self._alarms[effect.key] = self._loop.call_at(effect.when, self._ring, effect.key)

    def _ring(self, key: Key) -> None:
        self._alarms.pop(key, None)
        self.take(ft.DeadlinePassed(key=key))

    def _publish(self, effect: fx.PublishControl | fx.PublishProcess | fx.PublishInfo) -> None:
        if self.bus is None:
            return
        match effect:
            case fx.PublishControl():
                self.bus.control(effect)
            case fx.PublishProcess():
                self.bus.process(effect)
            case fx.PublishInfo():
                self.bus.info(effect)

    def _reply(self, effect: fx.Reply) -> None:
        future = self._replies.get(effect.request)
        if future is not None and not future.done():
            future.set_result(effect)


def _rank(effect: Effect) -> int:
    """Return the place of an effect among those of a turn. Orders to hold sockets and stores come first,
    because a launch needs them, and so do orders to watch topics, because a launch may publish at once.
    """
    if isinstance(effect, fx.HoldSockets | fx.HoldStores | fx.KeepWatches | fx.WatchTopics):
        return 0
    orders = (
        fx.Launch
        | fx.LaunchAuxiliary
        | fx.Terminate
        | fx.SendSignal
        | fx.SetMain
        | fx.KillAll
        | fx.OpenBarrier
    )
    return 1 if isinstance(effect, orders) else 2


def facts_of_start(
    hello: sv.Hello,
    autostart: bool,
    transaction: str | None,
    notification_facts: Iterable[Fact],
    carried: Carried | None = None,
) -> Iterable[Fact]:
    """Yield the first facts of a new supervisor: the keeper's children, the messages that tasks have sent
    meanwhile, and every unacknowledged end. `carried` is what another host has written down.

    A task may have been forked, have sent messages and have ended while there was no supervisor, so the ends
    come last.
    """
    living, ends = children_and_ends(hello)
    yield ft.SupervisorStarted(
        keeper_id=hello.epoch,
        children=living,
        exits=frozenset(end.launch for end in ends),
        keeper_signals_others=hello.protocol >= PROTOCOL_SIGNALS_OTHERS,
        autostart=autostart,
        transaction=transaction,
        generated=ids.transaction_id(),
        carried=carried,
        generation=0 if carried is None else carried.generation,
    )
    for end in hello.ends:
        # The process has ended, so it needs no start time to identify it.
        yield ft.TaskLaunched(launch=end.launch, pid=end.pid, start_time=0)
    yield from notification_facts
    yield from ends
