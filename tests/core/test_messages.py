"""core/messages: each message can be read again, its keys are in the promised order, and a bad frame raises
only ProtocolError.
"""

from __future__ import annotations

import json
import string
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_strategy import json_values

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError, ZmsvcError
from zmsvc.core.messages import (
    MAX_ECHO,
    MAX_INFO,
    Order,
    context_infos,
    control,
    decode,
    encode,
    header,
    order,
    prefix,
    process,
)

texts = st.text(max_size=8)
values = json_values(texts)
bodies = st.dictionaries(texts.filter(lambda name: name != "header"), values, max_size=3)
headers = st.dictionaries(texts | st.sampled_from(messages.HEADER_ORDER), texts, max_size=5)
topics = st.text(string.ascii_letters + string.digits, min_size=1, max_size=9)

HEAD = {"service_transaction": "TX", "service_id": "ts_100", "action": "start", "service_name": "echo"}


@given(topic=topics, head=st.none() | headers, body=bodies)
def test_every_message_round_trips(topic: str, head: dict[str, str] | None, body: dict[str, Any]) -> None:
    whole = {**body, "header": head} if head is not None else body
    assert decode(encode(topic, whole)) == (topic, whole)


@given(headers, bodies)
def test_the_header_comes_first_and_its_keys_in_order(head: dict[str, str], body: dict[str, Any]) -> None:
    text = encode("control", {**body, "header": head}).partition(messages.SEPARATOR)[2]
    read = json.loads(text, object_pairs_hook=list)
    assert read[0][0] == "header"
    known = [key for key in messages.HEADER_ORDER if key in head]
    assert [key for key, _ in read[0][1]][: len(known)] == known


def test_a_documented_prefix_subscription_matches() -> None:
    head = header(
        transaction="TX", service_id="ts_100", action="started", service_name="echo_action", extra=1
    )
    frame = encode("control", {"content": {}, "header": dict(reversed(head.items()))})
    assert frame.startswith(b'control @@@ {"header":{"service_transaction":"TX","service_id":"ts_100"')
    assert frame.startswith(prefix("control"))
    assert not frame.startswith(prefix("contro"))


def test_text_is_encoded_as_utf8() -> None:
    assert "grüß @@@ 世界".encode() in encode("control", {"content": "grüß @@@ 世界"})
    assert decode(encode("control", {"content": "a @@@ b"}))[1] == {"content": "a @@@ b"}
    half = encode("control", {"content": "grüß \ud800"})
    assert decode(half)[1] == {"content": "grüß \ud800"}
    assert half.decode(), (
        "half of a surrogate pair is not in the way of those who take it for UTF-8, as they may"
    )


def harmless(frame: bytes) -> None:
    """Check that a frame is read, or refused with a reason."""
    why = "cannot read"
    try:
        order(*decode(frame))
    except ProtocolError as error:
        why = str(error)
    assert why.startswith("cannot read")


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"context @@@ " + data))
def test_no_bytes_raise_anything_but_a_message_error(frame: bytes) -> None:
    harmless(frame)


@given(topic=st.sampled_from(["context", "process"]), body=values)
def test_no_json_body_raises_anything_but_a_message_error(topic: str, body: Any) -> None:
    harmless(encode(topic, body) if isinstance(body, dict) else prefix(topic) + json.dumps(body).encode())


shapes = st.recursive(
    texts | st.none() | st.just({"id": "ts_100"}),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "header",
                    "content",
                    "configuration",
                    "TaskService",
                    "Task",
                    "message",
                    "id",
                    "action",
                    "service_id",
                    "transaction",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    topic=st.sampled_from(["context", "process"]),
    body=st.dictionaries(st.sampled_from(["header", "content", "TaskService", "Task"]), shapes),
)
def test_no_near_valid_body_raises_anything_but_a_message_error(topic: str, body: dict[str, Any]) -> None:
    try:
        read = order(topic, body)
    except ProtocolError:
        return
    assert isinstance(read.action, str)
    assert all(
        isinstance(each, str) for each in (*read.tasks, read.transaction, read.service_id, read.service_name)
    )


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"no separator", "no ' @@@ '"),
        (b"context@@@{}", "no ' @@@ '"),
        (b"context @@@ {", "Expecting"),
        (b"context @@@ ", "Expecting value"),
        (b"context @@@ []", "not a JSON object"),
        (b"context @@@ 5", "not a JSON object"),
        (b'context @@@ {"header":[]}', "header is not a JSON object"),
        (b'context @@@ {"header":null}', "header is not a JSON object"),
        (b'\xff\xfe @@@ {"a":1}', "codec"),
        (b'context @@@ {"a":"\xff"}', "codec"),
        (b"context @@@ " + b"[" * 100_000, "deeper than 500"),
        (b"context @@@ " + b"9" * 10_000, "digit"),
    ],
)
def test_a_malformed_frame_is_refused_with_the_reason(frame: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match="cannot read message") as caught:
        decode(frame)
    assert why in str(caught.value)
    assert isinstance(caught.value, ZmsvcError)


