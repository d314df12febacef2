"""Invariants over several hosts, for any faults between any two steps: no task runs twice, each launch ends
once, no rule fires twice, and every task settles.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from cluster_simulation import Cluster
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulation import context, task
from simulation import rule as trigger_rule

from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.hosts import HostState
from zmsvc.core.model import TaskDefinition
from zmsvc.core.placement import Placement
from zmsvc.core.task_key import Key

NAMES = ("a", "b", "c")
HOSTS = ("h2", "h3", "h4")
ENDS = ("on_fail", "on_exit", "on_start")

placements = st.builds(
    Placement,
    hosts=st.lists(st.sampled_from(HOSTS), max_size=3, unique=True).map(tuple),
    apart=st.sampled_from([(), (), ("a",), ("b",)]),
    together=st.sampled_from([(), (), (), ("a",), ("c",)]),
)


@st.composite
def files(draw: st.DrawFn) -> list[TaskDefinition]:
    """Draw tasks, most of them with a placement. One names every host, so that each host may have tasks."""
    tasks = []
    ordered = draw(st.booleans())
    for name in NAMES:
        drawn = draw(
            st.lists(
                st.tuples(
                    st.sampled_from(ENDS),
                    st.sampled_from(["start", "stop", "restart"]),
                    st.sampled_from(NAMES),
                ),
                max_size=2,
                unique=True,
            )
        )
        before = [each for each in NAMES if each < name] if ordered else []
        made = task(
            name,
            *(trigger_rule(*each) for each in drawn),
            kind=draw(st.sampled_from(["Process", "Command"])),
            requires=tuple(draw(st.sets(st.sampled_from(before)))) if before else (),
            start_timeout=draw(st.sampled_from([0.0, 5.0])),
            stop_timeout=2.0,
            restart_delay=draw(st.sampled_from([0.0, 0.1])),
            **draw(st.fixed_dictionaries({}, optional={"watchdog": st.just(3.0)})),
        )
        tasks.append(replace(made, placement=draw(st.none() | placements)))
    everywhere = Placement(hosts=draw(st.permutations(HOSTS).map(tuple)))
    return [*tasks, replace(task("d"), placement=everywhere)]


class Machine(RuleBasedStateMachine):
    """A context over three hosts and that of the supervisor."""

    @initialize(given=files(), here=st.sets(st.sampled_from(HOSTS)))
    def begin(self, given: list[TaskDefinition], here: set[str]) -> None:
        made = Cluster.of(*given)
        assert isinstance(made, Cluster)
        self.sim = made.add(*HOSTS)
        self.number, self.generation = 0, 0
        self.sim.begin()
        self.sim.join_all(*sorted(here)) if here else None

    # --- orders and processes

    @rule(
        verb=st.sampled_from([Verb.START, Verb.STOP, Verb.RESTART]),
        tasks=st.lists(st.sampled_from(NAMES), max_size=2),
        triggers=st.booleans(),
    )
    def order(self, verb: Verb, tasks: list[str], triggers: bool) -> None:
        self.number += 1
        self.sim.ask(verb.value, *tasks, request=self.number, triggers=triggers)

    @rule(name=st.sampled_from(HOSTS), drained=st.booleans())
    def drain(self, name: str, drained: bool) -> None:
        self.number += 1
        self.sim.drain(name, drained=drained, request=self.number)

    @precondition(lambda self: self.all_known)
    @rule(given=files())
    def reload(self, given: list[TaskDefinition]) -> None:
        self.number += 1
        self.sim.happen(ft.ContextReloaded(context=context(*given), request=self.number))

    @rule()
    def ready(self) -> None:
        self.sim.say_ready()

    @rule(data=st.data(), code=st.sampled_from([0, 1, None]), left=st.integers(0, 1))
    def die(self, data: st.DataObject, code: int | None, left: int) -> None:
        """Let a process end, whether there is a line to its host or not."""
        alive = [
            (name, launch) for name, keeper in self.sim.keepers().items() for launch in sorted(keeper.alive)
        ]
        if alive:
            name, launch = data.draw(st.sampled_from(alive))
            keeper = self.sim.keepers()[name]
            keeper.alive[launch].left = left
            keeper.end(launch, code=code, signal=None if code is not None else "SIGSEGV")
            self.sim.happen()

    @rule(obedient=st.booleans(), mortal=st.booleans())
    def harden(self, obedient: bool, mortal: bool) -> None:
        self.sim.obedient = obedient
        if mortal:
            self.sim.let_die()
        elif self.sim.stuck is None:
            self.sim.stuck = set()

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.sim.now += seconds

    @rule(times=st.integers(1, 4))
    def ring(self, times: int) -> None:
        for _ in range(times):
            self.sim.ring()

    # --- hosts

    @rule(name=st.sampled_from(HOSTS))
    def join(self, name: str) -> None:
        self.sim.join(name)

    @rule(name=st.sampled_from(HOSTS))
    def cut(self, name: str) -> None:
        if name in self.sim.world.hosts:
            self.sim.cut(name)

    @rule(name=st.sampled_from(HOSTS))
    def cut_unnoticed(self, name: str) -> None:
        self.sim.hosts[name].up = False

    @rule(name=st.sampled_from(HOSTS), joins=st.booleans())
    def another_keeper(self, name: str, joins: bool) -> None:
        """Let the keeper of a host die, or the host boot again before the cluster has noticed."""
        self.sim.new_keeper(name)
        if joins:
            self.sim.join(name)

    @rule(name=st.sampled_from(HOSTS))
    def fence(self, name: str) -> None:
        self.sim.fence(name)

    @rule(name=st.sampled_from(HOSTS))
    def refuse_fence(self, name: str) -> None:
        """The cluster reports a host that has joined as off, because its answer is an old one."""
        known = self.sim.world.hosts.get(name)
        if known is not None and known.past:
            self.sim.happen(ft.HostLost(host=name, epoch=known.past[-1]))

    @rule(data=st.data(), times=st.integers(1, 3))
    def late_or_twice(self, data: st.DataObject, times: int) -> None:
        """Facts that were taken before come again, in any order."""
        for _ in range(times):
            if self.sim.heard:
                self.sim.happen(data.draw(st.sampled_from(self.sim.heard)))

    # --- supervisors

    @rule(turns=st.integers(1, 2), performed=st.none() | st.integers(0, 12))
    def supervisor_will_die(self, turns: int, performed: int | None) -> None:
        self.sim.die_at = (self.sim.turns + turns, performed)

    @rule()
    def supervisor_moves(self) -> None:
        self.generation += 1
        self.sim.another_host(state=True, generation=self.generation)

    @rule(home=st.booleans(), times=st.integers(0, 4), obedient=st.booleans())
    def context_moves_in_order(self, home: bool, times: int, obedient: bool) -> None:
        """The context is stopped, with the tasks of other hosts or without, or killed before that is done."""
        self.number += 1
        self.sim.obedient = obedient
        self.sim.ask("exit", request=self.number, home=home)
        for _ in range(times):
            self.sim.ring()
        self.supervisor_moves()

    @precondition(lambda self: self.at_named_hosts)
    @rule()
    def supervisor_moves_without_state(self) -> None:
        self.generation += 1
        self.sim.another_host(state=False, generation=self.generation)

    @property
    def all_known(self) -> bool:
        """True if this supervisor has heard of each host that has processes. A supervisor without the state
        of its predecessor looks for copies of a task only on the hosts that the file names.
        """
        known = self.sim.world.hosts
        return all(
            not host.keeper.alive or (name in known and known[name].is_known)
            for name, host in self.sim.hosts.items()
        )

    @property
    def at_named_hosts(self) -> bool:
        """True if the file still names each host that may have a copy of a task: the supervisor looks for
        copies on no other host.
        """
        defined = self.sim.world.context.tasks
        return all(
            (placement := defined[process.key[1]].placement) is not None
            and not any(
                defined[other].placement is None
                for other in self.sim.world.context.together.get(process.key[1], ())
            )
            and name in (placement.hosts or self.sim.world.context.hosts)
            for name, host in self.sim.hosts.items()
            for process in host.keeper.alive.values()
        )

    # --- what holds

    @invariant()
    def no_task_runs_twice(self) -> None:
        if hasattr(self, "sim"):
            alive: dict[Key, list[tuple[str, int]]] = {}
            for name, keeper in self.sim.keepers().items():
                for process in keeper.alive.values():
                    if not process.auxiliary_of:
                        alive.setdefault(process.key, []).append((name, process.launch))
            assert all(len(found) == 1 for found in alive.values()), (alive, self.sim.world.hosts)

    @invariant()
    def every_process_is_known(self) -> None:
        if hasattr(self, "sim"):
            world = self.sim.world
            for name, host in self.sim.hosts.items():
                known = world.hosts.get(name)
                if host.up and known is not None and known.state is HostState.HERE:
                    for process in host.keeper.alive.values():
                        assert process.launch in {*world.launches, *world.auxiliaries, *known.strangers}

    @invariant()
    def each_launch_ends_once_and_no_rule_fires_twice(self) -> None:
        if hasattr(self, "sim"):
            ends = Counter(
                record.detail["launch"]
                for record in self.sim.records
                if record.event in ("failed", "stopped", "lost") and "launch" in record.detail
            )
            assert max(ends.values(), default=0) <= 1, ends
            fired = Counter(
                (record.task, *(str(record.detail[name]) for name in ("source", "launch", "rule")))
                for record in self.sim.records
                if record.event == "rule"
            )
            assert max(fired.values(), default=0) <= 1, fired

    def teardown(self) -> None:
        """All hosts are there again, and everything is stopped: every task comes to rest, every client has an
        answer, and no keeper has anything left.
        """
        if not hasattr(self, "sim"):
            return
        sim = self.sim
        sim.die_at, sim.obedient = None, True
        sim.let_die()
        sim.join_all()
        sim.ask("stop", request=self.number + 1)
        sim.rest()
        assert all(each.resting for each in sim.world.tasks.values())
        assert not sim.world.pending
        assert not sim.world.load
        for keeper in sim.keepers().values():
            assert not keeper.alive
            assert not keeper.ends


Machine.TestCase.settings = settings(settings(), max_examples=60, stateful_step_count=40)
TestHosts = pytest.mark.deadline(300)(Machine.TestCase)
