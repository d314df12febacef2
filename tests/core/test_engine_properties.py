"""Whatever happens in whatever order: nothing raises, nothing runs twice, every stop ends, no crash loses anything."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulation import Simulation, task
from simulation import rule as trigger_rule

from zmsvc.core import events as ev
from zmsvc.core.lifecycle import RESTING, Sub

NAMES = ("a", "b", "c")
TRANSACTIONS = ("T1", "T2")
rules = st.lists(
    st.builds(
        trigger_rule,
        st.sampled_from(["on_start", "on_update", "on_fail", "on_exit"]),
        st.sampled_from(["start", "stop", "restart"]),
        st.sampled_from(NAMES),
    ),
    max_size=4,
)


class Machine(RuleBasedStateMachine):
    """A context of three tasks with any rules, and everything that can happen to it."""

    @initialize(given=st.lists(rules, min_size=3, max_size=3), entry=st.lists(st.booleans(), min_size=3, max_size=3))
    def begin(self, given: list[list], entry: list[bool]) -> None:
        tasks = [task(n, *r, entry=e, start_timeout=5.0, stop_timeout=2.0) for n, r, e in zip(NAMES, given, entry, strict=True)]
        self.sim = Simulation.of(*tasks)
        self.asked: set[int] = set()
        self.number = 0
        self.sim.begin()

    @rule(
        verb=st.sampled_from(["start", "stop", "restart", "reset-failed"]),
        tasks=st.lists(st.sampled_from([*NAMES, "unknown"]), max_size=2, unique=True),
        transaction=st.sampled_from([*TRANSACTIONS, "NOBODY", None]),
        triggers=st.booleans(),
        block=st.booleans(),
    )
    def order(self, verb: str, tasks: list[str], transaction: str | None, triggers: bool, block: bool) -> None:
        self.number += 1
        self.asked.add(self.number)
        self.sim.ask(verb, *tasks, transaction=transaction, request=self.number, triggers=triggers, block=block)

    @precondition(lambda self: self.sim.alive)
    @rule(data=st.data(), code=st.sampled_from([0, 1, None]))
    def die(self, data: st.DataObject, code: int | None) -> None:
        launch = data.draw(st.sampled_from(sorted(self.sim.alive)))
        self.sim.end(launch, code=code, signal=None if code is not None else "SIGSEGV")

    @rule()
    def say_ready(self) -> None:
        self.sim.ready()

    @rule(launch=st.integers(0, 30), which=st.integers(0, 8))
    def say_anything(self, launch: int, which: int) -> None:
        """Facts about launches that are alive, over, or never were."""
        facts: list[ev.Fact] = [
            ev.TaskReady(launch=launch),
            ev.TaskUpdated(launch=launch, items={"x": 1}, sequence=launch),
            ev.TaskSaid(launch=launch, status="hm"),
            ev.WatchdogFed(launch=launch),
            ev.TimeoutExtended(launch=launch, seconds=3.0),
            ev.TaskGone(launch=launch),
            ev.DeadlinePassed(key=("T1", "a")),
            ev.DeadlinePassed(key=("NOBODY", "a")),
            ev.TaskLaunched(launch=launch, pid=1000 + launch, start_time=launch),
        ]
        self.sim.happen(facts[which])

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.sim.now += seconds

    @rule()
    def ring(self) -> None:
        self.sim.ring()

    @rule(stubborn=st.booleans())
    def harden(self, stubborn: bool) -> None:
        self.sim.stubborn = stubborn

    @rule(data=st.data())
    def crash_between_save_and_act(self, data: st.DataObject) -> None:
        """The supervisor dies after it has saved what follows from an end or an order, with some of its orders carried out."""
        if self.sim.alive and data.draw(st.booleans()):
            launch = data.draw(st.sampled_from(sorted(self.sim.alive)))
            del self.sim.alive[launch]
            self.sim.ends[launch] = ev.TaskExited(launch=launch, code=1)
            fact: ev.Fact = self.sim.ends[launch]
        else:
            tasks = (data.draw(st.sampled_from(NAMES)),)
            verb = data.draw(st.sampled_from([ev.Verb.START, ev.Verb.STOP, ev.Verb.RESTART]))
            fact = ev.Requested(verb=verb, origin=ev.Origin(by="bus"), transaction="T1", tasks=tasks)
        effects = self.sim.decide(fact)
        self.asked.clear()  # whoever asked was connected to the one that died
        self.sim.crash(data.draw(st.integers(0, len(effects))), effects)

    @invariant()
    def one_process_a_task(self) -> None:
        if hasattr(self, "sim"):
            assert len(set(self.sim.alive.values())) == len(self.sim.alive)
            live = {key for key, each in self.sim.world.tasks.items() if each.live}
            assert set(self.sim.alive.values()) <= live, "a process that nobody knows of"

    def teardown(self) -> None:
        """Stop everything: it must come to rest, with every waiter answered once."""
        if not hasattr(self, "sim"):
            return
        self.sim.ask("exit", transaction=None, request=9999)
        self.sim.stubborn = False
        for _ in range(200):
            if not self.sim.ring():
                break
        assert not self.sim.alive
        for each in self.sim.world.tasks.values():
            assert each.sub in RESTING
            assert each.sub in (Sub.WAITING, Sub.EXITED, Sub.STOPPED, Sub.FAILED)
        answered = [reply.request for reply in self.sim.replies()]
        assert len(answered) == len(set(answered)), "answered twice"
        assert self.asked <= set(answered)
        assert 9999 in answered
        assert any(isinstance(effect, ev.Leave) for effect in self.sim.effects)


Machine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
TestEngine = Machine.TestCase
