"""A simulation with other hosts: lines that are cut, hosts that are switched off and come back, and a cluster
that knows for certain which of them are off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from simulation import Simulation, task

from zmsvc.core import facts as ft
from zmsvc.core.effects import Effect
from zmsvc.core.facts import Fact
from zmsvc.core.model import Rule, TaskDefinition
from zmsvc.core.placement import Placement
from zmsvc.core.simulated_machine import SimulatedHost, SimulatedKeeper
from zmsvc.core.world import World


def placed(
    name: str,
    *rules: Rule,
    hosts: tuple[str, ...] = (),
    apart: tuple[str, ...] = (),
    together: tuple[str, ...] = (),
    **more: Any,
) -> TaskDefinition:
    placement = Placement(hosts=hosts, apart=apart, together=together)
    return replace(task(name, *rules, **more), placement=placement)


@dataclass
class Cluster(Simulation):
    """A simulation with other hosts, and a cluster that knows for certain which of them are off."""

    heard: list[Fact] = field(default_factory=list)
    """The facts about hosts that this supervisor has taken."""

    def add(self, *names: str) -> Cluster:
        for name in names:
            self.hosts[name] = SimulatedHost(keeper=SimulatedKeeper(keeper_id=f"{name}/1"))
        return self

    def join_all(self, *names: str) -> None:
        for name in names or [*self.hosts]:
            self.join(name)

    def cut(self, name: str) -> list[Effect]:
        """Cut the line to a host. Its processes live on, and what they say is lost, except for their ends."""
        self.hosts[name].up = False
        known = self.world.hosts[name]
        return self.happen(ft.HostSilent(host=name, epoch=known.epoch, greeting=known.greeting))

    def new_keeper(self, name: str) -> None:
        """Let the keeper of a host die with all its processes, and start again. It has not joined yet."""
        number = int(self.hosts[name].keeper.keeper_id.partition("/")[2]) + 1
        self.hosts[name] = SimulatedHost(keeper=SimulatedKeeper(keeper_id=f"{name}/{number}"))

    def switch_off(self, name: str) -> None:
        """Cut the power of a host. The cluster does not know yet."""
        self.new_keeper(name)

    def fence(self, name: str) -> list[Effect]:
        """Let the cluster be certain that a host is off."""
        self.switch_off(name)
        return self.lose(name)

    def lose(self, name: str) -> list[Effect]:
        epoch = self.world.hosts[name].epoch if name in self.world.hosts else ""
        return self.happen(ft.HostLost(host=name, epoch=epoch))

    def drain(self, name: str, *, drained: bool = True, request: int | None = 5) -> list[Effect]:
        origin = ft.Origin(by="operator", uid=0)
        return self.happen(ft.DrainRequested(host=name, drained=drained, origin=origin, request=request))

    def decide(self, fact: Fact) -> list[Effect]:
        if isinstance(fact, ft.OnHost | ft.HostJoined | ft.HostSilent | ft.HostLost):
            self.heard.append(fact)
        return super().decide(fact)

    def crash(self, still: Iterable[Fact] = ()) -> None:
        """Let the supervisor die. What came over its lines dies with it; the hosts tell it again."""
        of_hosts = ft.OnHost | ft.HostJoined | ft.HostSilent | ft.HostLost
        super().crash([fact for fact in still if not isinstance(fact, of_hosts)])
        self.heard.clear()

    def keepers(self) -> dict[str, SimulatedKeeper]:
        return {"": self.keeper, **{name: host.keeper for name, host in self.hosts.items()}}

    def where(self, name: str, transaction: str = "T1") -> list[str]:
        """Return the hosts on which processes of a task are alive."""
        key = (transaction, name)
        return [
            host
            for host, keeper in self.keepers().items()
            for process in keeper.alive.values()
            if process.key == key and not process.auxiliary_of
        ]

    def let_die(self) -> None:
        stuck, self.stuck = self.stuck or set(), None
        for keeper in self.keepers().values():
            for launch in stuck & {*keeper.alive, *keeper.ends}:
                keeper.kill(launch)
        self.happen()

    def die(self, name: str, *, code: int | None = None, signal: str | None = None) -> list[Effect]:
        """Let the process of a task end, on whatever host it is."""
        keeper = self.keepers()[self.task(name).host]
        keeper.end(self.launch_of(name), code=code, signal=signal)
        return self.happen()

    def say_ready(self) -> None:
        """Let each process send READY=1 whose host has a line."""
        for name, host in self.hosts.items():
            if host.up:
                self.happen(*(self.on_host(name, ft.TaskReady(launch=each)) for each in [*host.keeper.alive]))
        self.ready()

    def another_host(self, *, state: bool, generation: int = 1) -> list[Effect]:
        """Let the supervisor start on another host, with its state or without."""
        world = self.reloaded() if state else World(context=self.world.context)
        self.die_at = None
        self.lose_supervisor(replace(world, keeper_id=""))
        self.facts.clear()
        self.heard.clear()
        self.saved = self.world
        self.keeper = SimulatedKeeper(keeper_id=f"keeper/{self.turns}")
        return self.happen(
            ft.SupervisorStarted(
                keeper_id=self.keeper.keeper_id,
                transaction="T1",
                generated="GENERATED",
                generation=generation,
            )
        )
