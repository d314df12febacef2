"""A new supervisor and the state that it finds: tasks are adopted, reported again or started from the
beginning; no task is lost and none runs twice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulation import BEGINNING, Simulation, context, rule, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.carried import Carried
from zmsvc.core.lifecycle import SubState
from zmsvc.core.simulated_machine import PID, SimulatedKeeper
from zmsvc.core.transitions import KILL_TIMEOUT
from zmsvc.core.world import Reason, World


def crash(sim: Simulation) -> list[fx.Effect]:
    """Let the supervisor die and the next one start. Return the effects."""
    mark = len(sim.effects)
    sim.crash()
    sim.happen()
    return sim.effects[mark:]


# --- the same keeper


def test_running_tasks_are_adopted_untouched() -> None:
    sim = Simulation.of(task("a"), task("b", watchdog=5.0), task("c", entry=False))
    sim.begin()
    sim.ready()
    before = dict(sim.world.tasks)
    sim.now += 60.0
    effects = crash(sim)
    assert sim.task("a") == before[("T1", "a")]
    assert sim.alarms == {("T1", "b"): sim.now + 5.0}, (
        "it may have fed its watchdog while there was no supervisor"
    )
    assert [(record.task, record.event) for record in effects if isinstance(record, fx.Record)] == [
        ("a", "adopted"),
        ("b", "adopted"),
    ]
    assert [effect for effect in effects if not isinstance(effect, fx.Record)] == [
        fx.WakeAt(key=("T1", "b"), when=BEGINNING + 5.0),
        fx.OpenBarrier(launches=(1, 2)),
        fx.Ready(),
        fx.WakeAt(key=("T1", "b"), when=sim.now + 5.0),
        fx.HoldSockets(sockets=frozenset()),
        fx.HoldStores(stores=frozenset()),
        fx.KeepWatches(launches=frozenset()),
        fx.PublishInfo(transaction="T1"),
    ]


def test_a_launch_that_was_written_down_and_never_ordered_is_ordered() -> None:
    sim = Simulation.of(task("a"))
    sim.save(sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1")))
    assert sim.sub_state("a") == "launching"
    crash(sim)
    assert (sim.sub_state("a"), sim.keeper.forked) == ("start", [(1, ("T1", "a"))])


def test_a_firing_before_a_postponed_launch_is_passed_to_it() -> None:
    sim = Simulation.of(task("a", rule("on_update", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.save(sim.decide(ft.TaskUpdated(launch=1, items={"n": 1}, sequence=1)))
    assert sim.sub_state("b") == "launching"
    sim.now += 1.0
    sim.crash([ft.TaskUpdated(launch=1, items={"n": number}, sequence=number) for number in (1, 2)])
    sim.happen()
    assert [source.update for source in sim.task("b").cause.sources] == [{"n": 1}, {"n": 2}]
    assert (sim.sub_state("b"), sim.launched("b")) == ("start", 1)


def test_a_launch_that_was_ordered_is_not_ordered_again() -> None:
    sim = Simulation.of(task("a"))
    sim.save(sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1")))
    sim.keeper.launch(1, ("T1", "a"))
    effects = crash(sim)
    assert not [effect for effect in effects if isinstance(effect, fx.Launch)]
    assert (sim.sub_state("a"), sim.task("a").pid) == ("start", PID + 1)


def test_messages_of_a_task_sent_without_a_supervisor_count_even_if_it_has_ended() -> None:
    sim = Simulation.of(
        task("a", rule("on_update", "start", "b"), rule("on_exit", "start", "c")),
        task("b", entry=False),
        task("c", entry=False),
    )
    sim.save(sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1")))
    sim.keeper.launch(1, ("T1", "a"))
    sim.keeper.end(1, code=0)
    sim.crash([ft.TaskReady(launch=1), ft.TaskUpdated(launch=1, items={"n": 1}, sequence=1)])
    sim.happen()
    assert (sim.sub_state("a"), sim.reason("a")) == ("exited", "exited")
    assert sim.said("a") == ["started", "updated", "stopped"]
    assert (sim.sub_state("b"), sim.sub_state("c")) == ("start", "start")


def test_exits_without_a_supervisor_are_known_with_their_status() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.keeper.end(1, code=42)
    crash(sim)
    assert (sim.sub_state("a"), sim.task("a").exit.code, sim.sub_state("b")) == ("failed", 42, "start")  # type: ignore[union-attr]
    assert not sim.keeper.ends


def test_an_exit_that_was_handled_but_not_acknowledged_is_only_acknowledged() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.keeper.end(1, code=0)
    sim.save(sim.decide(sim.keeper.out.popleft()))
    crash(sim)
    assert sim.launched("b") == 1
    assert not sim.keeper.ends


def test_a_stop_signal_that_may_be_lost_is_sent_again_with_the_full_timeout() -> None:
    sim = Simulation.of(task("a", stop_timeout=5.0), task("b", watchdog=1.0, stop_timeout=5.0))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ring()
    sim.ask("stop", "a")
    sim.now += 30.0
    effects = crash(sim)
    signals = {effect.key[1]: effect.signal for effect in effects if isinstance(effect, fx.Terminate)}
    assert signals == {"a": "SIGTERM", "b": "SIGABRT"}
    assert set(sim.alarms.values()) == {sim.now + 5.0}


def test_a_stop_without_a_timeout_has_none_after_a_resume() -> None:
    sim = Simulation.of(task("a", stop_timeout=0.0))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("stop", "a")
    crash(sim)
    assert (sim.sub_state("a"), sim.alarms) == ("stop-sigterm", {})


def test_a_kill_that_may_be_lost_is_ordered_again() -> None:
    sim = Simulation.of(task("a", stop_timeout=5.0), task("b"))
    sim.begin()
    sim.ready()
    sim.obedient, sim.stuck = False, set()
    sim.ask("stop", "a")
    sim.end("b", code=0, left=1)
    sim.rest()
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("stop-sigkill", "final-sigkill")
    sim.stuck = set()
    effects = crash(sim)
    assert sorted(effect.key[1] for effect in effects if isinstance(effect, fx.KillAll)) == ["a", "b"]
    assert set(sim.alarms.values()) == {sim.now + KILL_TIMEOUT}
    sim.let_die()
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("stopped", "exited")


def test_the_end_of_what_was_left_behind_is_not_lost() -> None:
    """The keeper reports only once that no process is left. It repeats the exit, which must not be taken for
    that report.
    """
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.stuck = set()
    sim.end("a", code=0, left=2)
    sim.stuck = None
    sim.keeper.kill(1)
    sim.keeper.out.clear()
    crash(sim)
    assert sim.sub_state("a") == "exited"
    assert len(sim.task("a").leftovers) == 2


def test_a_task_that_was_stopped_before_its_fork_is_not_forked_by_the_next_supervisor() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", entry=False))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1"))
    sim.save(
        sim.decide(
            ft.Requested(verb=Verb.STOP, origin=ft.Origin(by="operator"), transaction="T1", tasks=("a",))
        )
    )
    crash(sim)
    assert (sim.sub_state("a"), sim.reason("a"), sim.launched("a"), sim.sub_state("b")) == (
        "stopped",
        "requested",
        0,
        "start",
    )


@pytest.mark.parametrize(("recorded", "reason"), [(Reason.WATCHDOG, "watchdog"), (None, "requested")])
def test_a_launch_that_was_stopped_before_its_fork_ends_with_the_recorded_reason(
    recorded: Reason | None, reason: str
) -> None:
    sim = Simulation.of(task("a"))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1"))
    stop = ft.Requested(verb=Verb.STOP, origin=ft.Origin(by="operator"), transaction="T1", tasks=("a",))
    sim.decide(stop)
    # Other releases may have written another reason, or none.
    stopped = replace(sim.task("a"), stop_reason=recorded)
    sim.world = replace(sim.world, tasks={("T1", "a"): stopped})
    sim.save([])
    crash(sim)
    assert (sim.reason("a"), sim.launched("a")) == (reason, 0)


def test_a_task_that_was_restarted_before_its_fork_starts_with_the_next_supervisor() -> None:
    sim = Simulation.of(task("a"))
    sim.decide(ft.SupervisorStarted(keeper_id="keeper-1", transaction="T1"))
    sim.save(
        sim.decide(
            ft.Requested(verb=Verb.RESTART, origin=ft.Origin(by="operator"), transaction="T1", tasks=("a",))
        )
    )
    crash(sim)
    assert (sim.sub_state("a"), sim.launched("a"), sim.launch_of("a")) == ("start", 1, 2)


def test_a_process_that_the_keeper_does_not_know_is_lost_and_its_rules_fire() -> None:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "b"), rule("on_fail", "start", "c")),
        task("b", rule("on_fail", "start", "c")),
        task("c", entry=False),
    )
    sim.begin()
    sim.ready()
    sim.keeper.alive.clear()
    crash(sim)
    assert (sim.reason("a"), sim.reason("b")) == ("lost", "lost")
    assert sim.sub_state("c") == "start"
    assert [source.task for source in sim.task("c").cause.sources] == ["a", "b"]


def test_the_context_is_ready_when_the_adopted_entry_tasks_are() -> None:
    """The first supervisor died before READY=1: systemd still waits for the entry tasks."""
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready("a")
    effects = crash(sim)
    assert not [effect for effect in effects if isinstance(effect, fx.Ready)]
    sim.ready()
    assert len(sim.told(fx.Ready)) == 1
    sim.ask("restart", "b")
    assert len([effect for effect in crash(sim) if isinstance(effect, fx.Ready)]) == 1, (
        "and each supervisor says it once"
    )


def test_the_context_is_ready_when_an_entry_task_failed_without_a_supervisor() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.end("a", code=3)
    sim.ready("b")
    assert sim.told(fx.Ready) == [fx.Ready(error="cannot start a: failed (exit-code, status 3)")]


def test_a_task_that_fails_in_several_resumed_transactions_is_reported_once_with_their_ids() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ask("start", transaction="T2", new=True)
    sim.ask("start", transaction="T3", new=True)
    sim.ready()
    sim.another_keeper()
    for launch, key in [(each.launch, each.key) for each in sim.alive.values() if each.key[1] == "a"]:
        sim.end(launch, code=3 if key[0] != "T3" else 4)
    sim.ready("b")
    assert sim.told(fx.Ready)[-1].error == (
        "cannot start a: failed (exit-code, status 3) (in 2 transactions: T1, T2); "
        "a: failed (exit-code, status 4) (in transaction T3)"
    )


def test_an_exit_that_was_begun_is_finished_by_the_next_supervisor() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.obedient = False
    sim.ask("exit", transaction=None)
    sim.keeper.end(1, code=0)
    sim.save(sim.decide(sim.keeper.out.popleft()))
    assert len(sim.told(fx.Leave)) == 1
    effects = crash(sim)
    assert [type(e) for e in effects if isinstance(e, fx.Leave | fx.Ready)] == [fx.Ready, fx.Leave]


def test_a_back_off_continues_with_the_next_supervisor() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=5.0))
    sim.begin()
    sim.ready()
    sim.end("a", code=1)
    due = dict(sim.alarms)
    crash(sim)
    assert sim.alarms == due
    sim.ring()
    assert sim.sub_state("a") == "start"


def test_tasks_added_to_or_removed_from_the_file_meanwhile_are_applied() -> None:
    """A supervisor may die after a reload and before it has saved which file that was."""
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.reload(task("a"), task("c", entry=False))
    assert sim.saved is not None
    sim.saved = replace(sim.saved, context=Simulation.of(task("a"), task("b")).world.context)
    crash(sim)
    assert {key[1]: each.sub_state.value for key, each in sim.world.tasks.items()} == {
        "a": "running",
        "b": "waiting",
    }


def test_a_task_that_the_file_has_lost_is_not_started_again() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.reload(task("a"), task("c"))
    sim.ready()
    sim.obedient = False
    sim.ask("restart", "c")
    assert sim.saved is not None
    sim.saved = replace(sim.saved, context=Simulation.of(task("a")).world.context)
    crash(sim)
    sim.end("c", code=0)
    assert list(sim.world.tasks) == [("T1", "a")]


# --- a state file that does not know all


def test_a_launch_that_a_full_disk_kept_from_the_state_file_is_not_run_twice() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False), task("c", entry=False))
    sim.begin()
    sim.ready()
    sim.disk_full = True
    sim.ask("restart", "a")
    sim.ask("start", "b")
    sim.ready()
    sim.disk_full = False
    effects = crash(sim)
    assert {effect.launch for effect in effects if isinstance(effect, fx.KillAll)} == {2, 3}
    assert not sim.alive
    assert (sim.sub_state("a"), sim.reason("a"), sim.sub_state("b")) == ("exited", "exited", "waiting"), (
        "what the file knows ended as it did"
    )
    assert not sim.keeper.ends
    sim.ask("start", "a", "b")
    assert [launch for launch, _ in sim.keeper.forked] == [1, 2, 3, 4, 5], "no number is used twice"


def test_a_rule_that_fired_on_a_full_disk_fires_once_after_a_crash() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.disk_full = True
    sim.end("a", code=0)
    assert sim.sub_state("b") == "start"
    (unsaved,) = sim.alive
    sim.disk_full = False
    effects = crash(sim)
    assert [effect.launch for effect in effects if isinstance(effect, fx.KillAll)] == [unsaved], (
        "the file does not know this process, and the end of `a` is repeated and starts another one"
    )
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("exited", "start")
    assert [process.key[1] for process in sim.alive.values()] == ["b"]
    assert unsaved not in sim.alive
    assert [record.event for record in sim.records if record.task == "b"].count("rule") == 1


def test_a_launch_id_of_another_keeper_matches_no_process() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    effects = sim.decide(
        ft.SupervisorStarted(keeper_id="keeper-2", children=(ft.Child(launch=1, pid=77, start_time=7),))
    )
    assert [(effect.launch, effect.key) for effect in effects if isinstance(effect, fx.KillAll)] == [
        (1, ("", ""))
    ]
    assert sim.sub_state("a") == "launching"


def test_a_state_file_that_was_set_aside_leaves_no_second_copy() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.saved = World(context=sim.world.context)
    crash(sim)
    assert [process.launch for process in sim.alive.values()] == [2]
    assert sim.sub_state("a") == "start"


# --- another keeper


def test_under_another_keeper_all_open_transactions_start_from_the_beginning() -> None:
    sim = Simulation.of(
        task("a"), task("b"), task("c", rule("on_fail", "restart", "c")), task("d", entry=False)
    )
    sim.begin()
    sim.ready()
    sim.ask("start", "a", transaction="T2")
    sim.ask("start", "a", transaction="OLD")
    sim.ask("stop", transaction="OLD")
    sim.ask("stop", "b")
    sim.ask("start", "d")
    sim.end("c", code=1)
    sim.another_keeper()
    assert {key: each.sub_state.value for key, each in sim.world.tasks.items() if key[0] != "OLD"} == {
        ("T1", "a"): "start",
        ("T1", "b"): "stopped",
        ("T1", "c"): "start",
        ("T1", "d"): "waiting",
        ("T2", "a"): "start",
        ("T2", "b"): "start",
        ("T2", "c"): "start",
        ("T2", "d"): "waiting",
    }
    assert sim.task("b").stopped_by_operator, "what the operator had stopped stays stopped"
    lost = [record for record in sim.records if record.event == "lost"]
    assert sorted((record.transaction, record.task) for record in lost) == [
        ("T1", "a"),
        ("T1", "d"),
        ("T2", "a"),
    ]
    assert (sim.reason("a"), sim.reason("d")) == ("lost", "lost")
    assert (sim.task("a").restarts, sim.task("a").cause.by) == (0, "context")
    assert sim.sub_state("a", "OLD") == "stopped"
    mark = len(sim.effects)
    sim.ready()
    assert sum(isinstance(effect, fx.Ready) for effect in sim.effects[mark:]) == 1


def test_a_context_that_had_left_is_resumed_by_the_next_daemon() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.ask("stop", "b")
    sim.ask("exit", transaction=None)
    sim.another_keeper()
    assert (sim.world.stopping, sim.sub_state("a"), sim.sub_state("b")) == (False, "start", "stopped")


def test_after_a_new_keeper_failed_tasks_are_inactive_and_finished_ones_stay_exited() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False), task("c", entry=False))
    sim.begin()
    sim.ask("start", "b", "c")
    sim.ready()
    sim.end("b", code=1)
    sim.end("c", code=0)
    sim.another_keeper()
    assert (sim.sub_state("b"), sim.sub_state("c")) == ("waiting", "exited")
    assert (sim.reason("b"), sim.reason("c")) == ("exit-code", "exited")
    assert (sim.task("b").action, sim.task("c").action) == ("", "stopped")


@pytest.mark.parametrize("asked", ["T1", "NEW", None])
def test_the_transaction_of_the_command_line_opens_beside_the_resumed_ones(asked: str | None) -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ask("stop", "b")
    sim.another_keeper(transaction=asked)
    assert list(sim.world.transactions) == (["T1", "NEW"] if asked == "NEW" else ["T1"])
    assert all(each.open for each in sim.world.transactions.values())
    assert sim.sub_state("b") == "stopped"


def test_a_stopped_transaction_on_the_command_line_is_opened_again() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ask("stop", "b")
    sim.ask("stop")
    sim.another_keeper(transaction="T1")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start", "start")


def test_monotonic_times_of_another_boot_delay_nothing() -> None:
    """With each boot the monotonic clock begins at zero again, so a launch before the reboot may be days
    ahead.
    """
    sim = Simulation.of(task("a"), task("b", rule("on_exit", "start", "b"), entry=False, start_limit_burst=1))
    sim.now = 1_000_000.0
    sim.begin()
    sim.ask("start", "b")
    sim.ready()
    sim.now += 100.0
    sim.end("b", code=0)
    sim.ready()
    sim.ask("stop", "b", triggers=False)
    sim.ask("start", "b")
    sim.ready()
    sim.end("a", code=0)
    sim.now = 20.0
    sim.another_keeper()
    assert all(
        each.since <= 20.0 and (each.exit is None or each.exit.at <= 20.0)
        for each in sim.world.tasks.values()
    )
    sim.ask("start", "b")
    sim.ready()
    sim.now += 100.0
    sim.end("b", code=0)
    assert sim.sub_state("b") == "start", "neither a delay nor a limit of the last boot"


def test_tasks_removed_from_the_file_meanwhile_are_removed() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.ask("start", transaction="OLD")
    sim.ask("stop", transaction="OLD")
    assert sim.saved is not None
    sim.saved = replace(sim.saved, context=Simulation.of(task("a"), task("z")).world.context)
    sim.another_keeper()
    assert {key: each.sub_state for key, each in sim.world.tasks.items()} == {
        ("T1", "a"): SubState.START,
        ("T1", "z"): SubState.START,
        ("OLD", "a"): SubState.STOPPED,
    }


def test_a_supervisor_that_died_before_its_first_save_leaves_no_trace() -> None:
    sim = Simulation.of(task("a"))
    sim.die_at = (1, None)
    sim.begin()
    assert sim.crashes == 1
    assert (sim.sub_state("a"), sim.keeper) == (
        "start",
        SimulatedKeeper(alive=sim.keeper.alive, forked=[(1, ("T1", "a"))]),
    )


# --- another host


def carried(*opened: str, **more: Any) -> Carried:
    return Carried(host="h1", open=opened, **more)


def test_a_context_from_another_host_opens_what_was_open_there_and_nothing_of_its_own() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.ask("start", "a", transaction="OLD")
    sim.another_keeper(carried=carried("T2", "T1", held=(("T2", "b"),)))
    assert {name: each.open for name, each in sim.world.transactions.items()} == {
        "T1": True,
        "OLD": False,
        "T2": True,
    }
    assert {key: each.sub_state.value for key, each in sim.world.tasks.items() if key[0] != "OLD"} == {
        ("T1", "a"): "start",
        ("T1", "b"): "start",
        ("T2", "a"): "start",
        ("T2", "b"): "waiting",
    }
    assert sim.task("b", "T2").stopped_by_operator
    assert not [key for _, key in sim.keeper.forked if key[0] == "OLD"]
    told = [
        (record.transaction, record.event) for record in sim.records if record.event in ("closed", "carried")
    ]
    assert told == [("OLD", "closed"), ("T2", "carried"), ("T1", "carried")]


def test_a_task_that_was_started_again_on_the_other_host_is_held_no_longer() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.ask("stop", "a")
    sim.ask("disable", "b", transaction=None)
    sim.another_keeper(carried=carried("T1"))
    assert not sim.task("a").stopped_by_operator
    assert (sim.sub_state("a"), sim.sub_state("b"), sim.world.disabled) == ("start", "start", frozenset())


def test_a_task_that_was_disabled_on_the_other_host_does_not_start() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.another_keeper(carried=carried("T1", disabled=("b", "unknown")))
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start", "waiting")
    assert sim.world.disabled == {"b", "unknown"}


def test_a_context_without_open_transactions_on_the_other_host_opens_none() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.another_keeper(carried=carried())
    assert not [each for each in sim.world.transactions.values() if each.open]
    assert not sim.alive


def test_a_held_task_that_this_file_does_not_have_is_ignored() -> None:
    sim = Simulation.of(task("a"))
    sim.another_keeper(carried=carried("T1", held=(("T1", "gone"),)))
    assert sim.sub_state("a") == "start"


def test_a_held_task_that_has_come_into_the_file_since_this_host_ran_it_is_held() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    assert sim.saved is not None
    sim.saved = replace(sim.saved, context=context(task("a"), task("b")))
    sim.another_keeper(carried=carried("T1", held=(("T1", "b"),)))
    assert sim.task("b").stopped_by_operator
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start", "waiting")


def test_what_another_host_wrote_is_taken_at_the_first_start_under_a_keeper_alone() -> None:
    sim = Simulation.of(task("a"))
    sim.another_keeper(carried=carried("T1"))
    sim.ready()
    sim.ask("stop", transaction="T1")
    sim.rest()
    crash(sim)
    assert not sim.world.transactions["T1"].open
    assert not sim.alive
