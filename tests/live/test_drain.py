"""`zmsvcctl` about tasks on other hosts: where they run, why one waits, and a drain that moves them in order."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import zmq
from context import Context
from needs import need
from other_hosts import Host, other_hosts, placement, start_all
from waiting import wait_for


@pytest.fixture
def hosts(context: Context) -> Iterator[tuple[Host, ...]]:
    """A context with tasks on h2 and h3: `late` comes after `early`, and both may run on either."""
    need(zmq.has("curve"), "this libzmq has no CURVE")
    with other_hosts(context) as made:
        context.looped("Steady")
        context.task("home", "Steady")
        context.task("early", "Steady", service=placement("h2", "h3"))
        context.task("late", "Steady", service=f"<after>early</after>{placement('h2', 'h3')}")
        context.task("only", "Steady", service=placement("h3"))
        start_all(context, made)
        for name in ("home", "early", "late", "only"):
            context.task_is(name, "running")
        yield made


def places(context: Context) -> dict[str, str | None]:
    return {name: task["host"] for name, task in context.tasks().items()}


def states(context: Context) -> dict[str, tuple[str, bool, int]]:
    return {
        each["name"]: (each["state"], each["drained"], each["tasks"]) for each in context.status()["hosts"]
    }


def test_a_drain_moves_the_tasks_of_a_host_in_order_and_undrain_lets_it_take_others(
    context: Context, hosts: tuple[Host, ...]
) -> None:
    h2, h3 = hosts
    assert places(context) == {"home": None, "early": "h2", "late": "h2", "only": "h3"}
    assert states(context) == {"h2": ("joined", False, 2), "h3": ("joined", False, 1)}
    told = context.ctl("cluster", "drain", "h2").stdout
    assert re.fullmatch(
        r"T/early: active \(running\) on h3\nT/late: active \(running\) on h3\nh2 is drained: .*\n", told
    )
    assert places(context) == {"home": None, "early": "h3", "late": "h3", "only": "h3"}
    assert states(context) == {"h2": ("joined", True, 0), "h3": ("joined", False, 3)}
    assert (len(h2.holds()), len(h3.holds())) == (0, 3)
    moved = json.loads(context.ctl("--json", "events", "--event", "launching").stdout.splitlines()[-1])
    assert (moved["task"], moved["detail"]["host"]) == ("late", "h3")
    assert "an operator ordered the drain of h2" in context.ctl("why", "late").stdout
    # It would wait for 15 s, in which another host might join.
    context.ctl("--json", "--no-block", "cluster", "drain", "h3")
    only = context.task_is("only", "unplaced")
    assert only["status"] == "waits for a host: h3 is drained"
    assert "zmsvcctl -c Live cluster undrain h3" in context.ctl("why", "only").stdout
    context.ctl("cluster", "undrain", "h3")
    context.task_is("only", "running")
    context.ctl("cluster", "undrain", "h2")
    context.ctl("restart", "early")
    assert places(context)["early"] == "h2"


def test_what_zmsvcctl_prints_names_the_host(context: Context, hosts: tuple[Host, ...]) -> None:
    h2, _ = hosts
    early = context.tasks()["early"]
    shown = context.ctl("status").stdout
    assert re.search(rf"early .*on h2 +PID {early['pid']}\b", shown)
    assert not re.search(r"home .* on h", shown)
    assert context.ctl("show", "-p", "Host", "--value", "early").stdout == "h2\n"
    assert "on h2" in context.ctl("graph", context.name).stdout
    assert "early runs on h2, and the log is there" in context.ctl("logs", "early").stderr
    assert "it runs on h2" in context.ctl("stack", "early", check=1).stderr
    assert "no such host in this context" in context.ctl("cluster", "drain", "h9", check=4).stderr
    usage = json.loads(context.ctl("--json", "status").stdout)["contexts"][0]["transactions"][0]["tasks"]
    assert {task["id"]: task["usage"] is None for task in usage}["early"]
    h2.cable.cut()
    wait_for(lambda: states(context)["h2"][0] == "silent")
    told = context.ctl("why", "early").stdout
    assert "nothing is heard from its host h2" in told
    assert "pcs stonith confirm h2" in told
    assert re.search(r"Hosts: h2 +silent since", context.ctl("status").stdout)
    h2.cable.mend()
    wait_for(lambda: states(context)["h2"][0] == "joined")
