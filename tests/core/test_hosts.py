"""Tasks on several hosts: the choice of a host, and what follows when hosts join, fall silent, are lost or
come back.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import pytest
from cluster_simulation import Cluster, placed
from simulation import rule, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.draft import Draft
from zmsvc.core.host_choice import host_for
from zmsvc.core.hosts import HostState
from zmsvc.core.lifecycle import SubState
from zmsvc.core.model import TaskDefinition
from zmsvc.core.ordering import wait_text
from zmsvc.core.resume import GENERATION_BITS
from zmsvc.core.service_options import ServiceType
from zmsvc.core.silent_hosts import STOP_WAIT
from zmsvc.core.transitions import PLACE_TIMEOUT
from zmsvc.core.world import task_from_row, task_to_row


def cluster(*tasks: TaskDefinition, hosts: tuple[str, ...] = ("h2", "h3")) -> Cluster:
    """Return a cluster whose hosts have joined and whose context has started."""
    sim = Cluster.of(*tasks)
    assert isinstance(sim, Cluster)
    sim.add(*hosts)
    sim.begin()
    sim.join_all()
    sim.say_ready()
    # From now on no start by a rule is a quick one, which would be delayed.
    sim.now += 60
    return sim


A = placed("a", rule("on_fail", "restart", "a"), hosts=("h2", "h3"), restart_delay=0.0)


# --- the choice


def test_a_task_runs_on_the_first_host_of_its_list_that_is_here() -> None:
    sim = cluster(placed("a", hosts=("h3", "h2")), placed("b", hosts=("h2", "h3")), task("c"))
    assert (sim.where("a"), sim.where("b"), sim.where("c")) == (["h3"], ["h2"], [""])
    assert sim.task("a").host == "h3"
    told = {record.task: record.detail.get("host") for record in sim.records if record.event == "launching"}
    assert told == {"a": "h3", "b": "h2", "c": None}


def test_without_a_list_the_emptiest_host_comes_first() -> None:
    many = [placed(f"t{number}") for number in range(7)]
    sim = cluster(placed("a", hosts=("h2", "h3", "h4")), *many, hosts=("h2", "h3", "h4"))
    assert Counter(sim.world.load) == {"h2": 3, "h3": 3, "h4": 2}


def test_tasks_that_are_apart_never_share_a_host_whichever_names_the_other() -> None:
    names = ("h2", "h3")
    sim = cluster(
        placed("a", hosts=names), placed("b", hosts=names, apart=("a", "c")), placed("c", hosts=names)
    )
    assert [sim.where(name) for name in "abc"] == [["h2"], ["h3"], ["h2"]]
    sim.die("a", code=0)
    sim.die("b", code=0)
    sim.ask("start", "b")
    assert sim.where("b") == ["h3"], "c is on h2"
    sim.ask("stop", "c")
    sim.ask("start", "c")
    sim.fence("h2")
    assert sim.sub_state("c") == "failed"


def test_replicas_may_be_apart_from_each_other() -> None:
    one = placed("w", hosts=("h2", "h3"), apart=("w",))
    sim = cluster(replace(one, replicas=3))
    assert sorted(sim.world.load.items()) == [("h2", 1), ("h3", 1)]
    assert sim.sub_state("w@3") == "unplaced"
    assert wait_text(sim.world, ("T1", "w@3")) == "waits for a host: h2 has w@1; h3 has w@2"


def test_tasks_that_run_together_share_a_host_whichever_starts_first() -> None:
    near = placed("b", hosts=("h3", "h2"), together=("a",), entry=False)
    sim = cluster(placed("a", hosts=("h2", "h3")), near)
    sim.ask("start", "b")
    assert (sim.where("a"), sim.where("b")) == (["h2"], ["h2"])
    sim.ask("stop", "a", "b")
    sim.ask("start", "b")
    assert sim.where("b") == ["h3"]
    sim.ask("start", "a")
    assert sim.where("a") == ["h3"]


def test_a_task_that_runs_with_one_of_this_host_runs_on_this_host() -> None:
    sim = cluster(task("a"), placed("b", together=("a",)))
    assert sim.where("b") == [""]


def test_a_task_goes_on_when_what_the_tasks_on_its_host_are_apart_from_has_ended() -> None:
    here = ("h2",)
    sim = cluster(
        placed("a", hosts=here),
        placed("b", hosts=here, apart=("a",), entry=False),
        placed("c", hosts=here, together=("b",)),
    )
    assert (sim.where("a"), sim.sub_state("c")) == (["h2"], "unplaced")
    sim.ask("stop", "a")
    assert sim.where("c") == ["h2"]


def test_the_choice_takes_a_change_of_the_same_step_into_account() -> None:
    sim = cluster(placed("a", hosts=("h2", "h3"), entry=False))
    draft = Draft(sim.world, sim.now)
    assert host_for(draft, ("T1", "a")) == "h2"
    draft.put_host("h2", replace(draft.hosts["h2"], drained=True))
    assert host_for(draft, ("T1", "a")) == "h3"


def test_a_host_on_which_the_others_cannot_run_is_not_chosen() -> None:
    sim = cluster(
        placed("x", hosts=("h2",)),
        placed("a", hosts=("h2", "h3")),
        placed("b", hosts=("h2", "h3"), together=("a",), apart=("x",), entry=False),
    )
    assert sim.where("a") == ["h3"], "h2 has x, and then b would have no host"


# --- without a host


def test_a_task_without_a_host_waits_and_says_for_what() -> None:
    sim = Cluster.of(A)
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3")
    sim.begin()
    assert sim.sub_state("a") == "unplaced"
    assert wait_text(sim.world, ("T1", "a")) == (
        "waits for a host: h2 has not joined, and may run a copy; h3 has not joined, and may run a copy"
    )
    sim.join("h3")
    assert sim.sub_state("a") == "unplaced", "h2 may have it"
    sim.lose("h2")
    assert sim.where("a") == ["h3"]


def test_the_clients_of_a_task_without_a_host_get_an_answer_and_it_starts_later() -> None:
    sim = Cluster.of(A, task("b", requires=("a",)))
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3")
    sim.begin()
    sim.ask("start", "b", request=3)
    assert not sim.replies(3)
    assert sim.alarms == {("T1", "a"): sim.now + PLACE_TIMEOUT}
    sim.ring()
    (ready,) = sim.told(fx.Ready)
    assert "a: waits for a host: h2 has not joined" in ready.error
    assert sim.replies(3)[0].error == "cannot start b: waits for a, which has no host"
    assert not sim.alarms
    sim.ask("start", "b", request=4)
    assert not sim.replies(4)
    sim.ring()
    assert not sim.replies(4)[0].ok
    sim.join_all()
    sim.say_ready()
    assert (sim.where("a"), sim.where("b")) == (["h2"], [""])


def test_a_stop_cancels_the_wait_for_a_host() -> None:
    sim = Cluster.of(A)
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3")
    sim.begin()
    sim.ask("stop", "a")
    assert sim.sub_state("a") == "stopped"
    sim.join_all()
    assert sim.where("a") == []


def test_a_task_that_waits_for_a_host_waits_again_for_a_required_task_that_has_failed() -> None:
    sim = Cluster.of(task("a"), placed("b", hosts=("h2",), requires=("a",)))
    assert isinstance(sim, Cluster)
    sim.add("h2")
    sim.begin()
    sim.ready()
    assert sim.sub_state("b") == "unplaced"
    sim.end("a", code=1)
    sim.join("h2")
    assert (sim.sub_state("a"), sim.sub_state("b")) == ("start", "start-after"), "b starts what it requires"
    sim.ready()
    assert sim.where("b") == ["h2"]


def test_a_reload_may_give_a_waiting_task_a_host() -> None:
    sim = Cluster.of(placed("a", hosts=("h2",)))
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3")
    sim.begin()
    sim.join("h3")
    sim.reload(placed("a", hosts=("h3",)))
    assert sim.where("a") == ["h3"]
    sim.reload(task("a"))
    assert sim.where("a") == [""], "another placement restarts the task"


# --- hosts that are silent or lost


def test_nothing_starts_elsewhere_while_a_host_is_silent() -> None:
    sim = cluster(A)
    sim.cut("h2")
    sim.now += 1000
    sim.ask("start", "a", request=3)
    assert (sim.where("a"), sim.sub_state("a")) == (["h2"], "running")
    sim.fence("h2")
    assert sim.where("a") == ["h3"]
    (failed,) = [record for record in sim.records if record.event == "failed"]
    assert (failed.detail["reason"], failed.detail["message"]) == ("lost", "its host h2 is off")


def test_the_deadlines_of_a_silent_host_rest_and_begin_anew() -> None:
    sim = cluster(placed("a", hosts=("h2", "h3"), watchdog=3.0))
    sim.cut("h2")
    while sim.ring():
        pass
    assert sim.sub_state("a") == "running"
    sim.join("h2")
    assert sim.task("a").deadline == sim.now + 3.0
    sim.ring()
    assert sim.reason("a") == "watchdog"


def test_a_stop_on_a_silent_host_is_answered_and_carried_out_when_it_joins() -> None:
    sim = cluster(placed("a", hosts=("h2",), stop_timeout=2.0))
    sim.cut("h2")
    sim.ask("stop", "a", request=3)
    assert not sim.replies(3)
    sim.ring()
    assert sim.replies(3)[0].error == "cannot stop a: nothing is heard from its host h2"
    sim.join("h2")
    assert (sim.where("a"), sim.sub_state("a")) == ([], "stopped")


def test_an_end_on_a_silent_host_is_told_when_it_joins() -> None:
    sim = cluster(A)
    sim.cut("h2")
    sim.hosts["h2"].keeper.end(sim.launch_of("a"), signal="SIGSEGV")
    assert sim.sub_state("a") == "running"
    sim.join("h2")
    assert sim.where("a") == ["h2"]
    (failed,) = [record for record in sim.records if record.event == "failed"]
    assert failed.detail["signal"] == "SIGSEGV"
    assert not sim.hosts["h2"].keeper.ends, "the end is acknowledged"


def test_an_order_that_the_host_did_not_get_is_given_again() -> None:
    sim = Cluster.of(A)
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3")
    sim.begin()
    sim.join("h3")
    sim.join("h2")
    sim.say_ready()
    sim.hosts["h2"].up = False  # The line is cut, and that is not noticed yet.
    sim.ask("restart", "a", request=3)
    assert sim.sub_state("a") == "stop-sigterm"
    sim.cut("h2")
    sim.join("h2")
    sim.say_ready()
    assert sim.where("a") == ["h2"]
    assert sim.replies(3)[0].ok


def test_a_launch_that_did_not_reach_its_host_is_ordered_again_under_the_same_number() -> None:
    sim = cluster(placed("a", hosts=("h2",), entry=False))
    sim.hosts["h2"].up = False
    sim.ask("start", "a")
    launch = sim.launch_of("a")
    sim.join("h2")
    assert (sim.where("a"), sim.launch_of("a")) == (["h2"], launch)


def test_under_another_epoch_every_launch_of_the_host_has_ended() -> None:
    sim = cluster(A, placed("b", hosts=("h2",)))
    sim.new_keeper("h2")
    sim.join("h2")
    assert (sim.reason("a"), sim.reason("b")) == ("lost", "lost")
    assert sim.where("a") == ["h2"]
    assert sim.where("b") == []


def test_an_ordered_stop_counts_as_done_when_the_host_is_lost() -> None:
    sim = cluster(placed("a", rule("on_fail", "start", "b"), hosts=("h2",)), task("b", entry=False))
    sim.obedient = False
    sim.ask("stop", "a", request=3)
    sim.fence("h2")
    assert (sim.sub_state("a"), sim.reason("a")) == ("stopped", "requested")
    assert sim.replies(3)[0].ok
    assert sim.sub_state("b") == "waiting"


def test_an_end_that_is_known_stays_when_the_host_is_lost() -> None:
    sim = cluster(placed("a", hosts=("h2",)))
    sim.stuck = set()
    keeper = sim.hosts["h2"].keeper
    keeper.alive[sim.launch_of("a")].left = 1
    keeper.end(sim.launch_of("a"), code=3)
    sim.happen()
    assert sim.sub_state("a") == "final-sigterm"
    sim.fence("h2")
    end = sim.task("a").exit
    assert end is not None
    assert (end.reason, end.code) == ("exit-code", 3)


def test_a_host_that_is_lost_before_it_has_forked_loses_the_launch() -> None:
    sim = cluster(replace(A, entry=False))
    sim.hosts["h2"].up = False
    sim.ask("start", "a")
    sim.now += 60
    assert sim.sub_state("a") == "launching"
    sim.fence("h2")
    assert sim.where("a") == ["h3"]
    assert len([record for record in sim.records if record.event == "failed"]) == 1


def test_what_comes_late_or_twice_changes_nothing() -> None:
    sim = cluster(A)
    old, launch = sim.world.hosts["h2"], sim.launch_of("a")
    greeting = ft.HostJoined(host="h2", epoch=old.epoch, greeting=old.greeting)
    sim.happen(greeting)
    assert sim.sub_state("a") == "running", "this greeting was taken before"
    sim.fence("h2")
    sim.join("h2")
    sim.say_ready()
    before = sim.world
    for late in (
        greeting,
        ft.HostLost(host="h2", epoch=old.epoch),
        ft.HostLost(host="h2", epoch=""),
        ft.HostSilent(host="h2", epoch=old.epoch, greeting=old.greeting),
        ft.OnHost(host="h2", epoch=old.epoch, fact=ft.TaskExited(launch=launch, code=0)),
        ft.OnHost(host="h9", epoch="?", fact=ft.TaskExited(launch=launch, code=0)),
        ft.HostSilent(host="h9", epoch="?", greeting=1),
    ):
        assert sim.happen(late) == []
    assert sim.world == before


def test_a_host_that_is_off_is_lost_once_and_says_nothing_more() -> None:
    sim = cluster(A)
    launch, epoch = sim.launch_of("a"), sim.world.hosts["h2"].epoch
    sim.fence("h2")
    assert sim.lose("h2") == []
    assert sim.happen(ft.OnHost(host="h2", epoch=epoch, fact=ft.TaskExited(launch=launch, code=0))) == []
    assert [record.event for record in sim.records].count("host-lost") == 1


def test_a_host_says_nothing_about_the_launches_of_another_one() -> None:
    sim = cluster(A)
    epoch, launch = sim.world.hosts["h3"].epoch, sim.launch_of("a")
    sim.happen(ft.OnHost(host="h3", epoch=epoch, fact=ft.TaskExited(launch=launch, code=0)))
    assert sim.sub_state("a") == "running"


# --- the end of the context


def test_an_orderly_move_stops_the_tasks_at_home_and_the_next_supervisor_adopts_the_others() -> None:
    at_home = task("home", rule("on_exit", "start", "rested"))
    sim = cluster(A, placed("b", hosts=("h3",), after=("home",)), at_home, task("rested", entry=False))
    pids = (sim.task("a").pid, sim.task("b").pid)
    sim.ask("exit", request=3, home=True)
    assert sim.replies(3)[0].ok
    assert [each.status for each in sim.told(fx.Leave)] == [0]
    assert (sim.where("home"), sim.where("rested"), sim.where("a"), sim.where("b")) == (
        [],
        [],
        ["h2"],
        ["h3"],
    )
    sim.another_host(state=True)
    assert not sim.world.stopping
    sim.join_all()
    sim.ready()
    assert (sim.task("a").pid, sim.task("b").pid) == pids
    assert [record.task for record in sim.records if record.event == "adopted"] == ["a", "b"]
    assert sim.where("home") == [""]


def test_an_end_during_an_orderly_move_fires_its_rules_under_the_next_supervisor() -> None:
    sim = cluster(
        placed("a", rule("on_fail", "start", "b"), hosts=("h2",)), task("b", entry=False), task("home")
    )
    sim.obedient = False
    sim.ask("exit", request=3, home=True)
    sim.die("a", signal="SIGKILL")
    sim.happen(ft.HostJoined(host="h2", epoch="h2/2", greeting=1))
    sim.lose("h3")
    assert (sim.sub_state("a"), sim.replies(3)) == ("running", []), "the task at home has not ended"
    sim.end("home", code=0)
    assert sim.told(fx.Leave)
    sim.another_host(state=True)
    sim.join_all()
    assert (sim.sub_state("a"), sim.where("b")) == ("failed", [""])
    assert [record.detail["signal"] for record in sim.records if record.event == "failed"] == ["SIGKILL"]


def test_an_orderly_move_outlives_the_death_of_its_supervisor_and_waits_for_no_stop_on_a_host() -> None:
    sim = cluster(placed("a", hosts=("h2",), after=("home",)), task("home"))
    sim.obedient = False
    sim.ask("stop", "a")
    sim.ask("exit", request=3, home=True)
    assert sim.sub_state("home") == "stop-sigterm", "it does not wait for the end of a"
    sim.crash()
    sim.happen()
    assert not sim.told(fx.Leave)
    # A signal to the keeper orders a whole stop, which comes too late.
    sim.happen(ft.Requested(verb=Verb.EXIT, origin=ft.Origin(by="signal")))
    sim.end("home", code=0)
    assert len(sim.told(fx.Leave)) == 1
    assert sim.where("a") == ["h2"]


def test_a_stop_of_the_context_waits_for_a_silent_host_for_a_while_and_names_its_tasks() -> None:
    endless = placed("b", hosts=("h2",), stop_timeout=0.0)
    sim = cluster(
        placed("a", hosts=("h2",), stop_timeout=2.0), endless, placed("c", hosts=("h3",)), task("d")
    )
    sim.cut("h2")
    began = sim.now
    sim.ask("exit", request=3)
    assert (sim.where("c"), sim.where("d"), sim.replies(3)) == ([], [], [])
    while not sim.told(fx.Leave):
        assert sim.ring()
    assert sim.now - began == STOP_WAIT
    why = "nothing is heard from its host h2, where it may run until the context starts again"
    assert sim.replies(3)[0].error == f"cannot exit a: {why}; b: {why}"
    (given_up,) = [record for record in sim.records if record.event == "host-given-up"]
    assert given_up.detail == {"host": "h2", "tasks": ["a", "b"]}
    # The next start stops them, and starts them again.
    old = sim.launch_of("a")
    sim.another_host(state=True)
    sim.join_all()
    sim.say_ready()
    assert (sim.where("a"), sim.where("b")) == (["h2"], ["h2"])
    assert sim.launch_of("a") > old


def test_a_host_that_falls_silent_or_is_lost_or_joins_while_the_context_stops() -> None:
    for then in ("silent", "lost", "joins"):
        sim = cluster(task("d"), placed("a", hosts=("h2",), after=("d",), stop_timeout=0.0))
        sim.obedient = False
        sim.ask("exit", request=3)
        sim.cut("h2")
        sim.obedient = True
        if then == "lost":
            sim.fence("h2")
        elif then == "joins":
            sim.join("h2")
        else:
            sim.ring()
        assert sim.replies(3)[0].ok is (then != "silent")
        assert sim.told(fx.Leave)


def test_a_task_at_home_that_stops_after_one_of_a_silent_host_does_not_wait_longer() -> None:
    sim = cluster(task("d"), placed("a", hosts=("h2",), after=("d",)))
    sim.cut("h2")
    sim.ask("exit", request=3)
    assert sim.sub_state("d") == "stop-after"
    sim.ring()
    assert (sim.where("d"), sim.sub_state("d")) == ([], "stopped")
    assert sim.told(fx.Leave)


def test_a_stop_waits_once_for_silent_hosts_whose_tasks_stop_after_each_other() -> None:
    sim = cluster(placed("a", hosts=("h2",)), placed("b", hosts=("h3",), after=("a",)))
    sim.cut("h2")
    sim.cut("h3")
    sim.now += 60
    began = sim.now
    sim.ask("exit", request=3)
    sim.ring()
    assert sim.told(fx.Leave)
    assert sim.now - began == STOP_WAIT


def test_a_supervisor_that_takes_over_the_stop_of_a_context_waits_again_for_silent_hosts() -> None:
    sim = cluster(placed("a", hosts=("h2",)), task("d"))
    sim.obedient = False
    sim.cut("h2")
    sim.ask("exit", request=3)
    sim.ring()
    assert sim.world.hosts["h2"].given_up
    sim.crash()
    sim.happen()
    assert not sim.world.hosts["h2"].given_up
    sim.obedient = True
    sim.ring()
    sim.ring()
    assert sim.told(fx.Leave)


# --- other supervisors


def test_a_supervisor_on_another_host_adopts_the_tasks_of_hosts() -> None:
    sim = cluster(A, placed("b", hosts=("h3",), watchdog=3.0), task("c"))
    pids = (sim.task("a").pid, sim.task("b").pid)
    sim.another_host(state=True)
    assert (sim.task("a").pid, sim.task("b").pid) == pids
    assert sim.where("c") == [""], "this one was on the host that is gone"
    assert not sim.told(fx.Ready)[1:], "its start is not complete before c is ready"
    sim.join_all()
    sim.ready()
    assert len(sim.told(fx.Ready)) == 2
    assert (sim.task("a").pid, sim.task("b").pid) == pids
    assert sim.task("b").deadline == sim.now + 3.0
    assert not [record for record in sim.records if record.event in ("failed", "lost", "stranger")][1:]


def test_a_supervisor_without_state_kills_what_it_does_not_know_before_it_starts_a_copy() -> None:
    sim = cluster(A)
    old = sim.launch_of("a")
    sim.stuck = set()
    sim.another_host(state=False, generation=7)
    assert sim.sub_state("a") == "unplaced"
    sim.join("h3")
    assert sim.sub_state("a") == "unplaced", "h2 has not told what it holds"
    sim.join("h2")
    assert sim.sub_state("a") == "unplaced", "the old process does not die"
    assert sim.world.hosts["h2"].strangers == {old}
    sim.let_die()
    assert sim.where("a") == ["h2"]
    assert sim.launch_of("a") >= 7 << GENERATION_BITS


def test_launch_numbers_never_repeat_over_generations() -> None:
    sim = cluster(A)
    seen = {sim.launch_of("a")}
    for generation in (1, 2, 2, 5):
        sim.another_host(state=False, generation=generation)
        sim.join_all()
        assert sim.launch_of("a") not in seen
        seen.add(sim.launch_of("a"))


def test_a_supervisor_of_the_same_keeper_waits_for_the_hosts() -> None:
    sim = cluster(A)
    sim.crash()
    sim.happen()
    assert sim.world.hosts["h2"].state is HostState.SILENT
    assert sim.sub_state("a") == "running"
    sim.join_all()
    assert sim.where("a") == ["h2"]
    assert [record.detail.get("launch") for record in sim.records if record.event == "adopted"] == [1]


# --- drain


def test_a_drained_host_has_no_tasks_until_it_is_undrained() -> None:
    sim = cluster(A, placed("b", rule("on_exit", "start", "c"), hosts=("h2",)), task("c", entry=False))
    sim.drain("h2", request=4)
    sim.say_ready()
    assert (sim.where("a"), sim.where("b"), sim.sub_state("b")) == (["h3"], [], "unplaced")
    assert sim.sub_state("c") == "waiting", "a drain fires no rules"
    assert sim.replies(4)[0].error == "cannot restart b: waits for a host: h2 is drained"
    sim.ask("start", "b", request=6)
    assert sim.replies(6)[0].error == "cannot start b: waits for a host: h2 is drained"
    assert not sim.alarms
    sim.new_keeper("h2")
    sim.join("h2")
    assert sim.world.hosts["h2"].drained
    sim.drain("h2", drained=False, request=5)
    assert sim.replies(5)[0].ok
    assert (sim.where("a"), sim.where("b")) == (["h3"], ["h2"])


def test_a_drain_waits_for_a_host_that_may_still_join_and_for_the_tasks_that_are_moved() -> None:
    sim = cluster(placed("b", hosts=("h2", "h3")), placed("c", hosts=("h2",)))
    sim.cut("h3")
    sim.drain("h2", request=4)
    assert (sim.sub_state("b"), sim.sub_state("c"), sim.replies(4)) == ("unplaced", "unplaced", [])
    sim.join("h3")
    assert not sim.replies(4)
    sim.say_ready()
    assert sim.replies(4)[0].error == "cannot restart c: waits for a host: h2 is drained"
    assert sim.where("b") == ["h3"]


def test_a_drain_answers_at_once_for_a_task_whose_neighbor_cannot_run_elsewhere() -> None:
    sim = cluster(placed("a", hosts=("h2",)), placed("b", hosts=("h2", "h3"), together=("a",)))
    sim.drain("h2", request=4)
    why = "waits for a host: h2 is drained"
    of_b = f"{why}; h3 is not for the tasks that run with it"
    assert sim.replies(4)[0].error == f"cannot restart a: {why}; b: {of_b}"


def test_a_drain_of_an_unknown_host_is_refused() -> None:
    sim = cluster(A)
    sim.drain("h9")
    assert sim.replies(5)[0].error == "cannot drain h9: no such host in this context"
    sim.ask("exit", transaction=None)
    sim.drain("h2", request=6)
    assert sim.replies(6)[0].error == "cannot drain h2: the context is stopping"


def test_a_host_may_be_drained_before_it_joins() -> None:
    sim = Cluster.of(A)
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3")
    sim.begin()
    sim.drain("h2")
    sim.join("h3")
    assert sim.sub_state("a") == "unplaced", "h2 may still run a copy"
    sim.join("h2")
    assert sim.where("a") == ["h3"]


# --- barriers, rows


def test_tasks_of_one_start_are_let_go_on_each_on_its_host() -> None:
    sim = Cluster.of(placed("a", hosts=("h2",)), placed("b", hosts=("h3",)), task("c"))
    assert isinstance(sim, Cluster)
    sim.add("h2", "h3")
    sim.begin(autostart=False, transaction=None)
    sim.join_all()
    sim.ask("start", request=3)
    sim.say_ready()
    assert sim.hosts["h2"].keeper.opened == {sim.launch_of("a")}
    assert sim.hosts["h3"].keeper.opened == {sim.launch_of("b")}
    assert sim.keeper.opened == {sim.launch_of("c")}


def test_a_barrier_is_opened_again_when_the_host_joins() -> None:
    sim = Cluster.of(placed("a", hosts=("h2",)), task("b"))
    assert isinstance(sim, Cluster)
    sim.add("h2")
    sim.begin(autostart=False, transaction=None)
    sim.join_all()
    sim.ask("start", request=3)
    sim.happen(sim.on_host("h2", ft.TaskReady(launch=sim.launch_of("a"))))
    sim.hosts["h2"].up = False
    sim.ready("b")
    assert not sim.hosts["h2"].keeper.opened, "the order is lost with the line"
    sim.join("h2")
    assert sim.hosts["h2"].keeper.opened == {sim.launch_of("a")}


def test_a_task_at_home_has_the_row_that_earlier_releases_read() -> None:
    sim = cluster(A, task("b"))
    assert "host" not in task_to_row(sim.task("b"))
    assert task_to_row(sim.task("a"))["host"] == "h2"
    row = task_to_row(sim.task("a"))
    del row["host"]
    assert task_from_row(row).host == "", "a row of an earlier release"


def test_the_choice_is_the_same_for_the_same_world() -> None:
    sim = cluster(*(placed(f"t{number}") for number in range(5)), hosts=("h3", "h2"))
    sim.ask("stop", "t0")
    other = replace(sim.world, hosts=dict(reversed(sim.world.hosts.items())))
    assert host_for(sim.world, ("T1", "t0")) == host_for(other, ("T1", "t0"))


# --- many


def calls_of_a_loss(hosts: int, tasks: int, lost: int) -> int:
    """Return the number of calls of Python functions for the loss of several hosts in one turn."""
    names = [f"h{number:03}" for number in range(hosts)]
    defined = [
        placed(f"t{number}", rule("on_fail", "restart", f"t{number}"), restart_delay=0.0)
        for number in range(tasks)
    ]
    sim = Cluster.of(placed("first", hosts=tuple(reversed(names))), *defined)
    assert isinstance(sim, Cluster)
    sim.checked = False
    sim.add(*names)
    sim.begin(autostart=False, transaction=None)
    sim.join_all()
    sim.ask("start")
    assert sum(sim.world.load.values()) == tasks + 1
    assert max(sim.world.load.values()) <= tasks / hosts + 1
    sim.now += 60
    gone = names[:lost]
    for name in gone:
        sim.cut(name)
        sim.switch_off(name)
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    facts = [ft.HostLost(host=name, epoch=sim.world.hosts[name].epoch) for name in gone]
    sys.setprofile(count)
    try:
        sim.happen(*facts)
    finally:
        sys.setprofile(None)
    assert {each.sub_state for each in sim.world.tasks.values()} == {SubState.START}
    ends = [record for record in sim.records if record.event == "failed"]
    assert len(ends) == len({record.task for record in ends}) >= tasks * lost // hosts
    assert not set(sim.world.load) & set(gone)
    return calls


def test_the_loss_of_hosts_costs_as_much_for_each_task_however_many_there_are() -> None:
    few, many = (calls_of_a_loss(50, tasks, 5) for tasks in (500, 5000))
    assert many < 15 * few


@pytest.mark.parametrize("kind", [ServiceType.COMMAND, ServiceType.PROCESS])
def test_the_processes_beside_a_task_are_on_its_host(kind: ServiceType) -> None:
    reload = replace(placed("a", hosts=("h2",)), reload_command=("reload",), service_type=kind)
    sim = cluster(reload)
    sim.ask("reload-tasks", "a", request=3)
    (beside,) = [each for each in sim.hosts["h2"].keeper.alive.values() if each.auxiliary_of]
    sim.hosts["h2"].keeper.end(beside.launch, code=0)
    sim.happen()
    assert sim.replies(3)[0].ok
    assert not sim.hosts["h2"].keeper.ends