def test_any_order_of_keys_and_spacing_is_read() -> None:
    text = (
        b'context @@@  { "content" : { "configuration" : { "TaskService" : [ "a" , {"id": "b", "x": 1} ] } '
        b"},\n"
        b' "header": {"action": "stop", "service_id": "context001"} }'
    )
    assert order(*decode(text)) == Order(
        topic="context",
        action="stop",
        transaction="",
        service_id="context001",
        service_name="context",
        tasks=("a", "b"),
        configurations={"a": "a", "b": {"id": "b", "x": 1}},  # type: ignore[dict-item]
    )


@pytest.mark.parametrize("services", [None, "", [], {}, ...])
def test_no_task_means_all(services: Any) -> None:
    content = {} if services is ... else {"configuration": {"TaskService": services}}
    read = order("context", {"header": HEAD, "content": content})
    assert (read.tasks, read.transaction, read.action) == ((), "TX", "start")


def test_a_single_task_may_stand_without_a_list() -> None:
    read = order("context", {"header": HEAD, "content": {"configuration": {"TaskService": {"id": "ts_100"}}}})
    assert read.tasks == ("ts_100",)


@pytest.mark.parametrize(
    ("topic", "body", "why"),
    [
        ("context", {"content": {}}, "no header"),
        ("context", {"header": {"service_id": "x"}}, "header.action"),
        ("context", {"header": {"action": "start"}}, "header.service_id"),
        ("context", {"header": {"action": "start", "service_id": 5}}, "header.service_id"),
        ("context", {"header": {"action": 5, "service_id": "x"}}, "header.action"),
        (
            "context",
            {"header": HEAD, "content": {"configuration": {"TaskService": [{"x": 1}]}}},
            "without id",
        ),
        ("context", {"header": HEAD, "content": {"configuration": {"TaskService": [["a"]]}}}, "without id"),
        ("process", {}, "no Task"),
        ("process", {"Task": "text"}, "no Task"),
        ("process", {"TaskService": []}, "no Task"),
        ("process", {"Task": {}}, "no message"),
        ("process", {"Task": {"message": {}}}, "no header"),
        ("process", {"Task": {"message": {"header": {"action": "start"}}}}, "no service_id"),
        ("process", {"Task": {"message": {"header": {"service_id": "a"}}}}, "header.action"),
    ],
)
def test_a_missing_field_is_named(topic: str, body: dict[str, Any], why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        order(topic, body)


SOURCE: dict[str, Any] = {
    "id": "ts_100",
    "instance": "EchoAction",
    "Task": {"description": "d", "message": {"header": {"action": "x"}, "content": {"c": 1}}},
}


def test_a_process_message_is_the_tasks_own_with_the_header_of_this_order() -> None:
    body = process(
        SOURCE, transaction="TX", action="stop", service_id="ts_100", service_name="echo", origin="me"
    )
    assert body["Task"] == {
        "description": "d",
        "message": {
            "header": {"action": "stop", "service_id": "ts_100", "service_name": "echo", "transaction": "TX"},
            "content": {"c": 1},
        },
    }
    assert (body["id"], body["instance"], body["header"]["origin"]) == ("ts_100", "EchoAction", "me")
    read = order(*decode(encode("process", body)))
    assert (read.action, read.transaction, read.service_id, read.tasks) == (
        "stop",
        "TX",
        "ts_100",
        ("ts_100",),
    )
    assert SOURCE["Task"]["message"]["header"] == {"action": "x"}, "the file's own text stays as it is"


@pytest.mark.parametrize(
    "source", [{}, {"Task": ""}, {"Task": {"message": ""}}, {"Task": {"message": {"header": ""}}}]
)
def test_a_process_message_of_a_bare_source_can_be_read(source: dict[str, Any]) -> None:
    body = process(source, transaction="TX", action="start", service_id="a", service_name="", origin="me")
    assert order("process", body).tasks == ("a",)


@pytest.mark.parametrize("wrap", ["content", "TaskService", None])
def test_a_process_message_is_read_in_the_forms_of_other_clients(wrap: str | None) -> None:
    inner = {"id": "a", "Task": {"message": {"header": {"action": "stop", "service_transaction": "TX"}}}}
    body = (
        {"content": {"TaskService": inner}}
        if wrap == "content"
        else {"TaskService": inner}
        if wrap
        else inner
    )
    read = order("process", body)
    assert (read.action, read.transaction, read.tasks) == ("stop", "TX", ("a",))


def test_a_transaction_that_is_not_a_string_is_ignored() -> None:
    head = {"action": "stop", "service_id": "a", "transaction": 5}
    assert order("process", {"Task": {"message": {"header": head}}}).transaction == ""


@given(
    items=st.dictionaries(texts | st.sampled_from(["result", "device_action", "pid"]), values, max_size=4),
    success=st.booleans(),
)
def test_items_cannot_overwrite_the_promised_fields(items: dict[str, Any], success: bool) -> None:
    body = control(HEAD, success=success, device_action="shout", pid=5, items=items)
    status = body["content"]["status"]
    assert (status["result"], status["device_action"], status["pid"]) == (
        "success" if success else "failure",
        "shout",
        5,
    )
    own = {name: value for name, value in items.items() if name not in ("result", "device_action", "pid")}
    assert {name: status[name] for name in own} == own


def infos(pictures: dict[str, Any], *changed: str) -> list[dict[str, Any]]:
    """Return the bodies of a round of `context_info` of these transactions, with each `data` as one
    mapping.
    """
    heads = [
        header(transaction=name, service_id="c", action="update", service_name="context") for name in changed
    ]
    bodies = [decode(frame)[1] for frame in context_infos(heads, pictures)]
    assert [body["header"]["service_transaction"] for body in bodies] == list(changed)
    return [
        {name: part for each in body["content"]["status"]["data"] for name, part in each.items()}
        for body in bodies
    ]


def test_context_info_describes_the_context() -> None:
    (frame,) = context_infos([HEAD], {"TX": {"tasks": []}})
    assert decode(frame) == (
        "control",
        {
            "header": HEAD,
            "content": {
                "status": {
                    "result": "success",
                    "device_action": "context_info",
                    "data": [{"TX": {"tasks": []}}],
                }
            },
        },
    )
    assert frame.startswith(prefix("control") + b'{"header":{"service_transaction":')
    assert b": " not in frame
    assert context_infos([], {"TX": {}}) == []


@given(
    pictures=st.dictionaries(texts, st.dictionaries(texts, values, max_size=2), min_size=1, max_size=4),
    data=st.data(),
)
def test_each_changed_transaction_gets_a_context_info_of_all_transactions(
    pictures: dict[str, Any], data: st.DataObject
) -> None:
    changed = data.draw(st.lists(st.sampled_from(sorted({*pictures, "gone"})), unique=True))
    assert infos(pictures, *changed) == [json.loads(json.dumps(pictures))] * len(changed)


@pytest.mark.parametrize("count", [1, 2, 50, 400])
def test_context_infos_of_many_transactions_grow_linearly(count: int) -> None:
    pictures = {f"T{number}": {"tasks": ["x" * 10_000]} for number in range(count)}
    heads = [
        header(transaction=name, service_id="c", action="update", service_name="context") for name in pictures
    ]
    size = sum(map(len, context_infos(heads, pictures)))
    assert size <= max(MAX_INFO + 1000 * count, 2 * count * 10_500)
    *others, last = infos(pictures, *pictures)
    assert last == pictures, "a subscriber to all of it knows all of it in the end"
    for name, told in zip(pictures, others, strict=False):
        assert told == (pictures if count < 10 else {name: pictures[name]})


def test_one_change_in_a_large_context_sends_the_whole_context_info() -> None:
    pictures = {f"T{number}": {"tasks": ["x" * 10_000]} for number in range(400)}
    assert infos(pictures, "T7") == [pictures]
    gone, last = infos(pictures, "gone", "T7")
    assert (gone, last) == ({}, pictures)


def test_context_infos_that_are_too_long_have_one_transaction_and_no_configurations() -> None:
    task = {"service_id": "t", "pid": 5, "task": {"id": "t", "text": "x" * 3000}}
    small = {"contextId": "c", "configuration": {"a": "b"}, "tasks": [{**task, "task": {"id": "t"}}]}
    long = {"contextId": "c", "configuration": {"a": "b"}, "tasks": [task] * 3}
    pictures, heads = (
        {"A": small, "B": small, "C": long},
        [header(transaction=name, service_id="c", action="update", service_name="context") for name in "ABC"],
    )

    def told(longest: int) -> list[list[dict[str, Any]]]:
        frames = context_infos(heads, pictures, longest=longest + MAX_ECHO)
        assert all(len(frame) <= longest + MAX_ECHO for frame in frames)
        return [decode(frame)[1]["content"]["status"]["data"] for frame in frames]

    each = [{name: content} for name, content in pictures.items()]
    assert told(20_000) == [each] * 3
    short = {**long, "configuration": {}, "tasks": [{**task, "task": {}}] * 3}
    assert told(9000) == [[*each[:2], {"C": short}]] * 3
    assert told(300) == [[{"A": small}], [{"B": small}], [{"C": short}]]


@pytest.mark.parametrize(
    "body", [{"a": 1}, {"a": 1, "header": {"x": 2, "action": "go"}}], ids=["without header", "with header"]
)
def test_any_mapping_can_be_a_body(body: dict[str, Any]) -> None:
    assert messages.encode("t", MappingProxyType(body)) == messages.encode("t", body)
