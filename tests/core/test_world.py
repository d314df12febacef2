"""core/world: a world that was saved is the same when it is loaded."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_strategy import json_values
from simulation import Simulation, context, task

from zmsvc.core import facts as ft
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.cause import CauseSource, LaunchCause, SourceExit
from zmsvc.core.lifecycle import SubState
from zmsvc.core.probing import Health
from zmsvc.core.service_options import ServiceType
from zmsvc.core.world import (
    Auxiliary,
    Barrier,
    Exit,
    Reason,
    Stage,
    Task,
    barrier_to_row,
    definition_to_keep,
    service_of,
    task_as_json,
    task_from_row,
    task_to_row,
    transaction_state,
    with_barrier,
)

texts = st.text(max_size=5)
numbers = st.integers(0, 2**53)
times = st.floats(0, 1e9, allow_nan=False)
values = json_values(texts)
maps = st.dictionaries(texts, values, max_size=3)
ends = st.builds(
    Exit,
    code=st.none() | st.integers(0, 255),
    signal=st.none() | texts,
    reason=st.sampled_from(Reason),
    at=times,
)
source_exits = st.builds(
    SourceExit, code=st.none() | st.integers(0, 255), signal=st.none() | texts, reason=texts
)
sources = st.builds(
    CauseSource,
    task=texts,
    trigger=texts,
    rule=texts,
    launch=numbers,
    exit=st.none() | source_exits,
    update=st.none() | maps,
)
causes = st.builds(
    LaunchCause,
    by=texts,
    uid=st.none() | numbers,
    depth=numbers,
    sources=st.lists(sources, max_size=3).map(tuple),
)
auxiliaries = st.builds(
    Auxiliary,
    launch=numbers,
    name=st.sampled_from(AuxiliaryName),
    command=st.lists(texts, max_size=2).map(tuple),
    since=times,
)
leftovers = st.builds(
    ft.Leftover,
    pid=numbers,
    name=texts,
    code=st.none() | st.integers(0, 255),
    signal=st.none() | texts,
    asked=texts,
    killed=st.booleans(),
)
topics = st.none() | st.lists(texts, max_size=2).map(tuple)
barriers = st.builds(Barrier, start=numbers, stage=st.sampled_from(Stage), topics=topics, publishes=topics)
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "sub_state": st.sampled_from(SubState),
    "since": times,
    "deadline": st.none() | times,
    "launch": numbers,
    "pid": st.none() | numbers,
    "start_time": numbers,
    "launched_at": times,
    "restarts": numbers,
    "action": texts,
    "exit": st.none() | ends,
    "status": texts,
    "stop_reason": st.none() | st.sampled_from(Reason),
    "restart_pending": st.booleans(),
    "rules_suppressed": st.booleans(),
    "stopped_by_operator": st.booleans(),
    "failures": numbers,
    "quick_starts": numbers,
    "firings": numbers,
    "starts": st.lists(times, max_size=3).map(tuple),
    "reload_at": times,
    "counted": st.dictionaries(texts, st.lists(times, max_size=2).map(tuple), max_size=2),
    "has_failed": st.booleans(),
    "cause": causes,
    "update": st.none() | maps,
    "sequence": numbers,
    "dropped": numbers,
    "missed": numbers,
    "poisoned": numbers,
    "poison_tokens": times,
    "poison_tokens_at": times,
    "tokens": times,
    "tokens_at": times,
    "leftovers": st.lists(leftovers, max_size=2).map(tuple),
    "health": st.none() | st.sampled_from(Health),
    "health_text": texts,
    "probe_at": st.none() | times,
    "probe_ends": numbers,
    "host": texts,
    "auxiliaries": st.lists(auxiliaries, max_size=2).map(tuple),
    "last_definition": st.none()
    | st.builds(definition_to_keep, st.builds(task, texts, kind=st.sampled_from(ServiceType))),
}


@given(st.builds(Task, **PARTS))
def test_a_task_survives_the_state_file(given_task: Task) -> None:
    row = json.loads(json.dumps(task_to_row(given_task), separators=(",", ":")))
    assert task_from_row(row, given_task.sub_state.value) == given_task


def test_the_round_trip_covers_every_field() -> None:
    assert {*PARTS, "barrier"} == {each.name for each in fields(Task)}


@given(barriers)
def test_a_barrier_survives_the_state_file_while_its_launch_lives(barrier: Barrier) -> None:
    running = Task(sub_state=SubState.RUNNING, launch=3)
    row = json.loads(json.dumps(barrier_to_row(replace(running, barrier=barrier))))
    assert with_barrier(running, row).barrier == barrier
    assert barrier_to_row(running) is None
    # A supervisor of an earlier release does not know these rows and leaves them.
    for other in (replace(running, launch=4), replace(running, sub_state=SubState.EXITED)):
        assert with_barrier(other, row).barrier is None


def test_a_task_that_was_never_started_has_counted_nothing() -> None:
    shown = task_as_json("a", Task(), None, lambda _time: None)
    numbers = {name: value for name, value in shown.items() if type(value) is int}
    assert numbers == dict.fromkeys(
        ("launch", "restarts", "ended_more", "dropped", "missed", "poisoned", "stored_descriptors"), 0
    )


def test_a_fresh_task_is_an_empty_row() -> None:
    assert task_to_row(Task()) == {}
    assert task_from_row({}) == Task()


@pytest.mark.parametrize(
    "row",
    [
        {"sub": "dancing"},
        {"verdict": "boredom"},
        {"exit": {}},
        {"exit": {"code": 0, "signal": None, "reason": "?", "at": 0}},
        {"exit": 5},
        {"starts": 5},
        {"removed": {"instance": "Echo"}},
        {"cause": {"by": "rule", "sources": [{"task": "a"}]}},
        {"cause": {"by": "rule", "sources": 5}},
        {"ended": [{"name": "sh"}]},
        {"nobody": "knows"},
    ],
)
def test_a_malformed_row_is_refused(row: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        task_from_row(row)


def test_the_last_definition_of_a_removed_task_survives_the_state_file() -> None:
    told = {"id": "a", "Task": {"description": "x"}}
    service = replace(task("a", kind="Thread"), service_name="echo", device_action="shout", source=told)
    row = json.loads(json.dumps(task_to_row(Task(last_definition=definition_to_keep(service)))))
    assert service_of(context(), "a", task_from_row(row)) == service
    assert (
        service_of(context(replace(service, service_name="new")), "a", task_from_row(row)).service_name
        == "new"
    )  # type: ignore[union-attr]
    assert service_of(context(), "a", Task()) is service_of(context(), "a", None) is None


def test_a_world_cannot_be_changed() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    with pytest.raises(FrozenInstanceError):
        sim.world.stopping = True  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        sim.task("a").sub_state = SubState.FAILED  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        ft.TaskReady(launch=1).launch = 2  # type: ignore[misc]


def _state(sim: Simulation) -> str:
    return transaction_state(
        sim.world, "T1", [task for key, task in sim.world.tasks.items() if key[0] == "T1"]
    ).value


def test_the_state_of_a_transaction_is_that_of_its_worst_task() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c", entry=False))
    sim.begin()
    states = [_state(sim)]
    sim.ready()
    states.append(_state(sim))
    sim.ask("stop", "b")
    states.append(_state(sim))
    sim.end("a", code=1)
    states.append(_state(sim))
    sim.ask("start", "a", "b")
    sim.ready()
    sim.obedient = False
    sim.ask("stop", transaction="T1")
    states.append(_state(sim))
    sim.end("a", code=1)
    sim.end("b", code=1)
    states.append(_state(sim))
    assert states == ["activating", "active", "active", "failed", "deactivating", "inactive"]


@pytest.mark.parametrize(("order", "state"), [("restart", "activating"), ("stop", "active")])
def test_a_transaction_is_not_active_while_a_task_stops_to_start_again(order: str, state: str) -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask(order, "a")
    assert (sim.task("a").state, _state(sim)) == ("deactivating", state)


def test_a_transaction_is_not_active_while_a_task_that_was_never_ready_is_ended() -> None:
    sim = Simulation.of(task("a", start_timeout=5.0))
    sim.begin()
    sim.obedient = False
    sim.now += 5.0
    sim.ring()
    assert (sim.task("a").state, _state(sim)) == ("deactivating", "activating")
    sim.end("a", code=0)
    assert _state(sim) == "failed"


def test_since_is_the_time_of_the_last_state_change() -> None:
    """As with systemctl, the time stays the same if the sub-state changes and the state does not."""
    sim = Simulation.of(task("a", stop_timeout=5.0))
    sim.begin()
    begun = sim.task("a").since
    sim.now += 1.0
    sim.ready()
    running, sim.now = sim.now, sim.now + 1.0
    assert (begun, sim.task("a").since) == (running - 1.0, running)
    sim.obedient, sim.stuck = False, set()
    sim.ask("stop", "a")
    stopping, sim.now = sim.now, sim.now + 5.0
    sim.ring()
    assert (sim.sub_state("a"), sim.task("a").since) == ("stop-sigkill", stopping)


def test_an_exiting_context_is_deactivating_while_tasks_run() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("exit", transaction=None)
    assert _state(sim) == "deactivating"


def test_every_state_shows_a_systemd_state() -> None:
    assert {replace(Task(), sub_state=sub).state.value for sub in SubState} == {
        "inactive",
        "activating",
        "active",
        "deactivating",
        "failed",
    }
