"""What rules do, and what beats them: triggers, actions, causes, brakes and limits, in a machine of make-believe."""

from __future__ import annotations

import pytest
from simulation import Simulation, context, rule, task

from zmsvc.core import events as ev
from zmsvc.core.world import Reason


def test_entry_tasks_start_and_the_context_is_ready_when_they_are() -> None:
    sim = Simulation.of(task("a"), task("b", entry=False))
    sim.begin()
    assert (sim.sub("a"), sim.sub("b")) == ("start", "waiting")
    assert not any(isinstance(effect, ev.Ready) for effect in sim.effects)
    sim.ready()
    assert sim.sub("a") == "running"
    assert sum(isinstance(effect, ev.Ready) for effect in sim.effects) == 1


def test_a_context_is_ready_also_when_an_entry_task_fails() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.end(sim.launch_of("a"), code=1)
    assert sim.sub("a") == "failed"
    assert any(isinstance(effect, ev.Ready) for effect in sim.effects)


@pytest.mark.parametrize("action", ["start", "stop", "restart"])
@pytest.mark.parametrize("trigger", ["on_start", "on_update", "on_fail", "on_exit"])
def test_every_trigger_does_every_action(trigger: str, action: str) -> None:
    running_before = action != "start"
    sim = Simulation.of(task("a", rule(trigger, action, "b"), entry=False), task("b", entry=running_before))
    sim.begin()
    sim.ready()
    before = sim.launched("b")
    sim.now += 1.0  # a rule that starts it again at once would be slowed
    sim.ask("start", "a")
    launch = sim.launch_of("a")
    sim.ready()
    match trigger:
        case "on_update":
            sim.happen(ev.TaskUpdated(launch=launch, items={"n": 1}, sequence=1))
        case "on_fail":
            sim.end(launch, code=3)
        case "on_exit":
            sim.end(launch, code=0)
    assert sim.launched("b") - before == (0 if action == "stop" else 1)
    assert (sim.sub("b") == "stopped") == (action == "stop")


def test_a_started_task_learns_its_cause() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.happen(ev.TaskUpdated(launch=1, items={"last": "words"}, sequence=1))
    sim.end(1, code=42)
    cause = sim.world.tasks[("T1", "b")].cause
    assert (cause["by"], cause["depth"]) == ("rule", 1)
    (source,) = cause["sources"]
    assert source["task"] == "a"
    assert source["exit"] == {"code": 42, "signal": None, "reason": "exit-code"}
    assert source["update"] == {"last": "words"}


def test_rules_that_fire_before_the_launch_are_all_told() -> None:
    sim = Simulation.of(*(task(name, rule("on_fail", "start", "b")) for name in ("x", "y", "z")), task("b", entry=False))
    sim.begin()
    sim.ready()
    for name in ("x", "y", "z"):
        launch = sim.launch_of(name)
        del sim.alive[launch]
        sim.decide(ev.TaskExited(launch=launch, code=1))
    assert [source["task"] for source in sim.world.tasks[("T1", "b")].cause["sources"]] == ["x", "y", "z"]
    assert sim.world.tasks[("T1", "b")].launch == sim.world.next_launch - 1, "one launch for all of them"


def test_the_operators_stop_beats_every_rule() -> None:
    sim = Simulation.of(
        task("a", rule("on_exit", "start", "a"), rule("on_exit", "start", "b")), task("b", rule("on_start", "start", "a"), entry=False)
    )
    sim.begin()
    sim.ready()
    sim.ask("stop", "a")
    sim.ready()
    assert (sim.sub("a"), sim.sub("b")) == ("stopped", "running"), "its on_exit fires, but nothing starts it again"
    sim.ask("start", "a")
    sim.ready()
    assert sim.sub("a") == "running"


def test_no_triggers_fires_none() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ready()
    sim.ask("stop", "a", triggers=False)
    assert sim.sub("b") == "waiting"


def test_stopping_a_transaction_fires_none_and_leaves_the_other_alone() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", entry=False))
    sim.begin()
    sim.ask("start", transaction="T2")
    sim.ready()
    sim.ask("stop")
    assert (sim.sub("a"), sim.sub("b")) == ("stopped", "waiting")
    assert sim.sub("a", "T2") == "running"


def test_a_failing_task_that_restarts_itself_is_delayed_more_each_time_up_to_the_cap() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=1.0, restart_max_delay=4.0))
    sim.begin()
    delays = []
    for _ in range(6):
        sim.ready()
        sim.end(sim.launch_of("a"), code=1)
        assert sim.sub("a") == "back-off"
        before = sim.now
        assert sim.ring()
        delays.append(sim.now - before)
    assert [round(delay) for delay in delays] == [1, 2, 4, 4, 4, 4]
    assert all(base <= delay <= base * 1.1 for base, delay in zip([1, 2, 4, 4, 4, 4], delays, strict=True))
    sim.ready()
    sim.now += 100
    sim.end(sim.launch_of("a"), code=1)
    assert sim.world.tasks[("T1", "a")].failures == 1, "a good uptime forgives"


def test_a_ring_of_rules_is_slowed_and_never_spins() -> None:
    sim = Simulation.of(
        task("a", rule("on_exit", "start", "b"), restart_delay=0.1, restart_max_delay=8.0),
        task("b", rule("on_exit", "start", "a"), entry=False, restart_delay=0.1, restart_max_delay=8.0),
    )
    sim.begin()
    for _ in range(100):
        if sim.alive:
            sim.ready()
            sim.end(next(iter(sim.alive)), code=0)
        else:
            sim.ring()
    # About a hundred turns took at least the capped delay each, once the doubling had reached it.
    assert sim.now - 1000.0 > 100
    assert sim.launched("a") < 60


