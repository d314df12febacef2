"""The messages between the processes: each can be read again, and one of another release is read as far as
possible.
"""

from __future__ import annotations

import dataclasses
import json
import marshal
import os
import types
import typing
from typing import Any

import pytest
from forked import launch_spec
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.errors import ProtocolError
from zmsvc.host.kernel import memfd
from zmsvc.protocol import forking, output, sharing
from zmsvc.protocol import supervision as sv
from zmsvc.protocol.codec import Codec
from zmsvc.protocol.launch import Descriptors, LaunchSpec

CHANNELS: list[tuple[Codec[Any], Any]] = [
    (sv.ORDERS, sv.Order),
    (sv.REPORTS, sv.Report),
    (sharing.ORDERS, sharing.Order),
    (sharing.REPORTS, sharing.Report),
    (output.ORDERS, output.Order),
    (output.REPORTS, output.Report),
]
JSON = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), max_size=3
)


def kinds(union: Any) -> tuple[type[Any], ...]:
    return typing.get_args(union) or (union,)


def strategy(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field of this type."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return st.one_of([st.none() if each is type(None) else strategy(each) for each in inside])
    if origin is tuple:
        return st.lists(strategy(inside[0]), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        return message(hint)
    if hint is float:
        return st.floats(0, 1e6)
    return {int: st.integers(0, 2**31), str: st.text(max_size=8), bool: st.booleans()}.get(hint, JSON)


def message(kind: Any) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: strategy(hint) for name, hint in typing.get_type_hints(kind).items()})


EACH = [pytest.param(codec, kind, id=kind.__name__) for codec, union in CHANNELS for kind in kinds(union)]


@pytest.mark.parametrize(("codec", "kind"), EACH)
@given(data=st.data())
def test_every_message_comes_back_as_it_was_sent(
    codec: Codec[Any], kind: type[Any], data: st.DataObject
) -> None:
    sent = data.draw(message(kind))
    assert codec.decode(json.loads(json.dumps(codec.encode(sent)))) == sent


@pytest.mark.parametrize(("codec", "kind"), EACH)
@given(data=st.data())
def test_a_field_of_a_later_release_is_ignored_and_one_with_a_default_may_be_missing(
    codec: Codec[Any], kind: type[Any], data: st.DataObject
) -> None:
    sent = data.draw(message(kind))
    defaults = {each.name for each in dataclasses.fields(kind) if each.default is not dataclasses.MISSING}
    body = {name: value for name, value in codec.encode(sent).items() if name not in defaults}
    expected = {
        each.name: each.default if each.name in defaults else getattr(sent, each.name)
        for each in dataclasses.fields(kind)
    }
    assert codec.decode(body | {"of a later release": [1]}) == kind(**expected)


