"""The metrics of contexts: their values, and that their counters only rise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulation import Simulation, rule, task

from zmsvc.core import metrics
from zmsvc.core.exposition import Family, Format, Kind, Sample, accepted, text
from zmsvc.core.metrics import Asked
from zmsvc.core.totals import Total

TASK = {"context": "Shop", "task": "ts_1", "service": "Till"}


def entry(**more: Any) -> dict[str, Any]:
    return {"id": "ts_1", "instance": "Till", "state": "active", "since": "10", "exit": None, **more}


def answer(*transactions: tuple[str, str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the answer to `status` with transactions of one task each."""
    shown = [{"id": name, "state": state, "tasks": [task]} for name, state, task in transactions]
    return {"transactions": shown, **more}


def collected(status: dict[str, Any] | None, transaction: str | None = None) -> dict[str, Family]:
    asked = Asked(name="Shop", status=status, transaction=transaction)
    return {each.name: each for each in metrics.families([asked], version="1", now=5.0, epoch=float)}


def only(status: dict[str, Any] | None, family: str) -> dict[tuple[str, ...], float]:
    """Return the values of one family by their labels."""
    return {tuple(each.labels.values()): each.value for each in collected(status)[family].samples}


def test_a_context_that_does_not_answer_is_down_and_has_no_other_series() -> None:
    shown = {name for name, each in collected(None).items() if each.samples}
    assert shown == {"zmsvc_up", "zmsvc_build_info", "zmsvc_collected_timestamp_seconds"}
    assert (only(None, "zmsvc_up"), only(answer(), "zmsvc_up")) == ({("Shop",): 0}, {("Shop",): 1})


def test_a_task_has_a_series_for_each_state_and_those_that_it_is_in_are_1() -> None:
    both = answer(("A", "failed", entry(state="failed")), ("B", "active", entry()))
    assert {labels[-1]: value for labels, value in only(both, "zmsvc_task_state").items()} == {
        "inactive": 0,
        "activating": 0,
        "active": 1,
        "deactivating": 0,
        "failed": 1,
    }
    stopped = answer(("A", "inactive", entry(state="failed")))
    assert {key[-1] for key, value in only(stopped, "zmsvc_task_state").items() if value} == {"inactive"}


def test_a_task_of_several_transactions_has_one_series() -> None:
    usage = {"cpu_seconds": 1.5, "memory_bytes": 1000, "threads": 1}
    both = answer(
        (
            "A",
            "active",
            entry(usage=usage, exit={"code": 3, "signal": None, "reason": "exit-code", "at": "1"}),
        ),
        ("B", "active", entry(usage=usage, since="20", exit={"code": 0, "reason": "exited", "at": "2"})),
        totals=[{"total": "cpu", "task": "ts_1", "detail": "", "value": 4.0}],
        rules=[],
    )
    key = tuple(TASK.values())
    assert only(both, "zmsvc_task_resident_memory_bytes") == {key: 2000}
    assert only(both, "zmsvc_task_cpu_seconds_total") == {key: 7.0}
    assert only(both, "zmsvc_task_active_since_timestamp_seconds") == {key: 20}
    assert only(both, "zmsvc_task_last_exit_code") == {key: 0}


def test_counters_of_known_events_begin_with_0() -> None:
    fresh = answer(
        ("A", "active", entry()),
        totals=[],
        rules=[
            {"task": "ts_1", "rule": text}
            for text in ("on_fail:restart:ts_1", "on_fail:start:ts_2 when exit-code:75 after 3 in 60s")
        ],
    )
    assert only(fresh, "zmsvc_rule_firings_total") == {
        ("Shop", "ts_1", "on_fail", "restart", "ts_1", ""): 0,
        ("Shop", "ts_1", "on_fail", "start", "ts_2", "when exit-code:75 after 3 in 60s"): 0,
    }
    assert {key[-1] for key in only(fresh, "zmsvc_task_launches_total")} == set(metrics.CAUSES)
    assert {key[-1] for key in only(fresh, "zmsvc_task_failures_total")} == {"exit-code", "signal"}
    assert set(only(fresh, "zmsvc_state_write_errors_total").values()) == {0}


def test_a_named_transaction_is_a_label_and_has_no_counters() -> None:
    others = [(name, "active", entry()) for name in ("X", "A", "Y")]
    found = collected(answer(*others, totals=[]), transaction="A")
    assert {sample.labels["transaction"] for sample in found["zmsvc_task_state"].samples} == {"A"}
    assert [name for name, each in found.items() if each.kind is Kind.COUNTER and each.samples] == []


@pytest.mark.parametrize(
    "status",
    [
        {"transactions": 7, "totals": [], "rules": 3},
        {"transactions": [{"id": 1, "state": None, "tasks": [{"id": None, "exit": {"at": 3}, "usage": 5}]}]},
        answer(("A", "active", entry(since=None, usage={"cpu_seconds": "x"})), totals=[{"total": "cpu"}, 3]),
        answer(("A", "active", entry()), totals=[{"total": "new", "value": 1}], rules=[{}]),
        answer(("A", "active", entry(exit={"code": 10**400})), totals=[{"total": "cpu", "value": 10**400}]),
        answer(("A", "active", entry(usage="x")), ("B", "active", entry(usage={})), totals=[], rules=[]),
        answer(
            *(("A", "active", entry(usage={"memory_bytes": 1e308, "cpu_seconds": 1e308})),) * 2, totals=[]
        ),
    ],
)
def test_an_answer_of_another_release_makes_no_traceback(status: dict[str, Any]) -> None:
    text(metrics.families([Asked(name="Shop", status=status)], version="1", now=5.0, epoch=lambda _: None))


