"""core/why and core/cause_chain: made-up incidents. For each, `why` says what happened, why the task does not
run, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from simulation import Simulation, rule, task

from zmsvc.core import facts as ft
from zmsvc.core.access import Verb
from zmsvc.core.cause_chain import Row, end_text
from zmsvc.core.why import TimeFormat, explain

CTL = "zmsvcctl -c Sim"


def explained(
    sim: Simulation, name: str = "a", *, running: bool = True, rows: list[Row] | None = None
) -> dict[str, Any]:
    clock = TimeFormat(now=sim.now, wall=lambda at: f"{at:g}", monotonic=lambda at: f"{at:g}")
    told = explain(sim.world, ("T1", name), sim.rows if rows is None else rows, clock, running=running)
    return dict(json.loads(json.dumps(told)))


def story(told: dict[str, Any]) -> list[str]:
    return [link["text"] for link in told["chain"]]


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Something that happened to task `a`, and what `why a` says about it."""

    happen: Callable[[], Simulation]
    story: list[str]
    kinds: list[str]
    do: list[str]
    running: bool = True


def of(*tasks: Any, **more: Any) -> Simulation:
    sim = Simulation.of(*tasks, **more)
    sim.begin()
    sim.now += 1
    sim.ready()
    sim.now += 100
    return sim


def runs() -> Simulation:
    return of(task("a"))


def exit_code() -> Simulation:
    sim = of(task("a"))
    sim.end("a", code=3)
    return sim


def killed_by_signal() -> Simulation:
    sim = of(task("a"))
    sim.end("a", signal="SIGSEGV")
    return sim


def ordered_kill() -> Simulation:
    sim = of(task("a"))
    sim.ask("signal", "a", signal="SIGKILL")
    sim.end("a", signal="SIGKILL")
    return sim


def ordered_kill_that_a_rule_follows() -> Simulation:
    sim = of(task("a", entry=False), task("b", rule("on_fail", "start", "a")))
    sim.ask("signal", "b", signal="SIGKILL")
    sim.end("b", signal="SIGKILL")
    sim.ready("a")
    sim.end("a", signal="SIGSEGV")
    return sim


def killed_by_a_stranger() -> Simulation:
    sim = of(task("a"))
    sim.ask("signal", "a", signal="SIGHUP")
    sim.now += 1
    sim.end("a", signal="SIGKILL")
    return sim


def out_of_memory() -> Simulation:
    sim = of(task("a"))
    launch = sim.launch_of("a")
    del sim.alive[launch]
    sim.happen(ft.TaskExited(launch=launch, signal="SIGKILL", oom=True))
    return sim


def cannot_launch() -> Simulation:
    sim = Simulation.of(task("a"))
    sim.keeper.broken = True
    sim.begin()
    return sim


def watchdog() -> Simulation:
    sim = of(task("a", watchdog=5.0))
    sim.obedient = False
    sim.ring()
    sim.end("a", signal="SIGABRT")
    return sim


def killed() -> Simulation:
    sim = of(task("a", stop_timeout=5.0))
    sim.obedient = False
    sim.ask("stop", "a")
    sim.rest()
    return sim


def not_ready() -> Simulation:
    sim = Simulation.of(task("a", start_timeout=7.0))
    sim.begin()
    sim.ring()
    return sim


def start_limit() -> Simulation:
    sim = Simulation.of(
        task("a", rule("on_fail", "restart", "a"), start_limit_burst=2, start_limit_interval=60)
    )
    sim.begin()
    for _ in range(3):
        sim.ready()
        sim.end("a", code=7)
        sim.ring()
    return sim


def back_off() -> Simulation:
    sim = of(task("a", rule("on_fail", "restart", "a"), restart_delay=2.0))
    sim.end("a", code=1)
    return sim


