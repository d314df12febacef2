"""Tasks on other hosts for users: the hosts in `status`, the explanations of `why`, the events."""

from __future__ import annotations

import json
from typing import Any

from cluster_simulation import Cluster, placed
from simulation import rule, task
from test_hosts import A, cluster

from zmsvc.core.access import Verb
from zmsvc.core.model import at_home
from zmsvc.core.scenario import matrix, simulate
from zmsvc.core.status_view import Clock, hosts
from zmsvc.core.why import TimeFormat, explain
from zmsvc.core.world import task_as_json


def why(sim: Cluster, name: str = "a", *, running: bool = True) -> dict[str, Any]:
    clock = TimeFormat(now=sim.now, wall=lambda at: f"{at:g}", monotonic=lambda at: f"{at:g}")
    told = explain(sim.world, ("T1", name), sim.rows, clock, running=running)
    return dict(json.loads(json.dumps(told)))


def story(sim: Cluster, name: str = "a") -> list[str]:
    return [link["text"] for link in why(sim, name)["chain"]]


def shown_hosts(sim: Cluster) -> list[tuple[str, str, bool, int]]:
    clock = Clock(now=sim.now, text=str)
    return [(each["name"], each["state"], each["drained"], each["tasks"]) for each in hosts(sim.world, clock)]


# --- status


def test_each_host_is_shown_with_its_state_and_its_tasks() -> None:
    tasks = [placed(name, hosts=("h2", "h3", "h4")) for name in "bc"]
    sim = Cluster.of(placed("a", hosts=("h3", "h2", "h4", "h5")), *tasks)
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3", "h4", "h5")
    sim.begin()
    assert shown_hosts(sim) == [(name, "not-joined", False, 0) for name in ("h3", "h2", "h4", "h5")]
    sim.join_all("h2", "h3", "h4")
    sim.lose("h5")
    sim.cut("h4")
    sim.drain("h3")
    assert shown_hosts(sim) == [
        ("h3", "joined", True, 0),
        ("h2", "joined", False, 3),
        ("h4", "silent", False, 0),
        ("h5", "lost", False, 0),
    ]
    since = [each["since"] for each in hosts(sim.world, Clock(now=sim.now, text=str))]
    assert None not in since


def test_a_host_that_only_was_drained_has_not_joined() -> None:
    sim = Cluster.of(A)
    assert isinstance(sim, Cluster)
    sim.begin()
    sim.drain("h2")
    assert shown_hosts(sim) == [("h2", "not-joined", True, 0), ("h3", "not-joined", False, 0)]
    assert hosts(sim.world, Clock(now=sim.now, text=str))[0]["since"] is None


def test_a_task_names_its_host_while_it_lives_there() -> None:
    sim = cluster(A, task("b"))
    tasks = [task_as_json(name, sim.task(name), None, str) for name in "ab"]
    assert [each["host"] for each in tasks] == ["h2", None]
    sim.ask("stop", "a")
    assert task_as_json("a", sim.task("a"), None, str)["host"] is None


# --- events


def test_events_of_a_launch_name_its_host() -> None:
    sim = cluster(A, task("b"))
    sim.die("a", code=3)
    told = {
        (record.task, record.event, record.detail.get("host"))
        for record in sim.records
        if record.task and record.event in ("launching", "started", "failed")
    }
    assert told == {
        ("a", "launching", "h2"),
        ("a", "started", "h2"),
        ("a", "failed", "h2"),
        ("b", "launching", None),
        ("b", "started", None),
    }


# --- why


def test_why_names_the_host_of_a_task_and_of_its_ends() -> None:
    sim = cluster(A, placed("b", rule("on_fail", "start", "c"), hosts=("h2",)), task("c", entry=False))
    told = why(sim)
    assert (told["host"], story(sim)) == (
        "h2",
        ["a became ready on h2", "the start of the context started its entry tasks"],
    )
    sim.die("b", code=3)
    assert story(sim, "b")[:2] == ["b failed with exit status 3", "b was started on h2"]
    step = why(sim, "b")["advice"][0]
    assert step["command"] == "zmsvcctl -H h2 -c Sim logs -n 50 b"
    assert [link["host"] for link in why(sim, "c")["chain"]] == [None, None, "h2", "h2", None]
    assert why(sim, running=False)["host"] is None


def test_why_explains_the_loss_of_a_host() -> None:
    sim = cluster(placed("a", hosts=("h2",)), placed("b", hosts=("h3",)))
    sim.fence("h2")
    told = why(sim)
    assert story(sim)[0] == "a was lost on h2: its host h2 is off"
    assert told["advice"][0] == {
        "text": "find what happened to h2",
        "command": "zmsvcctl -c Sim events --event host-lost --event host-joined",
    }


def test_why_says_that_nothing_is_decided_while_a_host_is_silent() -> None:
    sim = cluster(A)
    sim.cut("h2")
    told = why(sim)
    assert told["state"] == "active"
    (reason,) = told["reasons"]
    assert (reason["kind"], reason["host"]) == ("host-silent", "h2")
    assert reason["text"].startswith("nothing is heard from its host h2, where it may run on")
    assert [step["command"] for step in told["advice"]] == ["pcs stonith confirm h2"]
    sim.join("h2")
    assert (why(sim)["reasons"], why(sim)["advice"]) == ([], [])


def test_why_names_the_hosts_that_a_task_waits_for() -> None:
    sim = cluster(A)
    sim.drain("h2")
    assert story(sim) == ["a was started on h3", "an operator ordered the drain of h2"]
    sim.say_ready()
    sim.now += 1
    sim.drain("h3")
    told = why(sim)
    (reason,) = told["reasons"]
    assert reason["text"] == "it waits for a host: h2 is drained; h3 is drained"
    assert (reason["kind"], reason["host"]) == ("unplaced", "h2")
    assert story(sim)[0] == "a waits for a host: h2 is drained; h3 is drained"
    assert [step["command"] for step in told["advice"]] == [
        "zmsvcctl -c Sim cluster undrain h2",
        "zmsvcctl -c Sim status",
    ]
    sim.now += 1
    sim.fence("h3")
    sim.drain("h2", drained=False)
    assert sim.where("a") == ["h2"]
    assert story(sim)[-1] == "an operator ordered the drain of h3"


def test_an_order_after_a_drain_is_the_cause_of_a_start() -> None:
    sim = cluster(A)
    sim.drain("h2")
    sim.say_ready()
    sim.now += 1
    sim.ask(Verb.RESTART, "a")
    sim.say_ready()
    assert story(sim)[-1] == "an operator ordered the restart of a"


# --- simulate and check --prove


def test_a_simulation_has_one_host() -> None:
    sim = cluster(A, placed("b", hosts=("h3",), apart=("a",)))
    run = simulate(sim.world.context, [], 10.0)
    assert {key[1]: each.sub_state for key, each in run.world.tasks.items()} == {
        "a": "running",
        "b": "running",
    }
    assert [each.down for each in matrix(sim.world.context, 10.0)]
    assert at_home(sim.world.context).hosts == ()