# --- the text


FAMILIES = [
    Family(
        name="shop_sales_total",
        kind=Kind.COUNTER,
        help='Sales of a "day".',
        samples=(Sample(labels={"what": 'a"b\\c\nd'}, value=3.0), Sample(labels={}, value=0.25)),
    ),
    Family(name="shop_open", kind=Kind.GAUGE, help="1 if open.", samples=()),
]


def test_the_text_formats_differ_in_the_name_of_a_counter_and_in_their_end() -> None:
    assert text(FAMILIES) == (
        '# HELP shop_sales_total Sales of a "day".\n# TYPE shop_sales_total counter\n'
        'shop_sales_total{what="a\\"b\\\\c\\nd"} 3\nshop_sales_total 0.25\n'
    )
    assert text(FAMILIES, Format.OPENMETRICS) == (
        '# HELP shop_sales Sales of a \\"day\\".\n# TYPE shop_sales counter\n'
        'shop_sales_total{what="a\\"b\\\\c\\nd"} 3\nshop_sales_total 0.25\n# EOF\n'
    )


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.PROMETHEUS),
        ("*/*", Format.PROMETHEUS),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", Format.OPENMETRICS),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.5", Format.PROMETHEUS),
        ("application/openmetrics-text;q=0", Format.PROMETHEUS),
    ],
)
def test_a_client_gets_the_format_that_it_prefers(accept: str, form: Format) -> None:
    assert accepted(accept) is form


def test_the_names_follow_the_conventions_of_prometheus() -> None:
    for each in metrics.DEFINITIONS:
        assert each.name.endswith("_total") == (each.kind is Kind.COUNTER), each.name
        assert each.help.endswith("."), each.name
        assert not {"instance", "job", "le", "quantile"} & {*each.labels}


# --- what the core counts


RESTARTS = rule("on_fail", "restart", "a")


def test_each_event_is_counted_once_by_its_cause_and_reason() -> None:
    sim = Simulation.of(task("a", RESTARTS, rule("on_exit", "stop", "b")), task("b"))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    sim.ring()
    sim.ready()
    sim.end("a", code=0)
    sim.ask("start", "a", request=1)
    assert sim.totals == {
        (Total.LAUNCHES, "a", "context"): 1,
        (Total.LAUNCHES, "a", "rule"): 1,
        (Total.LAUNCHES, "a", "operator"): 1,
        (Total.LAUNCHES, "b", "context"): 1,
        (Total.FAILURES, "a", "exit-code"): 1,
        (Total.RESTARTS, "a", ""): 1,
        (Total.FIRINGS, "a", "on_fail:restart:a"): 1,
        (Total.FIRINGS, "a", "on_exit:stop:b"): 1,
    }


def test_a_firing_that_is_refused_is_not_counted_and_each_other_one_is() -> None:
    sim = Simulation.of(task("a", rule("on_update", "restart", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    for number in range(100):
        sim.update("a", n=number)
    assert sim.totals[Total.FIRINGS, "a", "on_update:restart:b"] == 100
    sim.ask("stop", "b", request=1)
    sim.rest()
    before = sim.totals.total()
    sim.update("a", n=100)
    assert sim.totals.total() == before


def test_a_task_that_ends_with_its_keeper_has_failed() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.another_keeper()
    assert sim.totals[Total.FAILURES, "a", "lost"] == 1
    assert sim.totals[Total.LAUNCHES, "a", "context"] == 2


def test_the_cpu_time_of_a_process_is_counted_at_its_end_and_once() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    end = replace(sim.exit_of("a", code=0), cpu=1.25)
    sim.happen(end, end)
    assert sim.totals[Total.CPU, "a", ""] == 1.25


def test_another_host_has_a_series_for_each_state_and_one_for_its_tasks() -> None:
    hosts = [
        {"name": "h2", "state": "joined", "drained": True, "tasks": 3},
        {"name": "h3", "state": "silent", "drained": False, "tasks": 1},
    ]
    shown = only(answer(hosts=hosts), "zmsvc_host_state")
    assert set(shown) == {("Shop", host, state) for host in ("h2", "h3") for state in metrics.HOST_STATES}
    assert {key[1:] for key, value in shown.items() if value} == {
        ("h2", "joined"),
        ("h2", "drained"),
        ("h3", "silent"),
    }
    assert only(answer(hosts=hosts), "zmsvc_host_tasks") == {("Shop", "h2"): 3, ("Shop", "h3"): 1}
    dropped = only(answer(hosts=[{**hosts[0], "dropped": 7}, hosts[1]]), "zmsvc_host_dropped_facts_total")
    assert dropped == {("Shop", "h2"): 7, ("Shop", "h3"): 0}
    assert only(answer(), "zmsvc_host_tasks") == {}, "an earlier release"
