"""`zmsvcctl reload TASK`: the reload signal, and the wait for the end of a reload that a task reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulation import Simulation, rule, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.model import TaskDefinition

PLAIN = replace(task("a", kind="Command"), reload_signal="SIGUSR1")


def notifying(name: str = "a", **limits: float) -> TaskDefinition:
    return replace(task(name, kind="Command", notify=True, **limits), notify_reload=True)


def running(*tasks: TaskDefinition) -> Simulation:
    sim = Simulation.of(*tasks)
    sim.begin()
    sim.ready()
    return sim


def reloading(sim: Simulation, name: str = "a", at: float | None = None) -> None:
    sim.happen(ft.TaskReloading(launch=sim.launch_of(name), at=at))


def answered(sim: Simulation, request: int = 7) -> tuple[bool, int, str] | None:
    replies = sim.replies(request)
    return (replies[0].ok, replies[0].code, replies[0].error) if replies else None


def test_a_task_gets_its_reload_signal_and_the_answer_does_not_wait() -> None:
    sim = running(PLAIN, task("b"))
    sim.ask("reload-tasks", "a", transaction=None)
    assert [(each.key, each.signal, each.all) for each in sim.told(fx.SendSignal)] == [
        (("T1", "a"), "SIGUSR1", False)
    ]
    (reply,) = sim.replies(7)
    assert [(each["id"], each["sub"], each["reloaded"]) for each in reply.data["tasks"]] == [
        ("a", "running", False)
    ]
    (record,) = [each for each in sim.records if each.event == "reloading"]
    assert (record.task, record.detail["signal"], record.detail["uid"]) == ("a", "SIGUSR1", 0)


def test_the_answer_waits_until_the_task_has_reported_the_end_of_its_reload() -> None:
    sim = running(notifying())
    sim.ask("reload-tasks", "a")
    assert [each.signal for each in sim.told(fx.SendSignal)] == ["SIGHUP"]
    assert (sim.sub_state("a"), sim.task("a").state) == ("reload-signal", "active")
    sim.ready()
    assert answered(sim) is None, "this READY=1 is not about the reload"
    reloading(sim, at=sim.now)
    assert (sim.sub_state("a"), answered(sim)) == ("reload-notify", None)
    sim.ready()
    assert (sim.sub_state("a"), answered(sim)) == ("running", (True, 0, ""))
    assert sim.replies(7)[0].data["tasks"][0]["reloaded"] is True
    assert sim.said("a") == ["started"], "a reload does not start the task"


def test_a_reload_that_began_before_the_signal_is_not_its_answer() -> None:
    sim = running(notifying())
    before = sim.now
    sim.now += 1
    sim.ask("reload-tasks", "a")
    reloading(sim, at=before)
    assert sim.sub_state("a") == "reload-signal"
    reloading(sim)
    assert sim.sub_state("a") == "reload-notify", "without MONOTONIC_USEC it may be the answer"


def test_a_task_that_reloads_unasked_shows_it_and_one_without_the_option_does_not() -> None:
    sim = running(notifying(), task("b"))
    reloading(sim)
    reloading(sim, "b")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("reload-notify", "running")
    sim.ready()
    assert sim.sub_state("a") == "running"


def test_two_reloads_at_once_are_answered_by_one_report() -> None:
    sim = running(notifying())
    sim.ask("reload-tasks", "a", request=1)
    reloading(sim)
    sim.ask("reload-tasks", "a", request=2)
    sim.ready()
    assert answered(sim, 1) is None, "the second signal came after the first RELOADING=1"
    reloading(sim)
    sim.ready()
    assert (answered(sim, 1), answered(sim, 2)) == ((True, 0, ""), (True, 0, ""))


@pytest.mark.parametrize("began", [False, True])
def test_a_reload_that_does_not_end_in_time_fails_and_the_task_goes_on(began: bool) -> None:
    sim = running(notifying(start_timeout=5.0, watchdog=2.0))
    sim.ask("reload-tasks", "a")
    if began:
        reloading(sim)
    begun = sim.now
    sim.ring()
    assert sim.now == begun + 5, "the watchdog rests meanwhile"
    why = "cannot reload a: has not reported the end of its reload within 5 s"
    assert (sim.sub_state("a"), answered(sim)) == ("running", (False, 1, why))
    assert sim.alarms[("T1", "a")] == sim.now + 2, "the watchdog goes on"


def test_a_task_may_ask_for_more_time_to_reload() -> None:
    sim = running(notifying(start_timeout=5.0))
    sim.ask("reload-tasks", "a")
    reloading(sim)
    sim.happen(ft.TimeoutExtended(launch=sim.launch_of("a"), seconds=60.0))
    assert sim.task("a").deadline == sim.now + 60


@pytest.mark.parametrize(
    ("code", "end"), [(1, "failed (exit-code, status 1)"), (0, "ended before it had reloaded")]
)
def test_a_task_that_ends_during_its_reload_has_not_reloaded(code: int, end: str) -> None:
    sim = running(notifying())
    sim.ask("reload-tasks", "a")
    sim.end("a", code=code)
    assert answered(sim) == (False, 1, f"cannot reload a: {end}")
    assert sim.task("a").reload_at == 0


def test_a_task_that_is_restarted_during_its_reload_has_not_reloaded() -> None:
    sim = running(notifying())
    sim.ask("reload-tasks", "a", request=1)
    sim.ask("restart", "a", request=2)
    assert answered(sim, 1) == (False, 1, "cannot reload a: restarted meanwhile by an operator (uid 0)")


def test_other_orders_take_a_task_that_reloads_for_active() -> None:
    sim = running(notifying(), task("b", requires=("a",), entry=False))
    sim.ask("reload-tasks", "a", request=1)
    sim.ask("start", "a", request=2)
    assert answered(sim, 2) == (True, 0, "")
    sim.ask("start", "b", request=3)
    assert (sim.sub_state("b"), sim.launched("a")) == ("start", 1)
    sim.ask("signal", "a", request=4, signal="SIGUSR2")
    assert answered(sim, 4) == (True, 0, "")
    sim.ask("stop", "a", request=5)
    assert sim.sub_state("a") == "stopped"


def test_a_rule_sees_a_task_that_reloads_as_running() -> None:
    sim = running(notifying(), task("b", rule("on_exit", "start", "a")))
    sim.ask("reload-tasks", "a")
    sim.end("b", code=0)
    assert (sim.sub_state("a"), sim.launched("a")) == ("reload-signal", 1)


@pytest.mark.parametrize(
    ("tasks", "more", "code", "text"),
    [
        (
            ("b",),
            {},
            1,
            "cannot reload b: it has neither <reload_signal> nor <reload_command> (zmsvcctl -c Sim restart b)",
        ),
        (
            ("a", "b"),
            {},
            1,
            "cannot reload b: it has neither <reload_signal> nor <reload_command> (zmsvcctl -c Sim restart b)",
        ),
        (("c",), {}, 1, "cannot reload c: it is not active"),
        (("x",), {}, 4, "cannot reload x: no such task in Sim"),
        (("a",), {"transaction": "NO"}, 4, "cannot reload a: no such transaction"),
        ((), {}, 2, "cannot reload T1: expected at least one task"),
    ],
)
def test_a_reload_that_cannot_reach_each_named_task_is_refused_and_no_signal_is_sent(
    tasks: tuple[str, ...], more: dict[str, Any], code: int, text: str
) -> None:
    sim = running(PLAIN, task("b"))
    sim.reload(PLAIN, task("b"), replace(PLAIN, id="c", entry=False))
    sim.ask("reload-tasks", *tasks, **more)
    assert answered(sim) == (False, code, text)
    assert not sim.told(fx.SendSignal)


def test_a_task_that_is_not_ready_gets_no_signal_that_might_end_it() -> None:
    sim = Simulation.of(notifying())
    sim.begin()
    sim.ask("reload-tasks", "a")
    assert answered(sim) == (False, 1, "cannot reload a: it is not active")


def test_a_new_supervisor_sends_the_signal_again_and_waits_for_the_report() -> None:
    sim = running(notifying())
    sim.ask("reload-tasks", "a")
    sim.crash()
    sim.happen()
    assert [each.signal for each in sim.told(fx.SendSignal)] == ["SIGHUP", "SIGHUP"]
    reloading(sim, at=sim.now)
    sim.ready()
    assert sim.sub_state("a") == "running"


# --- reload_command

BY_COMMAND = replace(task("a", start_timeout=5.0, watchdog=2.0), reload_command=("reload", "--now"))


def command(sim: Simulation) -> int:
    """Return the launch of the reload_command."""
    (found,) = sim.task("a").auxiliaries
    return found.launch


def test_a_reload_command_runs_beside_the_task_and_the_answer_waits_for_its_end() -> None:
    sim = running(BY_COMMAND)
    sim.ask("reload-tasks", "a")
    (ordered,) = sim.told(fx.LaunchAuxiliary)
    assert (ordered.of, ordered.command) == (sim.launch_of("a"), ("reload", "--now"))
    assert (sim.sub_state("a"), answered(sim), sim.told(fx.SendSignal)) == ("reload", None, [])
    sim.end(command(sim), code=0)
    assert (sim.sub_state("a"), answered(sim)) == ("running", (True, 0, ""))
    assert sim.replies(7)[0].data["tasks"][0]["reloaded"] is True
    assert sim.alarms[("T1", "a")] == sim.now + 2, "the watchdog goes on"


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ({"code": 3}, "its reload_command has failed (status 3)"),
        ({"signal": "SIGSEGV"}, "its reload_command has failed (SIGSEGV)"),
    ],
)
def test_a_reload_command_that_fails_is_a_failure_of_the_order_and_not_of_the_task(
    end: dict[str, Any], why: str
) -> None:
    sim = running(BY_COMMAND)
    sim.ask("reload-tasks", "a")
    sim.end(command(sim), **end)
    assert answered(sim) == (False, 1, f"cannot reload a: {why}")
    assert (sim.sub_state("a"), sim.task("a").failures) == ("running", 0)


def test_a_reload_command_that_is_not_executed_says_why() -> None:
    sim = running(BY_COMMAND)
    sim.keeper.broken = True
    sim.ask("reload-tasks", "a")
    assert answered(sim) == (
        False,
        1,
        "cannot reload a: its reload_command cannot be executed: cannot fork: no memory",
    )
    assert sim.sub_state("a") == "running"


def test_a_reload_command_that_takes_too_long_is_killed_and_the_task_goes_on() -> None:
    sim = running(BY_COMMAND)
    sim.ask("reload-tasks", "a")
    sim.stuck = set()
    launch = command(sim)
    sim.ring()
    assert answered(sim) == (False, 1, "cannot reload a: its reload_command has not ended within 5 s")
    assert [effect.launch for effect in sim.told(fx.KillAll)] == [launch]
    assert sim.sub_state("a") == "running"
    sim.ask("reload-tasks", "a", request=8)
    assert answered(sim, 8) == (
        False,
        1,
        "cannot reload a: the reload_command of an earlier order has not ended",
    )
    sim.let_die()
    sim.ask("reload-tasks", "a", request=9)
    sim.end(command(sim), code=0)
    assert answered(sim, 9) == (True, 0, "")


def test_the_end_of_a_task_ends_its_reload() -> None:
    sim = running(BY_COMMAND)
    sim.ask("reload-tasks", "a")
    sim.end("a", code=1)
    assert answered(sim) == (False, 1, "cannot reload a: failed (exit-code, status 1)")
    assert (sim.sub_state("a"), sim.task("a").auxiliaries) == ("failed", ())
