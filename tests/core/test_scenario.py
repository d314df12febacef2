"""core/scenario and core/expectations: a context runs on the simulated machine, with durations that are
assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from simulation import context, rule, task

from zmsvc.core.errors import UsageError
from zmsvc.core.expectations import check, parse
from zmsvc.core.expected_topics import ExpectedTopic
from zmsvc.core.model import Context
from zmsvc.core.probing import ready
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.scenario import Run, events_of, matrix, script_of, simulate

PAIR = (
    task("a", rule("on_fail", "start", "b"), rule("on_exit", "start", "b")),
    task("b", entry=False),
    task("c", rule("on_fail", "restart", "c"), restart_delay=2.0, watchdog=4.0),
)


def told(run: Run, name: str) -> list[str]:
    return [each.record.event for each in run.timeline if each.record.task == name]


def states(run: Run, *names: str) -> list[str]:
    return [run.task(name).sub_state.value for name in names]


def simulated(*script: tuple[str, str], tasks: Sequence[object] = PAIR, duration: float = 60.0) -> Run:
    return simulate(context(*tasks), events_of(script), duration)  # type: ignore[arg-type]


# --- events


def test_a_context_starts_and_then_runs() -> None:
    run = simulated(tasks=[*PAIR, task("d", kind="Command"), task("e", after=("a",))])
    assert states(run, "a", "b", "c", "d", "e") == ["running", "waiting", "running", "running", "running"]
    assert told(run, "a") == ["launching", "started"]
    assert run.now == 60.0


def test_a_command_that_is_ready_by_a_line_of_its_output_becomes_active() -> None:
    lined = replace(task("a", kind="Command"), ready=ReadyLine(pattern="up"))
    assert states(simulated(tasks=(lined,)), "a") == ["running"]


def test_a_failure_fires_rules_and_a_back_off_takes_its_time() -> None:
    run = simulated(("at", "5s"), ("fail", "a"), ("fail", "c=signal:SIGBUS"))
    assert states(run, "a", "b", "c") == ["failed", "running", "running"]
    (failed,) = [each for each in run.timeline if each.record.event == "failed" and each.record.task == "c"]
    assert (failed.at, failed.record.detail["signal"]) == (5.0, "SIGBUS")
    again = [
        each.at for each in run.timeline if each.record.task == "c" and each.record.event == "launching"
    ][-1]
    assert 7.0 <= again < 7.3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("c", "exit-code"),
        ("c=exit-code:75", "exit-code"),
        ("c=signal", "signal"),
        ("c=oom-kill", "oom-kill"),
        ("c=watchdog", "watchdog"),
        ("c=not-ready", "not-ready"),
        ("c=cannot-launch", "cannot-launch"),
    ],
)
def test_a_task_fails_for_any_reason(failure: str, reason: str) -> None:
    run = (
        simulated(
            ("fail", failure), ("exit", "c"), tasks=[task("c", rule("on_exit", "start", "c"), watchdog=4.0)]
        )
        if reason in ("not-ready", "cannot-launch")
        else simulated(("fail", failure))
    )
    if reason == "not-ready":
        run.advance(200.0)
    ends = [each.record.detail["reason"] for each in run.timeline if each.record.event == "failed"]
    assert ends == [reason]


@pytest.mark.parametrize("kind", ["Process", "Command"])
def test_a_task_publishes_on_its_topics_until_it_falls_silent(kind: str) -> None:
    made = task("c", rule("on_fail", "start", "b"), kind=kind)
    topics = replace(made, expect=(ExpectedTopic(topic="t", within=1.0),), ready=ready(topic="t"))
    tasks = [topics, task("b", entry=False)]
    assert told(simulated(tasks=tasks), "c") == ["launching", "started"]
    run = simulated(("fail", "c=silent"), tasks=tasks)
    ends = [each.record.detail["reason"] for each in run.timeline if each.record.event == "failed"]
    assert (ends, states(run, "b")) == (["silent"], ["running"])


def test_a_task_feeds_its_watchdog() -> None:
    assert "failed" not in told(simulated(duration=600.0), "c")


def test_an_update_and_an_exit_fire_rules() -> None:
    tasks = [task("a", rule("on_update", "start", "b")), task("b", entry=False)]
    assert states(simulated(("update", "a"), tasks=tasks), "a", "b") == ["running", "running"]
    assert states(simulated(("exit", "a")), "a", "b") == ["exited", "running"]


def test_a_killed_supervisor_adopts_all_tasks_and_a_killed_device_changes_nothing() -> None:
    run = simulated(("kill", "supervisor"), ("kill", "device"), ("kill", "a"))
    assert told(run, "c") == ["launching", "started", "adopted"]
    assert states(run, "a", "b") == ["failed", "running"], "a task may be killed as well"
    assert len(run.notes) == 1


def test_without_a_time_an_event_happens_when_the_one_before_has_settled() -> None:
    run = simulated(("fail", "a"), ("fail", "b"))
    assert states(run, "a", "b") == ["failed", "failed"]


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ([("fail", "z")], "no such task"),
        ([("fail", "b")], "it does not run at 0.100 s, but is inactive \\(waiting\\)$"),
        ([("fail", "c"), ("fail", "c")], "activating \\(back-off\\); .*--at names a later time"),
        ([("fail", "a=watchdog")], "it has no <watchdog>"),
        ([("fail", "a=sorrow")], "sorrow is unknown"),
        ([("fail", "a=oom-kill:3")], "has no detail"),
        ([("fail", "a=exit-code:0")], "is not an exit status"),
        ([("exit", "a=watchdog")], "only a failure has a reason"),
        ([("at", "5s"), ("exit", "a"), ("at", "1s"), ("exit", "c")], "it is 5.000 s already"),
        ([("at", "soon")], "cannot understand the time"),
    ],
)
def test_an_event_that_cannot_happen_is_an_error(script: list[tuple[str, str]], fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        simulated(*script)


def test_a_script_has_an_event_on_each_line() -> None:
    assert script_of("# a comment\nat 5s\nfail a=watchdog  # why\n\n", "f") == [
        ("at", "5s"),
        ("fail", "a=watchdog"),
    ]
    with pytest.raises(UsageError, match="f:2: "):
        script_of("at 5s\nfell a\n", "f")


# --- the matrix


def test_the_matrix_has_each_failure_of_each_task() -> None:
    found = {each.event.text: each for each in matrix(context(*PAIR), 60.0)}
    assert [*found] == ["fail(a)", "fail(a=signal)", "fail(c)", "fail(c=signal)", "fail(c=watchdog)"]
    assert (found["fail(a)"].down, found["fail(a)"].started) == (("a",), {"b": 1})
    assert found["fail(a)"].recovered is None
    assert (found["fail(c)"].down, found["fail(c)"].started, found["fail(c)"].rings) == ((), {"c": 1}, {})
    assert 2.0 < (found["fail(c)"].recovered or 0) < 2.4
    assert 6.0 < (found["fail(c=watchdog)"].recovered or 0) < 7.0


def test_the_matrix_has_each_failure_that_a_rule_names_as_often_as_it_counts() -> None:
    tasks = [
        task(
            "a",
            rule("on_fail", "restart", "a"),
            rule("on_fail", "start", "b", when="exit-code:75 cannot-launch signal:SIGBUS"),
            rule("on_fail", "start", "b", when="lost", after="2 in 1min"),
            start_timeout=5.0,
        ),
        task("b", entry=False),
    ]
    any_fail = [rule("on_any_fail", "start", "b", when="not-ready start-limit", after="3 in 10min")]
    found = {each.event.text: each for each in matrix(context(*tasks, any_fail=any_fail), 60.0)}
    alert = {"fail(a=exit-code:75)", "fail(a=signal:SIGBUS)", "fail(a=cannot-launch)"}
    alert |= {"fail(a=lost) 2 times", "fail(a=not-ready) 3 times"}
    assert {text for text, each in found.items() if each.started.get("b")} == alert
    others = {"fail(a)", "fail(a=signal)", "fail(a=lost)", "fail(a=not-ready)"}
    assert found.keys() - alert - others == set()
    assert found["fail(a=lost) 2 times"].started["a"] == 2
    assert found["fail(a)"].started == {"a": 1}


def test_a_failure_fires_the_rules_that_name_it() -> None:
    tasks = [
        task("a", *(rule("on_fail", "start", name, when=when) for name, when in REASONS.items())),
        *(task(name, entry=False) for name in REASONS),
    ]
    for name, when in REASONS.items():
        run = simulated(("fail", f"a={when}"), ("at", "200s"), tasks=tasks)
        assert [other for other in REASONS if states(run, other) == ["running"]] == [name], when


REASONS = {"b": "exit-code:75", "c": "exit-code:1", "d": "signal:SIGSEGV", "e": "oom-kill", "f": "lost"}


def test_a_ring_of_rules_is_found_with_its_rate() -> None:
    tasks = [
        task("a", rule("on_fail", "start", "b")),
        task("b", rule("on_start", "restart", "c"), entry=False),
        task("c", rule("on_start", "restart", "b"), entry=False),
    ]
    found = next(iter(matrix(context(*tasks), 30.0)))
    assert {*found.rings} == {"b", "c"}
    assert all(rate > 0 for rate in found.rings.values())


# --- expectations


def expect(text: str, of: Context | None = None) -> tuple[float | None, str]:
    used = of or context(*PAIR)
    (result,) = check(used, [parse(text, used)])
    return result.after, result.why


def test_an_expectation_holds_or_has_a_counter_example() -> None:
    after, why = expect("after fail(a): active(b) and failed(a) within 5s")
    assert (after, why) == (0.1, "")
    assert expect("after fail(c=watchdog): not active(c) within 5s")[0] == 4.0
    assert (expect("after fail(c): active(c) within 3s")[0] or 0) > 2.0
    after, why = expect("after  fail(c):  active(c)  within  1s")
    assert (after, why) == (None, "within 1 s: c is activating (back-off)")
    used = context(*PAIR)
    (result,) = check(used, [parse("after exit(c): active(c) within 1min", used)])
    assert result.after is None
    assert [each.record.event for each in result.timeline] == ["stopped"]
    assert expect("after kill(supervisor): active(a) and active(c) within 1s")[0] == 0.0


def test_an_expectation_begins_when_all_entry_tasks_are_active() -> None:
    never = context(task("a"), task("b", after=("a",), requires=("c",)), task("c", entry=False))
    assert expect("after fail(a): failed(a) within 1s", never)[0] == 0.0
    slow = context(*(task(f"t{number}", after=(f"t{number - 1}",) if number else ()) for number in range(20)))
    assert expect("after fail(t19): failed(t19) within 1s", slow)[0] == 0.0


def test_a_failure_without_an_exit_status_ends_with_1() -> None:
    run = simulated(("fail", "a"))
    assert [each.record.detail["exit_code"] for each in run.timeline if each.record.event == "failed"] == [1]


def test_an_expectation_without_all_entry_tasks_shows_the_start() -> None:
    stopped = context(task("a", rule("on_start", "stop", "b")), task("b"))
    (result,) = check(stopped, [parse("after fail(b): active(b) within 1s", stopped)])
    assert (result.after, result.begin, result.timeline[0].at) == (None, 0.0, 0.0)
    assert result.why == "before the event, not all entry tasks are active: b is inactive (stopped)"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("after fail(a): active(b)", "cannot understand the expectation"),
        ("after burn(a): active(b) within 5s", "cannot understand the expectation"),
        ("after fail(a): running(b) within 5s", "cannot understand 'running"),
        ("after fail(a): active(z) within 5s", "no such task in Sim: z"),
        ("after fail(z): active(a) within 5s", "no such task in Sim: z"),
        ("after fail(a): active(b) within soon", "cannot understand the time"),
        ("after fail(a): active(b) within infinity", "a limited time span"),
    ],
)
def test_a_fault_of_an_expectation_says_what_was_expected(text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        parse(text, context(*PAIR))
