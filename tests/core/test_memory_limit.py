"""memory_restart: a task that uses more memory than that has failed, and starts again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation import Simulation, context, rule, task

from zmsvc.core import facts as ft
from zmsvc.core.memory_limit import Measurement, may_measure, to_measure
from zmsvc.core.model import Only, Rule, TaskDefinition, Trigger
from zmsvc.core.restart import rules_of
from zmsvc.core.service_options import Restart

LIMIT = 64 << 20
MACHINE = 1 << 30


def limited(name: str, *rules: Rule, limit: int | str = LIMIT) -> TaskDefinition:
    """Return a task as the reader makes it."""
    own = rules_of(None, name, rules, limited=True)
    return replace(task(name, *rules, *own, stop_timeout=5.0), memory_restart=limit)


def running(*tasks: TaskDefinition) -> Simulation:
    sim = Simulation.of(*tasks)
    sim.begin()
    sim.ready()
    sim.now += 100
    return sim


def measure(sim: Simulation, name: str, used: int) -> None:
    sim.happen(ft.MemoryMeasured(launch=sim.launch_of(name), used=used, machine=MACHINE))


def test_a_task_above_its_limit_has_failed_and_starts_again() -> None:
    sim = running(limited("a", rule("on_fail", "start", "b")), task("b", entry=False))
    first = sim.launch_of("a")
    sim.obedient = False
    measure(sim, "a", LIMIT + 1)
    assert (sim.sub_state("a"), sim.alive[first].signals) == ("stop-sigterm", ["SIGTERM"])
    sim.end("a", code=0)
    ended = sim.task("a")
    assert ended.exit is not None
    assert (ended.sub_state, ended.exit.reason, ended.failures) == ("back-off", "memory-limit", 1)
    assert sim.launched("b") == 1
    (failed,) = [each for each in sim.records if each.event == "failed"]
    assert failed.detail["message"] == "used 64.0M of memory, above its memory_restart of 64.0M"
    sim.ring()
    sim.ready()
    assert (sim.sub_state("a"), sim.task("a").restarts) == ("running", 1)


@pytest.mark.parametrize("limit", [LIMIT, "6.25%"])
def test_the_limit_itself_may_be_used(limit: int | str) -> None:
    sim = running(limited("a", limit=limit))
    measure(sim, "a", LIMIT)
    assert sim.sub_state("a") == "running"
    measure(sim, "a", LIMIT + 1)
    assert sim.sub_state("a") == "back-off"


def test_a_task_that_is_not_ready_yet_has_its_limit_too() -> None:
    sim = Simulation.of(limited("a"))
    sim.begin()
    measure(sim, "a", LIMIT + 1)
    assert sim.task("a").exit is not None
    assert sim.task("a").sub_state == "back-off"


def test_a_measurement_of_a_task_that_stops_or_has_no_limit_changes_nothing() -> None:
    sim = running(limited("a"), task("b"))
    sim.obedient = False
    measure(sim, "b", MACHINE)
    assert sim.sub_state("b") == "running"
    sim.ask("stop", "a")
    before = sim.world
    measure(sim, "a", MACHINE)
    assert sim.world == before
    sim.end("a", code=0)
    assert sim.sub_state("a") == "stopped"


def test_a_task_that_an_operator_stops_meanwhile_does_not_start_again() -> None:
    sim = running(limited("a"))
    sim.obedient = False
    measure(sim, "a", LIMIT + 1)
    sim.ask("stop", "a")
    sim.end("a", code=0)
    assert sim.sub_state("a") == "failed"
    assert sim.launched("a") == 1


def test_a_reload_changes_the_limit_of_a_running_task() -> None:
    sim = running(limited("a"))
    launch = sim.launch_of("a")
    sim.reload(limited("a", limit=2 * LIMIT))
    measure(sim, "a", LIMIT + 1)
    assert (sim.sub_state("a"), sim.launch_of("a")) == ("running", launch)
    measure(sim, "a", 2 * LIMIT + 1)
    assert sim.sub_state("a") == "back-off"


def test_a_task_without_an_on_fail_rule_gets_one_for_this_reason_alone() -> None:
    own = rules_of(None, "a", [rule("on_fail", "start", "b"), rule("on_exit", "start", "a")], limited=True)
    assert [(each.trigger, each.only) for each in own] == [(Trigger.ON_FAIL, Only.MEMORY_LIMIT)]
    assert rules_of(None, "a", [rule("on_fail", "restart", "a")], limited=True) == ()
    kinds = {restart: len(rules_of(restart, "a", [], limited=True)) for restart in Restart}
    assert kinds == {"no": 1, "on-failure": 1, "on-abnormal": 1, "on-watchdog": 2, "always": 2}


def test_only_running_tasks_with_a_limit_are_measured() -> None:
    sim = running(limited("a"), task("b"), replace(limited("c"), entry=False), limited("d", limit="50%"))
    sim.obedient = False
    assert list(to_measure(sim.world, MACHINE)) == [
        Measurement(launch=sim.launch_of(name), key=("T1", name), pid=sim.task(name).pid or 0, limit=limit)
        for name, limit in (("a", LIMIT), ("d", MACHINE // 2))
    ]
    sim.ask("stop")
    assert list(to_measure(sim.world, MACHINE)) == []
    assert (may_measure(sim.world.context), may_measure(context(task("b")))) == (True, False)
