"""The sockets of `<listen>`: their addresses, and the time in which the keeper holds them, and the descriptor
stores of tasks.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from simulation import Simulation, rule, task

from zmsvc.core import checks
from zmsvc.core import effects as fx
from zmsvc.core.listening import ListenSocket, address, name, socket_from_json
from zmsvc.core.model import TaskDefinition
from zmsvc.core.values import endpoint

WEB = ListenSocket(address="tcp://127.0.0.1:8080", name="web")
FILE = ListenSocket(address="ipc:///run/app.sock")
HELD = replace(WEB, name="")


def listening(one: TaskDefinition, *sockets: ListenSocket) -> TaskDefinition:
    return replace(one, listen=sockets)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", "tcp://*:8080"),
        ("1", "tcp://*:1"),
        ("65535", "tcp://*:65535"),
        (f"/{'x' * 106}", f"ipc:///{'x' * 106}"),
        (" 127.0.0.1:80\n", "tcp://127.0.0.1:80"),
        ("tcp://127.0.0.1:80", "tcp://127.0.0.1:80"),
        ("*:80", "tcp://*:80"),
        ("tcp://*:80", "tcp://*:80"),
        ("[::1]:80", "tcp://[::1]:80"),
        ("tcp://[0:0::1]:80", "tcp://[::1]:80"),
        ("[fe80::1%eth0]:80", "tcp://[fe80::1%eth0]:80"),
        ("/run/a b.sock", "ipc:///run/a b.sock"),
        ("ipc:///run/a", "ipc:///run/a"),
        ("unix:///run/a", "ipc:///run/a"),
        ("@name", "ipc://@name"),
        ("ipc://@name", "ipc://@name"),
    ],
)
def test_an_address_has_the_form_of_systemd_or_of_zeromq(text: str, expected: str) -> None:
    assert address(text) == expected
    assert address(expected) == expected
    made = ListenSocket(address=expected)
    assert str(made.endpoint) == expected
    assert socket_from_json(made.as_json()) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "65536",
        "localhost:80",
        "tcp://80",
        "tcp://h:80",
        "::1:80",
        "[::g]:80",
        "1.2.3:80",
        "run/a",
        "ipc://a",
        "/",
        "/run/",
        "@",
        f"/{'x' * 107}",
        "udp://1.2.3.4:5",
        "1.2.3.4",
        "-1",
        "http://1.2.3.4:80",
    ],
)
def test_a_malformed_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        address(text)


@pytest.mark.parametrize("text", ["", "a b", "a:b", "ü", "x" * 256])
def test_a_name_is_one_that_listen_fdnames_can_have(text: str) -> None:
    assert name(" web-1 ") == "web-1"
    with pytest.raises(ValueError, match="expected"):
        name(text)


def test_sockets_that_cannot_be_bound_together_are_a_fault() -> None:
    bus = {"FrontBind": endpoint("tcp://127.0.0.1:5557", bind=True)}
    one = listening(task("a"), WEB)
    assert checks.faults([one], bus) == []
    for other in (
        listening(task("b"), replace(WEB, name="x")),
        listening(task("b"), ListenSocket(address="tcp://*:8080")),
        listening(task("b"), ListenSocket(address="tcp://127.0.0.1:5557")),
        listening(task("b"), FILE, FILE),
        listening(task("b"), replace(FILE, address="ipc://@a", mode=0o600)),
        listening(task("b"), *(ListenSocket(address=f"tcp://*:{port}") for port in range(1, 34))),
    ):
        (fault,) = checks.faults([one, other], bus)
        assert (fault.task, "expected" in fault.text) == (1, True)


def test_the_keeper_holds_the_sockets_of_a_task_from_its_start_until_it_rests() -> None:
    sim = Simulation.of(listening(task("a", rule("on_fail", "restart", "a")), WEB, FILE), task("b"))
    sim.begin()
    assert sim.keeper.sockets == {HELD, FILE}
    orders = [type(effect) for effect in sim.effects if isinstance(effect, fx.Launch | fx.HoldSockets)]
    assert fx.HoldSockets in orders
    sim.ready("a")
    sim.end("a", code=1)
    assert sim.sub_state("a") == "back-off"
    assert sim.keeper.sockets == {HELD, FILE}
    sim.ring()
    sim.ready("a")
    sim.ask("restart", "a")
    sim.ready("a")
    assert len(sim.told(fx.HoldSockets)) == 1
    sim.ask("stop", "a")
    assert sim.keeper.sockets == frozenset()
    sim.ask("start", "a")
    assert sim.keeper.sockets == {HELD, FILE}


def test_replicas_and_transactions_share_a_socket_until_the_last_of_them_rests() -> None:
    sim = Simulation.of(replace(listening(task("a"), WEB), replicas=2))
    sim.begin()
    sim.ask("start", transaction="T2")
    sim.ask("stop", transaction="T1")
    sim.ask("stop", "a@1", transaction="T2")
    assert sim.keeper.sockets == {HELD}
    sim.ask("stop", "a@2", transaction="T2")
    assert sim.keeper.sockets == frozenset()


def test_a_reload_holds_the_sockets_of_the_new_file() -> None:
    sim = Simulation.of(listening(task("a"), WEB), task("b"))
    sim.begin()
    for one in ("a", "b"):
        sim.ready(one)
    sim.reload(listening(task("a"), WEB), listening(task("b"), FILE))
    assert sim.keeper.sockets == {HELD, FILE}
    sim.reload(listening(task("a"), replace(WEB, name="other")), task("b"))
    assert sim.keeper.sockets == {HELD}
    sim.reload(task("b"))
    assert sim.keeper.sockets == frozenset()


@pytest.mark.parametrize("saved", [True, False])
def test_a_new_supervisor_orders_the_sockets_again(saved: bool) -> None:
    sim = Simulation.of(listening(task("a"), WEB))
    sim.begin()
    sim.ready("a")
    sim.die_at = (sim.turns + 1, 0 if saved else None)
    sim.ask("stop", "a")
    sim.happen()
    assert sim.crashes == 1
    assert sim.keeper.sockets == (frozenset() if sim.task("a").resting else {HELD})
    sim.ask("stop", "a")
    assert sim.keeper.sockets == frozenset()


def test_a_descriptor_store_is_held_from_the_start_of_its_task_until_it_rests() -> None:
    stores = replace(task("a", rule("on_fail", "restart", "a")), file_descriptor_store_max=3)
    sim = Simulation.of(stores, task("b"))
    sim.begin()
    held = frozenset({(("T1", "a"), 3)})
    orders = [type(effect) for effect in sim.effects if isinstance(effect, fx.Launch | fx.HoldStores)]
    assert (sim.keeper.stores, fx.HoldStores in orders) == (held, True)
    sim.ready("a")
    sim.end("a", code=1)
    assert (sim.sub_state("a"), sim.keeper.stores) == ("back-off", held)
    sim.ring()
    sim.ready("a")
    sim.ask("restart", "a")
    sim.ready("a")
    sim.crash([])
    assert sim.keeper.stores == held
    sim.ask("start", transaction="T2")
    assert sim.keeper.stores == held | {(("T2", "a"), 3)}, "each run has a store of its own"
    sim.ask("stop", "a", transaction="T1")
    assert sim.keeper.stores == {(("T2", "a"), 3)}
    sim.ask("stop", transaction="T2")
    assert sim.keeper.stores == frozenset()


def test_a_store_of_a_task_that_has_failed_for_good_is_emptied() -> None:
    sim = Simulation.of(replace(task("a"), file_descriptor_store_max=3))
    sim.begin()
    sim.ready("a")
    sim.end("a", code=1)
    assert (sim.sub_state("a"), sim.keeper.stores) == ("failed", frozenset())
