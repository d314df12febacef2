"""The conditions of rules: how they are read, which ends meet them, and which can never be met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import rule, task

from zmsvc.core.model import EndCondition, TaskDefinition, Threshold, Trigger
from zmsvc.core.rule_conditions import MOST_ENDS, meets, never, read_ends, read_threshold, vain
from zmsvc.core.world import Exit, Reason


def test_a_when_names_reasons_and_their_details() -> None:
    read = read_ends(Trigger.ON_FAIL, " watchdog\texit-code:75 signal:segv exit-code:75 ", "SIG{}".format)
    assert read == (
        EndCondition(reason="watchdog"),
        EndCondition(reason="exit-code", detail=75),
        EndCondition(reason="signal", detail="SIGsegv"),
    )
    assert " ".join(map(str, read)) == "watchdog exit-code:75 signal:SIGsegv"


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("trigger", [Trigger.ON_FAIL, Trigger.ON_EXIT, Trigger.ON_ANY_FAIL])
def test_each_trigger_takes_the_reasons_of_its_own_ends(trigger: Trigger, reason: Reason) -> None:
    good = reason in (Reason.EXITED, Reason.REQUESTED)
    own = good if trigger is Trigger.ON_EXIT else not good
    if reason is Reason.START_LIMIT:
        own = trigger is Trigger.ON_ANY_FAIL
    if own:
        assert read_ends(trigger, reason.value, str) == (EndCondition(reason=reason.value),)
        return
    with pytest.raises(ValueError, match="expected one of"):
        read_ends(trigger, reason.value, str)


@pytest.mark.parametrize(
    ("trigger", "text", "words"),
    [
        ("on_fail", "watchdgo", "'watchdgo' is unknown, expected one of .*did you mean watchdog"),
        ("on_fail", " ", "is empty"),
        ("on_fail", "watchdog:3", "expected watchdog alone"),
        ("on_fail", "exit-code:0", "expected one from 1 to 255"),
        ("on_fail", "exit-code:256", "expected one from 1 to 255"),
        ("on_fail", f"exit-code:{'9' * 5000}", "expected one from 1 to 255"),
        ("on_fail", "exit-code:", "expected one from 1 to 255"),
        ("on_fail", "exited", "is not a failure, and on_exit fires on it"),
        ("on_fail", "start-limit", "fires on_any_fail alone"),
        ("on_exit", "oom-kill", "is a failure, on which on_fail fires, expected one of exited, requested$"),
        ("on_start", "watchdog", "has no meaning: on_start is not about the end of a task"),
        ("on_recover", "watchdog", "has no meaning: on_recover is not about"),
    ],
)
def test_a_bad_when_is_explained(trigger: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_ends(Trigger(trigger), text, str)


def test_an_after_has_a_count_and_a_time() -> None:
    assert read_threshold(" 3  in 1min 30s ") == Threshold(count=3, within=90.0)
    assert str(read_threshold("3 in 1min")) == "3 in 60s"
    assert read_threshold(str(Threshold(count=2, within=2e7))) == Threshold(count=2, within=2e7)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3", "is not a count and a time span"),
        ("3 of 1min", "is not a count and a time span"),
        ("-1 in 1s", "is not a count and a time span"),
        ("0 in 1s", "expected a count from 1 to 100"),
        ("101 in 1s", "expected a count from 1 to 100"),
        ("3 in infinity", "has no limit of time"),
        ("3 in 0", "has no limit of time"),
        ("3 in 5 parsecs", "is not a unit of time"),
    ],
)
def test_a_bad_after_is_explained(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_threshold(text)


@given(text=st.text(max_size=20).filter(lambda text: text.strip() not in {*Reason}))
def test_any_other_text_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_ends(Trigger.ON_FAIL, text, str)
    with pytest.raises(ValueError, match="expected"):
        read_threshold(text)


@pytest.mark.parametrize(
    ("when", "end", "met"),
    [
        ("", Exit(reason=Reason.WATCHDOG, signal="SIGABRT"), True),
        ("watchdog", Exit(reason=Reason.WATCHDOG, signal="SIGABRT"), True),
        ("signal:SIGABRT", Exit(reason=Reason.WATCHDOG, signal="SIGABRT"), False),
        ("exit-code", Exit(reason=Reason.EXIT_CODE, code=3), True),
        ("exit-code:75", Exit(reason=Reason.EXIT_CODE, code=3), False),
        ("oom-kill exit-code:3", Exit(reason=Reason.EXIT_CODE, code=3), True),
        ("signal:SIGSEGV", Exit(reason=Reason.SIGNAL, signal="SIGSEGV"), True),
        ("signal:SIGSEGV", Exit(reason=Reason.SIGNAL, signal="SIGKILL"), False),
        ("exit-code", None, False),
    ],
)
def test_an_end_meets_the_conditions_that_name_it(when: str, end: Exit | None, met: bool) -> None:
    assert meets(read_ends(Trigger.ON_FAIL, when, str) if when else (), end) is met


def test_a_rule_that_no_end_of_its_task_meets_can_never_fire() -> None:
    plain = task("a")
    for option in ("watchdog", "unhealthy", "silent", "memory-limit"):
        assert "so it never fails by" in never(rule("on_fail", "stop", "b", when=option), [plain])
    for reason in ("exit-code:75", "signal", "oom-kill", "not-ready", "cannot-launch", "lost"):
        assert not never(rule("on_fail", "stop", "b", when=reason), [plain])
    assert not never(rule("on_fail", "stop", "b"), [plain])
    assert not never(rule("on_fail", "stop", "b", when="watchdog"), [task("a", watchdog=3.0)])
    clean = replace(plain, success_exit_status=(75, "SIGTERM"))
    named = rule("on_fail", "stop", "b", when="exit-code:75 signal:SIGTERM")
    assert never(named, [clean]) == "exit-code:75 is not a failure of the task, by its <success_exit_status>"
    assert not never(named, [plain])


def test_a_rule_of_the_context_can_fire_if_one_task_meets_it() -> None:
    any_fail = rule("on_any_fail", "start", "b", when="watchdog silent")
    assert never(any_fail, [task("a"), task("c")]) == "no task can fail by watchdog or silent"
    assert not never(any_fail, [task("a"), task("c", watchdog=3.0)])


def test_an_end_that_never_happens_is_named_if_others_may() -> None:
    mixed = rule("on_fail", "stop", "b", when="watchdog oom-kill")
    assert list(vain(mixed, task("a"))) == ["the task has no <watchdog>, so it never fails by watchdog"]
    assert list(vain(mixed, task("a", watchdog=3.0))) == []
    assert list(vain(rule("on_fail", "stop", "b", when="watchdog"), task("a"))) == []


def test_a_when_names_a_limited_number_of_ends() -> None:
    words = ["exit-code:75"] * MOST_ENDS
    assert len(read_ends(Trigger.ON_FAIL, " ".join(words), str)) == 1
    with pytest.raises(ValueError, match=f"names {MOST_ENDS + 1} ends, expected at most {MOST_ENDS}$"):
        read_ends(Trigger.ON_FAIL, " ".join([*words, "sorrow"]), str)


def test_a_rule_of_the_context_is_compared_with_tasks_only_until_one_can_meet_it() -> None:
    def services() -> Iterator[TaskDefinition]:
        yield task("a")
        yield task("b", watchdog=4.0)
        pytest.fail("a task before this one can fail by its watchdog")

    assert not never(rule("on_any_fail", "start", "a", when="watchdog"), services())
