"""Invariants for any facts in any order: nothing raises, no task runs twice, every stop ends, no crash loses
or repeats anything. `simulation.checked_step` checks the invariants of a single step, in every step of every
example.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulation import BEGINNING, Simulation, context, task
from simulation import rule as trigger_rule

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core import poison
from zmsvc.core.access import Verb
from zmsvc.core.carried import Carried
from zmsvc.core.engine import step
from zmsvc.core.expected_topics import ExpectedTopic, ReadyTopic
from zmsvc.core.model import Rule, TaskDefinition
from zmsvc.core.probing import HEALTH, READY, Health
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.topic_watches import watch_of

NAMES = ("a", "b", "c")
TRANSACTIONS = ("T1", "T2")

ENDS = {
    "on_fail": ["", "", "exit-code:1", "exit-code signal:SIGSEGV", "watchdog memory-limit unhealthy silent"],
    "on_exit": ["", "exited"],
    "on_any_fail": ["", "exit-code:1", "start-limit cannot-launch"],
}


@st.composite
def conditional(draw: st.DrawFn, trigger: str, action: str, call: str) -> Rule:
    """Draw the conditions of a rule."""
    when, after = st.sampled_from(ENDS.get(trigger, [""])), st.sampled_from(["", "", "2 in 5s", "3 in 1min"])
    return trigger_rule(trigger, action, call, when=draw(when), after=draw(after))


rules = st.lists(
    st.tuples(
        st.sampled_from(["on_start", "on_update", "on_fail", "on_exit", "on_recover"]),
        st.sampled_from(["start", "stop", "restart"]),
        st.sampled_from(NAMES),
    ).flatmap(lambda drawn: conditional(*drawn)),
    max_size=4,
)
limits = st.fixed_dictionaries(
    {
        "start_timeout": st.sampled_from([0.0, 5.0]),
        "stop_timeout": st.just(2.0),
        "restart_delay": st.sampled_from([0.0, 0.1, 1.0]),
    },
    optional={"watchdog": st.just(3.0), "start_limit_burst": st.just(2), "restart_max_delay": st.just(4.0)},
)


def any_fail(tasks: list[TaskDefinition]) -> st.SearchStrategy[list[Rule]]:
    """Return rules of a context with these tasks."""
    actions, names = st.sampled_from(["start", "stop", "restart"]), [each.id for each in tasks]
    drawn = st.tuples(actions, st.sampled_from(names)).flatmap(lambda each: conditional("on_any_fail", *each))
    return st.lists(drawn, max_size=1)


calm = limits.map(lambda drawn: {name: value for name, value in drawn.items() if name != "watchdog"})


@st.composite
def files(draw: st.DrawFn, *, watched: bool = True) -> list[TaskDefinition]:
    """Draw the tasks of a context file, whose rules name only tasks of the file."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    ordered = draw(st.booleans())
    tasks = []
    for name in names:
        before = [each for each in names if each < name] if ordered else []
        known = [each for each in draw(rules) if each.call in names]
        kind, notify = draw(st.sampled_from([("Process", False), ("Command", False), ("Command", True)]))
        more = draw(limits if watched else calm)
        made = task(
            name,
            *known,
            entry=draw(st.booleans()),
            kind=kind,
            notify=notify,
            nice=draw(st.sampled_from([None, 5])),
            after=tuple(draw(st.sets(st.sampled_from(before)))) if before else (),
            requires=tuple(draw(st.sets(st.sampled_from(before)))) if before else (),
            failure_action=draw(st.sampled_from(["none", "none", "none", "none", "stop", "exit"])),
            **more,
        )
        made = replace(made, memory_restart=draw(st.sampled_from([-1, 1 << 20])))
        made = replace(made, file_descriptor_store_max=draw(st.sampled_from([0, 2])))
        made = replace(made, notify_reload=notify and draw(st.booleans()))
        ways = [READY, LINE, TOPIC] if kind == "Command" else [TOPIC]
        ready = st.none() if notify else st.sampled_from([None, *ways])
        made = replace(made, health=draw(st.sampled_from([None, HEALTH])), ready=draw(ready))
        made = replace(made, configuration=draw(st.sampled_from([{}, {"subscribe": "raw"}])))
        made = replace(made, expect=draw(st.sampled_from([(), EXPECT])))
        how = draw(st.sampled_from([{}, {"reload_signal": "SIGUSR1"}, {"reload_command": ("reload",)}]))
        tasks.append(replace(made, **how))
    return tasks


