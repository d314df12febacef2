"""An envoy knows the processes and ends of its keeper, and the facts that the supervisor has not taken."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq
from forked import launch_spec
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core import facts as ft
from zmsvc.core.poison import Poison
from zmsvc.core.probing import Health
from zmsvc.envoy import line
from zmsvc.envoy.held_launches import HeldLaunches
from zmsvc.envoy.own_launches import completed
from zmsvc.envoy.unsaved_facts import UnsavedFacts
from zmsvc.host import paths
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.protocol import hosts


def exited(launch: int, **more: Any) -> ft.TaskExited:
    return ft.TaskExited(launch=launch, code=0, **more)


def said(launch: int, text: str) -> ft.TaskSaid:
    return ft.TaskSaid(launch=launch, status=text)


def test_an_envoy_follows_what_its_keeper_holds() -> None:
    held = HeldLaunches([ft.Child(launch=1, pid=10, start_time=5)], [exited(2)])
    held.is_to_launch(3, auxiliary=False)
    held.is_to_launch(4, auxiliary=True)
    for fact in (
        ft.TaskLaunched(launch=3, pid=30, start_time=6),
        ft.TaskLaunched(launch=4, pid=40, start_time=7),
        ft.TaskExecuted(launch=3),
        ft.ReadyLineSeen(launch=3),
        ft.MainChanged(launch=1, pid=11, start_time=8),
        ft.TaskReady(launch=1),
    ):
        held.take(fact)
    assert held.children == (
        ft.Child(launch=1, pid=11, start_time=8),
        ft.Child(launch=3, pid=30, start_time=6, executed=True, line_seen=True),
        ft.Child(launch=4, pid=40, start_time=7, auxiliary=True),
    )
    held.take(exited(3, others_left=True))
    held.take(ft.TaskGone(launch=3))
    assert [child.launch for child in held.children] == [1, 4]
    assert held.ends == (exited(2), exited(3))
    held.acknowledge(2)
    assert held.ends == (exited(3),)


def test_a_report_that_the_keeper_repeats_makes_no_process_of_an_end() -> None:
    held = HeldLaunches([], [exited(2)])
    held.take(ft.TaskLaunched(launch=2, pid=20, start_time=0))
    assert held.children == ()


def test_facts_are_numbered_and_forgotten_when_they_are_confirmed() -> None:
    unsaved = UnsavedFacts()
    unsaved.add([said(1, "a"), said(1, "b")], cut=False)
    assert unsaved.messages() == [(1, (said(1, "a"), said(1, "b")))]
    unsaved.add([exited(1)], cut=False)
    assert unsaved.messages() == [(2, (exited(1),))]
    unsaved.confirm(1)
    assert (len(unsaved), unsaved.on_their_way) == (1, True)
    # The connection is lost: what was not confirmed is sent again, from the first number.
    unsaved.begin_again()
    assert unsaved.messages() == [(1, (exited(1),))]
    unsaved.confirm(1)
    assert (len(unsaved), unsaved.on_their_way) == (0, False)


def test_many_facts_take_several_messages_in_their_order() -> None:
    unsaved = UnsavedFacts()
    facts: list[ft.TaskFact] = [
        ft.TaskUpdated(launch=1, items={"text": "x" * 400_000}, sequence=number) for number in range(1, 6)
    ]
    unsaved.add(facts, cut=False)
    made = unsaved.messages()
    assert [number for number, _ in made] == [1, 2, 3]
    assert [fact for _, each in made for fact in each] == facts


@pytest.mark.parametrize(
    "fact",
    [
        said(1, "\x01" * 4096),
        ft.HealthReported(launch=1, health=Health.UNHEALTHY, text="é" * 4096),
        ft.LaunchFailed(launch=1, why="x" * 4096),
        exited(1, why="x" * 4096),
        ft.TopicSilent(launch=1, topic="x" * 60_000),
        ft.TaskDeclared(launch=1, topics=("x" * 8000,), publishes=("y" * 8000,)),
        ft.TaskUpdated(launch=1, items={"text": "é" * 100_000}),
        ft.TaskGone(
            launch=1,
            leftovers=tuple(
                ft.Leftover(pid=n, name="sleep", signal="SIGKILL", asked="SIGTERM", killed=True)
                for n in range(3000)
            ),
        ),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_long_texts_count_in_the_size_of_a_message(fact: ft.TaskFact) -> None:
    """The supervisor's side ends the connection at a message of more than 16 MiB, and the envoy would send it
    again.
    """
    unsaved = UnsavedFacts()
    unsaved.add([fact] * 300, cut=False)
    for number, facts in unsaved.messages():
        message = hosts.Facts(host="h", run="r", greeting=1, number=number, facts=facts)
        alone = len(hosts.encode_said(replace(message, facts=(fact,))))
        assert len(hosts.encode_said(message)) <= max(alone, hosts.FULL + 500)


def test_while_the_connection_is_cut_what_tasks_say_is_bounded() -> None:
    unsaved = UnsavedFacts(most=4)
    unsaved.add([ft.WatchdogFed(launch=1), ft.TimeoutExtended(launch=1, seconds=5.0)], cut=True)
    assert len(unsaved) == 0
    health = ft.HealthReported(launch=3, health=Health.HEALTHY)
    for number in range(100):
        unsaved.add([said(1, f"{number}"), said(2, f"{number}"), health], cut=True)
    unsaved.add([ft.TaskReady(launch=1)], cut=True)
    results = [ft.TaskUpdated(launch=1, items={"n": number}, sequence=number) for number in range(1, 10)]
    unsaved.add([*results, exited(1), exited(2)], cut=True)
    (message,) = unsaved.messages()
    assert message == (
        1,
        (said(1, "99"), said(2, "99"), health, ft.TaskReady(launch=1), exited(1), exited(2)),
    )
    assert unsaved.dropped == len(results)
    assert unsaved.has_end(2)
    assert not unsaved.has_end(3)


def test_results_are_bounded_in_bytes() -> None:
    unsaved = UnsavedFacts(most_bytes=1000)
    for number in range(1, 4):
        unsaved.add([ft.TaskUpdated(launch=1, items={"text": "x" * 600}, sequence=number)], cut=True)
    assert (len(unsaved), unsaved.dropped) == (1, 2)
    unsaved.messages()
    unsaved.confirm(1)
    unsaved.add([ft.TaskUpdated(launch=1, items={"text": "x" * 600}, sequence=4)], cut=True)
    assert len(unsaved) == 1


@pytest.mark.parametrize(
    "message",
    [
        hosts.Call(host="h2", protocol=1, version="1"),
        hosts.Greeting(
            host="h2",
            run="R",
            epoch="e",
            greeting=7,
            keeper_protocol=5,
            children=(ft.Child(launch=1, pid=2, start_time=3, executed=True),),
            exits=(4, 5),
        ),
        hosts.Facts(
            host="h2",
            run="R",
            greeting=7,
            number=1,
            facts=(
                exited(1),
                ft.TaskGone(launch=1, leftovers=(ft.Leftover(pid=3, name="n", code=1),)),
                ft.TaskUpdated(launch=1, items={"a": [1, {"b": None}]}, sequence=2),
                ft.MessagePoisoned(
                    launch=1,
                    number=1,
                    message=Poison(
                        topic="t",
                        sender="s",
                        sender_transaction="T",
                        sequence=None,
                        error="E",
                        traceback="x",
                        bytes=3,
                        frame="\udc80\u2028",
                    ),
                ),
                ft.HealthReported(launch=1, health=Health.UNHEALTHY, text="t"),
                ft.TaskDeclared(launch=1, topics=("a",), publishes=None),
            ),
        ),
        hosts.Alive(host="h2", run="R", greeting=7, facts=3, leaving=True, dropped=5),
    ],
)
def test_a_message_of_an_envoy_comes_back_as_it_was_sent(message: hosts.Said) -> None:
    assert hosts.decode_said(hosts.encode_said(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        hosts.Word(run="R", greeting=7, orders=3, taken=2, admit_all=(4,), refusal="no"),
        *(
            hosts.Ordered(run="R", greeting=7, number=1, order=order)
            for order in (
                launch_spec(queue=({"a": 1},), rlimits={"x": 5}, memory_max="50%"),
                hosts.sv.SignalTask(launch=1, signal="SIGTERM", rest="SIGHUP"),
                hosts.sv.KillTask(launch=1),
                hosts.sv.SetMain(launch=1, pid=2, start_time=3),
                hosts.sv.OpenBarrier(launches=(1, 2)),
                hosts.sv.Acknowledge(launch=1),
                hosts.AdmitAll(launch=1),
            )
        ),
    ],
)
def test_a_message_of_a_supervisor_comes_back_as_it_was_sent(message: hosts.Told) -> None:
    assert hosts.decode_told(hosts.encode_told(message)) == message


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"op": "call"}'])
def test_a_message_that_is_none_is_refused(data: bytes) -> None:
    for decode in (hosts.decode_said, hosts.decode_told):
        with pytest.raises(hosts.ProtocolError):
            decode(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_does_not_have_is_refused(number: str) -> None:
    fact = f'{{"op":"TimeoutExtended","launch":1,"seconds":{number}}}'
    text = f'{{"op":"facts","host":"h2","run":"R","greeting":1,"number":1,"facts":[{fact}]}}'
    assert hosts.decode_said(text.replace(number, "5").encode())
    with pytest.raises(hosts.ProtocolError):
        hosts.decode_said(text.encode())


GREETING = hosts.encode_said(
    hosts.Greeting(
        host="h2",
        run="R",
        epoch="e",
        greeting=7,
        keeper_protocol=5,
        children=(ft.Child(launch=1, pid=2, start_time=3),),
        exits=(4,),
    )
)
FACTS = hosts.encode_said(
    hosts.Facts(host="h2", run="R", greeting=7, number=1, facts=(exited(1), said(1, "text"), exited(2)))
)


@given(
    data=st.sampled_from([GREETING, FACTS]),
    at=st.integers(0, 300),
    length=st.integers(0, 8),
    other=st.one_of(st.binary(max_size=8), st.sampled_from([b"null", b"[]", b"{}", b"-1", b"true", b'"x"'])),
)
def test_garbage_is_a_message_or_is_refused(data: bytes, at: int, length: int, other: bytes) -> None:
    mixed = data[:at] + other + data[at + length :]
    try:
        assert isinstance(hosts.decode_said(mixed), hosts.Said)
    except hosts.ProtocolError:
        pass


def test_a_launch_gets_the_paths_and_users_of_this_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZMSVC_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("ZMSVC_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ZMSVC_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("ZMSVC_SERVICE_PATH", f"{tmp_path}/services")
    places = paths.places_on_host("Orders")
    assert places.runtime == tmp_path / "run/.hosts/Orders"
    spec = launch_spec(notify="", log="", pidfile="", search=(), keys="", user="root", uid=None)
    made = completed(spec, places, "journal")
    assert made.notify == f"{tmp_path}/run/.hosts/Orders/notify.sock"
    assert made.pidfile == f"{tmp_path}/run/.hosts/Orders/{spec.transaction}:{spec.task}.pid"
    assert made.search == (f"{tmp_path}/services",)
    assert (made.log, made.keys) == ("journal", f"{tmp_path}/keys/Orders")
    assert made.uid == (None if os.geteuid() == 0 else 0)
    assert made.mark
    kept = completed(launch_spec(search=("/opt",), pidfile=None, keys=None), places, "journal")
    assert (kept.search, kept.pidfile, kept.keys) == (("/opt",), None, None)


def test_a_line_that_cannot_be_renewed_keeps_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no descriptor for another socket. The envoy tries again 10 s later."""
    public, secret = zmq.curve_keypair()
    made = line.Line("tcp://127.0.0.1:1", Curve(public=public, secret=secret, server_public=public))
    before = made.fileno()

    def refuse(*_: object) -> None:
        raise zmq.ZMQError(errno.EMFILE)

    with monkeypatch.context() as patched:
        patched.setattr(line.socket_options, "envoy", refuse)
        with pytest.raises(zmq.ZMQError):
            made.renew()
    assert made.fileno() == before
    assert made.receive() is None
    made.renew()
    assert made.receive() is None
    made.close()
