"""core/graph: the picture of a context, as Graphviz and Mermaid read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.expansion import expand
from zmsvc.core.graph import FILL, Shown, as_json, dot, mermaid
from zmsvc.core.model import (
    Action,
    Context,
    DeviceEndpoints,
    EndCondition,
    Only,
    Rule,
    TaskDefinition,
    Threshold,
    Trigger,
)
from zmsvc.core.placement import Placement
from zmsvc.core.wiring import Sender, Topic

ENDS = DeviceEndpoints(
    subscribe_endpoint="ipc:///a",
    publish_endpoint="ipc:///b",
    publish_bind="ipc:///b",
    subscribe_bind="ipc:///a",
)


def context(*tasks: TaskDefinition, name: str = "Day") -> Context:
    return Context(name=name, id="c", log_name="T", endpoints=ENDS, tasks={task.id: task for task in tasks})


DAY = context(
    TaskDefinition(
        id="ts001",
        instance="WakeUp",
        rules=(
            Rule(trigger=Trigger.ON_EXIT, action=Action.START, call="ts002"),
            Rule(trigger=Trigger.ON_FAIL, action=Action.RESTART, call="ts001"),
        ),
    ),
    TaskDefinition(
        id="ts002",
        instance="Drink",
        entry=False,
        rules=(Rule(trigger=Trigger.ON_UPDATE, action=Action.STOP, call="ts001"),),
    ),
)


def test_dot_has_the_tasks_as_nodes_and_the_rules_as_labeled_arrows() -> None:
    text = dot(DAY)
    assert text.startswith('digraph "Day" {\n')
    assert text.endswith("}\n")
    assert 'n0 [label="ts001\\nWakeUp", peripheries=2,' in text
    assert 'n1 [label="ts002\\nDrink", peripheries=1,' in text
    assert re.findall(r'(n\d) -> (n\d) \[label="([^"]+)", style=(\w+)', text) == [
        ("n0", "n1", "on_exit: start", "solid"),
        ("n0", "n0", "on_fail: restart", "solid"),
        ("n1", "n0", "on_update: stop", "dashed"),
    ]


def test_a_rule_for_some_reasons_alone_says_so() -> None:
    watched = Rule(trigger=Trigger.ON_FAIL, action=Action.RESTART, call="a", only=Only.WATCHDOG)
    day = context(TaskDefinition(id="a", instance="A", rules=(watched,)))
    assert 'label="on_fail: restart, on-watchdog"' in dot(day)
    assert "|on_fail: restart, on-watchdog|" in mermaid(day)


def test_a_rule_with_conditions_has_them_in_its_label() -> None:
    rules = (
        Rule(
            trigger=Trigger.ON_FAIL,
            action=Action.STOP,
            call="a",
            when=(EndCondition(reason="exit-code", detail=75), EndCondition(reason="watchdog")),
            after=Threshold(count=3, within=60.0),
        ),
        Rule(trigger=Trigger.ON_RECOVER, action=Action.START, call="a"),
    )
    made = context(TaskDefinition(id="a", instance="A", rules=rules))
    assert [(each["id"], each["when"], each["after"]) for each in as_json(made)["rules"]] == [
        ("a:on_fail:stop:a when exit-code:75 watchdog after 3 in 60s", "exit-code:75 watchdog", "3 in 60s"),
        ("a:on_recover:start:a", None, None),
    ]
    text = dot(made)
    assert re.findall(r'label="([^"]+)", style', text) == [
        "on_fail: stop, when exit-code:75 watchdog after 3 in 60s",
        "on_recover: start",
    ]


def test_the_rules_of_the_context_lead_from_any_task() -> None:
    alert = Rule(trigger=Trigger.ON_ANY_FAIL, action=Action.START, call="ts002")
    told = replace(DAY, on_any_fail=(alert,))
    assert '  n2 [label="any task", shape=plaintext, style=solid];\n' in dot(told)
    assert 'n2 -> n1 [label="on_any_fail: start"' in dot(told)
    assert "  n2[/any task/]" in mermaid(told).splitlines()
    assert "  n2 -->|on_any_fail: start| n1" in mermaid(told).splitlines()


def test_messages_are_thick_arrows_beside_the_rules_or_alone() -> None:
    topics = (
        Topic(name="raw", senders=(Sender(task="ts001", count=20, size=61),), hearers=("ts002",)),
        Topic(name='odd "one"', senders=(Sender(task=""), Sender(task="ts002"))),
        Topic(name="lost", hearers=("ts002", "gone")),
    )
    drawn = dot(DAY, None, Shown(topics=topics, seconds=2.0))
    assert "on_exit: start" in drawn
    assert '  n3 [label="other clients", shape=plaintext, style=solid];' in drawn
    bold = re.findall(r'(n\d) -> (n\d) \[label="(.*)", style=bold, arrowhead=vee', drawn)
    assert bold == [
        ("n0", "n1", "raw (10.0/s, 61 B)"),
        ("n3", "n3", 'odd \\"one\\"'),
        ("n1", "n3", 'odd \\"one\\"'),
        ("n3", "n1", "lost"),
        ("n3", "n3", "lost"),
    ]
    alone = mermaid(DAY, None, Shown(topics=topics[:2], rules=False)).splitlines()
    assert [line for line in alone if "|" in line] == [
        '  n0 ==>|"raw"| n1',
        '  n3 ==>|"odd #quot;one#quot;"| n3',
        '  n1 ==>|"odd #quot;one#quot;"| n3',
    ]
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=drawn.encode(), check=True, capture_output=True)


def test_other_clients_are_drawn_only_if_they_publish_or_subscribe() -> None:
    between_tasks = Topic(name="raw", senders=(Sender(task="ts001"),), hearers=("ts002",))
    unheard = Topic(name="lost", senders=(Sender(task="ts001"),))
    for topics, drawn in (((between_tasks,), False), ((between_tasks, unheard), True), ((), False)):
        for draw in (dot, mermaid):
            assert ("other clients" in draw(DAY, None, Shown(topics=topics))) == drawn


def test_a_task_is_tied_to_those_that_it_comes_after_or_requires() -> None:
    third = TaskDefinition(id="ts003", instance="Walk", after=("ts001", "ts002"), requires=("ts002",))
    ordered = context(*DAY.tasks.values(), third)
    assert [line for line in dot(ordered).splitlines() if "odot" in line] == [
        '  n2 -> n0 [label="after", style=solid, arrowhead=odot, color="#8a6d00", fontcolor="#8a6d00"];',
        '  n2 -> n1 [label="requires", style=solid, arrowhead=odot, color="#8a6d00", fontcolor="#8a6d00"];',
    ]
    lines = mermaid(ordered).splitlines()
    assert [line for line in lines if "--o" in line] == ["  n2 --o|after| n0", "  n2 --o|requires| n1"]
    assert "  linkStyle 4 stroke:#8a6d00" in lines


def test_mermaid_has_the_tasks_as_nodes_and_the_rules_as_labeled_arrows() -> None:
    lines = mermaid(DAY).splitlines()
    assert lines[0] == "flowchart LR"
    assert lines[1:6] == [
        '  n0(["ts001<br/>WakeUp"])',
        '  n1["ts002<br/>Drink"]',
        "  n0 -->|on_exit: start| n1",
        "  n0 -->|on_fail: restart| n0",
        "  n1 -.->|on_update: stop| n0",
    ]


@pytest.mark.parametrize("state", FILL)
def test_a_state_is_shown_and_colored(state: str) -> None:
    assert f'label="ts001\\nWakeUp\\n{state}", peripheries=2, fillcolor="{FILL[state]}"' in dot(
        DAY, {"ts001": state}
    )
    drawn = mermaid(DAY, {"ts001": state})
    assert f'n0(["ts001<br/>WakeUp<br/>{state}"])' in drawn
    assert f"classDef {state} fill:{FILL[state]}" in drawn
    assert f"class n0 {state}" in drawn


def test_tasks_without_a_state_are_not_colored() -> None:
    assert dot(DAY).count('fillcolor="#ffffff"') == 2
    assert "classDef" not in mermaid(DAY, {"gone": "active"})


def test_a_rule_that_calls_an_unknown_task_is_left_out() -> None:
    lost = TaskDefinition(
        id="a", instance="A", rules=(Rule(trigger=Trigger.ON_EXIT, action=Action.START, call="z"),)
    )
    assert "->" not in dot(context(lost))


@given(st.text(min_size=1), st.text())
def test_any_name_stays_inside_its_quotes(name: str, title: str) -> None:
    odd, plain = (
        context(TaskDefinition(id="a", instance=word), name=other)
        for word, other in ((name, title), ("x", "y"))
    )
    quoted = r'"(?:[^"\\]|\\.)*"'
    outside = [re.sub(quoted, "", dot(drawn), flags=re.DOTALL) for drawn in (odd, plain)]
    assert outside[0] == outside[1]
    (node,) = re.findall(r'^  n0\(\["(.*)"\]\)$', mermaid(odd), re.MULTILINE)
    assert '"' not in node


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_graphviz_reads_it() -> None:
    text = dot(context(TaskDefinition(id="a", instance='"\\l<b>'), name="x\\"), {"a": "failed"})
    subprocess.run(["dot", "-Tsvg"], input=text.encode(), check=True, capture_output=True)


def test_the_json_has_tasks_with_states_and_rules_with_stable_ids() -> None:
    again = Rule(trigger=Trigger.ON_FAIL, action=Action.RESTART, call="ts001", only=Only.MEMORY_LIMIT)
    first, second = DAY.tasks.values()
    tasks = (replace(first, rules=(*first.rules, again), replicas=2), replace(second, after=("ts001",)))
    alarm = Rule(trigger=Trigger.ON_ANY_FAIL, action=Action.START, call="ts002")
    day = replace(
        DAY, tasks=expand(tasks), written={task.id: task for task in tasks}, on_any_fail=(alarm, alarm)
    )
    found = as_json(day, {"ts001@1": "active", "ts001@2": "failed"})
    assert [(task["id"], task["replicas"], task["state"]) for task in found["tasks"]] == [
        ("ts001", 2, "failed"),
        ("ts002", None, None),
    ]
    assert {rule["id"]: (rule["source"], rule["target"], rule["only"]) for rule in found["rules"]} == {
        "ts001:on_exit:start:ts002": ("ts001", "ts002", None),
        "ts001:on_fail:restart:ts001": ("ts001", "ts001", None),
        "ts001:on_fail:restart:ts001:memory-limit": ("ts001", "ts001", "memory-limit"),
        "ts002:on_update:stop:ts001": ("ts002", "ts001", None),
        ":on_any_fail:start:ts002": (None, "ts002", None),
    }
    assert len(found["rules"]) == 5
    assert found["order"] == [{"task": "ts002", "kind": "after", "target": "ts001"}]
    assert as_json(day)["rules"] == found["rules"]


def test_a_placement_is_in_the_label_and_in_the_data_and_gives_way_to_the_host_of_a_running_task() -> None:
    tasks = (
        TaskDefinition(id="a", instance="Run", placement=Placement(hosts=("h2", "h3"), apart=("b", "c"))),
        TaskDefinition(id="b", instance="Run", placement=Placement(together=("a",))),
        TaskDefinition(id="c", instance="Run"),
    )
    placed = context(*tasks)
    assert 'label="a\\nRun\\nfor h2, h3\\napart from b, c"' in dot(placed)
    assert 'label="b\\nRun\\nfor any host\\nwith a"' in dot(placed)
    shown = Shown(hosts={"a": "h3"})
    assert "a<br/>Run<br/>active<br/>on h3<br/>apart from b, c" in mermaid(placed, {"a": "active"}, shown)
    told = {each["id"]: (each["placement"], each["hosts"]) for each in as_json(placed, None, shown)["tasks"]}
    assert told == {
        "a": ({"hosts": ["h2", "h3"], "apart": ["b", "c"], "with": []}, ["h3"]),
        "b": ({"hosts": [], "apart": [], "with": ["a"]}, []),
        "c": (None, []),
    }


def test_replicas_on_several_hosts_name_all_of_them() -> None:
    one = TaskDefinition(id="w", instance="Run", replicas=3, placement=Placement(apart=("w",)))
    placed = replace(context(one), tasks=expand([one]), written={"w": one})
    shown = Shown(hosts={"w@1": "h3", "w@2": "h2", "w@3": "h3"})
    assert "3 replicas\\non h2, h3\\napart from w" in dot(placed, None, shown)
