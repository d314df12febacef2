"""core/failures: the rules of the context about failures, and the consequences if nothing starts the task
again.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from simulation import Simulation, context, rule, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.model import Rule
from zmsvc.core.transitions import rules_of_tasks

ALERT = rule("on_any_fail", "start", "alert")


def failed_for_good(sim: Simulation) -> list[str]:
    """Return the tasks with a record that they have failed for good, one for each record."""
    return [record.task for record in sim.records if record.detail.get("for_good")]


def left(sim: Simulation) -> list[int]:
    return [effect.status for effect in sim.told(fx.Leave)]


# --- failed for good


def test_a_failure_that_no_rule_answers_is_for_good() -> None:
    sim = Simulation.of(task("a"), task("b", rule("on_fail", "restart", "b")))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    sim.end("b", code=1)
    assert failed_for_good(sim) == ["a"]
    assert [record.event for record in sim.records if record.task == "a"][-1] == "failed"


def test_a_start_limit_ends_a_task_for_good_once() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), start_limit_burst=2))
    sim.begin()
    for _ in range(3):
        sim.ready()
        sim.end("a", code=1)
        sim.ring()
    assert sim.sub_state("a") == "failed"
    assert failed_for_good(sim) == ["a"]
    assert sim.records[-1].detail["reason"] == "start-limit"


def test_a_failure_is_for_good_even_if_another_task_may_start_it_later() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "start", "b")), task("b", rule("on_start", "start", "a"), entry=False)
    )
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    assert failed_for_good(sim) == ["a"], "nothing starts it yet"
    sim.now += 30
    sim.ready("b")
    assert sim.sub_state("a") == "start"


@pytest.mark.parametrize("verb", ["stop", "exit"])
def test_what_is_being_stopped_does_not_fail_for_good(verb: str) -> None:
    sim = Simulation.of(task("a", start_timeout=1.0, failure_action="exit", stop_timeout=2.0), task("b"))
    sim.begin()
    sim.obedient = False
    sim.ring()
    assert sim.sub_state("a") == "stop-sigterm", "it was not ready in time"
    sim.ask(verb, transaction="T1" if verb == "stop" else None, request=1)
    sim.rest()
    assert sim.sub_state("a") == "failed"
    assert failed_for_good(sim) == []
    assert left(sim) == ([0] if verb == "exit" else [])


def test_an_operator_who_stops_a_failing_task_sees_no_failure_action() -> None:
    sim = Simulation.of(task("a", start_timeout=1.0, failure_action="exit", stop_timeout=2.0))
    sim.begin()
    sim.obedient = False
    sim.ring()
    sim.ask("stop", "a", request=1)
    sim.rest()
    assert sim.sub_state("a") == "failed"
    assert (failed_for_good(sim), left(sim)) == ([], [])


# --- failure_action


def test_failure_action_stop_stops_the_transaction_of_the_task_alone() -> None:
    sim = Simulation.of(task("a", failure_action="stop"), task("b", rule("on_exit", "start", "a")))
    sim.begin()
    sim.ask("start", transaction="T2", request=1)
    sim.ready()
    sim.end("a", code=1)
    assert [sim.sub_state(name) for name in ("a", "b")] == ["failed", "stopped"]
    assert not sim.world.transactions["T1"].open
    assert [sim.sub_state(name, "T2") for name in ("a", "b")] == ["running", "running"]
    (record,) = [each for each in sim.records if each.event == "failure-action"]
    assert (record.task, record.detail) == ("a", {"action": "stop"})


def test_failure_action_waits_until_no_rule_starts_the_task_again() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), failure_action="stop", start_limit_burst=1), task("b")
    )
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    assert sim.world.transactions["T1"].open
    sim.ring()
    sim.ready()
    sim.end("a", code=1)
    assert sim.reason("a") == "start-limit"
    assert not sim.world.transactions["T1"].open
    assert sim.sub_state("b") == "stopped"


def test_failure_action_exit_ends_the_daemon_with_status_9_when_all_is_stopped() -> None:
    sim = Simulation.of(task("a", failure_action="exit"), task("b"))
    sim.begin()
    sim.ask("start", transaction="T2", request=1)
    sim.ready()
    sim.obedient = False
    sim.end("a", code=1)
    assert left(sim) == []
    for launch in list(sim.alive):
        sim.end(launch, code=0)
    assert left(sim) == [9]
    assert all(each.open for each in sim.world.transactions.values()), "the next start resumes them"
    sim.another_keeper()
    assert (sim.world.stopping, sim.world.exit_status) == (False, 0)
    assert sim.sub_state("a") == "start"


def test_a_context_that_fails_while_it_starts_never_becomes_ready() -> None:
    sim = Simulation.of(task("a", failure_action="exit"), task("b"))
    sim.begin()
    sim.end("a", code=1)
    assert left(sim) == [9]
    assert sim.told(fx.Ready) == []


def test_the_first_failure_action_that_ends_the_daemon_counts() -> None:
    sim = Simulation.of(task("a", failure_action="exit"), task("b", failure_action="stop"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.end("a", code=1)
    sim.end("b", code=1)
    assert left(sim) == [9]
    assert sim.world.transactions["T1"].open


def test_a_client_that_waits_learns_what_stopped_the_task() -> None:
    sim = Simulation.of(task("a", failure_action="stop"), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.ask("start", "b", request=5)
    sim.end("a", code=1)
    (reply,) = sim.replies(5)
    assert reply.error == "cannot start b: stopped meanwhile by the failure action of a"


def test_a_task_that_cannot_be_launched_has_its_failure_action() -> None:
    sim = Simulation.of(task("a", failure_action="exit"))
    sim.keeper.broken = True
    sim.begin()
    assert left(sim) == [9]


# --- on_any_fail


def test_on_any_fail_acts_at_every_failure_of_every_task_with_its_cause() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a")), task("b"), task("alert", entry=False), any_fail=[ALERT]
    )
    sim.begin()
    sim.ready()
    for name, code in (("a", 3), ("b", 4)):
        sim.now += 30
        sim.end(name, code=code)
        (source,) = sim.task("alert").cause.sources
        assert (source.task, source.trigger, source.rule) == (name, "on_any_fail", "on_any_fail:start:alert")
        assert source.exit is not None
        assert (source.exit.reason, source.exit.code) == ("exit-code", code)
        sim.ready("alert")
        sim.end("alert", code=0)
    assert sim.launched("alert") == 2
    assert sim.sub_state("a") == "back-off"


def test_on_any_fail_acts_when_a_start_limit_is_reached() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), start_limit_burst=1),
        task("alert", entry=False),
        any_fail=[ALERT],
    )
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    sim.ring()
    sim.ready()
    sim.now += 30
    sim.end("alert", code=0)
    sim.end("a", code=1)
    (source,) = sim.task("alert").cause.sources
    assert source.exit is not None
    assert (source.exit.reason, source.exit.code) == ("start-limit", 1)


def test_an_alert_that_fails_does_not_start_itself() -> None:
    sim = Simulation.of(task("a"), task("alert", entry=False), any_fail=[ALERT])
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    sim.ready("alert")
    sim.end("alert", code=1)
    sim.rest()
    assert sim.launched("alert") == 1
    assert failed_for_good(sim) == ["a", "alert"]


@pytest.mark.parametrize(
    "any_fail", [[rule("on_any_fail", "stop", "b")], [rule("on_any_fail", "restart", "b")]]
)
def test_on_any_fail_stops_and_restarts_too(any_fail: list[Rule]) -> None:
    sim = Simulation.of(task("a"), task("b"), any_fail=any_fail)
    sim.begin()
    sim.ready()
    sim.now += 30
    sim.end("a", code=1)
    assert sim.sub_state("b") == ("stopped" if any_fail[0].action == "stop" else "start")


def test_a_reload_changes_on_any_fail() -> None:
    tasks = (task("a"), task("alert", entry=False))
    sim = Simulation.of(*tasks)
    sim.begin()
    sim.ready()
    new = context(*tasks, any_fail=[ALERT])
    sim.happen(ft.ContextReloaded(context=new, request=8))
    (reply,) = sim.replies(8)
    assert reply.data["context"] == ["on_any_fail"]
    sim.end("a", code=1)
    assert sim.sub_state("alert") == "start"


def test_no_rule_of_the_context_acts_while_its_transaction_is_stopped() -> None:
    sim = Simulation.of(
        task("a", start_timeout=1.0, stop_timeout=2.0), task("alert", entry=False), any_fail=[ALERT]
    )
    sim.begin()
    sim.obedient = False
    sim.ring()
    sim.ask("stop", request=1)
    sim.rest()
    assert sim.reason("a") == "not-ready"
    assert sim.launched("alert") == 0


# --- a crash of the supervisor


def test_a_crash_at_any_point_fires_on_any_fail_once() -> None:
    def told(die_at: tuple[int, int | None] | None = None) -> Simulation:
        sim = Simulation.of(task("a"), task("b"), task("alert", entry=False), any_fail=[ALERT])
        sim.die_at, sim.checked = die_at, die_at is None
        sim.begin()
        sim.ready()
        sim.end("a", code=1)
        sim.ready("alert")
        sim.end("alert", code=0)
        sim.now += 30
        sim.end("b", code=1)
        return sim

    whole = told()
    assert whole.launched("alert") == 2
    assert failed_for_good(whole) == ["a", "b"]
    for turn, orders in enumerate(whole.performed, start=1):
        for point in (None, *range(orders + 1)):
            broken = told((turn, point))
            assert broken.outcome() == whole.outcome(), f"dead in turn {turn} at {point}"


def test_the_details_of_a_failure_are_plain_json() -> None:
    sim = Simulation.of(replace(task("a"), description="x"))
    sim.begin()
    sim.end("a", code=1)
    json.dumps([record.detail for record in sim.records])


def test_a_failure_action_that_stops_all_tasks_stops_them_in_their_order() -> None:
    """The rule of the failed task restarts one that others come after, in the step that stops the others."""
    sim = Simulation.of(
        task("a"),
        task("b", rule("on_fail", "restart", "a"), after=("a",), failure_action="stop"),
        task("c", after=("a",)),
    )
    sim.begin()
    sim.ready("a")
    sim.ready("b", "c")
    sim.obedient = False
    sim.end("b", code=1)
    assert (sim.sub_state("a"), sim.sub_state("c")) == ("stop-after", "stop-sigterm")


def test_the_rules_of_the_context_are_among_the_rules_of_each_task_but_the_called_one() -> None:
    again = rule("on_fail", "restart", "a")
    stop = rule("on_any_fail", "stop", "a")
    given = context(task("a", again), task("alert", entry=False), any_fail=[ALERT, stop])
    assert [*rules_of_tasks(given)] == [("a", again), ("a", ALERT), ("a", stop), ("alert", stop)]
