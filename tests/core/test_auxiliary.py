"""The auxiliary processes of tasks in the core: they are no part of the task, and a supervisor that dies loses
none and starts none twice.
"""

from __future__ import annotations

import pytest
from simulation import Simulation, rule, task

from zmsvc.core import auxiliary
from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.draft import Draft

KEY = ("T1", "a")


def order(sim: Simulation) -> list[fx.Effect]:
    """Decide to start an auxiliary process. Nothing is performed."""
    draft = Draft(sim.world, sim.now)
    auxiliary.start(draft, KEY, AuxiliaryName.RELOAD, "reload", "--now")
    sim.world, effects = draft.finish()
    sim.effects += effects
    sim.save(effects)
    return list(effects)


def begun() -> Simulation:
    """Return a task that runs with an auxiliary process."""
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a")))
    sim.begin()
    sim.ready()
    for effect in order(sim):
        sim.perform(effect)
    sim.happen()
    assert len(sim.alive) == 2
    return sim


def test_a_task_has_one_auxiliary_process_of_each_name() -> None:
    sim = begun()
    assert not [effect for effect in order(sim) if isinstance(effect, fx.LaunchAuxiliary)]


def test_the_end_of_an_auxiliary_process_does_not_end_its_task() -> None:
    sim = begun()
    effects = sim.end(sim.auxiliary("a"), code=1)
    assert sim.sub_state("a") == "running"
    assert not sim.task("a").auxiliaries
    assert not sim.keeper.ends, "its end is acknowledged"
    assert not [effect for effect in effects if isinstance(effect, fx.PublishControl)]


@pytest.mark.parametrize("fact", [ft.TaskReady, ft.WatchdogFed], ids=["READY=1", "WATCHDOG=1"])
def test_an_auxiliary_process_does_not_notify_for_its_task(fact: type[ft.TaskReady]) -> None:
    sim = begun()
    before = sim.task("a")
    sim.happen(fact(launch=sim.auxiliary("a")))
    assert sim.task("a") == before


def test_the_end_of_a_task_ends_its_auxiliary_processes() -> None:
    sim = begun()
    launch = sim.auxiliary("a")
    sim.end("a", code=1)
    assert launch not in sim.alive
    assert not sim.task("a").auxiliaries
    assert not sim.keeper.ends, "both ends are acknowledged"


def test_a_new_supervisor_adopts_an_auxiliary_process() -> None:
    sim = begun()
    launch = sim.auxiliary("a")
    sim.crash()
    sim.happen()
    assert sim.auxiliary("a") == launch
    assert [number for number, _ in sim.keeper.forked].count(launch) == 1
    assert not [record for record in sim.records if record.event == "stranger"]


def test_a_new_supervisor_repeats_an_order_that_did_not_reach_the_keeper() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    order(sim)
    sim.crash()
    sim.happen()
    assert sim.auxiliary("a") in sim.alive
    assert sim.told(fx.LaunchAuxiliary)[-1].command == ("reload", "--now")


def test_an_end_that_came_while_no_supervisor_was_there_is_not_lost() -> None:
    sim = begun()
    launch = sim.auxiliary("a")
    sim.keeper.end(launch, code=0)
    sim.crash()
    sim.happen()
    assert not sim.task("a").auxiliaries
    assert not sim.keeper.ends


def test_a_keeper_that_dies_takes_the_auxiliary_processes_along() -> None:
    sim = begun()
    sim.another_keeper()
    assert not sim.task("a").auxiliaries
    assert not sim.world.auxiliaries


def test_a_new_supervisor_kills_an_auxiliary_process_that_the_state_file_lacks() -> None:
    """A full disk may keep the predecessor from writing that it has ordered one."""
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    saved = sim.saved
    for effect in order(sim):
        sim.perform(effect)
    unknown = sim.auxiliary("a")
    sim.saved = saved
    sim.crash()
    sim.happen()
    assert unknown not in sim.alive
    assert sim.sub_state("a") == "running"
    assert not sim.keeper.ends, "its end is acknowledged"
