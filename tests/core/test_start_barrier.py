"""Tasks that are started together: no task begins its first step before those that hear it are ready."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from counting import calls_in
from simulation import Simulation, rule, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.effects import Effect
from zmsvc.core.engine import step
from zmsvc.core.model import TaskDefinition
from zmsvc.core.probing import READY, ready


def opened(sim: Simulation, effects: list[Effect] | None = None) -> set[str]:
    """Return the tasks whose barrier was opened by these effects; without any, so far."""
    orders = sim.told(fx.OpenBarrier) if effects is None else effects
    launches = {launch for each in orders if isinstance(each, fx.OpenBarrier) for launch in each.launches}
    return {name for (_, name), each in sim.world.tasks.items() if each.launch in launches}


def test_a_first_step_waits_for_every_task_of_the_same_start_that_may_subscribe() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c"))
    sim.begin()
    sim.ready("a")
    assert sim.sub_state("a") == "running", "READY itself waits for nothing"
    sim.ready("b")
    assert not opened(sim)
    sim.ready("c")
    assert opened(sim) == {"a", "b", "c"}
    assert len(sim.told(fx.OpenBarrier)) == 1


def test_a_task_that_hears_nothing_is_not_awaited() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c"))
    sim.begin()
    sim.ready("a")
    sim.declare("b", topics=[])
    assert not opened(sim)
    sim.declare("c", topics=[])
    assert opened(sim) == {"a"}
    sim.ready("b")
    assert opened(sim) == {"a", "b"}


def test_declared_topics_narrow_what_a_task_waits_for() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c"), task("d"))
    sim.begin()
    sim.declare("a", topics=[], publishes=["raw"])
    sim.declare("b", topics=["raw"], publishes=["filtered"])
    sim.declare("c", topics=["filtered"], publishes=[])
    sim.ready("d", "a")
    assert not opened(sim)
    sim.ready("b")
    assert opened(sim) == {"a"}
    sim.ready("c")
    assert opened(sim) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("code", [0, 1])
def test_a_task_that_has_ended_is_awaited_no_longer_even_if_it_starts_again(code: int) -> None:
    sim = Simulation.of(task("a"), task("b", rule("on_fail", "restart", "b"), rule("on_exit", "start", "b")))
    sim.begin()
    sim.ready("a")
    sim.end("b", code=code)
    assert opened(sim) == {"a"}


def test_a_task_that_cannot_be_forked_or_is_stopped_is_awaited_no_longer() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c", after=("b",)), task("d", requires=("b",)))
    sim.begin()
    sim.ready("a")
    sim.ask("stop", "c")
    sim.end("b", code=1)
    assert sim.sub_state("d") == "waiting"
    assert opened(sim) == {"a"}


def test_a_task_that_starts_after_others_is_awaited_as_well() -> None:
    sim = Simulation.of(task("a"), task("b", after=("a",)), task("c", after=("b",)))
    sim.begin()
    sim.ready("a")
    sim.ready("b")
    assert not opened(sim)
    sim.ready("c")
    assert opened(sim) == {"a", "b", "c"}


def test_a_task_whose_first_step_makes_it_ready_does_not_wait_for_those_that_start_after_it() -> None:
    first = replace(task("a"), ready=READY)
    sim = Simulation.of(first, task("b"), task("c", after=("a",)))
    sim.begin()
    sim.ready("a")
    assert (sim.sub_state("a"), sim.sub_state("c")) == ("start", "start-after")
    assert not opened(sim), "b does not start after it"
    sim.ready("b")
    assert opened(sim) == {"a"}


def test_a_task_that_is_started_alone_or_beside_commands_waits_for_nothing() -> None:
    sim = Simulation.of(task("a"), task("b", kind="Command"), task("c", entry=False))
    sim.begin()
    sim.ask("start", "c")
    assert all(each.barrier is None for each in sim.world.tasks.values())


def hearing(name: str, *topics: str, **more: Any) -> TaskDefinition:
    """Return a Command whose program hears these topics."""
    return replace(task(name, kind="Command", notify=True), configuration={"subscribe": [*topics]}, **more)


def test_a_command_that_subscribes_is_awaited_until_it_is_ready_and_waits_for_nothing() -> None:
    sim = Simulation.of(task("a"), hearing("b", "raw"), hearing("c", "other"))
    sim.begin()
    sim.declare("a", topics=[], publishes=["raw"])
    sim.ready("a")
    sim.execute("b")
    assert not opened(sim)
    sim.crash()
    sim.happen()
    assert not opened(sim)
    sim.ready("b")
    assert opened(sim) == {"a"}
    assert sim.keeper.opened == {sim.launch_of("a")}, "a Command has no barrier"


def test_a_command_that_fails_is_awaited_no_longer() -> None:
    sim = Simulation.of(task("a"), hearing("b", "raw"))
    sim.begin()
    sim.ready("a")
    sim.end("b", code=1)
    assert opened(sim) == {"a"}


def test_a_command_whose_first_message_makes_it_ready_is_awaited_until_its_program_runs() -> None:
    """Its first message may be the answer to one of the task that would wait for it."""
    sim = Simulation.of(task("a"), hearing("b", "raw", notify=False, ready=ready(topic="filtered")))
    sim.begin()
    sim.ready("a")
    assert not opened(sim)
    sim.execute("b")
    assert (opened(sim), sim.sub_state("b")) == ({"a"}, "start")


def test_commands_alone_have_no_barrier() -> None:
    sim = Simulation.of(hearing("a", "raw"), hearing("b", "raw"))
    sim.begin()
    assert all(each.barrier is None for each in sim.world.tasks.values())


def test_two_transactions_do_not_wait_for_each_other() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ask("start", transaction="T2")
    sim.ready("a")
    assert not opened(sim)
    sim.happen(ft.TaskReady(launch=sim.launch_of("b")))
    assert sim.keeper.opened == {sim.launch_of("a"), sim.launch_of("b")}


def work(count: int) -> int:
    """Return the work for READY of tasks that hear what the others publish."""
    names = [f"task{number}" for number in range(count)]
    sim = Simulation.of(*(task(name) for name in names))
    sim.begin()
    for name in names:
        sim.declare(name, topics=["common"], publishes=["common"])
    world = sim.world

    def all_ready() -> None:
        nonlocal world
        for name in names:
            world, effects = step(world, ft.TaskReady(launch=sim.launch_of(name)), 0.0)
        assert [len(each.launches) for each in effects if isinstance(each, fx.OpenBarrier)] == [count]

    return calls_in(all_ready)


def test_the_work_for_many_tasks_that_hear_each_other_grows_with_their_number() -> None:
    assert work(400) < 2.5 * work(200)
