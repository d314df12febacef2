"""Rules with conditions in the engine: ends that they name, events that they count, and recoveries."""

from __future__ import annotations

import json

import pytest
from simulation import Simulation, rule, task

from zmsvc.core.rule_counts import counted
from zmsvc.core.world import Reason, Task, task_from_row, task_to_row

OWN = rule("on_fail", "restart", "a")


def begun(*rules: object, **more: object) -> Simulation:
    """Return a context in which a restarts itself after each failure, and b waits for a rule of a."""
    sim = Simulation.of(task("a", OWN, *rules, **more), task("b", entry=False))  # type: ignore[arg-type]
    sim.begin()
    sim.ready()
    return sim


def fail(sim: Simulation, code: int | None = 1, after: float = 20.0, **how: str) -> None:
    """Let a run for a while, fail, and be ready again."""
    sim.now += after
    sim.end("a", code=None if how else code, **how)  # type: ignore[arg-type]
    sim.ring()
    sim.ready("a")


def fired(sim: Simulation) -> list[str]:
    return [each.detail["rule"] for each in sim.records if each.event == "rule" and each.task == "b"]


# --- when


def test_a_rule_fires_for_the_ends_that_it_names_alone() -> None:
    sim = begun(rule("on_fail", "restart", "b", when="exit-code:75 signal:SIGSEGV"))
    fail(sim, 1)
    fail(sim, signal="SIGKILL")
    assert (fired(sim), sim.launched("b")) == ([], 0)
    fail(sim, 75)
    fail(sim, signal="SIGSEGV")
    assert fired(sim) == ["on_fail:restart:b when exit-code:75 signal:SIGSEGV"] * 2
    (source,) = sim.task("b").cause.sources
    assert (source.task, source.exit and source.exit.signal) == ("a", "SIGSEGV")


def test_each_of_several_rules_of_a_trigger_fires_for_its_own_ends() -> None:
    rules = [rule("on_fail", "start", name, when=f"exit-code:{code}") for name, code in (("b", 1), ("c", 2))]
    both = rule("on_fail", "start", "d")
    sim = Simulation.of(task("a", OWN, *rules, both), *(task(name, entry=False) for name in "bcd"))
    sim.begin()
    sim.ready()
    fail(sim, 2)
    assert [sim.launched(name) for name in "abcd"] == [2, 0, 1, 1]


def test_on_exit_tells_an_end_by_itself_from_an_ordered_one() -> None:
    for when, code in (("exited", 1), ("requested", 0)):
        sim = begun(rule("on_exit", "start", "b", when=when))
        sim.end("a", code=0)
        assert sim.launched("b") == code
        sim.ask("start", "a")
        sim.ready()
        sim.ask("stop", "a")
        assert sim.launched("b") == 1


def test_a_rule_of_the_context_fires_at_a_start_limit_that_it_names() -> None:
    limited = task("a", OWN, start_limit_burst=1, start_limit_interval=1000.0)
    any_fail = [rule("on_any_fail", "start", "b", when="start-limit")]
    sim = Simulation.of(limited, task("b", entry=False), any_fail=any_fail)
    sim.begin()
    sim.ready()
    fail(sim)
    assert sim.launched("b") == 0
    sim.end("a", code=1)
    assert (sim.reason("a"), sim.launched("b")) == ("start-limit", 1)


# --- after


def test_a_rule_with_an_after_fires_at_the_last_of_so_many_events_and_counts_anew() -> None:
    sim = begun(rule("on_fail", "restart", "b", after="3 in 1min"))
    launches = []
    for _ in range(7):
        fail(sim, after=10.0)
        launches.append(sim.launched("b"))
    assert launches == [0, 0, 1, 1, 1, 2, 2]
    assert fired(sim) == ["on_fail:restart:b after 3 in 60s"] * 2


def test_events_further_apart_than_the_time_of_an_after_do_not_count_together() -> None:
    sim = begun(rule("on_fail", "start", "b", after="2 in 1min"))
    for apart in (60.0, 60.0, 61.0):
        fail(sim, after=apart)
    assert sim.launched("b") == 0
    fail(sim, after=50.0)
    assert sim.launched("b") == 1


def test_only_the_ends_that_a_rule_names_count() -> None:
    sim = begun(rule("on_fail", "start", "b", when="exit-code:75", after="2 in 1min"))
    for code, launches in ((75, 0), (1, 0), (1, 0), (75, 1)):
        fail(sim, code, after=10.0)
        assert sim.launched("b") == launches


@pytest.mark.parametrize(
    ("trigger", "rounds", "code"),
    [("on_start", 2, 0), ("on_update", 2, 0), ("on_exit", 2, 0), ("on_fail", 2, 1), ("on_recover", 3, 1)],
)
def test_each_trigger_counts(trigger: str, rounds: int, code: int) -> None:
    counting = rule(trigger, "start", "b", after="2 in 1min")
    sim = Simulation.of(task("a", counting, entry=False), task("b", entry=False))
    sim.begin()
    for left in reversed(range(rounds)):
        sim.ask("start", "a")
        sim.ready("a")
        sim.update("a", n=left)
        sim.end("a", code=code)
        assert sim.launched("b") == (0 if left else 1)