def ring_of_rules() -> Simulation:
    sim = of(task("a", rule("on_exit", "start", "b")), task("b", rule("on_exit", "start", "a"), entry=False))
    for name in "abababab":
        while name not in {process.key[1] for process in sim.alive.values()}:
            assert sim.ring()
        sim.ready(name)
        sim.end(name, code=0)
    return sim


def waits_for_a_rule() -> Simulation:
    return of(task("a", entry=False), task("b", rule("on_exit", "start", "a")))


def no_rule() -> Simulation:
    return of(task("a", entry=False))


def held() -> Simulation:
    sim = of(task("a"), task("b", rule("on_exit", "start", "a")))
    sim.ask("stop", "a")
    return sim


def stopped_by_a_rule() -> Simulation:
    sim = of(task("a"), task("b", rule("on_fail", "stop", "a")))
    sim.end("b", code=9)
    return sim


def disabled() -> Simulation:
    sim = Simulation.of(task("a"), task("b"))
    sim.begin()
    sim.ask("disable", "a", transaction=None)
    sim.ask("stop", "a")
    sim.now += 5
    sim.ask("stop")
    sim.now += 5
    sim.ask("start")
    return sim


def transaction_stopped() -> Simulation:
    sim = of(task("a"), task("b"))
    sim.ask("stop")
    return sim


def failure_action() -> Simulation:
    sim = of(task("a"), task("b", failure_action="stop"))
    sim.end("b", code=2)
    return sim


def starts_after() -> Simulation:
    sim = Simulation.of(task("a", after=("b",)), task("b"))
    sim.begin()
    return sim


def requires_a_failed_task() -> Simulation:
    sim = Simulation.of(task("a", requires=("b",)), task("b"))
    sim.begin()
    sim.end("b", code=4)
    return sim


def started_by_a_failure() -> Simulation:
    sim = of(task("a", entry=False), task("c", entry=False), task("b", rule("on_fail", "start", "c")))
    sim.reload(
        task("a", entry=False),
        task("c", rule("on_start", "start", "a"), entry=False),
        task("b", rule("on_fail", "start", "c")),
    )
    sim.update("b", shout="last words")
    sim.end("b", signal="SIGKILL")
    sim.now += 1
    sim.ready("c")
    sim.now += 1
    sim.ready("a")
    return sim


def any_failure() -> Simulation:
    sim = of(task("a", entry=False), task("b"), any_fail=[rule("on_any_fail", "start", "a")])
    sim.end("b", code=1)
    sim.ready("a")
    return sim


def by_the_bus() -> Simulation:
    sim = of(task("a", entry=False))
    order = ft.Requested(verb=Verb.START, origin=ft.Origin(by="bus"), transaction="T1", tasks=("a",))
    sim.happen(order)
    sim.ready("a")
    return sim


def started_for_another() -> Simulation:
    sim = of(task("a", entry=False), task("b", requires=("a",), entry=False))
    sim.ask("start", "a")
    sim.ready()
    sim.ask("stop", "a")
    sim.now += 100
    sim.ask("start", "b")
    sim.ready("a")
    return sim


def restarted() -> Simulation:
    sim = of(task("a"))
    sim.ask("restart", "a")
    sim.ready()
    return sim


def added_by_reload() -> Simulation:
    sim = of(task("b"))
    sim.reload(task("a"), task("b"))
    sim.ready("a")
    return sim


def changed_by_reload() -> Simulation:
    sim = of(task("a"))
    sim.reload(task("a", nice=5))
    sim.ready("a")
    return sim


def survivor() -> Simulation:
    sim = of(task("a", stop_timeout=5.0))
    sim.obedient, sim.stuck = False, set()
    sim.ask("stop", "a")
    sim.rest()
    return sim


def keeper_died() -> Simulation:
    sim = of(task("a", entry=False), task("b"))
    sim.ask("start", "a")
    sim.ready("a")
    sim.another_keeper()
    return sim


def context_ended() -> Simulation:
    sim = of(task("a"))
    sim.ask("exit", transaction=None)
    return sim


