"""A recorded run of the random tester, written and read in the format of a record, replays to the same worlds
with the same decisions.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import pytest
from cluster_simulation import Cluster
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from simulation import Simulation, context, rule, task
from test_engine_properties import Machine, any_fail, files

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.effects import Effect
from zmsvc.core.errors import ProtocolError
from zmsvc.core.facts import Fact
from zmsvc.core.model import TaskDefinition
from zmsvc.core.placement import Placement
from zmsvc.core.replay import Begin, Step, replay
from zmsvc.core.world import World
from zmsvc.protocol import recording
from zmsvc.protocol.codec import CompactCodec
from zmsvc.protocol.recording import FORMAT, SegmentHead, essence, read_segment

SEGMENT = 4
"""The number of turns in a segment."""


@dataclass
class RecordedSimulation(Simulation):
    """A simulation that records each step. A supervisor begins a segment when it starts, and again after some
    turns.
    """

    segments: list[list[bytes]] = field(default_factory=list)
    worlds: list[World] = field(default_factory=list)
    """The world after each step."""
    run: int = 0

    def decide(self, fact: Fact) -> list[Effect]:
        before, number = self.world, len(self.worlds) + 1
        another = not self.worlds or self.worlds[-1] is not before
        self.run += another
        if another or number % SEGMENT == 0:
            self._begin(number)
        effects = super().decide(fact)
        self.segments[-1].append(recording.turn_line(number, self.now, self.now, [fact], [effects]))
        self.worlds.append(self.world)
        return effects

    def _begin(self, number: int) -> None:
        head = SegmentHead(format=FORMAT, version="1", context="c", boot="b", run=str(self.run), first=number)
        lines = [recording.head_line(head), *recording.snapshot_lines(self.world, self.now, self.now)]
        self.segments.append(lines)

    def replayed(self, **more: Any) -> list[Begin | Step]:
        return list(replay(map(read_segment, map(b"".join, self.segments)), essence, **more))


class RecordedMachine(Machine):
    """The random tester, with a record."""

    @initialize(given=files(), autostart=st.booleans(), data=st.data())
    def begin(self, given: list[TaskDefinition], autostart: bool, data: st.DataObject) -> None:
        self.sim = RecordedSimulation(
            world=World(context=context(*given, any_fail=data.draw(any_fail(given))))
        )
        self.number = 0
        self.sim.begin(transaction=None, autostart=autostart)

    def teardown(self) -> None:
        super().teardown()
        if not hasattr(self, "sim"):
            return
        assert isinstance(self.sim, RecordedSimulation)
        found = self.sim.replayed()
        steps = [each for each in found if isinstance(each, Step)]
        assert [each for each in found if each.differs] == []
        assert [each.world for each in steps] == self.sim.worlds


RecordedMachine.TestCase.settings = settings(settings(), max_examples=20, stateful_step_count=30)
TestRecordOfTheRandomTester = pytest.mark.deadline(300)(RecordedMachine.TestCase)


# --- single promises


def recorded() -> RecordedSimulation:
    tasks = (task("a", rule("on_fail", "start", "b")), task("b", entry=False))
    sim = RecordedSimulation(world=World(context=context(*tasks)))
    sim.begin()
    sim.ready()
    sim.now += 1
    sim.end("a", code=3)
    sim.now += 1
    sim.ready()
    return sim


@dataclass
class RecordedCluster(RecordedSimulation, Cluster):
    """The same with other hosts."""


def test_a_record_of_several_hosts_replays_to_the_same_worlds() -> None:
    placed = replace(task("a", rule("on_fail", "restart", "a")), placement=Placement(hosts=("h2", "h3")))
    sim = RecordedCluster.of(placed, task("b"))
    assert isinstance(sim, RecordedCluster)
    sim.add("h2", "h3")
    sim.begin()
    sim.join_all()
    sim.say_ready()
    sim.cut("h2")
    sim.fence("h2")
    sim.drain("h3")
    sim.crash()
    sim.happen()
    sim.join("h3")
    steps = [each for each in sim.replayed() if isinstance(each, Step)]
    assert [each.world for each in steps] == sim.worlds
    assert not any(each.differs for each in steps)


def test_a_replay_ends_at_the_named_time() -> None:
    sim = recorded()
    (*_, last) = sim.replayed(until=sim.now - 0.5)
    assert isinstance(last, Step)
    assert (last.world.tasks["T1", "a"].state, last.world.tasks["T1", "b"].state) == ("failed", "activating")


def test_an_engine_that_decides_otherwise_is_found_at_the_fact() -> None:
    """The record is changed: in it, the engine has started b under another number."""
    sim = recorded()
    decided = b'{"op":"Launch","launch":2,"key":["T1","b"]}'
    (place,) = [(part, at) for part in sim.segments for at, line in enumerate(part) if decided in line]
    lines, at = place
    lines[at] = lines[at].replace(decided, decided.replace(b":2", b":7"))
    (found,) = [each for each in sim.replayed() if each.differs]
    assert isinstance(found, Step)
    assert isinstance(found.fact, ft.TaskExited)
    assert {"op": "Launch", "launch": 2, "key": ["T1", "b"]} in (found.today or ())


def test_a_fact_at_which_the_engine_failed_has_no_decision() -> None:
    sim = recorded()
    fact = ft.TaskReady(launch=1)
    sim.segments[-1].append(recording.turn_line(len(sim.worlds) + 1, sim.now, sim.now, [fact], []))
    (*_, last) = sim.replayed()
    assert isinstance(last, Step)
    assert (last.recorded, last.differs, last.fact) == (None, True, fact)


def test_a_segment_without_a_snapshot_continues_the_one_before_it() -> None:
    """The oldest segment may be gone: what cannot be continued is left out."""
    sim = recorded()
    assert len(sim.segments) > 1
    whole = [each for each in sim.replayed() if isinstance(each, Step)]
    sim.segments[1] = [line for line in sim.segments[1] if b'"op":"complete"' not in line]
    assert [each for each in sim.replayed() if isinstance(each, Step)] == whole
    del sim.segments[0]
    assert [each for each in sim.replayed() if isinstance(each, Step)][:1] != whole[:1]


def test_a_torn_line_at_the_end_is_left_out() -> None:
    sim = recorded()
    whole = sim.replayed()
    sim.segments[-1][-1] = sim.segments[-1][-1][:-10]
    assert sim.replayed() == whole[:-1]


def test_a_fact_that_no_supervisor_takes_ends_no_replay() -> None:
    sim = recorded()
    fact = ft.Requested(verb=Verb.RELOAD, origin=ft.Origin(by="operator"))
    for number in (1, 2):
        line = recording.turn_line(len(sim.worlds) + number, sim.now, sim.now, [fact], [[]])
        sim.segments[-1].append(line)
    *_, last, again = sim.replayed()
    assert isinstance(last, Step)
    assert isinstance(again, Step)
    assert (last.today, last.differs, last.world) == (None, True, sim.world)
    assert "KeyError" in again.error


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "no head"),
        (b"[]\n", "not an object"),
        (b"{\n", "not JSON"),
        (b"\xff\n", "not JSON"),
        (b"[" * 600 + b"\n", "nested deeper"),
        (b'{"op":"turn"}\n', "not the head"),
        (
            b'{"op":"head","format":2,"version":"9.0"}\n',
            "format 2 of zmsvc 9.0, and this zmsvc reads format 1",
        ),
        (b'{"op":"head","format":0}\n', "format 0"),
        (b'{"op":"head","format":1,"version":3}\n', "version is int"),
    ],
)
def test_other_data_is_refused(line: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        read_segment(line)


@pytest.mark.parametrize(
    "turn",
    [
        {"facts": [{"op": "Exec"}]},
        {"facts": [{"op": "TaskReady", "launch": "1"}]},
        {"facts": [{"op": "DeadlinePassed", "key": ["T1"]}]},
        {"facts": [{"op": "Requested", "verb": "boom", "origin": {"by": "x"}}]},
        {"facts": [3]},
        {"facts": [{"op": "TaskReady", "launch": 1}], "now": "x"},
        {"number": "1"},
        {"at": 1e400},
        {"at": 10**400},
        {"now": -1},
    ],
)
def test_a_turn_of_other_data_is_refused(turn: dict[str, Any]) -> None:
    body = {"op": "turn", "number": 1, "now": 0.0, "at": 0.0, "facts": [], "effects": [], **turn}
    sim = recorded()
    segment = b"".join([*sim.segments[0], recording._line(body)])
    with pytest.raises(ProtocolError):
        list(read_segment(segment).turns())


@pytest.mark.parametrize("kind", [World, *get_args(ft.Fact), *get_args(fx.Effect)])
def test_the_format_knows_the_types_of_all_fields(kind: type[Any]) -> None:
    codec = CompactCodec[Any]({"x": kind}, {})
    with contextlib.suppress(AttributeError):
        codec.encode(object.__new__(kind))
    with contextlib.suppress(ProtocolError):
        codec.decode({"op": "x"})


def test_every_fact_and_effect_survives_the_format() -> None:
    """Fields of every type that the random tester has no facts for."""
    leftover = ft.Leftover(pid=3, name="x", signal="SIGKILL", killed=True)
    given = context(task("a"), task("b"))
    facts: list[ft.Fact] = [
        ft.TaskGone(launch=1, leftovers=(leftover,)),
        ft.MainNamed(launch=1, pid=3, start_time=4),
        ft.SupervisorStarted(
            keeper_id="k", children=(ft.Child(launch=1, pid=2, start_time=3),), exits=frozenset({4, 5})
        ),
        ft.ContextReloaded(context=replace(given, record=True)),
        ft.DeadlinePassed(key=("T1", "a")),
    ]
    sim = recorded()
    segment = b"".join([*sim.segments[0], recording.turn_line(9, 1.0, 2.0, facts, [[]])])
    *_, last = read_segment(segment).turns()
    assert list(last.facts) == facts
