"""Decisions of `step` about orders, limits and ends, on a simulated machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from simulation import BEGINNING, Simulation, context, rule, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core import updates
from zmsvc.core.access import Verb
from zmsvc.core.cause import as_json
from zmsvc.core.draft import Draft
from zmsvc.core.engine import step
from zmsvc.core.model import TaskDefinition
from zmsvc.core.reload import plan as plan_reload
from zmsvc.core.requests import MAX_CLOSED
from zmsvc.core.service_options import KillMode, ServiceType
from zmsvc.core.simulated_machine import PID
from zmsvc.core.transitions import KILL_TIMEOUT
from zmsvc.core.world import status_at, task_as_json

# --- starting


def test_the_context_is_ready_when_its_entry_tasks_are() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False), task("c"))
    sim.begin()
    assert (sim.sub_state("a"), sim.sub_state("b"), sim.sub_state("c")) == ("start", "waiting", "start")
    sim.ready("a")
    assert not sim.told(fx.Ready)
    sim.ready("c")
    assert (sim.sub_state("a"), sim.sub_state("c")) == ("running", "running")
    assert len(sim.told(fx.Ready)) == 1


def test_an_order_for_an_unknown_task_or_transaction_names_a_similar_one() -> None:
    sim = Simulation.of(task("ts_100"), task("ts_2"))
    sim.begin()
    sim.ask("start", "ts_1000")
    sim.ask("stop", transaction="T11")
    assert [reply.error for reply in sim.told(fx.Reply)] == [
        "cannot start ts_1000: no such task in Sim (did you mean ts_100?)",
        "cannot stop T11: no such transaction (did you mean T1?)",
    ]


def test_a_context_is_ready_also_when_an_entry_task_fails() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a")), task("b"))
    sim.begin()
    sim.ready("b")
    sim.end("a", code=1)
    assert len(sim.told(fx.Ready)) == 1
    sim.ring()
    sim.ready()
    assert (sim.sub_state("a"), len(sim.told(fx.Ready))) == ("running", 1)


def test_an_exit_during_start_up_makes_the_context_ready_and_ends_it() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ask("exit", transaction=None)
    assert [type(effect) for effect in sim.effects if isinstance(effect, fx.Ready | fx.Leave)] == [
        fx.Ready,
        fx.Leave,
    ]


def test_without_autostart_nothing_starts_and_the_context_is_ready() -> None:
    sim = Simulation.of(task("a"))
    sim.begin(transaction=None, autostart=False)
    assert not sim.world.transactions
    assert not sim.alive
    assert len(sim.told(fx.Ready)) == 1


def test_a_first_transaction_opens_when_there_is_none_to_resume() -> None:
    sim = Simulation.of(task("a"))
    sim.begin(transaction=None)
    assert sim.sub_state("a", "GENERATED") == "start"


def test_a_task_is_announced_started_and_ended_in_order() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.update("a", n=1)
    sim.end("a", code=0)
    assert [
        type(e).__name__
        for e in sim.effects
        if isinstance(e, fx.PublishProcess | fx.Launch | fx.PublishControl)
    ] == ["PublishProcess", "Launch", "PublishControl", "PublishControl", "PublishControl"]
    assert [(e.action, e.success, e.pid) for e in sim.told(fx.PublishControl)] == [
        ("started", True, PID + 1),
        ("updated", True, PID + 1),
        ("stopped", True, PID + 1),
    ]


def test_the_history_records_a_request_before_its_effects() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.records.clear()
    sim.ask("restart", "a")
    sim.ready()
    assert [record.event for record in sim.records] == [
        "requested",
        "stopping",
        "stopped",
        "launching",
        "started",
    ]


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "exit"])
def test_the_history_records_the_requester(verb: str) -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.records.clear()
    names = () if verb == "exit" else ("a",)
    sim.ask(verb, *names)
    (record,) = [record for record in sim.records if record.event == "requested"]
    assert record.transaction == ("" if verb == "exit" else "T1")
    assert (record.detail["verb"], record.detail["by"], record.detail["uid"]) == (verb, "operator", 0)
    assert tuple(record.detail.get("tasks", ())) == names


def test_a_start_is_answered_when_the_task_is_ready() -> None:
    sim = Simulation.of(task("a", entry=False))
    sim.begin()
    sim.ask("start", "a")
    assert not sim.replies()
    sim.ready()
    (reply,) = sim.replies()
    assert reply.ok
    assert reply.data["transaction"] == "T1"
    assert reply.data["tasks"] == [
        {"id": "a", "transaction": "T1", "state": "active", "sub": "running", "pid": PID + 1, "held": False}
    ]


@pytest.mark.parametrize(
    ("end", "text"),
    [
        ({"code": 3}, "cannot start a: failed (exit-code, status 3): no disk"),
        ({"signal": "SIGSEGV"}, "cannot start a: failed (signal, SIGSEGV): no disk"),
        ({"code": 0}, "cannot start a: failed (not-ready, status 0): no disk"),
    ],
)
def test_a_start_that_fails_is_answered_with_the_reason(end: dict[str, Any], text: str) -> None:
    sim = Simulation.of(task("a", entry=False))
    sim.begin()
    sim.ask("start", "a")
    sim.happen(ft.TaskSaid(launch=1, status="no disk"))
    sim.end("a", **end)
    (reply,) = sim.replies()
    assert (reply.ok, reply.code, reply.error) == (False, 1, text)
    assert sim.told(fx.PublishControl)[-1].items["message"] == "no disk"


def test_a_request_with_no_block_is_answered_at_once() -> None:
    sim = Simulation.of(task("a", entry=False))
    sim.begin()
    sim.ask("start", "a", block=False)
    (reply,) = sim.replies()
    assert (reply.ok, reply.data["tasks"][0]["state"]) == (True, "activating")


def test_a_start_of_a_running_task_changes_nothing() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    before = dict(sim.world.tasks)
    sim.ask("start", "a", request=1)
    sim.ask("start", request=2)
    assert sim.world.tasks == before
    assert [reply.ok for reply in sim.replies()] == [True, True]
    assert sim.launched("a") == 1


def test_a_start_of_a_starting_task_waits_for_it() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ask("start", "a")
    assert not sim.replies()
    sim.ready()
    assert sim.replies()[0].ok
    assert sim.launched("a") == 1


def test_two_identical_requests_are_both_answered() -> None:
    sim = Simulation.of(task("a", entry=False))
    sim.begin()
    sim.ask("start", "a", request=1)
    sim.ask("start", "a", "a", request=2)
    sim.ready()
    assert [reply.request for reply in sim.replies()] == [1, 2]
    assert sim.launched("a") == 1


def test_transactions_run_side_by_side() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False))
    sim.begin()
    sim.ask("start", transaction="T2", request=1)
    sim.ask("start", "b", transaction="T3", request=2)
    sim.ready()
    assert sorted(sim.world.launches.values()) == [("T1", "a"), ("T2", "a"), ("T3", "b")]
    sim.ask("stop", "a", transaction="T2")
    assert (sim.sub_state("a"), sim.sub_state("a", "T2")) == ("running", "stopped")


@pytest.mark.parametrize(
    ("asked", "code", "text"),
    [
        ({"verb": "start", "tasks": ("x",)}, 4, "cannot start x: no such task in Sim"),
        ({"verb": "start", "tasks": ("a", "x")}, 4, "cannot start x: no such task in Sim"),
        ({"verb": "stop", "tasks": ("x",)}, 4, "cannot stop x: no such task in Sim"),
        ({"verb": "reset-failed", "tasks": ("x",)}, 4, "cannot reset-failed x: no such task in Sim"),
        ({"verb": "stop", "transaction": "NOBODY"}, 4, "cannot stop NOBODY: no such transaction"),
        (
            {"verb": "restart", "transaction": "NOBODY", "tasks": ("a",)},
            4,
            "cannot restart a: no such transaction",
        ),
        ({"verb": "restart", "tasks": ("x",)}, 4, "cannot restart x: no such task in Sim"),
        (
            {"verb": "reset-failed", "transaction": "NOBODY"},
            4,
            "cannot reset-failed NOBODY: no such transaction",
        ),
        (
            {"verb": "restart", "tasks": ("all",)},
            4,
            "cannot restart all: no such task in Sim (without a task the order is for all)",
        ),
        ({"verb": "start", "tasks": ("all",)}, 4, "cannot start all: no such task in Sim"),
        ({"verb": "start", "transaction": "a/b"}, 2, "cannot start a/b: 'a/b' is not a transaction ID"),
        ({"verb": "start", "transaction": None}, 2, "cannot start Sim: None is not a transaction ID"),
        (
            {"verb": "start", "transaction": None, "tasks": ("a",)},
            2,
            "cannot start a: several transactions are open (T1, T2)",
        ),
    ],
)
@pytest.mark.parametrize("by", ["operator", "bus"])
def test_unknown_or_ambiguous_names_are_refused(asked: dict[str, Any], code: int, text: str, by: str) -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ask("start", transaction="T2")
    sim.ask("start", transaction="OLD")
    sim.ask("stop", transaction="OLD")
    before, sim.effects = sim.world, []
    order: dict[str, Any] = {"transaction": "T1", "tasks": (), **asked, "verb": Verb(asked["verb"])}
    sim.happen(ft.Requested(origin=ft.Origin(by=by), request=9 if by == "operator" else None, **order))
    assert sim.world == before
    if by == "operator":
        (reply,) = sim.effects
        assert isinstance(reply, fx.Reply)
        assert (reply.ok, reply.code) == (False, code)
        assert reply.error.startswith(text)
    else:
        told = [effect for effect in sim.effects if isinstance(effect, fx.PublishControl)]
        assert len(told) == len(sim.effects) == max(1, len(order["tasks"]))
        assert all(
            (each.action, each.success, each.items["reason"]) == ("failed", False, "refused") for each in told
        )
        assert [each.key for each in told] == [
            (order["transaction"] or "", name) for name in order["tasks"] or ("context001",)
        ]
        assert all(each.items["message"].startswith(text) for each in told)


def test_a_stop_of_all_without_an_open_transaction_is_refused() -> None:
    sim = Simulation.of(task("a"))
    sim.begin(transaction=None, autostart=False)
    sim.ask("stop", transaction=None)
    assert [(reply.code, reply.error) for reply in sim.replies()] == [
        (4, "cannot stop Sim: no transaction is open")
    ]


def test_a_start_without_a_transaction_means_the_only_open_one() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False))
    sim.begin()
    sim.ask("start", "b", transaction="NEW", new=True)
    assert sim.sub_state("b") == "start"
    assert "NEW" not in sim.world.transactions
    sim.ask("start", transaction="NEW", new=True)
    assert sim.sub_state("a", "NEW") == "start", "all of them are a new run"


def test_messages_of_unknown_or_unforked_launches_change_nothing() -> None:
    sim = Simulation.of(task("a", watchdog=5.0))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1"))
    for launch in (1, 77):
        before = sim.world
        sim.decide(ft.TaskReady(launch=launch))
        sim.decide(ft.WatchdogFed(launch=launch))
        sim.decide(ft.TimeoutExtended(launch=launch, seconds=99.0))
        sim.decide(ft.TaskGone(launch=launch))
        assert sim.world == before
    sim.decide(ft.TaskLaunched(launch=1, pid=5, start_time=6))
    assert (sim.task("a").pid, sim.task("a").start_time) == (5, 6)


# --- ends and their reasons


def test_restart_of_a_stopped_transaction_starts_it() -> None:
    """This is as with systemctl. As with a start, tasks that the operator had stopped singly in the earlier
    run are no longer held.
    """
    sim = Simulation.of(task("a"), task("b"), task("c", entry=False))
    sim.begin()
    sim.ready()
    sim.ask("stop", "b")
    sim.ask("stop", transaction="T1")
    sim.ready()
    assert not sim.world.transactions["T1"].open
    sim.ask("restart", transaction="T1")
    sim.ready()
    assert sim.world.transactions["T1"].open
    assert [sim.sub_state(name) for name in "abc"] == ["running", "running", "waiting"]


@pytest.mark.parametrize(
    ("how", "ready", "reason", "sub"),
    [
        ({"code": 0}, True, "exited", "exited"),
        ({"code": 7}, True, "exit-code", "failed"),
        ({"code": 203}, True, "exit-code", "failed"),
        ({"signal": "SIGKILL"}, True, "signal", "failed"),
        ({"signal": "SIGKILL", "oom": True}, True, "oom-kill", "failed"),
        ({"code": 0}, False, "not-ready", "failed"),
        ({"code": 7}, False, "exit-code", "failed"),
        ({"code": 203}, False, "cannot-launch", "failed"),
    ],
)
def test_every_exit_has_its_reason(how: dict[str, Any], ready: bool, reason: str, sub: str) -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    if ready:
        sim.ready()
    sim.happen(ft.TaskExited(launch=1, **how))
    assert (sim.reason("a"), sim.sub_state("a")) == (reason, sub)
    last = sim.told(fx.PublishControl)[-1]
    assert (last.success, last.items["reason"]) == (sub == "exited", reason)
    assert (last.items["exit_code"], last.items["signal"]) == (how.get("code"), how.get("signal"))
    assert "message" not in last.items, "it had said nothing"
    assert all("ended" not in record.detail for record in sim.records), "it had left nothing behind"
    # The second time the end belongs to no launch.
    before = sim.world
    assert sim.happen(ft.TaskExited(launch=1, **how)) == [fx.Forget(launch=1)]
    assert sim.world == before


@pytest.mark.parametrize(
    ("how", "ready", "reason"),
    [
        ({"code": 0}, True, "exited"),
        ({"code": 75}, True, "exited"),
        ({"signal": "SIGKILL"}, True, "exited"),
        ({"code": 203}, True, "exited"),
        ({"code": 9}, True, "exit-code"),
        ({"signal": "SIGTERM"}, True, "signal"),
        ({"signal": "SIGKILL", "oom": True}, True, "oom-kill"),
        ({"code": 75}, False, "not-ready"),
        ({"code": 203}, False, "cannot-launch"),
    ],
)
def test_an_end_that_the_file_declares_a_success_is_clean(
    how: dict[str, Any], ready: bool, reason: str
) -> None:
    statuses = (75, 203, "SIGKILL")
    rules = (rule("on_exit", "start", "b"), rule("on_fail", "start", "c"))
    sim = Simulation.of(
        replace(task("a", *rules), success_exit_status=statuses), *(task(name, entry=False) for name in "bc")
    )
    sim.begin()
    if ready:
        sim.ready()
    sim.happen(ft.TaskExited(launch=1, **how))
    clean = reason == "exited"
    assert (sim.reason("a"), sim.sub_state("a")) == (reason, "exited" if clean else "failed")
    assert (sim.launched("b"), sim.launched("c")) == ((1, 0) if clean else (0, 1))
    last = [each for each in sim.told(fx.PublishControl) if each.key == ("T1", "a")][-1]
    assert (last.success, last.action) == (clean, "stopped" if clean else "failed")
    assert (last.items["exit_code"], last.items["signal"]) == (how.get("code"), how.get("signal"))


@pytest.mark.parametrize(("how", "blamed"), [({"code": 0}, True), ({"signal": "SIGKILL"}, False)])
def test_a_command_that_a_signal_ends_has_left_nothing_in_the_background(
    how: dict[str, Any], blamed: bool
) -> None:
    """If a shell is killed, its child was in the foreground. If it exits, the child was not."""
    command = replace(task("a"), service_type=ServiceType.COMMAND, success_exit_status=("SIGKILL",))
    sim = Simulation.of(command)
    sim.begin()
    sim.happen(ft.TaskExecuted(launch=1))
    sim.happen(ft.TaskExited(launch=1, others_left=True, **how))
    sim.happen(ft.TaskGone(launch=1, leftovers=(ft.Leftover(pid=9000, name="sleep", signal="SIGTERM"),)))
    assert sim.reason("a") == "exited"
    assert ("in the background" in sim.task("a").status) is blamed


def test_a_missed_watchdog_is_a_failure_even_if_its_signal_is_a_clean_end() -> None:
    sim = Simulation.of(replace(task("a", watchdog=1.0), success_exit_status=("SIGABRT",)))
    sim.begin()
    sim.ready()
    sim.now += 2
    sim.happen(ft.DeadlinePassed(key=("T1", "a")))
    sim.happen(ft.TaskExited(launch=1, signal="SIGABRT"))
    assert (sim.reason("a"), sim.sub_state("a")) == ("watchdog", "failed")


@pytest.mark.parametrize(("notify", "reason"), [(False, "exited"), (True, "not-ready")])
def test_a_command_without_sd_notify_may_exit_without_ready(notify: bool, reason: str) -> None:
    sim = Simulation.of(task("a", kind="Command", notify=notify))
    sim.begin()
    sim.end("a", code=0)
    assert sim.reason("a") == reason


@pytest.mark.parametrize("crashed", [False, True])
def test_a_command_without_sd_notify_is_started_when_it_is_executed(crashed: bool) -> None:
    sim = Simulation.of(task("a", kind="Command"), task("b", kind="Command", notify=True))
    sim.begin()
    sim.alive[1].executed = sim.alive[2].executed = True
    if crashed:
        sim.crash()
        sim.happen()
    else:
        sim.execute("a")
        sim.execute("b")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("running", "start")
    sim.ready("b")
    assert sim.sub_state("b") == "running"


def test_a_launch_that_cannot_be_forked_has_failed() -> None:
    sim = Simulation.of(task("a"))
    sim.keeper.broken = True
    sim.begin()
    assert (sim.sub_state("a"), sim.reason("a"), sim.task("a").status) == (
        "failed",
        "cannot-launch",
        "cannot fork: no memory",
    )


def test_a_start_that_takes_too_long_fails_as_not_ready() -> None:
    sim = Simulation.of(task("a", start_timeout=5.0))
    sim.begin()
    sim.ring()
    assert sim.now == BEGINNING + 5
    assert (sim.sub_state("a"), sim.reason("a")) == ("failed", "not-ready")
    assert [effect.signal for effect in sim.told(fx.Terminate)] == ["SIGTERM"]


def test_the_start_timeout_applies_when_the_fork_took_longer_than_it() -> None:
    sim = Simulation.of(task("a", start_timeout=5.0))
    sim.save(sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1")))
    sim.now += 60
    sim.decide(ft.DeadlinePassed(key=("T1", "a")))
    sim.happen(ft.TaskLaunched(launch=1, pid=PID + 1, start_time=1))
    assert sim.ring(), "its alarm is set"
    assert sim.now == BEGINNING + 65, "it has its whole time"
    assert sim.sub_state("a") == "stop-sigterm"


def test_a_task_may_ask_for_more_time() -> None:
    sim = Simulation.of(task("a", start_timeout=5.0, stop_timeout=2.0))
    sim.obedient = False
    sim.begin()
    sim.happen(ft.TimeoutExtended(launch=1, seconds=60.0))
    sim.happen(ft.TimeoutExtended(launch=1, seconds=1.0))
    assert sim.alarms == {("T1", "a"): BEGINNING + 60}
    sim.ready()
    sim.happen(ft.TimeoutExtended(launch=1, seconds=60.0))
    assert not sim.alarms, "while it runs there is nothing to extend"
    sim.ask("stop", "a")
    sim.happen(ft.TimeoutExtended(launch=1, seconds=30.0))
    assert sim.alarms == {("T1", "a"): BEGINNING + 30}


def test_a_timeout_of_0_is_unlimited() -> None:
    sim = Simulation.of(task("a", start_timeout=0.0, stop_timeout=0.0))
    sim.obedient = False
    sim.begin()
    assert not sim.alarms
    sim.happen(ft.TimeoutExtended(launch=1, seconds=1.0))
    sim.ask("stop", "a")
    assert not sim.alarms


def test_a_missed_watchdog_aborts_and_fails() -> None:
    sim = Simulation.of(task("a", watchdog=2.0))
    sim.begin()
    sim.happen(ft.WatchdogFed(launch=1))
    sim.ready()
    sim.now += 1.5
    sim.happen(ft.WatchdogFed(launch=1))
    sim.ring()
    assert sim.now == BEGINNING + 3.5
    assert [effect.signal for effect in sim.told(fx.Terminate)] == ["SIGABRT"]
    assert (sim.sub_state("a"), sim.reason("a")) == ("failed", "watchdog")


def test_an_alarm_that_rings_too_early_is_set_again() -> None:
    sim = Simulation.of(task("a", start_timeout=5.0))
    sim.begin()
    sim.alarms.clear()
    before = sim.world
    sim.happen(ft.DeadlinePassed(key=("T1", "a")))
    assert sim.world == before
    assert sim.alarms == {("T1", "a"): BEGINNING + 5}


# --- stopping


def test_a_task_that_ignores_sigterm_is_killed_and_the_stop_is_answered() -> None:
    sim = Simulation.of(task("a", stop_timeout=3.0))
    sim.obedient = False
    sim.begin()
    sim.ready()
    sim.ask("stop", "a")
    assert sim.sub_state("a") == "stop-sigterm"
    assert not sim.replies()
    sim.ring()
    assert (sim.sub_state("a"), sim.reason("a")) == ("stopped", "requested")
    assert sim.task("a").exit.signal == "SIGKILL"  # type: ignore[union-attr]
    (reply,) = sim.replies()
    assert reply.ok
    assert reply.data["tasks"][0]["killed"], "a monitor cannot see it otherwise"
    sim.ask("start", "a", request=2)
    sim.ready()
    sim.ask("stop", "a", request=3)
    sim.end("a", code=0)
    assert not sim.replies(3)[0].data["tasks"][0]["killed"]


def test_a_process_that_survives_sigkill_is_an_error_for_each_stop() -> None:
    sim = Simulation.of(task("a", stop_timeout=3.0))
    sim.obedient, sim.stuck = False, set()
    sim.begin()
    sim.ready()
    sim.ask("stop", "a", request=1)
    sim.ring()
    assert sim.sub_state("a") == "stop-sigkill"
    sim.ring()
    assert sim.now == BEGINNING + 3 + KILL_TIMEOUT
    (reply,) = sim.replies()
    assert (reply.ok, reply.code, reply.data["survivors"]) == (False, 1, ["a"])
    assert "cannot stop a: cannot be killed" in reply.error
    sim.ask("stop", "a", request=2)
    assert len(sim.told(fx.KillAll)) == 2
    sim.ring()
    assert not sim.replies(2)[0].ok
    sim.ask("restart", "a", request=3)
    sim.let_die()
    sim.ready()
    assert sim.replies(3)[0].ok
    assert sim.launched("a") == 2


def test_leftover_processes_are_killed_and_named() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.stuck = set()
    sim.ask("restart", "a", request=1)
    assert sim.sub_state("a") == "start", "it left nothing behind"
    sim.end("a", code=0, left=1)
    assert (sim.sub_state("a"), sim.task("a").pid) == ("final-sigterm", PID + 2)
    sim.ring()
    assert sim.sub_state("a") == "final-sigkill", "its time to stop is over"
    sim.ask("stop", "a", request=2)
    assert not sim.replies(2)
    sim.let_die()
    assert (sim.sub_state("a"), sim.reason("a")) == ("failed", "not-ready"), "its own end counts"
    assert sim.replies(2)[0].data["ended"] == [
        {
            "task": "a",
            "pid": 9000,
            "name": "sh",
            "code": None,
            "signal": "SIGKILL",
            "asked": "",
            "killed": True,
        }
    ]
    told = [record for record in sim.records if record.event == "failed"]
    assert told[0].detail["ended"][0]["signal"] == "SIGKILL"


def test_the_first_hundred_of_many_leftover_processes_are_named() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("stop", "a", request=1)
    sim.happen(ft.TaskExited(launch=1, code=0, others_left=True))
    sim.happen(ft.TaskGone(launch=1, leftovers=tuple(ft.Leftover(pid=number) for number in range(250))))
    (detail,) = [record.detail for record in sim.records if record.event == "stopped"]
    (answer,) = [reply.data for reply in sim.replies(1)]
    status = task_as_json("a", sim.task("a"), None, str)
    for shown in (detail, answer, status):
        assert [each["pid"] for each in shown["ended"]] == list(range(100))
        assert shown["ended_more"] == 150


def test_a_repeated_exit_changes_nothing_while_leftovers_are_killed() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.stuck = set()
    sim.end("a", code=4, left=2)
    before = sim.world
    sim.happen(ft.TaskExited(launch=1, code=0))
    assert sim.world == before
    sim.let_die()
    assert sim.task("a").exit.code == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("forked", [True, False])
def test_a_task_that_is_stopped_before_its_fork_never_runs(forked: bool) -> None:
    sim = Simulation.of(task("a", stop_timeout=3.0))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1"))
    sim.decide(
        ft.Requested(
            verb=Verb.STOP, origin=ft.Origin(by="operator"), request=1, transaction="T1", tasks=("a",)
        )
    )
    assert not sim.told(fx.Terminate)
    sim.now += 2.0
    if forked:
        effects = sim.decide(ft.TaskLaunched(launch=1, pid=PID + 1, start_time=1))
        assert fx.Terminate(launch=1, key=("T1", "a"), signal="SIGTERM") in effects
        assert sim.task("a").deadline == sim.now + 3.0, "it has its whole time from when it is there"
        sim.decide(ft.TaskExited(launch=1, signal="SIGTERM"))
    else:
        sim.decide(ft.LaunchFailed(launch=1, why="cannot fork"))
    assert (sim.sub_state("a"), sim.reason("a")) == ("stopped", "requested")
    assert sim.replies(1)[0].ok


def test_a_kill_ordered_before_the_fork_is_done_right_after_it() -> None:
    sim = Simulation.of(task("a", stop_timeout=3.0))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1"))
    sim.decide(ft.Requested(verb=Verb.STOP, origin=ft.Origin(by="operator"), transaction="T1", tasks=("a",)))
    sim.now += 3.0
    sim.decide(ft.DeadlinePassed(key=("T1", "a")))
    assert sim.sub_state("a") == "stop-sigkill"
    effects = sim.decide(ft.TaskLaunched(launch=1, pid=PID + 1, start_time=1))
    assert fx.KillAll(launch=1, key=("T1", "a"), stacks=True) in effects


def test_a_stop_of_an_inactive_task_succeeds_and_keeps_rules_from_starting_it() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    sim.ask("stop", "a", "b")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("failed", "waiting")
    assert sim.replies()[0].ok
    assert sim.task("a").stopped_by_operator
    assert sim.task("b").stopped_by_operator


def test_a_stop_ends_a_back_off() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a")))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    assert sim.sub_state("a") == "back-off"
    sim.ask("stop", "a")
    assert (sim.sub_state("a"), sim.replies()[0].ok) == ("stopped", True)
    assert sim.task("a").status == ""
    assert not sim.alarms


def test_a_start_during_a_stop_restarts_the_task_and_another_stop_cancels_it() -> None:
    sim = Simulation.of(task("a", stop_timeout=9.0))
    sim.obedient = False
    sim.begin()
    sim.ready()
    sim.ask("stop", "a", request=1)
    sim.ask("start", "a", request=2)
    sim.ask("stop", "a", request=3)
    sim.ask("start", "a", request=4)
    sim.end("a", code=0)
    assert sorted(reply.request for reply in sim.replies()) == [1, 3]
    assert (sim.sub_state("a"), sim.task("a").cause.by) == ("start", "operator")
    sim.ready()
    assert sorted(reply.request for reply in sim.replies() if reply.ok) == [2, 4]
    assert [reply.error for reply in sim.replies() if not reply.ok] == [
        "cannot stop a: started again meanwhile by an operator (uid 0)"
    ] * 2, "as systemctl's `Job canceled`"
    assert all(reply.data["survivors"] == [] for reply in sim.replies() if not reply.ok), (
        "what runs is another launch"
    )
    sim.ask("restart", "a", request=5)
    sim.ask("stop", "a", request=6)
    sim.end("a", code=0)
    assert (sim.sub_state("a"), sim.replies(5)[0].ok, sim.replies(6)[0].ok) == ("stopped", False, True)
    assert sim.replies(5)[0].error == "cannot restart a: stopped meanwhile by an operator (uid 0)"


def test_a_pending_stop_reports_another_task_that_was_started_meanwhile() -> None:
    sim = Simulation.of(task("a", stop_timeout=9.0), task("b", stop_timeout=9.0))
    sim.obedient = False
    sim.begin()
    sim.ready()
    sim.ask("stop", request=1)
    sim.end("b", code=0)
    sim.ask("start", "b", request=2)
    sim.end("a", code=0)
    (reply,) = sim.replies(1)
    assert (reply.ok, reply.error) == (False, "cannot stop b: started again meanwhile by an operator (uid 0)")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("stopped", "start")


def test_a_stopped_transaction_can_be_stopped_again_and_reopened() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.ask("stop", "b", request=1)
    sim.ask("stop", request=2)
    sim.ask("stop", request=3)
    assert not sim.task("a").stopped_by_operator, "that is for tasks that are named"
    assert [reply.ok for reply in sim.replies()] == [True] * 3
    sim.ask("start", request=4)
    assert (sim.sub_state("a"), sim.task("b").stopped_by_operator) == ("start", False), (
        "a new run: what was held in the last one is forgotten"
    )


def test_a_task_added_to_the_file_is_not_added_to_a_stopped_transaction() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ask("stop")
    sim.reload(task("a"), task("b"))
    for verb in ("stop", "reset-failed"):
        sim.ask(verb, "b", request=1)
        assert (sim.replies(1)[-1].code, sim.replies(1)[-1].error) == (
            4,
            f"cannot {verb} b: no such task in transaction T1",
        )
    sim.ask("start", "b")
    assert sim.sub_state("b") == "start"


# --- restarting


def test_a_restart_of_a_task_stops_and_starts_it() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c", entry=False))
    sim.begin()
    sim.ready()
    other = sim.task("b")
    sim.ask("restart", "a", "c", request=1)
    assert not sim.replies()
    sim.ready()
    assert (sim.launched("a"), sim.launched("b"), sim.launched("c")) == (2, 1, 1), (
        "one that does not run is started"
    )
    assert sim.task("b") is other
    assert sim.replies()[0].ok
    assert as_json(sim.task("a").cause) == {"by": "operator", "uid": 0, "depth": 0, "sources": []}
    assert sim.task("a").restarts == 0, "nothing had failed"


def test_the_restart_count_is_starts_by_a_rule_after_a_failure() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), rule("on_exit", "start", "b")), task("b", entry=False)
    )
    sim.begin()
    sim.ready()
    for number in (1, 2):
        sim.end("a", code=1)
        sim.ring()
        sim.ready()
        assert sim.task("a").restarts == number
    sim.ask("restart", "a", request=1)
    sim.ready()
    sim.ask("stop", "a", request=2)
    sim.ask("start", "a", request=3)
    sim.ready()
    assert (sim.task("a").restarts, sim.task("b").restarts) == (2, 0)


def test_a_start_that_a_rule_ends_before_it_was_ready_is_answered() -> None:
    """The rule may fire for ever. systemd also answers the first client who waits."""
    sim = Simulation.of(task("up", rule("on_update", "restart", "run")), task("run"))
    sim.begin()
    sim.ready("up")
    sim.ask("start", "run", request=1)
    sim.now += 1
    sim.update("up", n=1)
    (reply,) = sim.replies()
    assert (reply.request, reply.ok) == (1, False)
    assert reply.error == "cannot start run: restarted before it was ready by rule on_update of up"
    (ready,) = sim.told(fx.Ready)
    assert "restarted before it was ready by rule on_update of up" in ready.error, (
        "the context is up, and says what is not"
    )


def test_a_rule_that_keeps_ending_an_operators_start_is_slowed_and_the_start_is_answered() -> None:
    """A start that a rule ends is over. The rule is the cause of the next one, whatever the cause of the
    first one was.
    """
    sim = Simulation.of(task("up", rule("on_update", "restart", "run")), task("run", entry=False))
    sim.begin()
    sim.ready("up")
    # The keeper is busy: the fork takes its time.
    sim.keeper.launch = lambda launch, key: None  # type: ignore[method-assign]
    sim.ask("start", "run", request=1)
    sim.now += 0.01
    sim.update("up", n=1)
    assert (sim.sub_state("run"), sim.task("run").cause.by) == ("stop-sigterm", "rule")
    sim.happen(ft.LaunchFailed(launch=sim.task("run").launch, why="never forked"))
    assert (sim.sub_state("run"), sim.replies(1)[0].error) == (
        "back-off",
        "cannot start run: restarted before it was ready by rule on_update of up",
    )


def test_a_start_overtaken_by_a_restart_names_the_requester_of_the_restart() -> None:
    """An operator may go on restarting a task in less time than its setup takes. The client who waits for the
    first start must get an answer.
    """
    sim = Simulation.of(task("a", entry=False, stop_timeout=9.0))
    sim.begin()
    sim.obedient = False
    sim.ask("start", "a", request=1)
    sim.ask("restart", "a", request=2)
    sim.ask("restart", "a", request=3)
    sim.end("a", code=0)
    assert [(reply.request, reply.error) for reply in sim.replies()] == [
        (1, "cannot start a: restarted before it was ready by an operator (uid 0)")
    ], "2 and 3 wait for the same launch"
    sim.ask("restart", "a", request=4)
    sim.end("a", code=0)
    assert [reply.request for reply in sim.replies()] == [1, 2, 3]
    assert sim.replies(3)[0].error == "cannot restart a: restarted before it was ready by an operator (uid 0)"
    sim.ready()
    assert sim.replies(4)[0].ok


def test_a_start_that_failed_before_it_was_ordered_again_is_answered_with_its_failure() -> None:
    sim = Simulation.of(task("a", entry=False, start_timeout=5.0, stop_timeout=9.0))
    sim.begin()
    sim.obedient = False
    sim.ask("start", "a", request=1)
    sim.now += 6
    sim.ring()
    sim.ask("start", "a", request=2)
    sim.end("a", code=0)
    (reply,) = sim.replies()
    assert (reply.request, reply.error) == (
        1,
        "cannot start a: failed (not-ready, status 0): not ready in time",
    )
    sim.ready()
    assert sim.replies(2)[0].ok


def test_a_start_overtaken_by_a_stop_names_the_requester_of_the_stop() -> None:
    sim = Simulation.of(task("up", rule("on_update", "stop", "a")), task("a", entry=False))
    sim.begin()
    sim.ready("up")
    sim.ask("start", "a", request=1)
    sim.update("up", n=1)
    assert sim.replies(1)[0].error == "cannot start a: stopped meanwhile by rule on_update of up"
    sim.ask("start", "a", request=2)
    sim.ask("stop", request=3)
    assert sim.replies(2)[0].error == "cannot start a: stopped meanwhile by an operator (uid 0)"
    assert sim.replies(3)[0].ok


def test_a_start_while_leftovers_end_has_the_operator_as_its_cause() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=30.0))
    sim.begin()
    sim.ready()
    sim.stuck = set()
    sim.end("a", code=1, left=1)
    assert sim.sub_state("a") == "final-sigterm"
    sim.ask("start", "a")
    assert sim.task("a").cause.by == "operator"


def test_a_second_transaction_is_announced_and_the_first_is_not() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.ask("start", transaction="T2", request=1)
    sim.ready()
    assert sim.replies(1)[0].data["beside"] == ["T1"]
    sim.ask("start", transaction="T2", request=2)
    assert "beside" not in sim.replies(2)[0].data
    sim.ask("stop", transaction="T1", request=3)
    sim.ask("stop", transaction="T2", request=4)
    sim.ask("start", transaction="T2", request=5)
    sim.ready()
    assert sim.replies(5)[0].data["beside"] == []


def test_a_transaction_whose_tasks_have_failed_is_not_announced_as_running() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.end("a", signal="SIGKILL")
    sim.ask("start", transaction="T2", request=1)
    sim.ready()
    assert sim.replies(1)[0].data["beside"] == []


@pytest.mark.parametrize("ended_before", [False, True])
def test_the_transaction_that_was_stopped_last_is_remembered_longest(ended_before: bool) -> None:
    """It was opened before all others, and its tasks may have ended long before it was stopped."""
    sim = Simulation.of(task("a"))
    sim.checked = False
    sim.begin()
    if ended_before:
        sim.ready()
        sim.end("a", code=0)
    for number in range(MAX_CLOSED + 5):
        sim.now += 1
        sim.ask("start", transaction=f"X{number:03}")
        sim.ask("stop", transaction=f"X{number:03}")
    sim.now += 1
    sim.ask("stop", transaction="T1")
    sim.ask("start", transaction="T2")
    assert "T1" in sim.world.transactions
    assert "X005" not in sim.world.transactions


def test_a_stopped_transaction_can_be_forgotten() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False))
    sim.begin()
    sim.ready()
    for name in ("T2", "T3", "T4"):
        sim.ask("start", transaction=name)
        sim.ready()
        sim.ask("stop", transaction=name)
    sim.ask("forget", transaction="T3", request=1)
    assert (sim.replies(1)[0].ok, sim.replies(1)[0].data) == (True, {"transactions": ["T3"]})
    assert set(sim.world.transactions) == {"T1", "T2", "T4"} == {key[0] for key in sim.world.tasks}
    assert fx.PublishInfo(transaction="T3") in sim.effects
    assert [record.transaction for record in sim.records if record.event == "forgotten"] == ["T3"]
    sim.ask("forget", transaction=None, request=2)
    assert sim.replies(2)[0].data == {"transactions": ["T2", "T4"]}
    assert set(sim.world.transactions) == {"T1"}
    sim.ask("forget", transaction=None, request=3)
    assert (sim.replies(3)[0].ok, sim.replies(3)[0].data) == (True, {"transactions": []})


def test_an_open_transaction_cannot_be_forgotten() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.ask("forget", transaction="T1", request=1)
    assert (sim.replies(1)[0].code, "it is open" in sim.replies(1)[0].error) == (1, True)
    sim.ask("forget", transaction="T9", request=2)
    assert (sim.replies(2)[0].code, "no such transaction" in sim.replies(2)[0].error) == (4, True)
    sim.obedient = False
    sim.ask("stop", transaction="T1", request=3)
    sim.ask("forget", transaction="T1", request=4)
    assert (sim.replies(4)[0].code, "still being stopped" in sim.replies(4)[0].error) == (1, True)
    sim.ask("forget", transaction=None, request=5)
    assert sim.replies(5)[0].data == {"transactions": []}
    assert "T1" in sim.world.transactions


def test_a_transaction_is_not_forgotten_while_an_order_about_it_and_others_is_not_answered() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.ask("start", transaction="T2")
    sim.ready()
    sim.ask("restart", transaction=None, request=3)
    sim.ask("stop", transaction="T1")
    sim.ask("forget", transaction="T1", request=4)
    assert (sim.replies(4)[0].code, "not been carried out" in sim.replies(4)[0].error) == (1, True)
    sim.ask("forget", transaction=None, request=5)
    assert sim.replies(5)[0].data == {"transactions": []}
    sim.ready()
    assert set(sim.replies(3)[0].data["transactions"]) == {"T1", "T2"}
    sim.ask("forget", transaction="T1", request=6)
    assert sim.replies(6)[0].ok


def test_a_restart_of_a_transaction_starts_its_entry_tasks_except_stopped_ones() -> None:
    sim = Simulation.of(
        task("a", rule("on_exit", "start", "c")), task("b"), task("c", entry=False), task("d")
    )
    sim.begin()
    sim.ready()
    sim.ask("start", "c", request=1)
    sim.ready()
    sim.ask("stop", "b", request=2)
    sim.end("d", code=1)
    sim.ask("restart", request=3)
    sim.ready()
    assert [sim.sub_state(name) for name in "abcd"] == ["running", "stopped", "stopped", "running"]
    assert sim.launched("c") == 1, "no rule fires"
    assert sim.replies(3)[0].ok
    assert [each["id"] for each in sim.replies(3)[0].data["tasks"]] == ["a", "d"]


def test_a_restart_by_hand_is_never_delayed() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=30.0))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    assert (sim.sub_state("a"), sim.task("a").failures) == ("back-off", 1)
    sim.ask("restart", "a")
    assert (sim.sub_state("a"), sim.task("a").failures) == ("start", 0)
    sim.ask("restart", "a")
    sim.ready()
    sim.ask("restart", "a")
    assert sim.sub_state("a") == "start"


def test_a_restart_by_hand_of_a_hanging_task_is_not_delayed() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), watchdog=2.0, restart_delay=30.0, stop_timeout=60.0)
    )
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ring()
    assert sim.sub_state("a") == "stop-sigterm"
    sim.ask("restart", "a")
    sim.end("a", signal="SIGABRT")
    assert (sim.sub_state("a"), sim.reason("a")) == ("start", "watchdog")


# --- exit


def test_a_second_exit_with_now_kills_the_remaining_tasks() -> None:
    sim = Simulation.of(task("a"), task("b", kind="Command"), task("c"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.stuck = set()
    exit_now = ft.Requested(verb=Verb.EXIT, origin=ft.Origin(by="signal"), now=True)
    sim.happen(replace(exit_now, now=False))
    sim.end("c", code=0, left=1)
    assert [sim.sub_state(name) for name in "abc"] == ["stop-sigterm", "stop-sigterm", "final-sigterm"]
    assert not sim.told(fx.KillAll)
    sim.happen(exit_now)
    assert {effect.key[1] for effect in sim.told(fx.KillAll)} == {"a", "b", "c"}
    killed = len(sim.told(fx.KillAll))
    sim.happen(exit_now)
    assert len(sim.told(fx.KillAll)) == killed, "what is being killed is not killed again"


def test_the_first_exit_sends_sigterm_even_with_now() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.happen(ft.Requested(verb=Verb.EXIT, origin=ft.Origin(by="signal"), now=True))
    assert (sim.sub_state("a"), sim.told(fx.KillAll)) == ("stop-sigterm", [])


def test_a_back_off_is_shown_as_a_countdown() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), restart_delay=20.0, restart_max_delay=20.0)
    )
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    waiting = sim.task("a")
    assert waiting.sub_state.value == "back-off"
    left = (waiting.deadline or 0.0) - sim.now
    assert waiting.status == status_at(waiting, sim.now) == f"starts again in {round(left, 3):g} s"
    assert status_at(waiting, sim.now + 5.0) == f"starts again in {round(left - 5.0, 3):g} s"
    assert status_at(waiting, sim.now + 100.0) == "starts again in 0 s"


def test_exit_answers_every_request_and_ends_once() -> None:
    sim = Simulation.of(
        task("a", rule("on_exit", "start", "b")), task("b", rule("on_fail", "start", "a"), entry=False)
    )
    sim.begin()
    sim.ready()
    sim.ask("start", transaction="T2", request=1)
    sim.obedient = False
    sim.ask("exit", transaction=None, request=2)
    sim.ask("exit", transaction=None, request=3)
    sim.ask("start", "a", request=4)
    sim.reload(task("a", nice=9), request=5)
    assert [(reply.request, reply.code) for reply in sim.replies()] == [(4, 1), (5, 1)]
    assert sim.replies(4)[0].error == "cannot start a: the context is stopping"
    assert sim.replies(5)[0].error == "cannot reload: the context is stopping"
    for launch in list(sim.alive):
        sim.end(launch, code=1)
    assert [(reply.request, reply.ok) for reply in sim.replies()[2:]] == [(1, False), (2, True), (3, True)]
    sim.ask("exit", transaction=None, request=6)
    sim.happen(ft.TaskExited(launch=1, code=0), ft.DeadlinePassed(key=("T1", "a")))
    assert sim.replies(6)[0].ok
    assert len(sim.told(fx.Leave)) == 1
    assert sim.sub_state("b") == "waiting", "no rule fires"


def test_exit_waits_for_a_surviving_process_and_reports_it() -> None:
    sim = Simulation.of(task("a", stop_timeout=1.0))
    sim.obedient, sim.stuck = False, set()
    sim.begin()
    sim.ready()
    sim.ask("exit", transaction=None)
    sim.rest()
    assert not sim.replies()[0].ok
    assert not sim.told(fx.Leave)
    sim.let_die()
    assert len(sim.told(fx.Leave)) == 1


def test_exit_cancels_back_offs() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a")))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    sim.ask("exit", transaction=None)
    assert sim.sub_state("a") == "stopped"
    assert len(sim.told(fx.Leave)) == 1


# --- updates


def test_an_update_flood_is_rate_limited_counted_and_reported_once() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    burst = int(updates.BURST)
    for number in range(1, burst + 101):
        sim.decide(ft.TaskUpdated(launch=1, items={"n": number}, sequence=number))
    assert sim.said("a").count("updated") == burst
    assert (sim.task("a").dropped, sim.task("a").sequence) == (100, burst + 100)
    assert sim.task("a").update == {"n": burst}, "the last that was passed on"
    sim.now += 0.0105
    for number in range(burst + 101, burst + 201):
        sim.decide(ft.TaskUpdated(launch=1, items={}, sequence=number))
    assert sim.said("a").count("updated") == burst + int(0.0105 * updates.RATE)
    assert sum(isinstance(e, fx.Record) and e.event == "dropped" for e in sim.effects) == 1


def test_missed_messages_are_counted_until_the_next_launch() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.happen(ft.MessagesMissed(launch=1, count=3))
    assert sim.task("a").missed == 3
    sim.ask("restart", "a")
    assert sim.task("a").missed == 0


def test_only_the_first_flood_of_updates_of_a_launch_is_recorded() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()

    def drops() -> list[int]:
        return [e.detail["before"] for e in sim.effects if isinstance(e, fx.Record) and e.event == "dropped"]

    def flood(count: int) -> None:
        for _ in range(count):
            sim.decide(ft.TaskUpdated(launch=1, items={}))

    flood(int(updates.BURST) + 5)
    assert drops() == [0]
    sim.now += 0.0005
    flood(3)
    assert drops() == [0], "half a token is not enough"
    sim.now += 60.0
    flood(int(updates.BURST) + 5)
    assert drops() == [0], "a task that floods again and again would fill the history"
    assert sim.task("a").dropped == 13


def test_a_repeated_update_does_not_change_the_context_info() -> None:
    sim = Simulation.of(task("a", rule("on_update", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    first = ft.TaskUpdated(launch=1, items={"n": 1}, sequence=5)
    sim.happen(first)
    before = sim.world
    sim.happen(first, ft.TaskUpdated(launch=1, items={"n": 0}, sequence=4))
    assert sim.world == before
    sim.happen(ft.TaskUpdated(launch=1, items={"n": 2}), ft.TaskUpdated(launch=1, items={"n": 3}))
    assert sim.said("a").count("updated") == 3, "without a number each one is news"


def test_a_too_deeply_nested_update_is_dropped() -> None:
    """A supervisor must not end because it cannot write an update into the state file."""
    for kind in (lambda inner: [inner], lambda inner: {"x": inner}):
        sim = Simulation.of(task("a"))
        sim.checked = False
        sim.begin()
        sim.ready()
        value: Any = {}
        for _ in range(updates.MAX_NESTING - 2):
            value = kind(value)
        sim.update("a", fits=value)
        for _ in range(5000):
            value = kind(value)
        sim.update("a", deep=value)
        assert (sim.said("a"), sim.task("a").dropped, list(sim.task("a").update or ())) == (
            ["started", "updated"],
            1,
            ["fits"],
        )
        assert sim.records[-1].event == "dropped"


def test_a_new_launch_counts_its_updates_from_the_beginning() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.happen(ft.TaskUpdated(launch=1, items={"n": 1}, sequence=900))
    sim.ask("restart", "a")
    sim.ready()
    sim.happen(ft.TaskUpdated(launch=2, items={"n": 2}, sequence=1))
    assert sim.task("a").update == {"n": 2}


# --- reload


def test_reload_touches_only_what_differs() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c"), task("w", entry=False))
    sim.begin()
    sim.ready()
    mark = len(sim.effects)
    before = sim.task("a")
    sim.reload(
        task("a"), task("b", watchdog=5.0), task("d"), task("e", entry=False), task("w", entry=False, nice=4)
    )
    assert sim.task("a") is before
    touching = fx.Launch | fx.Terminate | fx.KillAll | fx.WakeAt | fx.PublishControl | fx.PublishProcess
    assert not [
        effect
        for effect in sim.effects[mark:]
        if isinstance(effect, touching) and effect.key[1] in ("a", "w")
    ]
    assert [sim.launched(name) for name in "abcdew"] == [1, 2, 1, 1, 0, 0]
    assert not sim.replies(), "what differs has not started yet"
    sim.ready()
    assert ("T1", "c") not in sim.world.tasks
    (reply,) = sim.replies()
    assert reply.ok
    assert {
        "added": ["d", "e"],
        "removed": ["c"],
        "changed": ["b", "w"],
        "unchanged": ["a"],
    }.items() <= reply.data.items()


def test_reload_names_the_changed_tasks_that_failed() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c", stop_timeout=5.0))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.reload(task("a", nice=1), task("b", nice=1))
    sim.end("a", code=0)
    sim.end("b", code=0)
    sim.ready("b")
    sim.end("a", code=1)
    assert not sim.replies(), "what was removed has not ended yet"
    sim.end("c", code=0)
    (reply,) = sim.replies()
    assert (reply.ok, reply.code) == (False, 1)
    assert reply.error == "cannot reload a: failed (exit-code, status 1)"
    assert (reply.data["changed"], reply.data["removed"]) == (["a", "b"], ["c"])


def test_reload_does_not_start_failed_tasks_and_names_the_changed_ones() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c", start_timeout=5.0), task("d"))
    sim.begin()
    for name in "abc":
        sim.end(name, code=1)
    sim.ready("d")
    sim.reload(task("a", nice=1), task("b"), task("c", start_timeout=9.0), task("d", nice=1), request=1)
    sim.ready("d")
    (reply,) = sim.replies(1)
    assert reply.ok
    assert reply.data["still_failed"] == [
        {"transaction": "T1", "task": "a"},
        {"transaction": "T1", "task": "c"},
    ]
    assert (sim.sub_state("a"), sim.sub_state("b"), sim.sub_state("c")) == ("failed",) * 3


def test_new_rules_and_limits_apply_without_a_restart() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.reload(task("a", rule("on_exit", "start", "b"), stop_timeout=77.0), task("b", entry=False))
    assert sim.launched("a") == 1
    (reply,) = sim.replies()
    assert (reply.data["in_place"], reply.data["unchanged"], reply.data["changed"]) == (["a"], ["b"], [])
    sim.obedient = False
    sim.ask("stop", "a")
    assert sim.alarms == {("T1", "a"): BEGINNING + 77}
    sim.end("a", code=0)
    assert sim.sub_state("b") == "start"


def test_a_changed_task_restarts_without_firing_its_rules() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.reload(task("a", rule("on_exit", "start", "b"), nice=1), task("b", entry=False))
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start", "waiting")
    assert sim.task("a").cause.by == "context"


def test_a_changed_task_in_back_off_starts_at_once_with_the_new_file_and_another_one_waits() -> None:
    again = [rule("on_fail", "restart", name) for name in "ab"]
    sim = Simulation.of(task("a", again[0]), task("b", again[1]))
    sim.begin()
    for name in "ab":
        sim.end(name, code=1)
    before = sim.launched("a"), sim.launched("b")
    new = task("a", again[0], nice=1), task("b", again[1])
    assert planned(sim, *new) == [("restart", "T1", "a")]
    sim.reload(*new)
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start", "back-off")
    assert (sim.launched("a"), sim.launched("b")) == (before[0] + 1, before[1])
    assert (sim.task("a").cause.by, sim.task("a").failures) == ("context", 0)
    sim.ready("a")
    (reply,) = sim.replies()
    assert reply.ok


def test_a_changed_task_that_is_being_stopped_stays_stopped() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("stop", "a", request=1)
    sim.ask("restart", "b", request=2)
    sim.reload(task("a", nice=1), task("b", nice=1))
    sim.end("a", code=0)
    sim.end("b", code=0)
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("stopped", "start")
    assert (sim.launched("a"), sim.launched("b")) == (1, 2)


def test_a_removed_task_is_stopped_and_removed_after_its_exit() -> None:
    sim = Simulation.of(task("a"), task("b", rule("on_exit", "start", "a")))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("start", transaction="T2")
    sim.reload(task("a"))
    assert sim.sub_state("b") == "stop-sigterm"
    sim.end("b", code=0, left=1)
    assert sim.sub_state("b") == "stopped", "until the client that has reloaded is answered"
    assert ("T2", "b") in sim.world.tasks
    sim.rest()
    assert sorted(sim.world.tasks) == [("T1", "a"), ("T2", "a")]


def test_the_messages_of_a_removed_task_use_its_old_definition() -> None:
    old = replace(task("b"), service_name="echo", device_action="shout", source={"id": "b"})
    sim = Simulation.of(task("a"), old)
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.reload(task("a"))
    sim.crash()
    sim.end("b", code=0)
    (stopping,) = [
        effect for effect in sim.told(fx.PublishProcess) if effect.key[1] == "b" and effect.action == "stop"
    ]
    stopped = [effect for effect in sim.told(fx.PublishControl) if effect.key[1] == "b"][-1]
    ended = [effect for effect in sim.told(fx.Record) if effect.task == "b"][-1]
    assert stopping.service is old
    assert (stopped.action, stopped.service) == ("stopped", old)
    assert (ended.event, ended.instance) == ("stopped", "Echo")


def test_a_removed_task_that_comes_back_has_its_new_definition() -> None:
    sim = Simulation.of(task("a"), replace(task("b"), service_name="old"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.reload(task("a"))
    assert sim.task("b").last_definition is not None
    sim.reload(task("a"), replace(task("b"), service_name="new"))
    assert sim.task("b").last_definition is None
    sim.end("b", code=0)
    assert sim.told(fx.PublishControl)[-1].service.service_name == "new"


def test_a_pending_request_for_a_removed_task_is_answered_with_its_outcome() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c", entry=False))
    sim.begin()
    sim.ready()
    sim.obedient, sim.stuck = False, set()
    sim.ask("stop", "a", "b", request=1)
    sim.ask("start", "c", request=2)
    sim.reload(task("z", entry=False), request=3)
    sim.end("a", code=0, left=1)
    sim.let_die()
    assert ("T1", "a") in sim.world.tasks, "a request still waits for its end"
    sim.end("c", code=0)
    assert sim.replies(2)[0].error == "cannot start c: stopped meanwhile by a reload"
    sim.end("b", code=0)
    (reply,) = sim.replies(1)
    assert reply.ok
    assert [each["id"] for each in reply.data["tasks"]] == ["a", "b"]
    assert [each["task"] for each in reply.data["ended"]] == ["a"]
    assert sorted(sim.world.tasks) == [("T1", "z")]


def test_a_removed_task_in_back_off_is_removed_at_once() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a")), task("b"))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    sim.reload(task("b"))
    assert ("T1", "a") not in sim.world.tasks
    assert not sim.alarms


def test_a_task_that_comes_back_while_it_stops_starts_again() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.reload(task("a"))
    sim.reload(task("a"), task("b"))
    sim.end("b", code=0)
    assert (sim.sub_state("b"), sim.launched("b")) == ("start", 2)


def test_other_endpoints_need_another_context() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    before = sim.world
    sim.reload(task("a"), ident="another")
    assert sim.world == before
    assert sim.replies()[0].code == 1
    assert sim.reload(task("a"), ident="another", request=None) == []


def test_a_stopped_transaction_is_not_started_by_a_reload() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ask("stop")
    sim.reload(task("a", nice=1), task("b"))
    assert not sim.alive


# --- what is remembered


def test_the_oldest_stopped_transactions_beyond_the_limit_are_forgotten() -> None:
    sim = Simulation.of(task("a"))
    sim.checked = False
    sim.begin()
    for number in range(MAX_CLOSED + 5):
        sim.now += 1
        # In the order of their names, the oldest ones would come last.
        name = f"X{999 - number}"
        sim.ask("start", transaction=name)
        sim.ask("stop", transaction=name)
    sim.ask("start", transaction="T2")
    closed = [name for name, each in sim.world.transactions.items() if not each.open]
    assert closed == [f"X{999 - number}" for number in range(5, MAX_CLOSED + 5)]
    assert {key[0] for key in sim.world.tasks} == {"T1", "T2", *closed}
    assert fx.PublishInfo(transaction="X999") in sim.effects


def test_context_info_is_published_for_changed_transactions_only() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    assert fx.PublishInfo(transaction="T1") in sim.effects
    launch = sim.launch_of("a")
    sim.ready()
    mark = len(sim.effects)
    sim.happen(
        ft.TaskSaid(launch=launch, status="well"),
        ft.WatchdogFed(launch=launch),
        ft.TaskUpdated(launch=launch, items={}),
    )
    assert not [effect for effect in sim.effects[mark:] if isinstance(effect, fx.PublishInfo)]


# --- cost


def calls_of(count: int) -> int:
    """Return the number of Python calls for the life of `count` tasks: a measure of work that does not depend
    on the load of the machine.
    """
    sim = Simulation.of(
        *(task(f"t{number}", rule("on_fail", "restart", f"t{number}")) for number in range(count))
    )
    world, _ = step(sim.world, ft.SupervisorStarted(keeper_id="e", transaction="T1"), 1.0)
    facts: list[ft.Fact] = [ft.TaskLaunched(launch=n, pid=n, start_time=n) for n in range(1, count + 1)]
    facts += [ft.TaskReady(launch=n) for n in range(1, count + 1)]
    facts.append(ft.Requested(verb=Verb.STOP, origin=ft.Origin(by="operator"), request=1, transaction="T1"))
    facts += [ft.TaskExited(launch=n, code=0) for n in range(1, count + 1)]
    calls = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        for fact in facts:
            world, _ = step(world, fact, 1.0)
    finally:
        sys.setprofile(before)
    assert all(each.resting for each in world.tasks.values())
    return calls


def test_a_thousand_tasks_cost_ten_times_what_a_hundred_cost() -> None:
    assert calls_of(1000) < 12 * calls_of(100)


def test_a_step_without_a_change_copies_nothing() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    for fact in (
        ft.TaskReady(launch=1),
        ft.TaskReady(launch=99),
        ft.WatchdogFed(launch=1),
        ft.TaskExited(launch=99, code=0),
    ):
        after, _ = step(sim.world, fact, sim.now)
        for name in ("tasks", "launches", "transactions", "pending"):
            assert getattr(after, name) is getattr(sim.world, name), (fact, name)
    draft = Draft(sim.world, sim.now)
    draft.change(("T1", "a"), status="once")
    copy = draft.tasks
    draft.change(("T1", "a"), status="twice")
    assert draft.tasks is copy is not sim.world.tasks
    after, _ = step(sim.world, ft.TaskSaid(launch=1, status="hm"), sim.now)
    assert after.launches is sim.world.launches
    assert after.tasks[("T1", "b")] is sim.world.tasks[("T1", "b")]


# --- who is asked to end, and who is killed


def signals(sim: Simulation) -> list[tuple[str, str]]:
    """Return the signals that were sent to main processes and to others."""
    return [(each.signal, each.others) for each in sim.told(fx.Terminate)]


def test_all_processes_of_a_command_get_the_stop_signal() -> None:
    sim = Simulation.of(replace(task("a", kind="Command"), stop_signal="SIGQUIT"))
    sim.begin()
    sim.happen(ft.TaskExecuted(launch=1))
    sim.ask("stop", "a", request=1)
    assert signals(sim) == [("SIGQUIT", "SIGQUIT")]
    assert sim.sub_state("a") == "stopped"


@pytest.mark.parametrize("kind", ["Process", "Command"])
def test_leftover_processes_get_sigterm_and_the_remaining_stop_timeout(kind: str) -> None:
    sim = Simulation.of(task("a", kind=kind, stop_timeout=10.0))
    sim.begin()
    sim.happen(ft.TaskExecuted(launch=1)) if kind == "Command" else sim.ready()
    sim.obedient, sim.stuck = False, set()
    sim.ask("stop", "a", request=1)
    assert signals(sim) == [("SIGTERM", "SIGTERM" if kind == "Command" else "")]
    sim.now += 4
    sim.end("a", code=0, left=1)
    assert signals(sim)[1:] == [("", "SIGTERM")]
    assert (sim.sub_state("a"), sim.task("a").deadline) == ("final-sigterm", sim.now + 6)
    sim.ring()
    assert (sim.sub_state("a"), len(sim.told(fx.KillAll))) == ("final-sigkill", 1)


@pytest.mark.parametrize(("kind", "signal"), [("Process", "SIGTERM"), ("Command", "SIGQUIT")])
def test_processes_that_a_command_has_left_get_its_stop_signal(kind: str, signal: str) -> None:
    sim = Simulation.of(replace(task("a", kind=kind), stop_signal="SIGQUIT"))
    sim.begin()
    sim.happen(ft.TaskExecuted(launch=1)) if kind == "Command" else sim.ready()
    sim.obedient, sim.stuck = False, set()
    sim.ask("stop", "a", request=1)
    sim.end("a", code=0, left=1)
    assert signals(sim)[1:] == [("", signal)]


def test_kill_mode_mixed_sends_the_stop_signal_to_the_main_process_only() -> None:
    sim = Simulation.of(replace(task("a", kind="Command"), kill_mode=KillMode.MIXED))
    sim.begin()
    sim.happen(ft.TaskExecuted(launch=1))
    sim.stuck = set()
    sim.ask("stop", "a", request=1)
    assert signals(sim) == [("SIGTERM", "")]
    sim.ask("start", "a", request=2)
    sim.end("a", code=0, left=1)
    assert sim.sub_state("a") == "final-sigkill"


def test_a_keeper_of_an_earlier_protocol_gets_no_terminate_order() -> None:
    sim = Simulation.of(task("a", kind="Command"))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1", keeper_signals_others=False))
    sim.decide(ft.TaskLaunched(launch=1, pid=PID + 1, start_time=1))
    sim.decide(ft.TaskExecuted(launch=1))
    sim.decide(ft.TaskExited(launch=1, code=0, others_left=True))
    assert (sim.sub_state("a"), signals(sim), len(sim.told(fx.KillAll))) == ("final-sigkill", [], 1)


def test_a_command_that_was_not_executed_cannot_be_launched_for_its_reason() -> None:
    sim = Simulation.of(task("a", kind="Command"))
    sim.begin()
    sim.happen(ft.TaskExited(launch=1, signal="SIGKILL", why="its program was not executed"))
    assert (sim.sub_state("a"), sim.reason("a"), sim.task("a").status) == (
        "failed",
        "cannot-launch",
        "its program was not executed",
    )


# --- signals of an operator


def test_a_signal_goes_to_the_launch_of_each_named_task_and_into_the_history() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c"))
    sim.begin()
    sim.ready()
    effects = sim.ask("signal", "a", "b", transaction=None, signal="SIGHUP")
    sent = [effect for effect in effects if isinstance(effect, fx.SendSignal)]
    assert [(each.key, each.signal, each.all) for each in sent] == [
        (("T1", "a"), "SIGHUP", False),
        (("T1", "b"), "SIGHUP", False),
    ]
    assert [each.launch for each in sent] == [sim.launch_of("a"), sim.launch_of("b")]
    records = [effect for effect in effects if isinstance(effect, fx.Record)]
    assert [(each.task, each.event, each.detail["signal"], each.detail["uid"]) for each in records] == [
        ("a", "signaled", "SIGHUP", 0),
        ("b", "signaled", "SIGHUP", 0),
    ]
    (reply,) = sim.replies(7)
    assert (reply.ok, [each["id"] for each in reply.data["tasks"]]) == (True, ["a", "b"])
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("running", "running")


def test_a_signal_to_all_processes_says_so() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.ask("signal", "a", signal="SIGUSR1", all=True)
    assert [effect.all for effect in sim.told(fx.SendSignal)] == [True]


@pytest.mark.parametrize(
    ("tasks", "more", "code", "text"),
    [
        (("b",), {}, 1, "cannot signal b: it does not run"),
        (("a", "b"), {}, 1, "cannot signal b: it does not run"),
        (("c",), {}, 1, "cannot signal c: it shares its process with other tasks, which would get it too"),
        (("x",), {}, 4, "cannot signal x: no such task in Sim"),
        (("a",), {"transaction": "NO"}, 4, "cannot signal a: no such transaction"),
        ((), {}, 2, "cannot signal T1: expected a signal and at least one task"),
        (("a",), {"signal": ""}, 2, "cannot signal a: expected a signal and at least one task"),
    ],
)
def test_a_signal_that_cannot_reach_each_named_task_is_refused_and_sent_to_none(
    tasks: tuple[str, ...], more: dict[str, Any], code: int, text: str
) -> None:
    sim = Simulation.of(task("a"), task("b", entry=False), task("c", kind="Thread"))
    sim.begin()
    sim.ready()
    sim.ask("signal", *tasks, **{"signal": "SIGHUP", **more})
    (reply,) = sim.replies(7)
    assert (reply.ok, reply.code, reply.error) == (False, code, text)
    assert not sim.told(fx.SendSignal)


def test_a_thread_that_a_reload_makes_a_process_gets_no_signal_while_it_shares_one() -> None:
    sim = Simulation.of(task("a", kind="Thread"), task("b", kind="Thread"))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1"))
    sim.decide(ft.TaskLaunched(launch=1, pid=PID, start_time=1))
    sim.decide(ft.TaskLaunched(launch=2, pid=PID, start_time=1))
    sim.decide(ft.ContextReloaded(context=context(task("a"), task("b", kind="Thread"))))
    origin = ft.Origin(by="operator", uid=0)
    sim.decide(ft.Requested(verb=Verb.SIGNAL, origin=origin, request=7, tasks=("a",), signal="SIGKILL"))
    (reply,) = sim.replies(7)
    assert reply.error == "cannot signal a: it shares its process with other tasks, which would get it too"
    assert not sim.told(fx.SendSignal)


def test_a_signal_reaches_a_task_that_does_not_end_when_it_is_stopped() -> None:
    sim = Simulation.of(task("a"))
    sim.obedient = False
    sim.begin()
    sim.ready()
    sim.ask("stop", "a", request=1)
    sim.ask("signal", "a", signal="SIGQUIT")
    assert sim.sub_state("a") == "stop-sigterm"
    assert [effect.signal for effect in sim.told(fx.SendSignal)] == ["SIGQUIT"]


def test_the_end_of_a_task_by_an_operators_signal_is_a_failure() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.ask("signal", "a", signal="SIGKILL")
    sim.end("a", signal="SIGKILL")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("failed", "start")


# --- the plan of a reload


def planned(sim: Simulation, *tasks: TaskDefinition) -> list[tuple[str, str, str]]:
    before = sim.world
    refusal, plan = plan_reload(before, context(*tasks), sim.now)
    assert refusal == ""
    assert sim.world is before
    return [(step["action"], step["transaction"], step["task"]) for step in plan["steps"]]


def test_the_plan_of_a_reload_has_its_stops_restarts_and_starts_in_order() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c"), task("d"))
    sim.begin()
    sim.ready()
    sim.ask("start", transaction="T2", request=1)
    sim.ready()
    sim.ask("stop", "b", transaction="T2", request=2)
    new = task("a"), task("b", nice=1), task("d", stop_timeout=3.0), task("e"), task("f", entry=False)
    assert planned(sim, *new) == [
        ("stop", "T1", "c"),
        ("restart", "T1", "b"),
        ("stop", "T2", "c"),
        ("start", "T1", "e"),
        ("start", "T2", "e"),
    ]
    sim.effects.clear()
    sim.reload(*new)
    # A step of the real reload, in the order of its effects: a stop and a restart begin with a signal.
    done = [effect.key for effect in sim.effects if isinstance(effect, fx.Terminate)]
    assert done == [("T1", "c"), ("T1", "b"), ("T2", "c")]
    started = [effect.key for effect in sim.effects if isinstance(effect, fx.Launch)]
    assert [key for key in started if key[1] == "e"] == [("T1", "e"), ("T2", "e")]


def test_the_plan_of_a_reload_names_what_needs_no_step() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c", entry=False))
    sim.begin()
    sim.ready()
    sim.end("b", code=1)
    new = context(task("a", stop_timeout=3.0), task("b", nice=1), task("c", entry=False, nice=1))
    _, plan = plan_reload(sim.world, new, sim.now)
    assert (plan["steps"], plan["in_place"], plan["changed"]) == ([], ["a"], ["b", "c"])
    assert plan["still_failed"] == [{"transaction": "T1", "task": "b"}]


def test_the_plan_of_a_reload_that_would_be_refused_is_the_refusal() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    refusal, plan = plan_reload(sim.world, context(task("a"), ident="other"), sim.now)
    assert refusal.startswith("endpoints or ContextID differ")
    assert plan == {}


def test_a_task_that_is_killed_writes_its_stacks_before_but_a_command_has_none() -> None:
    sim = Simulation.of(task("a", stop_timeout=5.0), task("b", kind="Command", stop_timeout=5.0))
    sim.begin()
    sim.obedient = False
    sim.ask("stop")
    sim.rest()
    assert {effect.key[1]: effect.stacks for effect in sim.told(fx.KillAll)} == {"a": True, "b": False}
