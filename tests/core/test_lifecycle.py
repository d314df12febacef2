"""The lifecycle table is complete, ignores unexpected events, and matches the diagram in the documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulation import Simulation, task

from zmsvc.core import facts as ft
from zmsvc.core.draft import Draft
from zmsvc.core.lifecycle import LIVE, RESTING, STATE_OF, TABLE, Act, State, SubState, TaskEvent, diagram
from zmsvc.core.transitions import _ACTS, apply
from zmsvc.core.world import Exit, Reason

PICTURE = Path(__file__).parents[2] / "docs" / "lifecycle.mmd"


def test_every_state_has_a_row_and_a_systemd_state() -> None:
    assert set(TABLE) == set(STATE_OF) == set(SubState)


def test_every_act_and_cause_is_used() -> None:
    transitions = [transition for row in TABLE.values() for transition in row.values()]
    assert {transition.act for transition in transitions} == set(Act) == set(_ACTS)
    assert {cause for row in TABLE.values() for cause in row} == set(TaskEvent)


def test_every_state_is_at_rest_live_or_waits_for_its_start() -> None:
    assert LIVE | RESTING | {SubState.BACK_OFF, SubState.START_AFTER, SubState.UNPLACED} == set(SubState)
    assert not LIVE & RESTING
    assert {STATE_OF[sub] for sub in RESTING} == {State.INACTIVE, State.FAILED}


def test_every_state_answers_a_start_a_stop_and_a_restart() -> None:
    """Otherwise the client of an order would wait for a task that never changes."""
    for sub in SubState:
        assert TaskEvent.RESTART in TABLE[sub]
        started = STATE_OF[sub] is State.ACTIVE or sub in (SubState.LAUNCHING, SubState.START)
        assert TaskEvent.START in TABLE[sub] or started
        assert TaskEvent.STOP in TABLE[sub] or sub in RESTING


def test_a_state_at_rest_leaves_by_an_order_only() -> None:
    for sub in RESTING:
        assert set(TABLE[sub]) <= {
            TaskEvent.START,
            TaskEvent.RESTART,
            TaskEvent.DELAY,
            TaskEvent.LIMIT,
            TaskEvent.RESET,
            TaskEvent.START_LATER,
            TaskEvent.NO_HOST,
        }


def test_only_a_start_launches_and_only_an_exit_finishes() -> None:
    for sub, row in TABLE.items():
        for cause, transition in row.items():
            assert (transition.act is Act.LAUNCH) == (transition.to is SubState.LAUNCHING)
            assert (transition.act is Act.LAUNCH) <= (sub not in LIVE), "never a second process"
            assert (transition.act is Act.FINISH) == (sub in LIVE and transition.to in RESTING)
            assert (cause is TaskEvent.LAUNCH_FAILED) <= (transition.act is Act.FINISH)


def test_every_live_state_leads_to_rest() -> None:
    for sub in LIVE:
        seen, todo = set(), [sub]
        while todo:
            here = todo.pop()
            seen.add(here)
            todo += [transition.to for transition in TABLE[here].values() if transition.to not in seen]
        assert seen & RESTING, sub


@pytest.mark.parametrize("sub", SubState)
@pytest.mark.parametrize("cause", TaskEvent)
def test_a_cause_without_a_row_changes_nothing(sub: SubState, cause: TaskEvent) -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    draft = Draft(sim.world, sim.now)
    draft.put(("T1", "a"), draft.change(("T1", "a"), sub_state=sub, exit=Exit(reason=Reason.EXITED)))
    before, orders = draft.tasks[("T1", "a")], len(draft.effects)
    moved = apply(draft, ("T1", "a"), cause, status="changed")
    assert moved == (cause in TABLE[sub])
    if not moved:
        assert draft.tasks[("T1", "a")] is before
        assert len(draft.effects) == orders
    elif TABLE[sub][cause].act is not Act.LAUNCH:
        assert draft.tasks[("T1", "a")].sub_state in (TABLE[sub][cause].to, SubState.LAUNCHING)


def test_a_late_timer_changes_nothing() -> None:
    sim = Simulation.of(task("a", start_timeout=5.0, watchdog=2.0))
    sim.begin()
    sim.ready()
    sim.now += 1.0
    before = sim.world
    # This is the alarm of the start, which is over, in a state with another deadline.
    sim.decide(ft.DeadlinePassed(key=("T1", "a")))
    sim.decide(ft.DeadlinePassed(key=("T1", "nobody")))
    assert sim.world == before
    sim.ask("stop", "a")
    sim.now += 1000.0
    before = sim.world
    assert sim.decide(ft.DeadlinePassed(key=("T1", "a"))) == []
    assert sim.world == before


def test_the_diagram_in_the_documents_is_drawn_from_the_table() -> None:
    assert PICTURE.read_text() == diagram(), "write what lifecycle.diagram() gives to docs/lifecycle.mmd"


def test_the_diagram_shows_every_transition() -> None:
    lines = diagram().splitlines()
    for sub, row in TABLE.items():
        for cause, transition in row.items():
            here, there = sub.value.replace("-", "_"), transition.to.value.replace("-", "_")
            line = next(line for line in lines if line.startswith(f"    {here} --> {there} : "))
            assert cause.value in line.partition(" : ")[2].split(", ")