@pytest.mark.parametrize(("codec", "kind"), EACH)
def test_a_message_without_a_field_that_it_needs_is_refused(codec: Codec[Any], kind: type[Any]) -> None:
    needed = [
        each.name
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    op = next(op for op, each in codec._kinds.items() if each is kind)
    if not needed:
        assert codec.decode({"op": op}) == kind()
        return
    with pytest.raises(ProtocolError, match=f"cannot read {kind.__name__}: {needed[0]} is missing"):
        codec.decode({"op": op})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"op": "fly"}, "'fly' is not an operation of this channel"),
        ({}, "None is not an operation of this channel"),
        ({"op": "ack", "launch": "7"}, "launch is str, expected int"),
        ({"op": "ack", "launch": True}, "launch is bool, expected int"),
        ({"op": "signal", "launch": 7, "signal": None}, "signal is NoneType, expected str"),
        ({"op": ["ack"]}, "is not an operation of this channel"),
    ],
)
def test_a_message_with_a_wrong_type_is_refused_with_the_field(body: dict[str, Any], why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        sv.ORDERS.decode(body)


def test_every_message_of_a_direction_has_an_operation_of_its_own() -> None:
    for codec, union in CHANNELS:
        assert set(codec._kinds.values()) == set(kinds(union))


@given(
    spec=message(LaunchSpec),
    numbers=st.tuples(*[st.none() | st.integers(3, 90)] * (len(dataclasses.fields(Descriptors)) - 1)),
    sockets=st.lists(st.integers(3, 90), max_size=12),
)
def test_a_launch_reaches_the_task_as_it_was_sent(
    spec: LaunchSpec, numbers: tuple[int | None, ...], sockets: list[int]
) -> None:
    names = [each.name for each in dataclasses.fields(Descriptors) if each.name != "listen"]
    fds = Descriptors(**dict(zip(names, numbers, strict=True)), listen=tuple(sockets))
    memory = memfd.private("launch", forking.encode_launch(spec))
    packet, given = forking.order(fds, memory)
    assert forking.read_launch(packet, list(given.values())) == (spec, fds)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(memory)


def test_the_fork_order_contains_no_launch_data() -> None:
    """The zygote reads the order, and every later task begins with the memory of the zygote."""
    packet, _ = forking.order(Descriptors(cgroup=5), 6)
    assert packet == b"cgroup spec"


def test_the_cgroup_is_the_first_descriptor_of_a_launch() -> None:
    """The zygote passes it to the kernel before the task reads the launch."""
    _, given = forking.order(Descriptors(cgroup=5, exec_gate=6, shared_line=7, curve_server=8), 9)
    assert next(iter(given)) == "cgroup"


def test_unknown_fields_of_a_launch_are_ignored() -> None:
    data = marshal.dumps({**marshal.loads(forking.encode_launch(launch_spec())), "of a later release": 1})
    assert forking.decode_launch(data) == launch_spec()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff"])
def test_an_unknown_operation_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="cannot greet the zygote"):
        forking.decode_hello(data)


@pytest.mark.parametrize("answer", [forking.Forked(pid=4194304), forking.NotForked(number=11)])
def test_an_answer_of_the_zygote_comes_back_as_it_was_sent(answer: forking.Answer) -> None:
    assert forking.decode_answer(forking.encode_answer(answer)) == answer


def test_the_reports_of_a_keeper_of_1_0_are_read() -> None:
    """zmsvc 1.0 sent no protocol number, and an `op` in each entry of a hello, too."""
    child = {"op": "launched", "launch": 3, "pid": 30, "start_time": 300, "executed": True, "tag": ""}
    end = {
        "op": "exited",
        "launch": 2,
        "pid": 20,
        "tag": "",
        "left": False,
        "code": None,
        "signal": "SIGKILL",
        "core": False,
        "oom": False,
    }
    hello = sv.REPORTS.decode({
        "op": "hello", "epoch": "e", "restarts": 1, "stopping": False, "children": [child], "ends": [end],
        "device": {"pid": 9, "restarts": 0, "ready": True}, "cgroup": None, "curve": None,
    })  # fmt: skip
    assert isinstance(hello, sv.Hello)
    assert (hello.protocol, hello.version, hello.zygote_version) == (0, "", "")
    assert hello.children == (sv.Launched(launch=3, pid=30, start_time=300, executed=True),)
    assert hello.ends == (sv.Exited(launch=2, pid=20, left=False, code=None, signal="SIGKILL"),)
    assert hello.device == sv.DeviceState(pid=9, ready=True)


def test_an_exit_from_a_keeper_without_oom_reports_is_not_an_oom_kill() -> None:
    end = sv.REPORTS.decode(
        {"op": "exited", "launch": 2, "pid": 20, "left": False, "code": 0, "signal": None}
    )
    assert end == sv.Exited(launch=2, pid=20, left=False, code=0, signal=None, oom=False)


def test_a_launch_has_the_fields_that_a_keeper_of_1_0_reads() -> None:
    """The keeper of 1.0 reads each of these from the order without a default."""
    looked_for = {
        "op",
        "launch",
        "context",
        "context_id",
        "transaction",
        "task",
        "instance",
        "service_name",
        "service_type",
        "device_action",
        "description",
        "configuration",
        "search",
        "command",
        "frontend",
        "backend",
        "notify",
        "log",
        "cause",
        "pidfile",
        "cgroup",
        "user",
        "group",
        "nice",
        "rlimits",
        "environment",
        "watchdog",
        "serves",
    }
    assert looked_for <= sv.ORDERS.encode(launch_spec()).keys()
