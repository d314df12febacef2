"""core/history_tree: each row of the history is below the one that has caused it."""

from __future__ import annotations

from simulation import Simulation, rule, task

from zmsvc.core.cause_chain import Row
from zmsvc.core.history_tree import tree


def drawn(rows: list[Row]) -> list[str]:
    shown = tree(rows)
    assert sorted(index for _, index in shown) == list(range(len(rows))), "each row once"
    return [
        f"{'. ' * depth}{rows[index].event} {rows[index].task or rows[index].detail.get('verb')}"
        for depth, index in shown
    ]


def since(sim: Simulation, mark: int) -> list[Row]:
    return sim.rows[mark:]


def test_a_failure_has_below_it_what_its_rules_have_done() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "start", "b"), rule("on_fail", "stop", "c")),
        task("b", entry=False),
        task("c"),
    )
    sim.begin()
    sim.ready()
    sim.now += 10
    sim.end("a", code=1)
    sim.ready("b")
    assert drawn(sim.rows) == [
        "launching a",
        ". started a",
        ". failed a",
        ". . rule b",
        ". . . launching b",
        ". . . . started b",
        ". . rule c",
        ". . . stopping c",
        ". . . . stopped c",
        "launching c",
        ". started c",
    ]


def test_an_end_is_below_the_order_of_the_signal_that_caused_it() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.now += 10
    sim.ask("signal", "a", "b", signal="SIGKILL")
    sim.end("a", signal="SIGKILL")
    sim.end("b", signal="SIGSEGV")
    assert drawn(sim.rows) == [
        "launching a",
        ". started a",
        ". signaled a",
        ". . failed a",
        "launching b",
        ". started b",
        ". signaled b",
        ". failed b",
    ]


def test_an_order_has_below_it_what_it_has_started_and_stopped() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", entry=False))
    sim.begin(autostart=False, transaction=None)
    sim.ask("start")
    sim.ready()
    sim.now += 10
    sim.ask("stop", "a")
    sim.ready("b")
    sim.now += 10
    sim.ask("stop")
    assert drawn(sim.rows) == [
        "requested start",
        ". launching a",
        ". . started a",
        "requested stop",
        ". stopping a",
        ". . stopped a",
        ". . . rule b",
        ". . . . launching b",
        ". . . . . started b",
        "requested stop",
        ". stopping b",
        ". . stopped b",
    ]


def test_a_restart_waits_below_the_failure_and_a_ring_is_a_tree_of_any_depth() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=1.0, restart_max_delay=1.0))
    sim.begin()
    sim.now += 100
    sim.end("a", code=1)
    sim.ring()
    assert drawn(sim.rows) == [
        "launching a",
        ". failed a",
        ". . rule a",
        ". . . back-off a",
        ". . . . launching a",
    ]
    for _ in range(500):
        sim.end("a", code=1)
        sim.ring()
    assert max(depth for depth, _ in tree(sim.rows)) > 1500


def test_a_failure_action_has_below_it_the_tasks_that_it_stops() -> None:
    sim = Simulation.of(task("a", failure_action="stop"), task("b"))
    sim.begin()
    sim.ready()
    sim.now += 10
    sim.end("a", code=1)
    assert drawn(since(sim, 4)) == ["failed a", ". failure-action a", ". . stopping b", ". . . stopped b"]


def test_rows_of_another_release_are_shown_as_well() -> None:
    rows = [
        Row(at=1.0, transaction="T", task="a", event=event, detail={})
        for event in ("new-word", "rule", "failed")
    ]
    assert len(drawn(rows)) == 3


def test_the_end_of_a_task_that_was_never_launched_is_below_its_wait() -> None:
    sim = Simulation.of(task("a", entry=False), task("b", requires=("a",), entry=False))
    sim.begin()
    sim.ask("start", "b")
    sim.ask("stop", "b")
    assert drawn(sim.rows) == [
        "requested start",
        ". start-after b",
        ". . stopped b",
        "launching a",
        "requested stop",
    ]
