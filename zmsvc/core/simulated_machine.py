"""A simulated machine around the real `step`: keepers and processes of one context under a virtual clock. It
takes facts in turns and carries out the effects, as the loop of the supervisor does. Processes are ready or
end when the caller says so; `scenario.py` gives them durations. Other hosts have a keeper each. Pure.

The tests of the engine use it as well, and check each step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.carried import Carried
from zmsvc.core.effects import Effect
from zmsvc.core.engine import step
from zmsvc.core.facts import Fact
from zmsvc.core.listening import ListenSocket
from zmsvc.core.task_key import Key
from zmsvc.core.world import World, launches_of, load_of, starts_of

PID = 1000
"""The PID of a process is its launch ID plus this number."""


@dataclass
class Process:
    """The main process of a launch."""

    launch: int
    key: Key
    left: int = 0
    """The number of other processes that it leaves behind when it ends."""
    signals: list[str] = field(default_factory=list)
    executed: bool = False
    line_seen: bool = False
    auxiliary_of: int = 0
    """The launch of its task, if it is an auxiliary process."""


@dataclass
class SimulatedKeeper:
    """A keeper as a supervisor sees it."""

    keeper_id: str = "keeper-1"
    alive: dict[int, Process] = field(default_factory=dict)
    ends: dict[int, ft.TaskExited] = field(default_factory=dict)
    rest: dict[int, int] = field(default_factory=dict)
    """The number of processes that are left after their main process, by launch."""
    killed: dict[int, tuple[ft.Leftover, ...]] = field(default_factory=dict)
    """The launches of which no process is left. They are reported again to a supervisor that orders again to
    kill the leftovers.
    """
    forked: list[tuple[int, Key]] = field(default_factory=list)
    auxiliaries: set[int] = field(default_factory=set)
    """The launch IDs in `forked` that belong to auxiliary processes."""
    out: deque[Fact] = field(default_factory=deque)
    broken: bool = False
    """True if it cannot fork."""
    sockets: frozenset[ListenSocket] = frozenset()
    """The sockets of tasks that it was last ordered to hold."""
    stores: frozenset[tuple[Key, int]] = frozenset()
    """The descriptor stores that it was last ordered to hold."""
    watches: dict[int, fx.WatchTopics] = field(default_factory=dict)
    """The topics that it was ordered to have watched, by launch."""
    opened: set[int] = field(default_factory=set)
    """The launches whose barrier it was ordered to open."""

    def launch(self, launch: int, key: Key, auxiliary_of: int = 0) -> None:
        held = self.alive.get(launch)
        if held is not None or launch in self.ends:
            self.out.append(ft.TaskLaunched(launch=launch, pid=PID + launch, start_time=launch))
            if launch in self.ends:
                self.out.append(self.ends[launch])
            return
        assert launch not in [number for number, _ in self.forked], f"launch {launch} is forked twice"
        held_keys = [process.key for process in self.alive.values() if not process.auxiliary_of]
        assert auxiliary_of or key not in held_keys, f"two processes of {key}"
        if auxiliary_of and auxiliary_of not in self.alive:
            self.out.append(ft.LaunchFailed(launch=launch, why="its task has ended"))
            return
        if self.broken:
            self.out.append(ft.LaunchFailed(launch=launch, why="cannot fork: no memory"))
            return
        self.forked.append((launch, key))
        if auxiliary_of:
            self.auxiliaries.add(launch)
        self.alive[launch] = Process(launch=launch, key=key, auxiliary_of=auxiliary_of)
        self.out.append(ft.TaskLaunched(launch=launch, pid=PID + launch, start_time=launch))

    def watch(self, order: fx.WatchTopics) -> None:
        """Take an order to watch topics. One without topics ends the watch."""
        self.watches.pop(order.launch, None)
        if order.ready or order.expect:
            self.watches[order.launch] = order

    def end(
        self, launch: int, *, code: int | None = None, signal: str | None = None, oom: bool = False
    ) -> None:
        process = self.alive.pop(launch)
        if process.left:
            self.rest[launch] = process.left
        self.ends[launch] = ft.TaskExited(
            launch=launch, code=code, signal=signal, oom=oom, others_left=bool(process.left)
        )
        self.out.append(self.ends[launch])
        for other in [other for other in self.alive.values() if other.auxiliary_of == launch]:
            self.end(other.launch, signal="SIGKILL")

    def lose(self, launch: int) -> None:
        """Forget a process without a report of its end."""
        del self.alive[launch]
        for other in [other for other in self.alive.values() if other.auxiliary_of == launch]:
            self.end(other.launch, signal="SIGKILL")

    def terminate_others(self, launch: int, name: str) -> None:
        """Let the other processes of a launch end."""
        if launch not in self.ends:
            return
        asked = self.killed.get(launch, ()) + tuple(
            ft.Leftover(pid=9000 + number, name="sh", signal=name, asked=name)
            for number in range(self.rest.pop(launch, 0))
        )
        self.ends[launch], self.killed[launch] = replace(self.ends[launch], others_left=False), asked
        self.out.append(ft.TaskGone(launch=launch, leftovers=asked))

    def kill(self, launch: int) -> None:
        if launch in self.alive:
            self.alive[launch].left = 0
            self.end(launch, signal="SIGKILL")
        killed = self.killed.get(launch, ()) + tuple(
            ft.Leftover(pid=9000 + number, name="sh", signal="SIGKILL", killed=True)
            for number in range(self.rest.pop(launch, 0))
        )
        if launch in self.ends:
            self.ends[launch], self.killed[launch] = replace(self.ends[launch], others_left=False), killed
        self.out.append(ft.TaskGone(launch=launch, leftovers=killed))


@dataclass
class SimulatedHost:
    """Another host, as a supervisor sees it."""

    keeper: SimulatedKeeper
    up: bool = False
    """True while it is connected. Otherwise no order and no fact gets through."""
    greeting: int = 0


@dataclass
class SimulatedMachine:
    """One context with its keeper and processes. Time stands still unless the caller moves it."""

    world: World
    now: float = 0.0
    keeper: SimulatedKeeper = field(default_factory=SimulatedKeeper)
    facts: deque[Fact] = field(default_factory=deque)
    alarms: dict[Key, float] = field(default_factory=dict)
    unforgotten: list[fx.Forget] = field(default_factory=list)
    carried: Carried | None = None
    """The decisions that another host has written down; each supervisor of this keeper reads it."""
    hosts: dict[str, SimulatedHost] = field(default_factory=dict)

    def begin(
        self, transaction: str | None = "T1", autostart: bool = True, carried: Carried | None = None
    ) -> list[Effect]:
        """Let a supervisor start. Return the effects."""
        self.carried = carried
        started = ft.SupervisorStarted(
            keeper_id=self.keeper.keeper_id,
            autostart=autostart,
            transaction=transaction,
            generated="GENERATED",
            carried=carried,
            **self.held(),
        )
        return self.happen(started)

    def join(self, name: str) -> list[Effect]:
        """Let a host report what it holds. Return the effects."""
        host = self.hosts[name]
        host.up = True
        host.greeting += 1
        # Each end is taken after the other facts of its process, as with a new supervisor.
        host.keeper.out.clear()
        for end in host.keeper.ends.values():
            host.keeper.out.append(
                ft.TaskLaunched(launch=end.launch, pid=PID + end.launch, start_time=end.launch)
            )
        host.keeper.out.extend(host.keeper.ends.values())
        return self.happen(
            ft.HostJoined(
                host=name, epoch=host.keeper.keeper_id, greeting=host.greeting, **self.held(host.keeper)
            )
        )

    def held(self, keeper: SimulatedKeeper | None = None) -> dict[str, Any]:
        """Return the children of a keeper and the ends that no supervisor has acknowledged. By default it is
        the keeper of this host.
        """
        keeper = keeper or self.keeper
        children = tuple(
            ft.Child(
                launch=process.launch,
                pid=PID + process.launch,
                start_time=process.launch,
                executed=process.executed,
                line_seen=process.line_seen,
                auxiliary=process.auxiliary_of > 0,
            )
            for process in keeper.alive.values()
        )
        return {"children": children, "exits": frozenset(keeper.ends)}

    def happen(self, *facts: Fact) -> list[Effect]:
        """Take these facts and everything that follows from them now. Return the effects."""
        self.facts.extend(facts)
        done: list[Effect] = []
        while self.waits:
            done += self.turn()
        return done

    @property
    def waits(self) -> bool:
        """True if facts wait."""
        others = any(host.up and host.keeper.out for host in self.hosts.values())
        return bool(self.facts or self.keeper.out) or others

    def taken(self) -> list[Fact]:
        """Take the facts that wait."""
        facts = [*self.facts, *self.keeper.out]
        self.facts.clear()
        self.keeper.out.clear()
        for name, host in self.hosts.items():
            if host.up:
                facts += [self.on_host(name, fact) for fact in host.keeper.out]
                host.keeper.out.clear()
        return facts

    def on_host(self, name: str, fact: Fact) -> Fact:
        """Return a fact of the keeper of a host as the supervisor takes it."""
        assert isinstance(fact, ft.TaskFact)
        return ft.OnHost(host=name, epoch=self.hosts[name].keeper.keeper_id, fact=fact)

    def keeper_of(self, host: str) -> SimulatedKeeper | None:
        """Return the keeper that gets an order for a host; None if the order does not go through."""
        if not host:
            return self.keeper
        other = self.hosts.get(host)
        return other.keeper if other is not None and other.up else None

    def turn(self) -> list[Effect]:
        """Take one turn as the supervisor does: take all facts, decide, act."""
        effects = [effect for fact in self.taken() for effect in self.decide(fact)]
        for effect in effects:
            self.perform(effect)
        self.acknowledge()
        return effects

    def decide(self, fact: Fact) -> list[Effect]:
        """Take one step. Nothing is performed."""
        self.world, effects = step(self.world, fact, self.now)
        return list(effects)

    def perform(self, effect: Effect) -> None:
        match effect:
            case (
                fx.Launch()
                | fx.LaunchAuxiliary()
                | fx.Terminate()
                | fx.SendSignal()
                | fx.SetMain()
                | fx.KillAll()
                | fx.OpenBarrier()
            ):
                keeper = self.keeper_of(effect.host)
                if keeper is not None:
                    self._order(keeper, effect)
            case fx.HoldSockets():
                self.keeper.sockets = effect.sockets
            case fx.HoldStores():
                self.keeper.stores = effect.stores
            case fx.KeepWatches():
                for launch in self.keeper.watches.keys() - effect.launches:
                    del self.keeper.watches[launch]
            case fx.WatchTopics():
                self.keeper.watch(effect)
            case fx.Forget():
                self.unforgotten.append(effect)
            case fx.WakeAt(key=key, when=when):
                self.alarms.pop(key, None)
                if when is not None:
                    self.alarms[key] = when
            case (
                fx.PublishControl()
                | fx.PublishProcess()
                | fx.PublishInfo()
                | fx.Record()
                | fx.Count()
                | fx.Quarantine()
                | fx.Reply()
                | fx.Ready()
                | fx.Leave()
            ):
                pass
            case _:
                assert_never(effect)

    def _order(self, keeper: SimulatedKeeper, effect: fx.ProcessOrder) -> None:
        match effect:
            case fx.Launch():
                keeper.launch(effect.launch, effect.key)
            case fx.LaunchAuxiliary():
                keeper.launch(effect.launch, effect.key, effect.of)
            case fx.Terminate(launch=launch) if launch in keeper.alive:
                keeper.alive[launch].signals.append(effect.signal)
                self.signaled(keeper, launch, effect.signal)
            case fx.Terminate(launch=launch, others=others):
                if others:
                    self.others_signaled(keeper, launch, others)
            case fx.SendSignal(launch=launch):
                if launch in keeper.alive:
                    keeper.alive[launch].signals.append(effect.signal)
            case fx.KillAll(launch=launch):
                self.killed(keeper, launch)
            case fx.OpenBarrier():
                keeper.opened.update(effect.launches)
            case fx.SetMain():
                pass
            case _:
                assert_never(effect)

    def signaled(self, keeper: SimulatedKeeper, launch: int, _name: str) -> None:
        """Let a process react to its stop signal: it ends at once, with status 0."""
        keeper.end(launch, code=0)

    def others_signaled(self, keeper: SimulatedKeeper, launch: int, name: str) -> None:
        keeper.terminate_others(launch, name)

    def killed(self, keeper: SimulatedKeeper, launch: int) -> None:
        keeper.kill(launch)

    def acknowledge(self) -> None:
        for effect in self.unforgotten:
            if (keeper := self.keeper_of(effect.host)) is not None:
                keeper.ends.pop(effect.launch, None)
            self.keeper.watches.pop(effect.launch, None)
        self.unforgotten.clear()

    def ring(self) -> bool:
        """Move the clock to the earliest alarm, and let it ring. Return False if there is none."""
        if not self.alarms:
            return False
        at, key = min((at, key) for key, at in self.alarms.items())
        self.now = max(self.now, at)
        del self.alarms[key]
        self.happen(ft.DeadlinePassed(key=key))
        return True

    def lose_supervisor(self, saved: World, facts: Iterable[Fact] = ()) -> None:
        """Let the supervisor die. The next one has only the saved world and the keeper. `facts` still wait in
        queues that outlive it.
        """
        self.facts.clear()
        self.keeper.out.clear()
        for host in self.hosts.values():
            host.up = False
        self.alarms.clear()
        self.unforgotten.clear()
        launches, auxiliaries = launches_of(saved.tasks)
        self.world = replace(
            saved,
            pending=(),
            launches=launches,
            auxiliaries=auxiliaries,
            starts=starts_of(saved.tasks),
            load=load_of(saved.tasks),
        )
        ends = list(self.keeper.ends.values())
        launched = [
            ft.TaskLaunched(launch=end.launch, pid=PID + end.launch, start_time=end.launch) for end in ends
        ]
        started = ft.SupervisorStarted(
            keeper_id=self.keeper.keeper_id,
            transaction="T1",
            generated="GENERATED",
            carried=self.carried,
            **self.held(),
        )
        self.facts.extend([started, *launched, *facts, *ends])
