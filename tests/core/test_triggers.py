"""Rules: when they fire, the causes of the launches, and the delays that slow rings of rules and crash loops
down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import BEGINNING, Simulation, rule, task

from zmsvc.core import effects as fx
from zmsvc.core.back_off import (
    FLOOR,
    JITTER,
    back_off,
    failures_after,
    least_times,
    next_quick_start,
    over_limit,
    recent_starts,
)
from zmsvc.core.cause import (
    MAX_SOURCES,
    MAX_UPDATES,
    NO_CAUSE,
    CauseSource,
    SourceExit,
    as_json,
    by_rule,
    from_json,
    size_of,
    summary,
)
from zmsvc.core.lifecycle import SubState
from zmsvc.core.model import Action, Trigger
from zmsvc.core.restart import contradictions, rules_of
from zmsvc.core.service_options import Limits, Restart
from zmsvc.core.transitions import rules_for
from zmsvc.core.world import Exit, Reason, Task

TRIGGERS = ["on_start", "on_update", "on_fail", "on_exit"]
ACTIONS = ["start", "stop", "restart"]


def fire(sim: Simulation, trigger: str) -> None:
    """Make this trigger happen to task a, which has not been started yet."""
    sim.ask("start", "a")
    sim.ready()
    match trigger:
        case "on_update":
            sim.update("a", n=1)
        case "on_fail":
            sim.end("a", code=3)
        case "on_exit":
            sim.end("a", code=0)


# --- what fires


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_trigger_does_every_action(trigger: str, action: str) -> None:
    sim = Simulation.of(
        task("a", rule(trigger, action, "b"), entry=False), task("b", entry=action != "start")
    )
    sim.begin()
    sim.ready()
    sim.ask("start", transaction="T2")
    sim.ready()
    sim.now += 10
    before, other = sim.launched("b"), sim.world.tasks[("T2", "b")]
    fire(sim, trigger)
    sim.ready()
    assert sim.launched("b") - before == (0 if action == "stop" else 1)
    assert sim.sub_state("b") == ("stopped" if action == "stop" else "running")
    assert sim.world.tasks[("T2", "b")] is other, "another transaction is another world"
    (fired,) = [record for record in sim.records if record.event == "rule"]
    assert fired.detail == {"rule": f"{trigger}:{action}:b", "source": "a", "launch": sim.launch_of("a")}


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_trigger_fires_only_its_own_rules(trigger: str) -> None:
    others = [rule(other, "start", "b") for other in TRIGGERS if other != trigger]
    sim = Simulation.of(task("a", *others, entry=False), task("b", entry=False))
    sim.begin()
    fire(sim, trigger)
    # The task had to start before it could fail, exit or send an update.
    assert (sim.launched("b") == 0) == (trigger == "on_start")


def test_a_restart_by_rule_starts_an_inactive_task() -> None:
    sim = Simulation.of(task("a", rule("on_start", "restart", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    assert sim.sub_state("b") == "start"


def test_a_start_by_rule_of_a_running_task_changes_nothing() -> None:
    sim = Simulation.of(task("a", rule("on_update", "start", "b")), task("b"))
    sim.begin()
    sim.ready()
    before, records = sim.task("b"), len(sim.records)
    sim.update("a", n=1)
    assert sim.task("b") is before
    assert len(sim.records) == records


def test_a_start_by_rule_of_a_stopping_task_restarts_it() -> None:
    for action in ("start", "restart"):
        stops, starts = rule("on_update", "stop", "b"), rule("on_update", action, "b")
        sim = Simulation.of(task("a", stops), task("b"))
        sim.begin()
        sim.ready()
        sim.obedient = False
        sim.update("a", n=1)
        assert sim.sub_state("b") == "stop-sigterm"
        sim.reload(task("a", starts), task("b"))
        sim.now += 5
        sim.update("a", n=2)
        sim.end("b", code=0)
        assert sim.sub_state("b") == "start"
        assert [each.update for each in sim.task("b").cause.sources] == [{"n": 2}]


def test_a_stop_by_rule_ends_a_back_off() -> None:
    sim = Simulation.of(task("a", rule("on_update", "stop", "b")), task("b", rule("on_fail", "restart", "b")))
    sim.begin()
    sim.ready()
    sim.end("b", code=1)
    sim.update("a", n=1)
    assert sim.sub_state("b") == "stopped"
    before, records = sim.task("b"), len(sim.records)
    sim.update("a", n=2)
    assert sim.task("b") is before
    assert len(sim.records) == records, "a firing that changed nothing is not recorded"


def test_a_rule_that_calls_an_unknown_task_changes_nothing() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "nobody")))
    sim.begin()
    sim.ready()
    sim.end("a", code=0)
    assert sim.sub_state("a") == "exited"


# --- orders of the operator have priority


def test_the_operators_stop_beats_every_rule() -> None:
    sim = Simulation.of(
        task(
            "a", rule("on_exit", "start", "a"), rule("on_exit", "start", "b"), rule("on_exit", "restart", "a")
        ),
        task("b", rule("on_start", "start", "a"), rule("on_start", "restart", "a"), entry=False),
    )
    sim.begin()
    sim.ready()
    sim.ask("stop", "a")
    sim.ready()
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("stopped", "running"), (
        "its on_exit fires, but nothing starts it again"
    )
    assert sum(record.event == "rule-refused" for record in sim.records) == 2
    sim.ask("start", "a")
    sim.ready()
    assert sim.sub_state("a") == "running"
    sim.end("a", code=0)
    sim.ring()
    assert sim.sub_state("a") == "start", "and now its rules count again"


def test_a_flood_of_firings_is_recorded_sparsely_and_counted() -> None:
    """The rows of a thousand updates a second must not replace the rest of the history."""
    sim = Simulation.of(task("a", rule("on_update", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.ask("stop", "b")
    for number in range(1000):
        sim.update("a", n=number)
    refused = [record for record in sim.records if record.event == "rule-refused"]
    assert len(refused) == 64 + 3
    assert [record.detail.get("firings") for record in refused[-4:]] == [None, 128, 256, 512]
    assert sim.world.tasks["T1", "b"].firings == 1000
    sim.ask("start", "b")
    assert sim.world.tasks["T1", "b"].firings == 0


@pytest.mark.parametrize("by_rule", [True, False])
def test_a_result_reported_during_a_stop_does_not_restart_the_task(by_rule: bool) -> None:
    """The update of a task may come while it stops. A stop by a rule counts like one by an operator."""
    sim = Simulation.of(
        task("a", rule("on_update", "stop", "b")),
        task("b", rule("on_update", "restart", "b"), rule("on_update", "start", "c")),
        task("c", entry=False),
    )
    sim.begin()
    sim.ready()
    sim.obedient = False
    if by_rule:
        sim.update("a", n=1)
    else:
        sim.ask("stop", "b")
    sim.update("b", last="words")
    sim.end("b", code=0)
    assert (sim.sub_state("b"), sim.sub_state("c")) == ("stopped", "start")


def test_a_task_that_a_rule_stops_does_not_start_itself_again() -> None:
    sim = Simulation.of(
        task("a", rule("on_update", "stop", "b")),
        task(
            "b", rule("on_exit", "start", "b"), rule("on_exit", "restart", "b"), rule("on_exit", "start", "c")
        ),
        task("c", entry=False),
    )
    sim.begin()
    sim.ready()
    sim.update("a", n=1)
    assert (sim.sub_state("b"), sim.sub_state("c")) == ("stopped", "start")
    assert not sim.task("b").stopped_by_operator, "but other rules may"


def test_a_task_that_hangs_when_the_operator_stops_it_stays_stopped() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), rule("on_fail", "start", "b"), watchdog=1.0),
        task("b", entry=False),
    )
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ring()
    sim.ask("stop", "a")
    sim.end("a", signal="SIGABRT")
    assert (sim.sub_state("a"), sim.reason("a"), sim.sub_state("b")) == ("failed", "watchdog", "start")


@pytest.mark.parametrize("trigger", ["on_update", "on_exit", "on_fail"])
def test_no_triggers_suppresses_all_rules(trigger: str) -> None:
    sim = Simulation.of(
        task("a", rule(trigger, "start", "b"), watchdog=1.0, stop_timeout=60.0), task("b", entry=False)
    )
    sim.begin()
    sim.ready()
    sim.obedient = False
    if trigger == "on_fail":
        sim.ring()
    sim.ask("stop", "a", triggers=False)
    sim.update("a", n=1)
    sim.end("a", code=0)
    assert sim.sub_state("b") == "waiting"
    sim.ask("start", "a")
    sim.ready()
    sim.end("a", code=1 if trigger == "on_fail" else 0)
    assert sim.launched("b") == (trigger != "on_update"), "that was for this one stop"


@pytest.mark.parametrize("order", ["stop", "exit", "restart"])
def test_orders_to_a_whole_transaction_fire_no_rules(order: str) -> None:
    fires = [rule(trigger, "start", "b") for trigger in ("on_exit", "on_fail", "on_update")]
    sim = Simulation.of(task("a", *fires, watchdog=5.0), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask(order, transaction=None if order == "exit" else "T1")
    sim.update("a", n=1)
    sim.end("a", code=1)
    assert sim.launched("b") == 0
    assert sim.launched("a") == (2 if order == "restart" else 1)


def test_a_restart_of_a_task_fires_its_on_exit_except_its_own_start() -> None:
    sim = Simulation.of(
        task("a", rule("on_exit", "start", "b"), rule("on_exit", "restart", "a")), task("b", entry=False)
    )
    sim.begin()
    sim.ready()
    sim.ask("restart", "a")
    assert (sim.launched("a"), sim.launched("b")) == (2, 1)
    sim.ready()
    sim.end("b", code=0)
    sim.ask("restart", "a", triggers=False)
    assert (sim.launched("a"), sim.launched("b")) == (3, 1)


# --- causes of the started task


def test_a_started_task_learns_its_cause() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "start", "b")),
        task("b", rule("on_start", "start", "c"), entry=False),
        task("c", entry=False),
    )
    sim.begin()
    assert as_json(sim.task("a").cause) == {"by": "context", "uid": None, "depth": 0, "sources": []}
    sim.ready()
    sim.update("a", last="words")
    sim.end("a", code=42)
    (source,) = as_json(sim.task("b").cause)["sources"]
    assert source == {
        "task": "a",
        "trigger": "on_fail",
        "rule": "on_fail:start:b",
        "launch": 1,
        "exit": {"code": 42, "signal": None, "reason": "exit-code"},
        "update": {"last": "words"},
    }
    sim.ready()
    assert [sim.task(name).cause.depth for name in "abc"] == [0, 1, 2]
    assert sim.task("c").cause.sources[0].exit is None
    sim.now += 10
    sim.ask("stop", "c")
    sim.ask("start", "c")
    sim.ask("restart", "b")
    sim.end("c", code=0)
    sim.ready()
    assert sim.task("b").exit is not None
    assert sim.task("c").cause.sources[0].exit is None, "that was the end of another run"


def test_the_cause_of_a_launch_is_the_last_rule_even_if_an_earlier_one_started_it() -> None:
    sim = Simulation.of(
        task("a", rule("on_exit", "start", "a"), rule("on_exit", "start", "b")), task("b", entry=False)
    )
    sim.begin()
    sim.ready()
    sim.now += 10
    sim.update("a", n=7)
    sim.end("a", code=0)
    assert sim.sub_state("a") == "start"
    (source,) = sim.task("b").cause.sources
    assert source.exit is not None
    assert (source.launch, source.update, source.exit.code) == (1, {"n": 7}, 0)


@pytest.mark.parametrize("action", ["start", "restart"])
def test_all_rules_that_fire_before_a_launch_are_its_causes(action: str) -> None:
    sim = Simulation.of(
        *(task(name, rule("on_fail", action, "b")) for name in ("x", "y", "z")), task("b", entry=False)
    )
    sim.begin()
    sim.ready()
    for name in ("x", "y", "z"):
        sim.decide(sim.exit_of(name, code=1))
    assert [source.task for source in sim.task("b").cause.sources] == ["x", "y", "z"]
    assert sim.launch_of("b") == sim.world.next_launch - 1 == 4, "one launch for all of them"
    assert sim.sub_state("b") == "launching"


def test_a_start_by_rule_during_the_fork_changes_nothing() -> None:
    """No cause can be added to a launch that runs, because a launch gets all its causes at its start."""
    sim = Simulation.of(
        *(task(name, rule("on_fail", "start", "b")) for name in ("x", "y")), task("b", entry=False)
    )
    sim.begin()
    sim.ready()
    sim.decide(sim.exit_of("x", code=1))
    sim.now += 0.001
    before = sim.task("b")
    sim.decide(sim.exit_of("y", code=1))
    assert (sim.sub_state("b"), sim.task("b")) == ("launching", before)
    assert [source.task for source in before.cause.sources] == ["x"]


def test_a_restart_by_rule_during_the_fork_is_a_cause_of_the_next_launch() -> None:
    sim = Simulation.of(
        task("x", rule("on_fail", "start", "b")),
        task("y", rule("on_fail", "restart", "b")),
        task("b", entry=False),
    )
    sim.begin()
    sim.ready()
    sim.decide(sim.exit_of("x", code=1))
    sim.now += 0.001
    sim.decide(sim.exit_of("y", code=1))
    assert sim.sub_state("b") == "stop-sigterm"
    assert [source.task for source in sim.task("b").cause.sources] == ["x", "y"]


@pytest.mark.parametrize("action", ["start", "restart"])
def test_rules_that_fire_during_a_back_off_become_causes_and_do_not_shorten_it(action: str) -> None:
    sim = Simulation.of(
        task("a", rule("on_update", action, "b")),
        task("b", rule("on_fail", "restart", "b"), restart_delay=9.0),
    )
    sim.begin()
    sim.ready()
    sim.end("b", code=1)
    due = dict(sim.alarms)
    sim.update("a", n=1)
    sim.update("a", n=2)
    assert (sim.sub_state("b"), sim.alarms) == ("back-off", due)
    sim.ring()
    assert [source.task for source in sim.task("b").cause.sources] == ["b", "a", "a"]


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_causes_of_rules_are_kept_when_an_operator_starts_the_task_first(verb: str) -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=9.0))
    sim.begin()
    sim.ready()
    sim.end("a", code=5)
    sim.ask(verb, "a")
    assert sim.sub_state("a") == "start"
    assert (sim.task("a").cause.by, sim.task("a").cause.uid, sim.task("a").cause.depth) == ("operator", 0, 1)
    assert sim.task("a").cause.sources[0].exit == SourceExit(code=5, reason="exit-code")


def test_a_rule_adds_its_cause_to_an_operators_start() -> None:
    sim = Simulation.of(task("a", rule("on_update", "start", "b")), task("b"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("restart", "b")
    sim.update("a", n=1)
    sim.end("b", code=0)
    assert sim.sub_state("b") == "start", "at once, since a person asked"
    assert sim.task("b").cause.by == "operator"
    assert [source.update for source in sim.task("b").cause.sources] == [{"n": 1}]


def test_only_the_last_causes_are_kept_beyond_the_limit() -> None:
    cause = NO_CAUSE
    for number in range(MAX_SOURCES + 10):
        source = CauseSource(task="a", trigger="on_update", rule="on_update:start:b", launch=number)
        cause = by_rule(cause, source, depth=number % 7, join=number > 0)
    assert [source.launch for source in cause.sources] == list(range(10, MAX_SOURCES + 10))
    assert cause.depth == 6


def test_the_updates_of_a_cause_are_bounded_in_bytes() -> None:
    """64 results of 1 MiB would be more than a connection to another host carries."""
    cause, text = NO_CAUSE, "x" * 400_000
    for number in range(5):
        source = CauseSource(
            task="a",
            trigger="on_update",
            rule="on_update:start:b",
            launch=number,
            update={"text": text},
            update_bytes=size_of({"text": text}),
        )
        cause = by_rule(cause, source, depth=1, join=number > 0)
    assert [source.launch for source in cause.sources] == [3, 4]
    # One that alone is longer is kept.
    long = replace(source, launch=9, update_bytes=MAX_UPDATES + 1)
    assert by_rule(cause, long, depth=1, join=True).sources == (long,)


def test_status_and_history_have_the_latest_updates_only() -> None:
    sim = Simulation.of(task("a", rule("on_update", "start", "b")), task("b"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("restart", "b")
    sim.update("a", text="x" * 5000)
    sim.update("a", n=1)
    sim.end("b", code=0)
    cause = sim.task("b").cause
    assert [source.update for source in cause.sources] == [{"text": "x" * 5000}, {"n": 1}], "the task has all"
    shown = summary(cause)["sources"]
    assert [source["update"] for source in shown] == [None, {"n": 1}]
    assert [source.get("update_bytes") for source in shown] == [5011, None]
    # `why` reads it from the history.
    assert from_json(summary(cause)).sources[0].update_bytes == 5011
    assert from_json(as_json(cause)) == cause


# --- the brakes


def test_a_failing_task_that_restarts_itself_is_delayed_more_each_time_up_to_the_cap() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=1.0, restart_max_delay=4.0))
    sim.begin()
    delays = []
    for _ in range(6):
        sim.ready()
        sim.end("a", code=1)
        assert sim.sub_state("a") == "back-off"
        before = sim.now
        assert sim.ring()
        delays.append(sim.now - before)
    assert [round(delay) for delay in delays] == [1, 2, 4, 4, 4, 4]
    assert all(base <= delay <= base * 1.1 for base, delay in zip([1, 2, 4, 4, 4, 4], delays, strict=True))
    assert len(set(delays[2:])) == 4, "spread, so that what failed together does not start together"
    sim.ready()
    sim.now += 100
    sim.end("a", code=1)
    assert sim.task("a").failures == 1, "a good uptime forgives"
    assert "slowed" not in sim.task("a").status


def test_the_first_failure_without_a_restart_delay_restarts_at_once() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=0.0))
    sim.begin()
    sim.ready()
    sim.now += 5.0
    sim.end("a", code=1)
    assert sim.sub_state("a") == "start"
    sim.ready()
    sim.now += 5.0
    sim.end("a", code=1)
    assert sim.sub_state("a") == "back-off"


def test_a_crash_loop_without_a_restart_delay_does_not_spin() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=0.0, restart_max_delay=0.0))
    sim.begin()
    for _ in range(20):
        sim.ready()
        sim.end("a", code=1)
        sim.ring()
    assert sim.now - BEGINNING > 18 * FLOOR


@given(
    failures=st.integers(0, 10_000),
    delay=st.floats(0, 1000),
    cap=st.floats(0, 10_000),
    launch=st.integers(0, 2**63),
)
def test_a_back_off_is_within_its_bounds(failures: int, delay: float, cap: float, launch: int) -> None:
    limits = Limits(restart_delay=delay, restart_max_delay=cap)
    wait = back_off(Task(failures=failures), limits, launch)
    most = max(cap, delay)
    assert 0 <= wait <= most * (1 + JITTER)
    assert wait >= min(delay, most)
    assert back_off(Task(failures=failures), limits, launch) == wait
    assert back_off(Task(failures=failures + 1), limits, launch) >= wait
    if failures > 1:
        assert wait >= min(delay or FLOOR, most)


@given(uptime=st.floats(0, 1000), failures=st.integers(0, 9), cap=st.sampled_from([0.0, 5.0, 60.0]))
def test_failures_are_counted_until_a_good_uptime(uptime: float, failures: int, cap: float) -> None:
    good = 50.0 + uptime - 50.0 >= max(10.0, cap)
    after = failures_after(
        Task(failures=failures, launched_at=50.0), Limits(restart_max_delay=cap), 50.0 + uptime
    )
    assert after == (1 if good else failures + 1)


RINGS: dict[str, tuple[Any, ...]] = {
    "two that end": (
        task("a", rule("on_exit", "start", "b"), restart_max_delay=8.0),
        task("b", rule("on_exit", "start", "a"), entry=False, restart_max_delay=8.0),
    ),
    "one that ends": (task("a", rule("on_exit", "start", "a"), restart_max_delay=8.0),),
    "one that ends, by restart": (
        task("a", rule("on_exit", "restart", "a"), restart_max_delay=8.0, restart_delay=0.0),
    ),
    "one that restarts itself when it is ready": (
        task("a", rule("on_start", "restart", "a"), restart_max_delay=8.0),
    ),
    "two that restart each other when they are ready": (
        task("a", rule("on_start", "restart", "b"), restart_max_delay=8.0),
        task("b", rule("on_start", "restart", "a"), restart_max_delay=8.0),
    ),
    "two that stop themselves and start each other": (
        task("a", rule("on_start", "stop", "a"), rule("on_exit", "start", "b"), restart_max_delay=8.0),
        task(
            "b",
            rule("on_start", "stop", "b"),
            rule("on_exit", "start", "a"),
            entry=False,
            restart_max_delay=8.0,
        ),
    ),
    "one that fails and ends by turns": (
        task("a", rule("on_fail", "start", "a"), rule("on_exit", "start", "a"), restart_max_delay=8.0),
    ),
    "three by failure": (
        task("a", rule("on_fail", "start", "b"), restart_max_delay=8.0),
        task("b", rule("on_fail", "start", "c"), entry=False, restart_max_delay=8.0),
        task("c", rule("on_fail", "start", "a"), entry=False, restart_max_delay=8.0),
    ),
}


@pytest.mark.parametrize("name", RINGS)
def test_a_ring_of_rules_is_slowed_down_to_the_maximum_delay(name: str) -> None:
    sim = Simulation.of(*RINGS[name])
    sim.begin()
    ends = 0
    for _ in range(150):
        sim.ready()
        for launch in sorted(sim.alive) if "ready" not in name and "stop themselves" not in name else ():
            ends += 1
            sim.end(launch, code=1 if "by failure" in name or ("by turns" in name and ends % 2) else 0)
        sim.ring()
    gone = sim.now - BEGINNING
    # A lap takes at least the delay, which doubles up to its limit: 0.1, 0.2, ... 6.4, 8, 8, ...
    laps = len(sim.keeper.forked) / len(sim.world.tasks)
    assert gone > 50, "it turned"
    assert laps < 12 + gone / 8.0 * 1.01
    assert all(
        "starts again in" in each.status
        for each in sim.world.tasks.values()
        if each.sub_state is SubState.BACK_OFF
    )


def test_updates_that_restart_a_task_do_not_make_it_spin() -> None:
    sim = Simulation.of(task("a", rule("on_update", "restart", "b")), task("b", restart_max_delay=8.0))
    sim.begin()
    sim.ready()
    sim.checked = False
    for _ in range(1000):
        sim.now += 0.02
        while sim.alarms and min(sim.alarms.values()) <= sim.now:
            sim.ring()
        sim.update("a", n=1)
        sim.ready()
    assert sim.launched("b") < 12 + 20 / 8
    assert "slowed" in sim.task("b").status


def test_a_calm_ring_is_not_slowed() -> None:
    sim = Simulation.of(
        task("a", rule("on_exit", "start", "b")), task("b", rule("on_exit", "start", "a"), entry=False)
    )
    sim.begin()
    for _ in range(50):
        sim.ready()
        sim.now += 0.5
        sim.end(next(iter(sim.alive)), code=0)
        assert sim.alive, "the next one starts at once"


def test_the_file_says_after_which_uptime_a_ring_is_calm() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "a"), restart_delay=5.0))
    sim.begin()
    sim.ready()
    sim.now += 1.0
    sim.end("a", code=0)
    assert sim.alarms == {("T1", "a"): BEGINNING + 5.0}, "from one launch to the next"


def test_a_ring_that_calms_down_is_no_longer_slowed() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "a"), restart_max_delay=8.0))
    sim.begin()
    for _ in range(6):
        sim.ready()
        sim.end("a", code=0)
        sim.ring()
    assert sim.task("a").quick_starts == 6
    sim.ready()
    sim.now += 100
    sim.end("a", code=0)
    assert (sim.sub_state("a"), sim.task("a").quick_starts) == ("start", 0)


@given(laps=st.integers(0, 10_000), since=st.floats(0, 1000), delay=st.floats(0, 10), cap=st.floats(0, 100))
def test_a_start_in_a_ring_is_immediate_or_at_the_end_of_its_back_off(
    laps: int, since: float, delay: float, cap: float
) -> None:
    limits, now = Limits(restart_delay=delay, restart_max_delay=cap), 5000.0 + since
    count, at = next_quick_start(Task(launch=1, quick_starts=laps, launched_at=5000.0), limits, now)
    assert at >= now
    assert (count, at) == (0, now) or count == laps + 1
    assert at <= 5000.0 + max(cap, delay, FLOOR) or at == now
    assert next_quick_start(Task(launch=0, quick_starts=laps), limits, now) == (0, now), (
        "the first start is never late"
    )


# --- the start limit


def limited() -> Simulation:
    limits = {"restart_delay": 0.01, "start_limit_burst": 3, "start_limit_interval": 1000.0}
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), rule("on_fail", "start", "b"), **limits),
        task("b", entry=False),
    )
    sim.begin()
    for _ in range(3):
        sim.ready("a")
        sim.end("a", code=1)
        sim.ring()
    sim.ready("a")
    sim.end("a", code=1)
    return sim


def test_the_start_limit_stops_restarts_until_reset_failed() -> None:
    sim = limited()
    assert (sim.sub_state("a"), sim.reason("a"), sim.launched("a")) == ("failed", "start-limit", 4)
    assert sim.task("a").status == "started 3 times by rules within 1000 s"
    last = [effect for effect in sim.told(fx.PublishControl) if effect.key == ("T1", "a")][-1]
    assert (last.action, last.items["reason"]) == ("failed", "start-limit")
    sim.ask("reset-failed", "a")
    assert (sim.sub_state("a"), sim.replies()[0].data) == ("waiting", {"tasks": ["a"]})
    sim.ask("start", "a")
    sim.ready("a")
    sim.end("a", code=1)
    assert sim.sub_state("a") == "back-off"


def test_an_operator_may_start_a_task_at_its_start_limit() -> None:
    sim = limited()
    sim.ask("start", "a")
    sim.ready("a")
    assert sim.sub_state("a") == "running"
    sim.end("a", code=1)
    assert sim.reason("a") == "start-limit", "but the limit still counts"


def test_the_start_limit_is_reported_once_however_often_rules_fire() -> None:
    """If the starts were forgotten when the limit is hit, the next update would begin a new burst."""
    sim = Simulation.of(
        task("a", rule("on_update", "restart", "b")),
        task("b", entry=False, start_limit_burst=2, start_limit_interval=100.0),
    )
    sim.begin()
    sim.ready()
    for _ in range(20):
        sim.now += 1.0
        sim.update("a", n=1)
        sim.ready()
    assert sim.launched("b") == 2
    assert (sim.sub_state("b"), sim.reason("b")) == ("failed", "start-limit")
    assert sim.said("b").count("failed") == 1
    refused = [record for record in sim.records if record.event == "rule-refused"]
    fired = [record for record in sim.records if record.event == "rule"]
    assert {record.detail["why"] for record in refused} == {"start limit"}
    # The last firing had ended the task for a start that was then over the limit.
    assert (len(fired), len(refused)) == (3, 17), (
        "each that fires is written down once, and says what came of it"
    )
    sim.now += 100.0
    sim.update("a", n=1)
    assert sim.sub_state("b") == "start", "when the interval is over rules may start it again"


def test_a_pending_start_fails_when_rules_reach_the_start_limit() -> None:
    sim = Simulation.of(
        task("a", rule("on_update", "restart", "b")),
        task("b", entry=False, start_limit_burst=1, start_limit_interval=100.0),
    )
    sim.begin()
    sim.ready()
    sim.update("a", n=1)
    sim.ask("start", "b", request=1)
    sim.obedient = False
    sim.now += 1
    sim.update("a", n=2)
    sim.end("b", code=0)
    assert sim.sub_state("b") == "failed"
    assert "started 1 times by rules" in sim.replies(1)[0].error


@given(at=st.lists(st.floats(0, 100), max_size=9), burst=st.integers(0, 9), interval=st.floats(0.1, 100))
def test_only_recent_starts_count(at: list[float], burst: int, interval: float) -> None:
    limits = Limits(start_limit_burst=burst, start_limit_interval=interval)
    recent = recent_starts(Task(starts=tuple(at)), limits, 100.0)
    assert all(each > 100.0 - interval for each in recent)
    assert over_limit(recent, limits) == (bool(burst) and len(recent) >= burst)


@given(
    count=st.integers(1, 8),
    delay=st.floats(0.5, 30.0),
    most=st.floats(30.0, 60.0),
    uptimes=st.lists(st.sampled_from([0.0, 1.0, 60.0, 61.0]), min_size=8, max_size=8),
)
def test_failures_are_never_closer_than_the_least_time(
    count: int, delay: float, most: float, uptimes: list[float]
) -> None:
    limits = Limits(restart_delay=delay, restart_max_delay=most)
    now = last = 0.0
    failed = Task(failures=1)
    for uptime in uptimes[1:count]:
        launched_at = now + back_off(failed, limits, 0)
        now = last = launched_at + uptime
        failed = replace(
            failed, failures=failures_after(replace(failed, launched_at=launched_at), limits, now)
        )
    assert last >= least_times(limits, count)[-1] - 1e-6


def test_reset_failed_during_a_back_off_resets_the_counts_and_keeps_the_back_off() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a")), task("b"))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    due = dict(sim.alarms)
    sim.ask("reset-failed")
    assert (sim.sub_state("a"), sim.task("a").failures, sim.alarms) == ("back-off", 0, due)
    assert sim.replies()[0].data == {"tasks": ["a"]}


# --- the option `restart`

FAILURES = [reason for reason in Reason if reason not in (Reason.EXITED, Reason.REQUESTED)]
AGAIN_AFTER = {
    Restart.NO: [],
    Restart.ON_WATCHDOG: [Reason.WATCHDOG],
    Restart.ON_ABNORMAL: [
        reason for reason in FAILURES if reason not in (Reason.EXIT_CODE, Reason.CANNOT_LAUNCH)
    ],
    Restart.ON_FAILURE: FAILURES,
    Restart.ALWAYS: [Reason.EXITED, *FAILURES],
}


@pytest.mark.parametrize("restart", Restart)
def test_the_option_restart_starts_a_task_after_the_ends_that_it_names(restart: Restart) -> None:
    service = task("a", *rules_of(restart, "a", []))

    def again(reason: Reason) -> bool:
        trigger = Trigger.ON_FAIL if reason in FAILURES else Trigger.ON_EXIT
        found = rules_for(service, trigger, requested=reason is Reason.REQUESTED, end=Exit(reason=reason))
        assert all((each.action, each.call) == (Action.RESTART, "a") for each in found)
        return bool(found)

    assert [reason for reason in Reason if again(reason)] == AGAIN_AFTER[restart]


@pytest.mark.parametrize(("code", "launches"), [(3, 1), (None, 2)])
def test_on_abnormal_restarts_a_task_after_a_signal_and_not_after_an_exit_status(
    code: int | None, launches: int
) -> None:
    sim = Simulation.of(task("a", *rules_of(Restart.ON_ABNORMAL, "a", []), restart_delay=0.0))
    sim.begin()
    sim.ready()
    sim.now += 100
    sim.end("a", code=code, signal=None if code else "SIGSEGV")
    assert sim.launched("a") == launches


def test_a_task_that_always_restarts_does_not_do_so_after_a_stop() -> None:
    sim = Simulation.of(task("a", *rules_of(Restart.ALWAYS, "a", [])))
    sim.begin()
    sim.ready()
    sim.now += 100
    sim.end("a", code=0)
    sim.ready()
    assert (sim.sub_state("a"), sim.launched("a")) == ("running", 2)
    sim.ask("stop", "a")
    assert sim.sub_state("a") == "stopped"


CONTRADICTED = {
    Restart.NO: ["on_fail start", "on_fail restart", "on_exit start", "on_exit restart"],
    Restart.ON_FAILURE: ["on_fail stop"],
    Restart.ON_ABNORMAL: ["on_fail start", "on_fail stop", "on_fail restart"],
    Restart.ON_WATCHDOG: ["on_fail start", "on_fail stop", "on_fail restart"],
    Restart.ALWAYS: ["on_fail stop", "on_exit stop"],
    None: [],
}


@pytest.mark.parametrize("restart", CONTRADICTED)
def test_a_rule_on_the_task_itself_may_not_contradict_the_option_restart(restart: Restart | None) -> None:
    pairs = [(trigger, action) for trigger in TRIGGERS for action in ACTIONS]
    own, other = ([rule(*pair, name) for pair in pairs] for name in "ab")
    found = [index for index, _ in contradictions(restart, "a", own)]
    assert sorted(" ".join(pairs[index]) for index in found) == sorted(CONTRADICTED[restart])
    assert list(contradictions(restart, "a", other)) == []


def test_the_option_restart_repeats_no_rule_of_the_file() -> None:
    assert rules_of(Restart.ALWAYS, "a", [rule("on_fail", "start", "a")]) == (
        rule("on_exit", "restart", "a"),
    )
    assert rules_of(Restart.ON_FAILURE, "a", [rule("on_fail", "restart", "a")]) == ()
    assert len(rules_of(Restart.ALWAYS, "a", [rule("on_fail", "stop", "b")])) == 2


# --- the list


@given(
    rules=st.lists(st.tuples(st.sampled_from(TRIGGERS), st.sampled_from(ACTIONS), st.sampled_from("abc"))),
    trigger=st.sampled_from(TRIGGERS),
    requested=st.booleans(),
)
def test_the_rules_of_a_trigger_fire_in_the_order_of_the_file(
    rules: list[tuple[str, str, str]], trigger: str, requested: bool
) -> None:
    service = task("a", *(rule(*each) for each in rules))
    told = rules_for(service, Trigger(trigger), requested=requested)
    assert told == [
        each
        for each in service.rules
        if each.trigger == trigger and not (requested and each.call == "a" and each.action is not Action.STOP)
    ]