LINE = ReadyLine(pattern="up")
TOPIC = ReadyTopic(topic="t")

ORDERS = [verb for verb in Verb if verb not in (Verb.EXIT, Verb.RELOAD)]
"""The orders that may come at any time. `teardown` exits, and `reload` has a rule of its own."""


class Machine(RuleBasedStateMachine):
    """A context of up to three tasks with any rules, and everything that can happen to it."""

    @initialize(given=files(), autostart=st.booleans(), data=st.data())
    def begin(self, given: list[TaskDefinition], autostart: bool, data: st.DataObject) -> None:
        self.sim = Simulation.of(*given, any_fail=data.draw(any_fail(given)))
        self.number = 0
        self.sim.begin(transaction=None, autostart=autostart)

    @rule(
        verb=st.sampled_from([Verb.START, *ORDERS]),
        tasks=st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=2),
        transaction=st.sampled_from([*TRANSACTIONS, *TRANSACTIONS, "GENERATED", "NOBODY", None, "no/ID"]),
        more=st.fixed_dictionaries(
            {},
            optional={
                "triggers": st.booleans(),
                "block": st.booleans(),
                "new": st.booleans(),
                "all": st.booleans(),
            },
        ),
        by=st.sampled_from(["operator", "bus"]),
    )
    def order(
        self, verb: Verb, tasks: list[str], transaction: str | None, more: dict[str, bool], by: str
    ) -> None:
        self.number += 1
        request = self.number if by == "operator" else None
        self.sim.happen(
            ft.Requested(
                verb=verb,
                origin=ft.Origin(by=by),
                request=request,
                transaction=transaction,
                tasks=tuple(tasks),
                signal="SIGHUP",
                **more,
            )
        )

    @precondition(lambda self: self.sim.alive)
    @rule(data=st.data(), code=st.sampled_from([0, 0, 1, 203, None]), left=st.integers(0, 2))
    def die(self, data: st.DataObject, code: int | None, left: int) -> None:
        launch = data.draw(st.sampled_from(sorted(self.sim.alive)))
        self.sim.end(launch, code=code, signal=None if code is not None else "SIGSEGV", left=left)

    @precondition(lambda self: self.sim.alive)
    @rule(data=st.data(), which=st.integers(0, 16))
    def say(self, data: st.DataObject, which: int) -> None:
        launch = data.draw(st.sampled_from(sorted(self.sim.alive)))
        self.sim.happen(words(launch, which, data.draw(st.integers(0, 3))))

    @rule()
    def say_ready(self) -> None:
        self.sim.ready()

    @rule(launch=st.integers(0, 30), which=st.integers(0, 16), sequence=st.integers(0, 3))
    def anybody_says_anything(self, launch: int, which: int, sequence: int) -> None:
        """Notifications may also be about launches that are over or never were, and may come before the
        process is known.
        """
        self.sim.happen(words(launch, which, sequence))

    @rule(launch=st.integers(0, 30), which=st.integers(0, 3))
    def told_twice(self, launch: int, which: int) -> None:
        """The keeper may repeat a report: any about a launch that is over, and `TaskLaunched` about a live one."""
        told: list[ft.Fact] = [
            ft.TaskExited(launch=launch, code=0),
            ft.LaunchFailed(launch=launch, why="?"),
            ft.TaskGone(launch=launch),
            ft.TaskLaunched(launch=launch, pid=1000 + launch, start_time=launch),
        ]
        known = {*self.sim.world.launches, *self.sim.world.auxiliaries}
        if launch not in known or (which == 3 and launch in self.sim.alive):
            self.sim.happen(told[which])

    @rule(name=st.sampled_from(NAMES), transaction=st.sampled_from([*TRANSACTIONS, "NOBODY"]))
    def late_timer(self, name: str, transaction: str) -> None:
        """An alarm that belonged to an earlier state changes nothing."""
        key = (transaction, name)
        due = self.sim.world.tasks[key].alarm if key in self.sim.world.tasks else None
        if due is None or due > self.sim.now:
            after, effects = step(self.sim.world, ft.DeadlinePassed(key=key), self.sim.now)
            assert after == self.sim.world
            assert all(effect == fx.WakeAt(key=key, when=due) for effect in effects)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        """Time passes, so that alarms ring late, as on a busy machine."""
        self.sim.now += seconds

    @rule(times=st.integers(1, 4))
    def ring(self, times: int) -> None:
        for _ in range(times):
            self.sim.ring()

    @rule(obedient=st.booleans(), mortal=st.booleans(), broken=st.booleans())
    def harden(self, obedient: bool, mortal: bool, broken: bool) -> None:
        self.sim.obedient, self.sim.keeper.broken = obedient, broken
        if mortal or self.sim.disk_full:
            self.sim.let_die()
        elif self.sim.stuck is None:
            self.sim.stuck = set()

    @rule(given=files(), ident=st.sampled_from(["context001"] * 5 + ["another"]))
    def reload(self, given: list[TaskDefinition], ident: str) -> None:
        """Check that a reload does not touch tasks that the new file does not change."""
        self.number += 1
        before = self.sim.world
        fact = ft.ContextReloaded(context=context(*given, ident=ident), request=self.number, block=False)
        after, effects = step(before, fact, self.sim.now)
        # An earlier order that waited for what is removed now may be answered in the same step.
        (reply,) = (
            effect for effect in effects if isinstance(effect, fx.Reply) and effect.request == self.number
        )
        for key, each in after.tasks.items():
            if not reply.ok or key[1] in reply.data["unchanged"]:
                assert before.tasks[key] is each
        self.sim.happen(ft.ContextReloaded(context=context(*given, ident=ident), request=self.number))

    @rule(turns=st.integers(1, 2), performed=st.none() | st.integers(0, 12))
    def supervisor_will_die(self, turns: int, performed: int | None) -> None:
        """The supervisor dies in one of the next turns, before it has saved or after it has performed some
        effects.
        """
        self.sim.die_at = (self.sim.turns + turns, performed)

    @rule(autostart=st.booleans(), transaction=st.sampled_from([None, *TRANSACTIONS]))
    def keeper_dies(self, autostart: bool, transaction: str | None) -> None:
        self.sim.another_keeper(f"keeper-{self.sim.turns + 2}", autostart=autostart, transaction=transaction)

    @rule(data=st.data())
    def moves_to_another_host(self, data: st.DataObject) -> None:
        """The keeper dies, and the next one begins with what another host has written down."""
        opened = tuple(data.draw(st.lists(st.sampled_from(TRANSACTIONS), unique=True)))
        # A change of the file that was not saved, because the disk was full, is lost with the supervisor.
        tasks = sorted(self.sim.reloaded().context.tasks)
        keys = [(name, task) for name in opened for task in tasks]
        carried = Carried(
            host="h1",
            open=opened,
            held=tuple(data.draw(st.lists(st.sampled_from(keys), unique=True))) if keys else (),
            disabled=tuple(data.draw(st.lists(st.sampled_from(tasks), unique=True))) if tasks else (),
        )
        die_at, self.sim.die_at = self.sim.die_at, None
        self.sim.another_keeper(f"keeper-{self.sim.turns + 2}", carried=carried)
        self.sim.die_at = die_at
        world = self.sim.world
        assert {name for name, each in world.transactions.items() if each.open} == set(opened)
        assert world.disabled == set(carried.disabled)
        for key in carried.held:
            assert world.tasks[key].stopped_by_operator
            assert world.tasks[key].resting or key[1] not in world.context.tasks, "a held task has started"

    @rule(full=st.booleans())
    def disk(self, full: bool) -> None:
        """The disk becomes full or writable. This happens only while processes can be killed: on a full disk,
        one that cannot be killed may run beside its successor after a crash.
        """
        if self.sim.stuck is None:
            self.sim.disk_full = full
            if not full:
                self.sim.save([])

    @invariant()
    def every_process_is_known(self) -> None:
        if hasattr(self, "sim"):
            world = self.sim.world
            for process in self.sim.alive.values():
                known = world.auxiliaries if process.auxiliary_of else world.launches
                assert known.get(process.launch) == process.key, "an unknown process"

    @invariant()
    def the_topics_of_commands_are_watched(self) -> None:
        if hasattr(self, "sim"):
            world, watched = self.sim.world, self.sim.keeper.watches
            for key, each in world.tasks.items():
                wanted = watch_of(world.context.tasks.get(key[1]), key, each)
                assert each.launch not in self.sim.alive or watched.get(each.launch) == wanted, key
            assert all(launch in world.launches for launch in watched), "a launch that is over is watched"

    def teardown(self) -> None:
        """Stop everything. All tasks must come to rest, and every request must be answered."""
        if not hasattr(self, "sim"):
            return
        sim = self.sim
        sim.die_at, sim.disk_full = None, False
        sim.let_die()
        left = sim.world.exit_status
        for name in sim.world.transactions:
            sim.ask("stop", transaction=name, request=self.number + 1)
        sim.rest()
        assert not sim.alive
        assert all(each.resting for each in sim.world.tasks.values())
        assert not sim.world.pending
        mark = len(sim.effects)
        sim.ask("exit", transaction=None, request=self.number + 2)
        sim.ask("exit", transaction=None, request=self.number + 3)
        sim.happen(ft.TaskExited(launch=99, code=0))
        sim.ask("start", transaction="T1", request=self.number + 4)
        ends = [effect.status for effect in sim.effects if isinstance(effect, fx.Leave)]
        assert ends
        assert all(status == left for status in ends[-1:])
        assert bool(left) or sum(isinstance(effect, fx.Leave) for effect in sim.effects[mark:]) == 1


