"""core/ordering and core/ordering_waits: tasks start after others and stop before them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from simulation import Simulation, rule, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.ordering import wait_text

AB = (task("b", after=("a",)), task("a"))
REQUIRED = (task("b", requires=("a",)), task("a", entry=False))


def subs(sim: Simulation, *names: str) -> list[str]:
    return [sim.sub_state(name) for name in names]


def begun(*tasks: Any) -> Simulation:
    sim = Simulation.of(*tasks)
    sim.begin()
    return sim


def shown(sim: Simulation, name: str) -> str:
    return wait_text(sim.world, ("T1", name))


# --- starts


def test_a_start_waits_for_ready_of_the_tasks_before_it_and_says_so() -> None:
    sim = begun(task("c", after=("a", "b")), task("a"), task("b"))
    assert subs(sim, "a", "b", "c") == ["start", "start", "start-after"]
    assert shown(sim, "c") == "waits for a, b"
    sim.ready("a")
    assert subs(sim, "c") == ["start-after"]
    assert shown(sim, "c") == "waits for b"
    sim.ready("b")
    assert subs(sim, "c") == ["start"]
    assert [record.event for record in sim.records if record.task == "c"] == ["start-after", "launching"]


def test_the_start_of_the_context_waits_for_all() -> None:
    sim = begun(*AB)
    sim.ready("a")
    assert sim.told(fx.Ready) == []
    sim.ready("b")
    assert sim.told(fx.Ready) == [fx.Ready()]


def test_a_task_that_is_not_being_started_is_not_waited_for() -> None:
    sim = begun(task("b", after=("a",)), task("a", entry=False))
    assert subs(sim, "a", "b") == ["waiting", "start"]
    sim.ready()
    sim.ask("stop", request=1)
    sim.ask("start", "b", request=2)
    assert subs(sim, "a", "b") == ["waiting", "start"]


def test_a_task_that_fails_for_good_is_not_waited_for() -> None:
    sim = begun(*AB)
    sim.end("a", code=1)
    assert subs(sim, "a", "b") == ["failed", "start"]


def test_a_failed_task_that_its_rule_starts_again_is_waited_for_but_clients_are_told() -> None:
    sim = begun(task("c", after=("b",)), task("b", after=("a",)), task("a", rule("on_fail", "restart", "a")))
    sim.end("a", code=1)
    assert subs(sim, "a", "b", "c") == ["back-off", "start-after", "start-after"]
    (ready,) = sim.told(fx.Ready)
    for name in ("b", "c"):
        assert f"{name}: waits for a, which starts again later" in ready.error
    sim.ring()
    sim.ready("a")
    sim.ready("b")
    assert subs(sim, "c") == ["start"]


def test_a_restart_of_the_task_before_while_this_one_waits_goes_on_waiting() -> None:
    sim = begun(*AB)
    sim.obedient = False
    sim.ask("restart", "a", request=1)
    assert subs(sim, "a", "b") == ["stop-sigterm", "start-after"]
    sim.end("a", code=0)
    assert subs(sim, "a", "b") == ["start", "start-after"]


def test_a_stop_of_a_waiting_task_ends_its_wait() -> None:
    sim = begun(*AB)
    sim.ask("stop", "b", request=1)
    assert subs(sim, "b") == ["stopped"]
    assert sim.replies(1)[0].ok
    sim.ready("a")
    assert subs(sim, "b") == ["stopped"]


def test_an_order_to_start_a_waiting_task_waits_with_it() -> None:
    sim = begun(*AB)
    sim.ask("start", "b", request=1)
    assert sim.replies(1) == []
    sim.ready("a")
    sim.ready("b")
    assert sim.replies(1)[0].ok


def test_a_rule_that_starts_a_waiting_task_joins_its_cause() -> None:
    sim = begun(task("c", after=("a",), entry=False), task("a"), task("b", rule("on_update", "start", "c")))
    sim.ready("b")
    sim.update("b", n=1)
    sim.update("b", n=2)
    assert subs(sim, "c") == ["start-after"]
    sim.ready("a")
    assert [source.update for source in sim.task("c").cause.sources] == [{"n": 1}, {"n": 2}]
    assert sim.launched("c") == 1


def test_a_start_after_a_back_off_waits_too() -> None:
    sim = begun(task("b", rule("on_fail", "restart", "b"), after=("a",)), task("a"))
    sim.ready("a")
    sim.ready("b")
    sim.obedient = False
    sim.end("b", code=1)
    sim.ask("restart", "a", request=1)
    sim.ring()
    assert subs(sim, "a", "b") == ["stop-sigterm", "start-after"]


def test_a_long_chain_starts_in_order_without_recursion() -> None:
    names = [f"t{number:04}" for number in range(1500)]
    chain = [task(name, requires=(before,), entry=name == names[-1]) for before, name in pairwise(names)]
    sim = Simulation.of(*reversed(chain), task(names[0], entry=False))
    sim.checked = False
    sim.begin()
    assert sim.sub_state(names[0]) == "start"
    assert {sim.sub_state(name) for name in names[1:]} == {"start-after"}
    for name in names:
        sim.ready(name)
    assert [key[1] for _, key in sim.keeper.forked] == names
    mark = len(sim.effects)
    sim.ask("stop", request=1)
    stopped = [effect.key[1] for effect in sim.effects[mark:] if isinstance(effect, fx.Terminate)]
    assert stopped == names[::-1]


# --- stops


def test_a_stop_goes_the_other_way_round() -> None:
    sim = begun(task("c", after=("b",)), task("b", after=("a",)), task("a"))
    for _ in range(3):
        sim.ready()
    sim.obedient = False
    sim.ask("stop", request=1)
    assert subs(sim, "a", "b", "c") == ["stop-after", "stop-after", "stop-sigterm"]
    assert [shown(sim, name) for name in ("a", "b", "c")] == ["stops after b", "stops after c", ""]
    sim.end("c", code=0)
    assert subs(sim, "a", "b", "c") == ["stop-after", "stop-sigterm", "stopped"]
    sim.end("b", code=0)
    sim.end("a", code=0)
    assert subs(sim, "a") == ["stopped"]
    assert sim.replies(1)[0].ok


@pytest.mark.parametrize("verb", ["exit", "stop"])
def test_a_task_that_does_not_end_holds_up_a_stop_for_its_stop_timeout_alone(verb: str) -> None:
    sim = begun(task("b", after=("a",), stop_timeout=2.0), task("a"))
    sim.ready("a")
    sim.ready("b")
    sim.obedient, sim.stuck = False, set()
    sim.ask(verb, transaction="T1" if verb == "stop" else None, request=1)
    sim.ring()
    assert subs(sim, "a", "b") == ["stop-after", "stop-sigkill"]
    sim.ring()
    assert subs(sim, "a", "b") == ["stop-sigterm", "stop-sigkill"], "nothing waits for a survivor"


def test_a_stop_of_one_task_does_not_wait_for_tasks_that_run_on() -> None:
    sim = begun(*AB)
    sim.ready("a")
    sim.ready("b")
    sim.ask("stop", "a", request=1)
    assert subs(sim, "a", "b") == ["stopped", "running"]


def test_a_second_exit_kills_the_tasks_that_wait_for_others_too() -> None:
    sim = begun(*AB)
    sim.ready("a")
    sim.ready("b")
    sim.obedient = False
    sim.ask("exit", transaction=None, request=1)
    sim.ask("exit", transaction=None, request=2, now=True)
    assert not sim.alive
    assert [effect.status for effect in sim.told(fx.Leave)] == [0]


def test_a_task_that_waits_to_stop_may_end_by_itself() -> None:
    sim = begun(*AB)
    sim.ready("a")
    sim.ready("b")
    sim.obedient = False
    sim.ask("stop", request=1)
    sim.end("a", code=3)
    assert sim.reason("a") == "requested"
    sim.end("b", code=0)
    assert sim.replies(1)[0].ok


def test_a_start_of_a_task_that_waits_to_stop_starts_it_again_afterwards() -> None:
    sim = begun(*AB)
    sim.ready("a")
    sim.ready("b")
    sim.obedient = False
    sim.ask("stop", "a", "b", request=1)
    assert subs(sim, "a") == ["stop-after"]
    sim.ask("start", "a", request=2)
    sim.end("b", code=0)
    sim.end("a", code=0)
    assert subs(sim, "a", "b") == ["start", "stopped"]
    sim.ready("a")
    assert sim.replies(2)[0].ok


def test_a_task_that_is_stopped_before_its_fork_waits_for_the_others() -> None:
    sim = begun(*AB)
    sim.ready("a")
    sim.ready("b")
    sim.obedient = False
    sim.decide(ft.Requested(verb=Verb.RESTART, origin=ft.Origin(by="operator"), transaction="T1"))
    sim.decide(ft.Requested(verb=Verb.STOP, origin=ft.Origin(by="operator"), transaction="T1"))
    assert subs(sim, "a", "b") == ["stop-after", "stop-sigterm"]


def test_a_restart_of_the_transaction_stops_backwards_and_starts_forwards() -> None:
    sim = begun(*AB)
    sim.ready("a")
    sim.ready("b")
    sim.now += 30
    mark = len(sim.effects)
    sim.ask("restart", request=1)
    sim.ready("a")
    sim.ready("b")
    steps = [
        (type(effect).__name__, effect.key[1])
        for effect in sim.effects[mark:]
        if isinstance(effect, fx.Terminate | fx.Launch)
    ]
    assert steps == [("Terminate", "b"), ("Terminate", "a"), ("Launch", "a"), ("Launch", "b")]
    assert sim.replies(1)[0].ok


# --- requires


def test_a_start_starts_what_it_requires() -> None:
    sim = begun(*REQUIRED)
    assert subs(sim, "a", "b") == ["start", "start-after"]
    assert sim.task("a").cause.by == "context"
    sim.ready("a")
    sim.ready("b")
    assert sim.told(fx.Ready) == [fx.Ready()]


def test_a_task_does_not_start_if_what_it_requires_fails_to_start() -> None:
    sim = begun(task("c", requires=("b",)), *REQUIRED)
    sim.end("a", code=1)
    assert subs(sim, "a", "b", "c") == ["failed", "waiting", "waiting"]
    assert sim.task("b").status == "not started: it requires a, which has failed (not-ready)" or sim.task(
        "b"
    ).status == ("not started: it requires a, which has failed (exit-code)")
    assert sim.task("c").status == "not started: it requires b, which does not run"
    (ready,) = sim.told(fx.Ready)
    assert "b: not started: it requires a" in ready.error
    assert sim.launched("b") == 0
    assert sim.said("b") == []
    sim.ask("start", "c", request=1)
    for name in ("a", "b", "c"):
        sim.ready(name)
    assert sim.replies(1)[0].ok, "an order starts all of it again"


def test_a_required_task_that_fails_later_does_not_affect_the_other() -> None:
    sim = begun(*REQUIRED)
    sim.ready("a")
    sim.ready("b")
    sim.end("a", code=1)
    assert subs(sim, "a", "b") == ["failed", "running"]


def test_a_required_task_that_has_ended_well_is_not_started_again() -> None:
    sim = begun(*REQUIRED)
    sim.ready("a")
    sim.end("a", code=0)
    sim.ready("b")
    sim.now += 30
    sim.ask("restart", "b", request=1)
    assert subs(sim, "a", "b") == ["exited", "start"]
    sim.ready("b")
    sim.ask("stop", request=2)
    sim.now += 30
    sim.ask("start", request=3)
    assert subs(sim, "a", "b") == ["start", "start-after"], "in another run it is"


def test_a_required_task_that_ends_well_before_it_is_ready_has_failed() -> None:
    sim = begun(*REQUIRED)
    sim.end("a", code=0)
    assert (sim.reason("a"), subs(sim, "b")) == ("not-ready", ["waiting"])


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_an_order_to_stop_or_restart_a_required_task_does_the_same_to_the_other(verb: str) -> None:
    sim = begun(*REQUIRED)
    sim.ready("a")
    sim.ready("b")
    sim.now += 30
    sim.obedient = False
    sim.ask(verb, "a", request=1)
    assert subs(sim, "a", "b") == ["stop-after", "stop-sigterm"]
    sim.end("b", code=0)
    assert subs(sim, "a", "b") == ["stop-sigterm", "stopped" if verb == "stop" else "start-after"]
    sim.end("a", code=0)
    if verb == "restart":
        sim.ready("a")
        sim.ready("b")
    assert sim.replies(1)[0].ok
    assert sim.task("a").stopped_by_operator == (verb == "stop")
    assert not sim.task("b").stopped_by_operator


def test_a_rule_starts_nothing_that_an_operator_has_stopped_to_start_what_requires_it() -> None:
    sim = begun(*REQUIRED, task("c", rule("on_update", "start", "b")))
    sim.ready("a")
    sim.ready("b")
    sim.ready("c")
    sim.ask("stop", "a", request=1)
    sim.now += 30
    sim.update("c", n=1)
    assert subs(sim, "a", "b") == ["stopped", "waiting"]
    assert sim.task("b").status == "not started: it requires a, which an operator has stopped"
    sim.ask("start", "b", request=2)
    assert subs(sim, "a", "b") == ["start", "start-after"], "an order does"


def test_a_rule_starts_what_its_target_requires_with_the_same_cause() -> None:
    sim = begun(
        task("b", requires=("a",), entry=False),
        task("a", entry=False),
        task("c", rule("on_update", "start", "b")),
    )
    sim.ready("c")
    sim.update("c", n=1)
    assert subs(sim, "a", "b") == ["start", "start-after"]
    assert sim.task("a").cause == sim.task("b").cause
    assert sim.task("a").cause.by == "rule"


def test_a_start_limit_of_a_required_task_keeps_the_other_from_starting() -> None:
    sim = begun(
        task("b", rule("on_fail", "restart", "b"), requires=("a",), start_timeout=0.0),
        task("a", entry=False, start_limit_burst=1, start_timeout=0.0),
    )
    sim.ready("a")
    sim.ready("b")
    for _ in range(3):
        sim.now += 30
        if sim.sub_state("a") == "running":
            sim.end("a", code=1)
        if sim.sub_state("b") == "running":
            sim.end("b", code=1)
        sim.rest()
        sim.ready()
        sim.ready()
    assert subs(sim, "a", "b") == ["failed", "waiting"]
    assert sim.task("b").status == "not started: it requires a, which has failed (start-limit)"


def test_a_restart_of_the_transaction_restarts_a_required_task_that_is_no_entry() -> None:
    sim = begun(*REQUIRED)
    sim.ready("a")
    sim.ready("b")
    sim.now += 30
    sim.ask("restart", request=1)
    assert subs(sim, "a", "b") == ["start", "start-after"]
    assert sim.launched("a") == 2
    sim.ready("a")
    sim.ready("b")
    assert sim.replies(1)[0].ok


# --- reloads and crashes


def test_a_reload_changes_the_order_in_place() -> None:
    sim = begun(task("a"), task("b"))
    sim.ready()
    sim.reload(*AB)
    (reply,) = sim.replies(8)
    assert (reply.data["changed"], reply.data["in_place"]) == ([], ["b"])
    sim.obedient = False
    sim.ask("stop", request=1)
    assert subs(sim, "a", "b") == ["stop-after", "stop-sigterm"]


def test_a_reload_that_takes_back_an_order_ends_the_waits_for_it() -> None:
    sim = begun(*AB)
    sim.reload(task("a"), task("b"))
    assert subs(sim, "b") == ["start"]
    sim.ready()
    sim.reload(*AB)
    sim.obedient = False
    sim.ask("stop", request=1)
    assert subs(sim, "a") == ["stop-after"]
    sim.reload(task("a"), task("b"))
    assert subs(sim, "a") == ["stop-sigterm"]


def test_a_reload_that_removes_ordered_tasks_leaves_none_waiting() -> None:
    sim = begun(*AB, task("c"))
    sim.ready("c")
    sim.ready("a")
    sim.ready("b")
    sim.obedient = False
    sim.reload(task("c"))
    for launch in list(sim.alive):
        if sim.alive[launch].key[1] != "c":
            assert sim.alive[launch].signals
            sim.end(launch, code=0)
    assert {name for _, name in sim.world.tasks} == {"c"}


def test_a_reload_adds_tasks_in_their_order() -> None:
    sim = begun(task("c"))
    sim.reload(task("c"), *AB)
    assert subs(sim, "a", "b") == ["start", "start-after"]


def test_a_new_supervisor_waits_for_entries_that_wait_for_others() -> None:
    sim = begun(*AB)
    sim.crash()
    sim.happen()
    assert sim.told(fx.Ready) == []
    sim.ready("a")
    sim.ready("b")
    assert len(sim.told(fx.Ready)) == 1


def test_a_context_without_order_has_the_effects_that_it_had() -> None:
    sim = begun(task("a"), task("b"))
    assert sim.world.context.successors == {}
    assert subs(sim, "a", "b") == ["start", "start"]


def test_an_order_resets_the_back_off_of_the_tasks_that_it_starts_for_another() -> None:
    sim = begun(
        task("b", requires=("a",), entry=False, start_timeout=0.0),
        task("a", rule("on_fail", "restart", "a"), start_timeout=0.0),
    )
    for _ in range(3):
        sim.ready("a")
        sim.end("a", code=1)
        sim.ring()
    sim.ready("a")
    sim.end("a", code=1)
    before = sim.task("a")
    assert (before.sub_state.value, before.failures, before.quick_starts) == ("back-off", 4, 4)
    sim.ask("start", "b", request=1)
    after = sim.task("a")
    assert (after.sub_state.value, after.failures, after.quick_starts) == ("start", 0, 0)