def daemon_killed() -> Simulation:
    return of(task("a"))


def removed_by_reload() -> Simulation:
    sim = of(task("a", stop_timeout=5.0), task("b"))
    sim.obedient = False
    sim.reload(task("b"))
    return sim


STARTED = ["a was started", "the start of the context started its entry tasks"]
INCIDENTS = {
    "runs": Incident(happen=runs, story=["a became ready", STARTED[1]], kinds=[], do=[]),
    "exit code": Incident(
        happen=exit_code,
        story=["a failed with exit status 3", *STARTED],
        kinds=[],
        do=[f"{CTL} logs -n 50 a", f"{CTL} start a"],
    ),
    "signal": Incident(
        happen=killed_by_signal,
        story=["a was ended by the signal SIGSEGV", *STARTED],
        kinds=[],
        do=["coredumpctl info 1001", f"{CTL} start a"],
    ),
    "ordered signal": Incident(
        happen=ordered_kill,
        story=["a was ended by the signal SIGKILL", "an operator ordered the signal SIGKILL for a"],
        kinds=[],
        do=[f"{CTL} start a"],
    ),
    "rule after an ordered signal": Incident(
        happen=ordered_kill_that_a_rule_follows,
        story=[
            "a was ended by the signal SIGSEGV",
            "a was started",
            "the rule on_fail:start:a of b fired",
            "b was ended by the signal SIGKILL",
            "an operator ordered the signal SIGKILL for b",
        ],
        kinds=[],
        do=["coredumpctl info 1002", f"{CTL} start a"],
    ),
    "signal without a core dump": Incident(
        happen=killed_by_a_stranger,
        story=["a was ended by the signal SIGKILL", *STARTED],
        kinds=[],
        do=[f"{CTL} logs -n 50 a", f"{CTL} start a"],
    ),
    "out of memory": Incident(
        happen=out_of_memory,
        story=["a was killed because memory ran out (SIGKILL)", *STARTED],
        kinds=[],
        do=[f"{CTL} top --once", f"{CTL} start a"],
    ),
    "cannot launch": Incident(
        happen=cannot_launch,
        story=["a could not be started: cannot fork: no memory", *STARTED],
        kinds=["cannot-launch"],
        do=["zmsvcctl check FILE", f"{CTL} start a"],
    ),
    "watchdog": Incident(
        happen=watchdog,
        story=[
            "a was stopped: it sent no WATCHDOG=1 within its watchdog interval (SIGABRT): missed its watchdog",
            *STARTED,
        ],
        kinds=[],
        do=[f"{CTL} logs -n 50 a", f"{CTL} start a"],
    ),
    "killed": Incident(
        happen=killed,
        story=[
            "a was killed, because it had not ended within its stop_timeout",
            "an operator ordered the stop of a",
        ],
        kinds=["held"],
        do=[f"{CTL} logs -n 50 a", f"{CTL} start a"],
    ),
    "not ready": Incident(
        happen=not_ready,
        story=["a ended before it was ready: not ready in time", *STARTED],
        kinds=[],
        do=[f"{CTL} logs -n 50 a", f"{CTL} start a"],
    ),
    "start limit": Incident(
        happen=start_limit,
        story=[
            "a reached its start limit: started 2 times by rules within 60 s",
            "a failed with exit status 7",
            "a was started",
            "the rule on_fail:restart:a of a fired",
            "a failed with exit status 7",
            "a was started",
            "the rule on_fail:restart:a of a fired",
            "a failed with exit status 7",
            *STARTED,
        ],
        kinds=["start-limit"],
        do=[f"{CTL} logs -n 50 a", f"{CTL} reset-failed a", f"{CTL} start a"],
    ),
    "back-off": Incident(
        happen=back_off,
        story=[
            "a starts again 2.047 s after this",
            "the rule on_fail:restart:a of a fired",
            "a failed with exit status 1",
            *STARTED,
        ],
        kinds=["back-off"],
        do=[f"{CTL} logs -n 50 a", f"{CTL} start a"],
    ),
    "ring of rules": Incident(
        happen=ring_of_rules,
        story=[
            "a was started",
            "the rule on_exit:start:a of b fired",
            "b ended by itself with status 0",
            "b was started",
            "the rule on_exit:start:b of a fired",
            "a ended by itself with status 0",
            "a was started",
            "the rule on_exit:start:a of b fired",
            "b ended by itself with status 0",
            "15 more steps of this kind",
            *STARTED,
        ],
        kinds=["not-ready-yet"],
        do=[],
    ),
    "waits for a rule": Incident(happen=waits_for_a_rule, story=[], kinds=[], do=[f"{CTL} start a"]),
    "no rule": Incident(happen=no_rule, story=[], kinds=["no-rule"], do=[f"{CTL} start a"]),
    "held": Incident(
        happen=held,
        story=["a was stopped (status 0)", "an operator ordered the stop of a"],
        kinds=["held"],
        do=[f"{CTL} start a"],
    ),
    "stopped by a rule": Incident(
        happen=stopped_by_a_rule,
        story=[
            "a was stopped (status 0)",
            "the rule on_fail:stop:a of b fired",
            "b failed with exit status 9",
            "b was started",
            STARTED[1],
        ],
        kinds=[],
        do=[f"{CTL} logs -n 50 b", f"{CTL} start a"],
    ),
    "disabled": Incident(
        happen=disabled,
        story=["a was stopped (status 0)", "an operator ordered the stop of a"],
        kinds=["disabled"],
        do=[f"{CTL} enable a", f"{CTL} start a"],
    ),
    "transaction stopped": Incident(
        happen=transaction_stopped,
        story=["a was stopped (status 0)", "an operator ordered the stop of the transaction T1"],
        kinds=["transaction-closed"],
        do=[f"{CTL} start --transaction T1"],
    ),
    "failure action": Incident(
        happen=failure_action,
        story=[
            "a was stopped (status 0)",
            "the failure_action stop of b stopped its transaction",
            "b failed with exit status 2",
            "b was started",
            STARTED[1],
        ],
        kinds=["transaction-closed"],
        do=[f"{CTL} start --transaction T1"],
    ),
    "starts after": Incident(
        happen=starts_after,
        story=["the start of a waits for b", STARTED[1]],
        kinds=["after"],
        do=[f"{CTL} why b"],
    ),
    "requires a failed task": Incident(
        happen=requires_a_failed_task,
        story=[
            "a was not started: it requires b, which has failed (exit-code)",
            "b failed with exit status 4",
            "b was started",
            STARTED[1],
        ],
        kinds=["requires"],
        do=[f"{CTL} logs -n 50 b", f"{CTL} why b", f"{CTL} start a"],
    ),
    "started by a failure": Incident(
        happen=started_by_a_failure,
        story=[
            "a became ready",
            "the rule on_start:start:a of c fired",
            "c became ready",
            "the rule on_fail:start:c of b fired",
            "b was ended by the signal SIGKILL",
            "b was started",
            STARTED[1],
        ],
        kinds=[],
        do=[],
    ),
    "any failure": Incident(
        happen=any_failure,
        story=[
            "a became ready",
            "the rule on_any_fail:start:a of b fired",
            "b failed with exit status 1",
            "b was started",
            STARTED[1],
        ],
        kinds=[],
        do=[],
    ),
    "bus": Incident(
        happen=by_the_bus,
        story=["a became ready", "a message on the bus ordered the start of a"],
        kinds=[],
        do=[],
    ),
    "started for another task": Incident(
        happen=started_for_another,
        story=["a became ready", "an operator ordered the start of b"],
        kinds=[],
        do=[],
    ),
    "restarted": Incident(
        happen=restarted, story=["a became ready", "an operator ordered the restart of a"], kinds=[], do=[]
    ),
    "added by a reload": Incident(
        happen=added_by_reload,
        story=["a became ready", "a reload of the context file started a"],
        kinds=[],
        do=[],
    ),
    "changed by a reload": Incident(
        happen=changed_by_reload,
        story=["a became ready", "a reload of the context file started a"],
        kinds=[],
        do=[],
    ),
    "survivor": Incident(
        happen=survivor,
        story=["a was asked to stop", "an operator ordered the stop of a"],
        kinds=["held", "survivor"],
        do=[""],
    ),
    "keeper died": Incident(
        happen=keeper_died,
        story=[
            "a was lost: its process ended when the keeper of the context had died",
            "a was started",
            "an operator ordered the start of a",
        ],
        kinds=["no-rule"],
        do=[f"{CTL} logs -n 50", f"{CTL} start a"],
    ),
    "context ended": Incident(
        happen=context_ended,
        story=["a was stopped (status 0)", "an operator ordered the end of the context"],
        kinds=["context-down"],
        do=["zmsvcd --detach Sim"],
        running=False,
    ),
    "daemon killed": Incident(
        happen=daemon_killed,
        story=["a became ready", STARTED[1]],
        kinds=["context-down"],
        do=["zmsvcd --detach Sim"],
        running=False,
    ),
    "removed by a reload": Incident(
        happen=removed_by_reload,
        story=["a was asked to stop", "a reload of the context file stopped a"],
        kinds=["removed"],
        do=[f"{CTL} reload"],
    ),
}