EXPECT = (ExpectedTopic(topic="t", within=30.0),)
POISON = poison.poison(b"x @@@ {}", "hm", "hm")


def words(launch: int, which: int, sequence: int) -> ft.Fact:
    """Return a fact that a task can cause."""
    facts: list[ft.Fact] = [
        ft.TaskReady(launch=launch),
        ft.TaskUpdated(launch=launch, items={"x": sequence}, sequence=sequence),
        ft.TaskSaid(launch=launch, status="hm"),
        ft.MessagesMissed(launch=launch, count=sequence),
        ft.WatchdogFed(launch=launch),
        ft.MemoryMeasured(launch=launch, used=2 << 20, machine=1 << 30),
        ft.TimeoutExtended(launch=launch, seconds=3.0),
        ft.TaskExecuted(launch=launch),
        ft.ReadyLineSeen(launch=launch),
        ft.TaskReloading(launch=launch),
        ft.TaskReloading(launch=launch, at=BEGINNING + sequence),
        ft.HealthReported(launch=launch, health=[*Health][sequence], text="hm"),
        ft.TopicHeard(launch=launch, topic="t"),
        ft.TopicSilent(launch=launch, topic="t"),
        ft.MessagePoisoned(launch=launch, number=sequence + 1, message=POISON),
        ft.TaskDeclared(launch=launch, topics=()),
        ft.TaskDeclared(launch=launch, topics=("raw",), publishes=("filtered",)),
        ft.TaskDeclared(launch=launch, topics=("filtered",), publishes=()),
    ]
    return facts[which]


Machine.TestCase.settings = settings(settings(), max_examples=60, stateful_step_count=40)
# Hypothesis needs more time than usual to make a failing example small. If that is interrupted, it reports
# inconsistent data in place of the failure.
TestEngine = pytest.mark.deadline(300)(Machine.TestCase)
