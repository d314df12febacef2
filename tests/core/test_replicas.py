"""A task with `<replicas>` is several tasks, which its ID in the file names together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation import Simulation, context, rule, task

from zmsvc.core import checks, graph
from zmsvc.core.expansion import expand
from zmsvc.core.model import TaskDefinition
from zmsvc.core.replicas import base, is_named, number
from zmsvc.core.service_options import Restart
from zmsvc.core.values import RUNNING_ID, TASK_ID


def several(name: str, count: int, *rules: object, entry: bool = True) -> TaskDefinition:
    return replace(task(name, *rules, entry=entry), replicas=count)  # type: ignore[arg-type]


def running(sim: Simulation) -> list[str]:
    return [key[1] for key, each in sim.world.tasks.items() if each.sub_state == "running"]


@pytest.mark.parametrize("count", [1, 3])
def test_each_replica_is_a_task_with_an_id_of_its_own(count: int) -> None:
    found = expand([task("a"), several("b", count), task("c")])
    assert [*found] == ["a", *(f"b@{at}" for at in range(1, count + 1)), "c"]
    assert all(name == each.id and each.replicas is None for name, each in found.items())


def test_an_id_with_a_number_is_that_of_a_running_task_and_not_one_of_a_file() -> None:
    assert RUNNING_ID.fullmatch("ts_100@12")
    assert RUNNING_ID.fullmatch("ts_100")
    assert not any(map(RUNNING_ID.fullmatch, ("ts_100@", "ts_100@0", "ts_100@x", "@1", "a@1@2", ".", "..@x")))
    assert not TASK_ID.fullmatch("ts_100@1")
    assert (base("a@12"), number("a@12"), base("a"), number("a")) == ("a", 12, "a", None)
    assert is_named("a@1", ["a"])
    assert is_named("a@1", ["a@1"])
    assert not is_named("a@1", ["a@2", "b"])


def test_a_rule_calls_every_replica_of_another_task_and_of_its_own_task_the_one_that_it_fires_for() -> None:
    sim = Simulation.of(
        task("first", rule("on_start", "start", "w")),
        several("w", 3, rule("on_fail", "restart", "w"), rule("on_exit", "stop", "first"), entry=False),
    )
    sim.begin()
    sim.ready("first")
    for each in ("w@1", "w@2", "w@3"):
        sim.ready(each)
    launches = {name: sim.task(name).launch for name in ("w@1", "w@2", "w@3")}
    sim.end("w@2", code=1)
    sim.ring()
    assert {name: sim.task(name).launch != launch for name, launch in launches.items()} == {
        "w@1": False,
        "w@2": True,
        "w@3": False,
    }


@pytest.mark.parametrize("verb", ["stop", "start", "restart"])
def test_a_verb_with_the_id_of_the_file_names_all_replicas(verb: str) -> None:
    sim = Simulation.of(several("w", 2), task("x"))
    sim.begin()
    for each in ("w@1", "w@2", "x"):
        sim.ready(each)
    before = {name: sim.task(name).launch for name in ("w@1", "w@2", "x")}
    if verb == "start":
        sim.ask("stop", "w@1", "w@2")
    sim.ask(verb, "w", request=9)
    if verb != "stop":
        sim.ready("w@1")
        sim.ready("w@2")
    (reply,) = sim.replies(9)
    assert reply.ok
    assert [each["id"] for each in reply.data["tasks"]] == ["w@1", "w@2"]
    assert running(sim) == (["x"] if verb == "stop" else ["w@1", "w@2", "x"])
    assert sim.task("x").launch == before["x"]
    if verb != "stop":
        assert sim.task("w@1").launch > before["w@1"]


def test_a_verb_with_a_number_names_one_replica() -> None:
    sim = Simulation.of(several("w", 2))
    sim.begin()
    sim.ready("w@1")
    sim.ready("w@2")
    sim.ask("stop", "w@2")
    assert running(sim) == ["w@1"]
    sim.ask("stop", "w@3", request=8)
    assert (sim.replies(8)[0].ok, sim.replies(8)[0].code) == (False, 4)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (1, 2)])
def test_a_reload_that_changes_the_number_starts_or_stops_only_the_difference(
    before: int, after: int
) -> None:
    sim = Simulation.of(several("w", before), task("x", rule("on_fail", "start", "w")))
    sim.begin()
    for name in [*sim.world.context.tasks]:
        sim.ready(name)
    kept = {f"w@{at}": sim.task(f"w@{at}").launch for at in range(1, min(before, after) + 1)}
    sim.reload(several("w", after), task("x", rule("on_fail", "start", "w")), request=3)
    for at in range(before + 1, after + 1):
        sim.ready(f"w@{at}")
    (reply,) = sim.replies(3)
    assert reply.ok
    assert reply.data["changed"] == []
    assert reply.data["added"] == [f"w@{at}" for at in range(before + 1, after + 1)]
    assert reply.data["removed"] == [f"w@{at}" for at in range(after + 1, before + 1)]
    assert {name: sim.task(name).launch for name in kept} == kept
    assert sorted(running(sim)) == [*(f"w@{at}" for at in range(1, after + 1)), "x"]


@pytest.mark.parametrize("state", ["running", "waiting", "held", "disabled"])
def test_an_added_replica_of_a_task_that_waits_for_a_rule_runs_if_another_one_runs(state: str) -> None:
    sim = Simulation.of(task("x"), several("w", 1, entry=state in ("held", "disabled")))
    sim.begin()
    sim.ready("x")
    if state == "running":
        sim.ask("start", "w", transaction="T1")
        sim.ready("w@1")
    if state == "held":
        sim.ready("w@1")
        sim.ask("stop", "w")
    if state == "disabled":
        sim.ask("stop", "w")
        sim.ask("disable", "w")
    sim.reload(task("x"), several("w", 2, entry=state in ("held", "disabled")))
    assert ("w@2" in sim.world.disabled) == (state == "disabled")
    assert sim.task("w@2").live == (state == "running")


def test_on_any_fail_calls_every_replica_but_the_one_that_has_failed() -> None:
    sim = Simulation.of(several("w", 3, entry=False), task("x"), any_fail=[rule("on_any_fail", "start", "w")])
    sim.begin()
    sim.ready("x")
    sim.end("x", code=1)
    assert [sim.task(f"w@{at}").live for at in (1, 2, 3)] == [True, True, True]
    sim.ask("stop", "w@3", triggers=False)
    sim.ask("start", "w@2")
    sim.ready("w@2")
    sim.end("w@2", code=1)
    assert [sim.task(f"w@{at}").live for at in (1, 2, 3)] == [True, False, False]


def test_restart_is_about_the_replica_that_has_ended() -> None:
    written = replace(several("w", 2, rule("on_fail", "restart", "w")), restart=Restart.ON_FAILURE)
    assert [[each.call for each in one.rules] for one in expand([written]).values()] == [["w@1"], ["w@2"]]


def test_a_picture_and_the_warnings_have_a_task_with_replicas_once() -> None:
    it = context(task("a", rule("on_exit", "start", "w")), several("w", 3, rule("on_update", "start", "w")))
    drawn = graph.dot(it, {"a": "active", "w@1": "active", "w@2": "failed", "w@3": "active"})
    assert 'label="w\\nEcho\\n3 replicas\\nfailed"' in drawn
    assert drawn.count("->") == 2
    assert "w@" not in drawn
    assert "3 replicas" in graph.mermaid(it)
    assert [each.split(":")[0] for each in checks.warnings(it)] == ["w"]


def test_the_element_of_a_replica_has_its_own_id_and_not_the_number_of_replicas() -> None:
    source = {"id": "w", "Task": {"service": {"replicas": "2", "nice": "1"}, "state": ""}}
    (one,) = expand([replace(several("w", 1), source=source)]).values()
    assert one.source == {"id": "w@1", "Task": {"service": {"nice": "1"}, "state": ""}}


def test_a_task_comes_after_all_replicas_of_another_one() -> None:
    after = replace(task("x"), after=("w",), requires=("w",))
    made = expand([after, several("w", 2)])
    assert made["x"].predecessors == ("w@1", "w@2")
    sim = Simulation.of(after, several("w", 2))
    sim.begin()
    sim.ready("w@1")
    assert sim.sub_state("x") == "start-after"
    sim.ready("w@2")
    assert sim.sub_state("x") == "start"
