"""The last values of senders and topics: which are kept, and the messages by which a subscriber gets them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from zmsvc.core import last_values, messages
from zmsvc.core.errors import ProtocolError
from zmsvc.core.last_values import LastValues, LogPosition, Request, RetainedSnapshot, Retention, retention
from zmsvc.core.message_origin import MessageOrigin, origin_of


def key(sender: str, topic: str = "t") -> last_values.Key:
    return "TX", sender, topic


def kept(values: LastValues) -> list[str]:
    return [sender for (_, sender, _), _ in values.items()]


def test_the_message_that_was_replaced_least_recently_is_dropped_first() -> None:
    values = LastValues(Retention(max_messages=3, max_bytes=100))
    for sender in ("a", "b", "c", "a"):
        assert values.put(key(sender), LogPosition(0, 10)) == 0
    assert values.put(key("d"), LogPosition(0, 10)) == 1
    assert (kept(values), values.size) == (["c", "a", "d"], 30)
    assert (values.place(key("d")), values.place(key("b"))) == (LogPosition(0, 10), None)
    assert values.put(key("e"), LogPosition(0, 90)) == 2
    assert (kept(values), values.size) == (["d", "e"], 100)


def test_no_sender_makes_it_keep_more_than_its_limits() -> None:
    values = LastValues(Retention(max_messages=50, max_bytes=1000))
    given_up = sum(values.put(key(f"s{n % 77}", f"t{n % 13}"), LogPosition(0, n % 100)) for n in range(5000))
    assert len(values) <= 50
    assert values.size <= 1000
    assert values.size == sum(place.size for _, place in values.items())
    assert given_up > 0
    assert not values.fits(1001)
    assert values.fits(1000)


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({}, Retention()),
        ({"max_messages": " 5 ", "max_bytes": "2M"}, Retention(max_messages=5, max_bytes=2 << 20)),
        ({"max_bytes": "1K"}, Retention(max_bytes=1024)),
        ({"max_bytes": "1023"}, "max_bytes '1023' is out of range, expected bytes from 1K to 64M, such as 16M"),
        ({"max_messages": "0"}, "max_messages '0' is out of range, expected a whole number from 1 to 20000"),
        ({"max_bytes": "65M"}, "max_bytes '65M' is out of range, expected bytes from 1K to 64M, such as 16M"),
        ({"max_bytes": "much"}, "max_bytes 'much' is not a number of bytes, expected bytes from 1K to 64M, such as 16M"),
        ({"max_bytes": ["1M", "2M"]}, "max_bytes '' is not a number of bytes, expected bytes from 1K to 64M, such as 16M"),
    ],
)  # fmt: skip
def test_the_limits_are_read_from_the_configuration(
    configuration: dict[str, Any], expected: Retention | str
) -> None:
    if isinstance(expected, Retention):
        assert retention(configuration) == expected
    else:
        with pytest.raises(ValueError, match=re.escape(expected)):
            retention(configuration)


HEAD = messages.header(transaction="TX", service_id="ts_1", action="request", service_name="x")


def test_a_request_is_read_as_it_was_written() -> None:
    request = Request(topics=("a", "b"), address="TX:ts_1:7.1", recipient="ts_1")
    frame = messages.encode("zmsvc.snapshot.TX:ts_last", request.body(HEAD))
    assert last_values.request_of(messages.decode(frame)[1]) == request


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"topics": "a", "answer_to": "x"},
        {"topics": ["a"] * 1001, "answer_to": "x"},
        {"topics": ["a", 1], "answer_to": "x"},
        {"topics": ["a @@@ b"], "answer_to": "x"},
        {"topics": ["a"], "answer_to": 1},
        {"topics": ["a"], "answer_to": "x @@@ y"},
        {"topics": ["a"], "answer_to": "x" * 257},
        {"topics": ["a"]},
    ],
)
def test_a_bad_request_is_refused(content: Any) -> None:
    with pytest.raises(ProtocolError):
        last_values.request_of({"header": HEAD, "content": content})


@pytest.mark.parametrize(
    "text", [b'{"header":{"a":1},"content":",\\"message\\":"}', b'{"x": 1.0, "message":{"message":2}}', b"{no JSON"]
)  # fmt: skip
def test_an_answer_passes_a_message_on_unchanged(text: bytes) -> None:
    message = b'te"mp @@@ ' + text
    head = messages.header(
        transaction="TX", service_id="ts_last", action="retained", service_name="x", recipient="ts_1"
    )
    frame = last_values.answer("TX:ts_1:7.1", head, message)
    topic, _, answer = frame.partition(messages.SEPARATOR)
    assert topic == b"zmsvc.retained.TX:ts_1:7.1"
    assert last_values.answer_of(answer) == last_values.Answer(sender="TX:ts_last", frame=message)
    if text != b"{no JSON":
        assert json.loads(answer) == {"header": head, "topic": 'te"mp', "message": json.loads(text)}


def test_the_end_of_an_answer_names_who_has_answered() -> None:
    frame = last_values.end("A", HEAD, 5)
    answer = last_values.answer_of(frame.partition(messages.SEPARATOR)[2])
    assert answer == last_values.Answer(sender="TX:ts_1", frame=None)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"header":1}', b'{"message":{}}', b'{"topic":1,"message":{}}']
)
def test_garbage_is_not_taken_for_an_answer(text: bytes) -> None:
    try:
        answer = last_values.answer_of(text)
    except ProtocolError:
        return
    assert answer.frame is None


def told(snapshot: RetainedSnapshot) -> list[str]:
    return [frame.decode() for frame in (*snapshot.retained(), *snapshot.live())]


def numbered(sequence: int | None, launch: int = 5, sender: str = "a") -> MessageOrigin:
    return MessageOrigin(
        transaction="TX", sender=sender, launch=None if sequence is None else launch, sequence=sequence
    )


def add(snapshot: RetainedSnapshot, name: str, origin: MessageOrigin, *, retained: bool = False) -> None:
    snapshot.add("t", origin, name.encode(), retained=retained)


def test_messages_that_are_not_newer_than_the_retained_one_are_dropped() -> None:
    snapshot = RetainedSnapshot(["TX:ts_last"])
    add(snapshot, "a98", numbered(98))
    add(snapshot, "a100", numbered(100))
    add(snapshot, "a100 retained", numbered(100), retained=True)
    add(snapshot, "b7 retained", numbered(7, sender="b"), retained=True)
    add(snapshot, "a9 of the launch before", numbered(900, launch=4))
    add(snapshot, "a101", numbered(101))
    add(snapshot, "a1 of the next launch", numbered(1, launch=6))
    add(snapshot, "c1", numbered(1, sender="c"))
    assert told(snapshot) == [
        "a100 retained", "b7 retained", "a101", "a1 of the next launch", "c1"
    ]  # fmt: skip


def test_a_message_without_a_number_is_delivered_once() -> None:
    snapshot = RetainedSnapshot(["TX:ts_last"])
    add(snapshot, "a", numbered(None))
    add(snapshot, "a retained", numbered(None), retained=True)
    add(snapshot, "b retained", numbered(None, sender="b"), retained=True)
    add(snapshot, "b of another LastValue", numbered(None, sender="b"), retained=True)
    assert told(snapshot) == ["b retained", "a"]


def test_the_newer_one_of_two_retained_messages_counts() -> None:
    snapshot = RetainedSnapshot([])
    for sequence in (3, 5, 4):
        add(snapshot, f"a{sequence}", numbered(sequence), retained=True)
    assert told(snapshot) == ["a5"]


def test_a_snapshot_ends_when_every_last_value_has_sent_all_or_it_is_full() -> None:
    snapshot = RetainedSnapshot(["TX:a", "TX:b"], most=3, most_bytes=10)
    by_default = RetainedSnapshot(["TX:a"])
    add(by_default, "x", numbered(1))
    assert not by_default.full
    for sender in ("TX:b", "TX:invented", "TX:b"):
        snapshot.end(sender)
    assert snapshot.pending == {"TX:a"}
    assert not snapshot.full
    add(snapshot, "0123456789", numbered(1))
    assert snapshot.full
    by_count = RetainedSnapshot(["TX:a"], most=3, most_bytes=10)
    for number in range(3):
        add(by_count, "x", numbered(number), retained=True)
    assert by_count.full


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (messages.published(messages.published_head("t", messages.encoded(HEAD | {"launch": 3})), 9, b"{}").partition(b" @@@ ")[2],
            MessageOrigin(transaction="TX", sender="ts_1", launch=3, sequence=9)),
        (b'{"header": {"sequence": 2, "launch": true, "recipient": "ts_9", "service_id": 5}}',
            MessageOrigin(sequence=2, recipient="ts_9")),
        (b"{}", MessageOrigin()),
        (b"[]", None),
        (b"{", None),
    ],
)  # fmt: skip
def test_the_origin_of_a_message_is_what_its_header_says(text: bytes, origin: MessageOrigin | None) -> None:
    assert origin_of(text) == origin


def test_invented_names_of_one_transaction_do_not_displace_others() -> None:
    names = [f"A:{number}" for number in range(5000)] + [f"T{number}:ts_last" for number in range(900)]
    names += ["no name", "x:y:z", "..:a", ":a", "A:"]
    chosen = last_values.chosen(names)
    assert {each for each in names if each.startswith("T")} <= {*chosen}
    assert len(chosen) == 908
    assert len(last_values.chosen(f"T{number}:ts_last" for number in range(5000))) == last_values.MAX_ASKED