@pytest.mark.parametrize("name", INCIDENTS)
def test_an_incident_is_explained(name: str) -> None:
    incident = INCIDENTS[name]
    told = explained(incident.happen(), running=incident.running)
    assert story(told) == incident.story
    assert [reason["kind"] for reason in told["reasons"]] == incident.kinds
    assert [step["command"] for step in told["advice"]] == incident.do
    assert told["complete"]


def rules(told: dict[str, Any]) -> list[str]:
    return [each["text"] for each in told["rules"]]


def test_a_rule_that_has_not_fired_because_of_its_conditions_says_so() -> None:
    named = rule("on_fail", "start", "a", when="exit-code:75 watchdog")
    counting = rule("on_fail", "start", "a", when="exit-code", after="3 in 1min")
    own = rule("on_fail", "restart", "b")
    any_fail = [rule("on_any_fail", "start", "a", after="5 in 10s")]
    sim = of(task("b", own, named, counting, watchdog=900.0), task("a", entry=False), any_fail=any_fail)
    for _ in range(2):
        sim.end("b", code=3)
        sim.ring()
        sim.ready()
    told = explained(sim)
    assert rules(told) == [
        "starts when b fails (exit-code:75 or watchdog), and its last end was another one (exit-code:3); "
        "b is active (running)",
        "starts when b fails (exit-code), 3 times within 60 s: 2 counted; b is active (running)",
        "starts when any other task fails, 5 times within 10 s: 2 counted",
    ]
    assert [(each["counted"], each["of"]) for each in told["rules"]] == [(None, None), (2, 3), (2, 5)]
    assert told["rules"][1]["rule"] == "on_fail:start:a when exit-code after 3 in 60s"
    past = explained(sim, running=False)["rules"][1]
    assert (past["counted"], "counted" in past["text"]) == (None, False), "the times of another boot"