def test_a_calm_ring_is_not_slowed() -> None:
    sim = Simulation.of(task("a", rule("on_exit", "start", "b")), task("b", rule("on_exit", "start", "a"), entry=False))
    sim.begin()
    for _ in range(50):
        sim.ready()
        sim.now += 0.5
        sim.end(next(iter(sim.alive)), code=0)
        assert sim.alive, "the next one starts at once"


def test_the_start_limit_gives_up_until_it_is_reset() -> None:
    sim = Simulation.of(task("a", rule("on_fail", "restart", "a"), restart_delay=0.01, start_limit_burst=3, start_limit_interval=1000.0))
    sim.begin()
    for _ in range(3):
        sim.ready()
        sim.end(sim.launch_of("a"), code=1)
        sim.ring()
    sim.ready()
    sim.end(sim.launch_of("a"), code=1)
    assert sim.sub("a") == "failed"
    end = sim.world.tasks[("T1", "a")].exit
    assert end is not None
    assert end.reason is Reason.START_LIMIT
    sim.ask("reset-failed", "a")
    assert sim.sub("a") == "waiting"


def test_a_start_that_takes_too_long_fails_as_not_ready() -> None:
    sim = Simulation.of(task("a", start_timeout=5.0))
    sim.begin()
    sim.ring()
    assert sim.now == 1005.0
    assert sim.sub("a") == "failed"
    end = sim.world.tasks[("T1", "a")].exit
    assert end is not None
    assert end.reason is Reason.NOT_READY


def test_a_missed_watchdog_aborts_and_fails() -> None:
    sim = Simulation.of(task("a", watchdog=2.0))
    sim.begin()
    sim.ready()
    sim.now += 1.5
    sim.happen(ev.WatchdogFed(launch=1))
    sim.ring()
    assert sim.now == 1003.5
    assert any(isinstance(effect, ev.Signal) and effect.signal == "SIGABRT" for effect in sim.effects)
    end = sim.world.tasks[("T1", "a")].exit
    assert end is not None
    assert end.reason is Reason.WATCHDOG


def test_one_that_ignores_sigterm_is_killed_and_the_stop_is_answered() -> None:
    sim = Simulation.of(task("a", stop_timeout=3.0))
    sim.obedient = False
    sim.begin()
    sim.ready()
    sim.ask("stop", "a")
    assert sim.sub("a") == "stop-sigterm"
    assert not sim.replies()
    sim.ring()
    assert sim.sub("a") == "stopped"
    (reply,) = sim.replies()
    assert reply.ok


def test_what_is_left_behind_is_waited_for() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.decide(ev.Requested(verb=ev.Verb.STOP, origin=ev.Origin(by="operator"), request=1, transaction="T1", tasks=("a",)))
    sim.decide(ev.TaskExited(launch=1, code=0, left=True))
    assert sim.sub("a") == "final-sigkill"
    effects = sim.decide(ev.TaskGone(launch=1, ended=(ev.Ended(pid=5, name="sh", signal="SIGKILL"),)))
    (reply,) = [effect for effect in effects if isinstance(effect, ev.Reply)]
    assert reply.data["ended"] == [{"task": "a", "pid": 5, "name": "sh", "code": None, "signal": "SIGKILL"}]


def test_unknown_names_are_refused() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ask("start", "nobody")
    sim.ask("stop", transaction="NOBODY")
    assert [(reply.ok, reply.code) for reply in sim.replies()] == [(False, 4), (False, 4)]


def test_a_repeated_update_and_a_flood_are_told_from_news() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    for number in range(1, 5001):
        sim.happen(ev.TaskUpdated(launch=1, items={}, sequence=number))
    sim.happen(ev.TaskUpdated(launch=1, items={}, sequence=17))
    told = sum(isinstance(effect, ev.PublishControl) and effect.action == "updated" for effect in sim.effects)
    assert told == 2000
    assert sim.world.tasks[("T1", "a")].dropped == 3000


def test_exit_answers_and_leaves_once_and_the_next_keeper_resumes() -> None:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ready()
    sim.ask("stop", "b")
    sim.ask("exit", transaction=None)
    assert sum(isinstance(effect, ev.Leave) for effect in sim.effects) == 1
    sim.another_keeper()
    assert sim.sub("a") == "start"
    assert sim.sub("b") == "stopped", "what the operator had stopped stays stopped"


def test_reload_touches_only_what_differs() -> None:
    sim = Simulation.of(task("a"), task("b"), task("c"))
    sim.begin()
    sim.ready()
    before = sim.world.tasks[("T1", "a")]
    changed = context(task("a"), task("b", watchdog=5.0), task("d"))
    sim.happen(ev.ContextReloaded(context=changed, request=3))
    assert sim.world.tasks[("T1", "a")] is before
    assert sim.launched("b") == 2
    assert sim.launched("d") == 1
    assert ("T1", "c") not in sim.world.tasks
    assert sim.replies()[-1].data == {"added": ["d"], "removed": ["c"], "changed": ["b"], "unchanged": ["a"]}


def test_nothing_survives_another_keeper() -> None:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    sim.another_keeper()
    assert sim.launch_of("a") == 2
    assert sim.sub("a") == "start"
