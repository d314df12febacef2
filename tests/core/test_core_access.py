"""core/access: which orders the control socket and the bus take."""

from __future__ import annotations

from zmsvc.core.access import BUS, CONTROL, REPEATABLE, OrderRule, Verb, Who, bus, control


def test_each_socket_takes_the_orders_of_its_column_alone() -> None:
    orders = [
        OrderRule("look", control=Who.GROUP, repeatable=True),
        OrderRule("end", control=Who.OWNER, bus=("context",)),
        OrderRule("top", bus=("state",)),
    ]
    assert control(orders) == {"look": Who.GROUP, "end": Who.OWNER}
    assert bus(orders) == {"context": ("end",), "process": (), "state": ("top",)}


def test_the_bus_gives_no_order_that_only_an_operator_may_give() -> None:
    assert {each for topic in BUS.values() for each in topic} == {
        "start", "stop", "restart", "exit", "request", "top"
    }  # fmt: skip
    assert {name for name, who in CONTROL.items() if who is Who.OWNER} == {
        "reload", "reload-dry-run", "reexec", "restart-device", "exit"
    }  # fmt: skip
    assert {str(verb) for verb in Verb} <= CONTROL.keys()
    assert not REPEATABLE & {"restart", "signal", "exit", "reload"}


def test_a_client_may_repeat_each_question() -> None:
    assert {"status", "events", "why", "stack", "wait", "quarantine", "reload-dry-run"} <= REPEATABLE