def test_a_recovery_is_a_cause() -> None:
    sim = of(task("b", rule("on_recover", "start", "a")), task("a", entry=False))
    sim.end("b", code=3)
    assert rules(explained(sim)) == ["starts when b is ready again after a failure; b is failed (failed)"]
    sim.ask("start", "b")
    sim.ready()
    assert story(explained(sim))[:3] == [
        "a was started",
        "the rule on_recover:start:a of b fired",
        "b became ready",
    ]


def test_the_rules_that_would_start_a_task_are_named_with_the_state_of_their_source() -> None:
    told = explained(waits_for_a_rule())
    assert rules(told) == ["starts when b ends well; b is active (running)"]
    assert (told["rules"][0]["source"], told["rules"][0]["rule"]) == ("b", "on_exit:start:a")
    assert rules(explained(any_failure(), "b")) == []
    own = Simulation.of(
        task("a", rule("on_fail", "restart", "a")), any_fail=[rule("on_any_fail", "start", "a")]
    )
    own.begin(autostart=False)
    assert rules(explained(own)) == ["starts when it fails", "starts when any other task fails"]


def test_what_ends_by_itself_says_until_when() -> None:
    sim = start_limit()
    (limit,) = explained(sim)["reasons"]
    assert float(limit["until"]) > sim.now
    sim.now = float(limit["until"]) + 1
    assert explained(sim)["reasons"] == [], "then a rule starts it again"
    (waits,) = explained(back_off())["reasons"]
    assert (waits["text"], waits["until"]) == ("its next start waits, after a failure", "1103.05")
    again = Simulation.of(task("a", rule("on_fail", "restart", "a")))
    again.begin()
    again.end("a", code=1)
    again.ring()
    again.end("a", code=1)
    assert (again.task("a").failures, again.task("a").quick_starts) == (2, 2)
    (waits,) = explained(again)["reasons"]
    assert waits["text"] == "its next start waits, after 2 failures in a row"
    slowed = ring_of_rules()
    slowed.ready("a")
    slowed.end("a", code=0)
    (waits,) = explained(slowed, "b")["reasons"]
    assert waits["text"] == "its next start waits, because rules start it too quickly"