def test_each_task_counts_for_itself_for_a_rule_of_the_context() -> None:
    failing = [task(name, rule("on_fail", "restart", name), watchdog=5.0) for name in "ac"]
    any_fail = [rule("on_any_fail", "start", "b", after="2 in 1min")]
    sim = Simulation.of(*failing, task("b", entry=False), any_fail=any_fail)
    sim.begin()
    sim.ready()
    for name, launches in (("a", 0), ("c", 0), ("a", 1)):
        sim.now += 1
        sim.end(name, code=1)
        assert sim.launched("b") == launches
        sim.ring()
        sim.ready()


def test_a_rule_that_is_there_twice_counts_an_event_once() -> None:
    sim = begun(*[rule("on_fail", "start", "b", after="2 in 1min")] * 2)
    fail(sim)
    assert sim.launched("b") == 0
    fail(sim)
    assert (sim.launched("b"), len(fired(sim))) == (1, 2)


def test_counts_survive_the_supervisor_and_not_the_keeper() -> None:
    sim = begun(rule("on_fail", "start", "b", after="2 in 1min"))
    fail(sim)
    sim.crash()
    sim.happen()
    fail(sim)
    assert sim.launched("b") == 1, "the failure before the crash counts, once"
    fail(sim)
    sim.another_keeper()
    sim.ready()
    fail(sim)
    assert sim.launched("b") == 0, "the times of another boot mean nothing"


def test_a_reload_keeps_the_counts_of_the_rules_that_stay() -> None:
    stays, goes = (rule("on_fail", "start", name, after="2 in 1min") for name in "bc")
    sim = begun(stays, goes)
    fail(sim)
    changed = rule("on_fail", "start", "c", after="3 in 1min")
    sim.reload(task("a", OWN, stays, changed), task("b", entry=False), task("c", entry=False))
    fail(sim, after=1.0)
    assert (sim.launched("b"), sim.launched("c")) == (1, 0)
    assert [*sim.task("a").counted] == ["on_fail:start:c after 3 in 60s"], "nothing is left of the others"


def test_reset_failed_forgets_the_counts() -> None:
    sim = begun(rule("on_fail", "start", "b", after="2 in 1min"))
    sim.end("a", code=1)
    sim.ask("reset-failed", "a")
    sim.ring()
    sim.ready("a")
    fail(sim, after=1.0)
    assert sim.launched("b") == 0


def test_the_row_of_a_task_has_its_counts_and_that_of_any_other_one_has_none() -> None:
    after = rule("on_fail", "start", "b", after="2 in 1min")
    sim = begun(after)
    assert not {"counted", "has_failed"} & task_to_row(sim.task("a")).keys()
    fail(sim)
    row = json.loads(json.dumps(task_to_row(sim.task("a"))))
    assert task_from_row(row, "running") == sim.task("a")
    assert len(counted(sim.task("a"), after, sim.now)) == 1
    with pytest.raises((TypeError, ValueError)):
        task_from_row({**row, "counted": 3}, "running")
    assert counted(Task(), after, sim.now) == ()
    plain = begun()
    plain.end("a", code=1)
    assert not {"counted", "has_failed"} & task_to_row(plain.task("a")).keys(), "an old release can read it"


# --- on_recover


def test_a_task_that_is_ready_after_its_own_failure_has_recovered() -> None:
    sim = begun(rule("on_recover", "restart", "b"))
    assert sim.launched("b") == 0, "the first READY is not a recovery"
    sim.ask("restart", "a")
    sim.ready("a")
    assert sim.launched("b") == 0, "an order is not a failure"
    sim.end("a", code=1)
    sim.ring()
    assert sim.launched("b") == 0, "it is not ready yet"
    sim.ready("a")
    assert (sim.launched("b"), fired(sim)) == (1, ["on_recover:restart:b"])
    (source,) = sim.task("b").cause.sources
    assert (source.task, source.trigger, source.exit) == ("a", "on_recover", None)
    sim.ask("restart", "a")
    sim.ready("a")
    assert sim.launched("b") == 1, "it has recovered once"


def test_a_recovery_follows_the_on_start_rules_and_waits_through_stops_and_restarts() -> None:
    sim = Simulation.of(
        task("a", rule("on_start", "start", "b"), rule("on_recover", "stop", "b")), task("b", entry=False)
    )
    sim.begin()
    sim.ready("a")
    sim.ready("b")
    assert sim.sub_state("b") == "running"
    sim.end("a", code=1)
    sim.ask("start", "a")
    sim.ask("stop", "a")
    assert sim.task("a").has_failed
    sim.ask("stop")
    sim.another_keeper()
    sim.ask("start")
    assert sim.task("a").has_failed, "a failure is not forgotten before the task is ready"
    sim.ready()
    assert (sim.sub_state("b"), sim.task("a").has_failed) == ("stopped", False)


def test_the_end_of_the_daemon_is_no_failure_to_recover_from() -> None:
    sim = begun(rule("on_recover", "start", "b"))
    sim.another_keeper()
    assert sim.reason("a") == Reason.LOST
    sim.ready()
    assert sim.launched("b") == 0


def test_a_start_limit_is_a_failure_to_recover_from() -> None:
    sim = begun(rule("on_recover", "start", "b"), start_limit_burst=1, start_limit_interval=1000.0)
    fail(sim)
    sim.end("b", code=0)
    sim.end("a", code=1)
    assert sim.reason("a") == Reason.START_LIMIT
    sim.ask("start", "a")
    sim.ready("a")
    assert len(fired(sim)) == 2
