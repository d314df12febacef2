"""A disabled task does not start with its transaction. Rules and orders may start it. Only `enable` ends
this.
"""

from __future__ import annotations

import pytest
from simulation import Simulation, rule, task

from zmsvc.core import effects as fx
from zmsvc.core.world import Transaction


def disabled(*more: str) -> Simulation:
    """Return a context whose task b is disabled while it waits; a calls it when it ends."""
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b"), task("c", entry=False))
    sim.begin()
    sim.ready()
    sim.ask("stop")
    sim.ask("disable", "b", *more, transaction=None)
    return sim


def test_a_disabled_task_is_not_started_with_a_transaction() -> None:
    sim = disabled()
    sim.ask("start")
    sim.ask("start", transaction="T2")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start", "stopped")
    assert (sim.sub_state("a", "T2"), sim.sub_state("b", "T2")) == ("start", "waiting")
    sim.ready()
    sim.ask("restart", transaction="T2")
    assert sim.sub_state("b", "T2") == "waiting"


def test_rules_and_orders_start_a_disabled_task() -> None:
    sim = disabled()
    sim.ask("start")
    sim.ready()
    sim.end("a", code=0)
    assert sim.task("b").state == "activating", "by the rule of a"
    sim.ask("start", "b", transaction="T2")
    assert sim.sub_state("b", "T2") == "start"
    sim.ready()
    sim.ask("restart", "b", transaction="T2")
    assert sim.task("b", "T2").state in ("activating", "deactivating")


def test_a_task_that_runs_goes_on_when_it_is_disabled() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.ask("disable", "a", "b", transaction=None, request=9)
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("running", "running")
    (reply,) = sim.replies(9)
    assert reply.data["tasks"] == [
        {"id": "a", "disabled": True, "changed": True, "live": True},
        {"id": "b", "disabled": True, "changed": True, "live": True},
    ]


@pytest.mark.parametrize("happens", ["crash", "another_keeper", "exit"])
def test_a_task_stays_disabled_over_a_crash_a_reboot_and_an_exit(happens: str) -> None:
    sim = disabled()
    sim.ask("start")
    if happens == "crash":
        sim.crash()
        sim.ask("start", transaction="T2")
    else:
        sim.ask("exit", transaction=None) if happens == "exit" else None
        sim.another_keeper(transaction="T2")
    assert sim.world.disabled == {"b"}
    assert (sim.sub_state("a", "T2"), sim.sub_state("b", "T2")) == ("start", "waiting")
    assert sim.sub_state("b") == "stopped"


def test_a_reload_that_adds_a_disabled_task_again_does_not_start_it() -> None:
    sim = disabled()
    sim.ask("start")
    sim.reload(task("a"))
    sim.reload(task("a"), task("b"), task("d"))
    assert (sim.sub_state("b"), sim.sub_state("d")) == ("waiting", "start")


def test_an_enabled_task_starts_with_the_next_start_of_a_transaction() -> None:
    sim = disabled()
    sim.ask("start")
    sim.ask("enable", "b", transaction=None)
    assert sim.sub_state("b") == "stopped"
    sim.ask("start", transaction="T2")
    assert sim.sub_state("b", "T2") == "start"
    told = [(each.event, each.transaction, each.task) for each in sim.records if each.task == "b"]
    assert [each for each in told if each[0] in ("enabled", "disabled")] == [
        ("disabled", "", "b"),
        ("enabled", "", "b"),
    ]


def test_a_repeated_order_changes_nothing_and_says_so() -> None:
    sim = disabled()
    before = sim.world
    sim.ask("disable", "b", transaction=None, request=9)
    (reply,) = sim.replies(9)
    assert (reply.ok, reply.data["tasks"][0]["changed"], sim.world) == (True, False, before)
    assert sim.history()['["", "b", "disabled", {"by": "operator", "uid": 0}]'] == 1


@pytest.mark.parametrize(
    ("verb", "name", "code", "words"),
    [
        ("disable", "x", 4, "cannot disable x: no such task"),
        ("enable", "x", 4, "cannot enable x: no such task"),
        ("enable", "c", 1, "cannot enable c: its <state> is not of the type on_start"),
        ("enable", None, 2, "expected at least one task"),
        ("disable", None, 2, "expected at least one task"),
    ],
)
def test_what_cannot_be_enabled_or_disabled_is_refused(
    verb: str, name: str | None, code: int, words: str
) -> None:
    sim = disabled()
    before = sim.world
    sim.ask(verb, *([name] if name else []), transaction=None, request=9)
    (reply,) = sim.replies(9)
    assert (reply.ok, reply.code, sim.world) == (False, code, before)
    assert words in reply.error


def test_a_disabled_task_that_the_file_has_lost_can_be_enabled() -> None:
    sim = disabled()
    sim.reload(task("a"))
    assert ("T1", "b") not in sim.world.tasks
    sim.ask("enable", "b", transaction=None, request=9)
    assert sim.replies(9)[0].ok
    assert sim.world.disabled == frozenset()


def test_the_start_of_the_context_does_not_wait_for_a_disabled_task() -> None:
    sim = disabled("a")
    sim.another_keeper(transaction="T2")
    assert sim.world.transactions["T2"] == Transaction(id="T2", opened=sim.now)
    assert isinstance(sim.effects[-1], fx.Ready) or len(sim.told(fx.Ready)) == 2


def test_a_task_that_requires_a_disabled_one_starts_it() -> None:
    sim = Simulation.of(task("a", requires=("b",)), task("b"))
    sim.begin(transaction=None, autostart=False)
    sim.ask("disable", "b", transaction=None)
    sim.ask("start")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start-after", "start")