def test_an_order_has_its_user_and_time() -> None:
    told = explained(held())
    assert (told["reasons"][0]["uid"], told["reasons"][0]["at"]) == (0, "1101")
    assert (told["chain"][-1]["by"], told["chain"][-1]["uid"]) == ("operator", 0)


def test_with_several_transactions_the_commands_name_one() -> None:
    sim = exit_code()
    sim.ask("start", transaction="T2")
    assert explained(sim)["advice"][-1]["command"] == f"{CTL} start --transaction T1 a"


def test_a_chain_that_the_history_does_not_reach_is_not_complete() -> None:
    sim = ring_of_rules()
    told = explained(sim, rows=sim.rows[-12:])
    assert not told["complete"]
    assert story(told)[0] == "a was started"
    nothing = explained(exit_code(), rows=[])
    assert (story(nothing), nothing["complete"]) == (["a failed with exit status 3", *STARTED], False)


def test_the_log_that_matters_is_that_of_the_task_that_failed() -> None:
    assert explained(stopped_by_a_rule())["log"] == {"task": "b", "until": "1101", "stacks": False}
    assert explained(runs())["log"] == {"task": "a", "until": None, "stacks": False}
    assert [explained(each())["log"]["stacks"] for each in (watchdog, killed, exit_code)] == [
        True,
        True,
        False,
    ]
    assert explained(no_rule())["log"] is None


def test_a_context_that_does_not_run_has_no_live_task() -> None:
    told = explained(daemon_killed(), running=False)
    assert (told["state"], told["sub"], told["pid"]) == ("inactive", "dead", None)
    assert told["last"] == "active (running)"


def test_any_world_is_explained() -> None:
    """Each task of each incident has an explanation, also with a history of another release."""
    for incident in INCIDENTS.values():
        sim = incident.happen()
        strange = [Row(**{**{n: getattr(row, n) for n in Row.__slots__}, "detail": {}}) for row in sim.rows]
        for key in sim.world.tasks:
            for rows in (sim.rows, strange, []):
                assert explained(sim, key[1], rows=rows, running=incident.running)["task"] == key[1]


def test_an_end_without_a_message_is_told_without_one() -> None:
    assert (
        end_text({"reason": "lost"}) == "was lost: its process ended when the keeper of the context had died"
    )
    assert end_text({"reason": "lost", "message": "why"}).endswith(" had died: why")
