"""The probes of `<health>` and `<ready>`: how they are written, how results are judged, and what follows for
the task.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import Simulation, rule, task

from zmsvc.core import effects as fx
from zmsvc.core import expected_topics, probing
from zmsvc.core import facts as ft
from zmsvc.core.auxiliary_name import AuxiliaryName
from zmsvc.core.expected_topics import ExpectedTopic, Silences
from zmsvc.core.model import Rule, TaskDefinition
from zmsvc.core.probing import HEALTH, READY, Address, Health, Judgment, Probe, judge, probe_from_json
from zmsvc.core.ready_line import ReadyLine
from zmsvc.core.world import task_from_row

RESTART = rule("on_fail", "restart", "a")


def watched(*rules: Rule, probe: Probe = HEALTH) -> TaskDefinition:
    return replace(task("a", *rules, stop_timeout=5.0), health=probe)


def waiting() -> TaskDefinition:
    """Return a Command that is ready when its probe succeeds."""
    return replace(task("a", RESTART, kind="Command", start_timeout=20.0), ready=READY)


def running(*rules: Rule) -> Simulation:
    sim = Simulation.of(watched(*rules))
    sim.begin()
    sim.ready()
    return sim


# --- the element


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (" 80 ", Address(host="localhost", port=80)),
        ("127.0.0.1:6379", Address(host="127.0.0.1", port=6379)),
        ("[::1]:1", Address(host="::1", port=1)),
    ],
)
def test_a_tcp_probe_names_a_port_or_an_address(text: str, address: Address) -> None:
    assert probing.tcp(text) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://localhost", Address(host="localhost", port=80, target="/", authority="localhost")),
        ("http://[::1]:8080/a?b=1", Address(host="::1", port=8080, target="/a?b=1", authority="[::1]:8080")),
        ("http://10.0.0.1?q", Address(host="10.0.0.1", port=80, target="/?q", authority="10.0.0.1")),
    ],
)
def test_an_http_probe_names_a_request(text: str, address: Address) -> None:
    assert probing.http(text) == address


@pytest.mark.parametrize("text", ["", "example.org:80", "0", "65536", "1.2.3:4", "[1.2.3.4]x:5", "::1:80"])
def test_a_bad_address_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=", expected "):
        probing.tcp(text)
    with pytest.raises(ValueError, match=", expected "):
        probing.http(f"http://{text}/x" if text != "0" else "https://localhost")


@pytest.mark.parametrize(
    ("values", "fault"),
    [({}, "has no probe"), ({"tcp": probing.tcp("80"), "exec": ("true",)}, "has exec and tcp")],
)
def test_an_element_has_one_probe(values: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{fault}, expected one of the attributes exec, tcp and http$"):
        probing.health(**values)


def test_what_is_left_out_is_as_in_docker() -> None:
    probe = probing.health(exec=("true",))
    assert (probe.interval, probe.timeout, probe.retries, probe.start_period) == (30.0, 30.0, 3, 0.0)


@pytest.mark.parametrize(
    "probe",
    [
        probing.health(exec=("a", "b c"), retries=7, start_period=3.5),
        probing.ready(http=probing.http("http://localhost/x"), timeout=0.5),
    ],
)
def test_a_probe_survives_its_way_to_the_process_that_runs_it(probe: Probe) -> None:
    assert probe_from_json(probe.as_json()) == probe


# --- judging


def judged(probe: Probe, results: list[bool], ages: list[float]) -> list[Judgment]:
    found = [Judgment()]
    for ok, age in zip(results, ages, strict=True):
        found.append(judge(found[-1], probe, ok=ok, age=age))
    return found[1:]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 10)), max_size=20),
    st.integers(1, 4),
    st.sampled_from([0.0, 5.0, 100.0]),
)
def test_a_task_fails_after_as_many_failures_in_a_row_and_not_before(
    steps: list[tuple[bool, float]], retries: int, start_period: float
) -> None:
    probe = replace(HEALTH, retries=retries, start_period=start_period)
    results, ages = [ok for ok, _ in steps], sorted(age for _, age in steps)
    row, succeeded = 0, False
    for ok, age, judgment in zip(results, ages, judged(probe, results, ages), strict=True):
        counts = succeeded or row > 0 or age >= start_period
        row = 0 if ok else row + 1 if counts else 0
        succeeded = succeeded or ok
        assert (judgment.health is Health.HEALTHY) == ok
        assert (judgment.health is Health.STARTING) == (not ok and row == 0)
        assert (judgment.health is Health.FAILED) == (row >= retries)


# --- what follows


def test_the_probe_of_a_task_runs_from_its_ready_to_its_end() -> None:
    sim = Simulation.of(watched())
    sim.begin()
    assert not sim.task("a").auxiliaries
    sim.ready()
    launch = sim.auxiliary("a")
    assert launch in sim.alive
    assert sim.task("a").health is Health.STARTING
    sim.end("a", code=0)
    assert not sim.alive
    assert sim.task("a").health is None


def test_the_first_success_is_shown_and_not_recorded() -> None:
    sim = running()
    sim.probe("a", "healthy")
    assert sim.task("a").health is Health.HEALTHY
    assert not [each for each in sim.records if each.event in ("healthy", "unhealthy")]


def test_a_change_to_unhealthy_and_back_is_recorded_and_the_task_goes_on() -> None:
    sim = running()
    for health in ("healthy", "unhealthy", "unhealthy", "healthy"):
        sim.probe("a", health, "why" if health == "unhealthy" else "")
    assert [each.event for each in sim.records if each.event.endswith("healthy")] == ["unhealthy", "healthy"]
    assert (sim.sub_state("a"), sim.task("a").health_text) == ("running", "")


def test_a_change_of_health_is_published_with_the_state_of_the_context() -> None:
    sim = running()
    for health, published in (("healthy", 1), ("unhealthy", 1), ("unhealthy", 0), ("healthy", 1)):
        told = sim.probe("a", health)
        assert len([each for each in told if isinstance(each, fx.PublishInfo)]) == published


def test_a_task_that_stays_unhealthy_is_stopped_as_a_failure_and_its_rules_fire() -> None:
    sim = running(RESTART)
    sim.obedient = False
    sim.probe("a", "unhealthy", "exit status 1")
    sim.probe("a", "failed", "exit status 1")
    first = sim.launch_of("a")
    assert (sim.sub_state("a"), sim.alive[first].signals) == ("stop-sigterm", ["SIGTERM"])
    sim.ring()
    assert sim.sub_state("a") == "back-off", "it was killed at the end of its stop timeout"
    assert sim.reason("a") == "unhealthy"
    assert [each.detail["message"] for each in sim.records if each.event == "failed"] == [
        "unhealthy: exit status 1"
    ]
    sim.ring()
    sim.ready()
    assert (sim.sub_state("a"), sim.task("a").restarts) == ("running", 1)
    assert sim.task("a").health is Health.STARTING


def test_health_means_nothing_while_a_task_stops() -> None:
    sim = running()
    sim.obedient = False
    sim.ask("stop", "a")
    before = sim.task("a")
    sim.probe("a", "failed", "exit status 1")
    assert sim.task("a") == before


def test_a_task_itself_does_not_report_its_health() -> None:
    sim = running()
    sim.happen(ft.HealthReported(launch=sim.launch_of("a"), health=Health.FAILED))
    assert sim.sub_state("a") == "running"


def test_a_command_is_ready_when_the_probe_process_ends_with_status_0() -> None:
    sim = Simulation.of(waiting())
    sim.begin()
    sim.execute("a")
    sim.ready()
    assert sim.sub_state("a") == "start", "neither its exec nor READY=1 counts"
    sim.end(sim.auxiliary("a"), code=0)
    assert sim.sub_state("a") == "running"
    assert not sim.task("a").auxiliaries


def awaits_line(**more: float) -> TaskDefinition:
    """Return a Command that is ready when it has written a line."""
    return replace(
        task("a", RESTART, kind="Command", start_timeout=20.0), ready=ReadyLine(pattern="up"), **more
    )


def test_a_command_is_ready_when_it_has_written_its_line() -> None:
    sim = Simulation.of(awaits_line())
    sim.begin()
    sim.execute("a")
    sim.ready()
    assert sim.sub_state("a") == "start", "neither its exec nor READY=1 counts"
    assert not sim.task("a").auxiliaries, "no process looks for the line"
    sim.write_line("a")
    assert sim.sub_state("a") == "running"
    sim.write_line("a")
    assert [each.event for each in sim.records].count("started") == 1


@pytest.mark.parametrize("known", [False, True])
def test_a_line_that_no_supervisor_has_seen_makes_the_task_ready_under_the_next_one(known: bool) -> None:
    sim = Simulation.of(awaits_line())
    sim.begin()
    sim.execute("a")
    sim.alive[sim.launch_of("a")].line_seen = known
    sim.crash()
    sim.happen()
    assert sim.sub_state("a") == ("running" if known else "start")


@pytest.mark.parametrize("code", [0, 1, None])
def test_a_command_that_does_not_write_its_line_has_failed(code: int | None) -> None:
    sim = Simulation.of(awaits_line())
    sim.begin()
    sim.execute("a")
    sim.ring() if code is None else sim.end("a", code=code)
    assert sim.reason("a") == ("exit-code" if code else "not-ready")


def test_a_command_with_another_way_to_be_ready_takes_no_line_for_it() -> None:
    sim = Simulation.of(waiting())
    sim.begin()
    sim.execute("a")
    sim.write_line("a")
    assert sim.sub_state("a") == "start"


def test_a_command_that_exits_before_its_probe_succeeds_has_failed() -> None:
    sim = Simulation.of(waiting())
    sim.begin()
    sim.execute("a")
    sim.end("a", code=0)
    assert sim.reason("a") == "not-ready"


def test_a_command_whose_probe_does_not_succeed_is_not_ready_in_time() -> None:
    sim = Simulation.of(waiting())
    sim.begin()
    sim.execute("a")
    sim.ring()
    assert sim.reason("a") == "not-ready"
    assert not [launch for launch in sim.alive if sim.alive[launch].auxiliary_of]


@pytest.mark.parametrize("made", [watched, waiting])
def test_a_probe_process_that_ends_is_started_again_after_growing_delays(made: object) -> None:
    sim = Simulation.of(made())  # type: ignore[operator]
    sim.begin()
    if made is watched:
        sim.ready()
    main, delays = sim.launch_of("a"), []
    for _ in range(4):
        sim.end(sim.auxiliary("a"), signal="SIGSEGV")
        before = sim.now
        assert not sim.task("a").auxiliaries
        sim.ring()
        delays.append(sim.now - before)
    assert delays == [1.0, 2.0, 4.0, 8.0]
    assert (sim.launch_of("a"), len(sim.alive)) == (main, 2)
    assert [each.detail["delay"] for each in sim.records if each.event == "probe-ended"] == delays


def test_the_delay_is_short_again_for_a_probe_process_that_has_lived_long() -> None:
    sim = running()
    for _ in range(3):
        sim.end(sim.auxiliary("a"), code=1)
        sim.ring()
    sim.now += 61
    sim.end(sim.auxiliary("a"), code=1)
    assert sim.task("a").probe_at == sim.now + 1.0


def test_a_probe_process_that_cannot_be_forked_is_tried_again_later() -> None:
    sim = Simulation.of(watched())
    sim.begin()
    sim.keeper.broken = True
    sim.ready()
    assert sim.sub_state("a") == "running"
    assert sim.task("a").probe_at == sim.now + 1.0
    sim.keeper.broken = False
    sim.ring()
    assert sim.auxiliary("a") in sim.alive


def test_the_watchdog_still_rings_beside_a_probe_process_that_is_to_be_started_again() -> None:
    sim = Simulation.of(replace(task("a", RESTART, watchdog=0.5), health=HEALTH))
    sim.begin()
    sim.ready()
    sim.end(sim.auxiliary("a"), code=1)
    sim.ring()
    assert sim.reason("a") == "watchdog"


def test_a_new_supervisor_starts_a_probe_process_again_that_waits_for_that() -> None:
    sim = running()
    sim.end(sim.auxiliary("a"), code=1)
    sim.crash()
    sim.happen()
    sim.ring()
    assert sim.auxiliary("a") in sim.alive


def test_a_reload_that_changes_the_probe_restarts_the_task() -> None:
    sim = running()
    sim.reload(watched(probe=replace(HEALTH, retries=5)))
    sim.ready()
    assert sim.replies(8)[0].data["changed"] == ["a"]
    assert sim.auxiliary("a") in sim.alive


def test_a_task_is_watched_while_it_reloads() -> None:
    sim = Simulation.of(replace(watched(), reload_signal="SIGHUP", notify_reload=True))
    sim.begin()
    sim.ready()
    sim.end(sim.auxiliary("a"), code=1)
    sim.happen(ft.TaskReloading(launch=sim.launch_of("a")))
    assert sim.sub_state("a") == "reload-notify"
    sim.ring()
    sim.probe("a", "failed")
    assert sim.reason("a") == "unhealthy"


def test_a_task_with_ready_reports_the_end_of_a_reload_itself() -> None:
    sim = Simulation.of(replace(waiting(), notify_reload=True))
    sim.begin()
    sim.end(sim.auxiliary("a"), code=0)
    sim.happen(ft.TaskReloading(launch=sim.launch_of("a")))
    sim.ready()
    assert sim.sub_state("a") == "running"


# --- the topics of a task


EXPECT = (ExpectedTopic(topic="t", within=30.0), ExpectedTopic(topic="u", within=60.0))


def watch(sim: Simulation, **wanted: Any) -> fx.WatchTopics:
    return fx.WatchTopics(launch=sim.launch_of("a"), key=("T1", "a"), has_process=True, **wanted)


def expecting(kind: str) -> Simulation:
    sim = Simulation.of(replace(task("a", RESTART, kind=kind, stop_timeout=5.0), expect=EXPECT))
    sim.begin()
    sim.execute("a") if kind == "Command" else sim.ready()
    return sim


def test_a_command_that_is_silent_on_an_expected_topic_has_failed_and_its_rules_fire() -> None:
    sim = expecting("Command")
    first = sim.launch_of("a")
    assert sim.keeper.watches == {first: watch(sim, expect=EXPECT)}
    assert not sim.task("a").auxiliaries, "one process watches the topics of all tasks"
    sim.happen(ft.TopicSilent(launch=first, topic="u"))
    assert sim.reason("a") == "silent"
    assert [each.detail["message"] for each in sim.records if each.event == "failed"] == [
        "silent: nothing on u within 60 s"
    ]
    assert (first in sim.alive, sim.keeper.watches) == (False, {})
    sim.ring()
    sim.execute("a")
    assert (sim.sub_state("a"), sim.task("a").restarts) == ("running", 1)
    assert sim.keeper.watches == {sim.launch_of("a"): watch(sim, expect=EXPECT)}
    sim.happen(ft.TopicSilent(launch=first, topic="u"))
    assert sim.sub_state("a") == "running", "a late report is about another launch"


def test_a_task_in_python_reports_itself_and_needs_no_watcher() -> None:
    sim = expecting("Process")
    assert not sim.keeper.watches
    sim.happen(ft.TopicSilent(launch=sim.launch_of("a"), topic="other"))
    assert sim.sub_state("a") == "running", "it is not expected to publish there"
    sim.happen(ft.TopicSilent(launch=sim.launch_of("a"), topic="t"))
    assert sim.reason("a") == "silent"


def test_a_task_that_stops_need_not_publish() -> None:
    sim = expecting("Process")
    sim.obedient = False
    sim.ask("stop", "a")
    before = sim.task("a")
    sim.happen(ft.TopicSilent(launch=sim.launch_of("a"), topic="t"))
    assert sim.task("a") == before


def test_the_topic_of_a_ready_is_watched_before_the_fork_and_makes_the_command_ready() -> None:
    service = replace(task("a", RESTART, kind="Command", start_timeout=20.0), ready=probing.ready(topic="t"))
    sim = Simulation.of(replace(service, expect=EXPECT))
    orders = [each for each in sim.begin() if isinstance(each, fx.WatchTopics)]
    launch = sim.launch_of("a")
    assert [(each.ready, each.has_process, each.expect) for each in orders] == [
        ("t", False, ()),
        ("t", True, ()),
    ]
    sim.execute("a")
    assert (sim.sub_state("a"), sim.task("a").auxiliaries) == ("start", ())
    sim.happen(ft.TopicHeard(launch=launch, topic="t"))
    assert sim.sub_state("a") == "running"
    assert sim.keeper.watches == {launch: watch(sim, expect=EXPECT)}, "its silence counts from here on"
    sim.end("a", code=1)
    assert not sim.keeper.watches


def test_a_command_that_publishes_nothing_is_not_ready_in_time() -> None:
    sim = Simulation.of(
        replace(task("a", kind="Command", start_timeout=20.0), ready=probing.ready(topic="t"))
    )
    sim.begin()
    sim.execute("a")
    sim.ring()
    assert (sim.reason("a"), sim.keeper.watches) == ("not-ready", {})


def test_a_new_supervisor_orders_each_watch_again() -> None:
    sim = expecting("Command")
    sim.crash()
    effects = sim.happen()
    assert [each for each in effects if isinstance(each, fx.WatchTopics)] == [watch(sim, expect=EXPECT)]


def test_the_state_file_of_a_supervisor_with_an_auxiliary_process_of_another_name_can_be_read() -> None:
    rows = [{"launch": 7, "name": name, "command": [], "since": 1.0} for name in ("expect", "health")]
    found = task_from_row({"launch": 5, "pid": 9, "auxiliaries": rows}, "running")
    assert [(each.launch, each.name) for each in found.auxiliaries] == [(7, AuxiliaryName.HEALTH)]


def test_a_task_in_python_is_ready_at_its_first_message_on_the_topic_of_its_ready() -> None:
    sim = Simulation.of(replace(task("a", start_timeout=20.0), ready=probing.ready(topic="t")))
    sim.begin()
    sim.ready()
    assert (sim.sub_state("a"), sim.task("a").auxiliaries) == ("start", ())
    for topic, state in (("other", "start"), ("t", "running"), ("t", "running")):
        sim.happen(ft.TopicHeard(launch=sim.launch_of("a"), topic=topic))
        assert sim.sub_state("a") == state


def test_a_ready_with_a_topic_has_no_other_attributes() -> None:
    with pytest.raises(ValueError, match="has topic and other attributes, expected topic alone"):
        probing.ready(topic="t", interval=1.0)
    with pytest.raises(ValueError, match="has no within, expected the attributes topic and within"):
        expected_topics.make(topic="t")


def test_a_topic_is_silent_when_its_time_has_passed_since_the_last_message() -> None:
    silences = Silences((*EXPECT, ExpectedTopic(topic="u", within=90.0)))
    assert (silences.pause(0.0), silences.silent(1000.0)) == (math.inf, None), "the clock stands"
    silences.begin(0.0)
    assert silences.pause(10.0) == 20.0
    silences.heard("t", 20.0)
    silences.heard("x", 20.0)
    assert (silences.silent(49.9), silences.pause(49.9)) == (None, pytest.approx(0.1))
    assert [silences.silent(60.0) for _ in range(3)] == ["t", "u", None]
    silences.heard("t", 61.0)
    assert silences.silent(1000.0) is None, "each silence is reported once"
    silences.begin(1000.0)
    silences.suspend()
    assert silences.silent(2000.0) is None


def test_a_ready_of_a_line_or_a_topic_has_no_probe() -> None:
    assert probing.ready(line="^up$") == ReadyLine(pattern="^up$")
    assert probing.ready(topic="raw") == probing.ReadyTopic(topic="raw")
    with pytest.raises(ValueError, match="expected topic alone"):
        probing.ready(line="^up$", topic="raw")
