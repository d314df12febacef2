"""The messages of a frame are the same whether or not a frame with the same start has come before it."""

from __future__ import annotations

import logging

import pytest
from forked import launch_spec
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError
from zmsvc.task.inbox import Inbox, Message, RetainedFrame
from zmsvc.task.publications import Publications

LOG = logging.getLogger("test")


def inbox(*, every_transaction: bool = False) -> Inbox:
    return Inbox(
        ("raw", "other"), transaction="TX", service_id="me", every_transaction=every_transaction, log=LOG
    )


def header(**more: object) -> messages.Body:
    known = {"transaction": "TX", "service_id": "a", "action": "published", "service_name": "x"}
    return messages.header(**{**known, **more})  # type: ignore[arg-type]


HEADERS = [
    header(launch=1),
    header(launch=2),
    header(service_id="b", launch=1),
    header(service_id="me", launch=1),
    header(transaction="OTHER", launch=1),
    header(transaction="", launch=1),
    header(launch=1, recipient="me"),
    header(launch=1, recipient="b"),
    header(launch=1, dropped=3),
    header(launch="x"),
    header(launch=1, more={"deep": 1}),
    header(launch=1, service_name='a,"sequence":7},"content":'),
]
CONTENTS = [
    b"{}",
    b'{"n":1}',
    b"[1,2]",
    b"null",
    b'"text"',
    b"",
    b"{",
    b'1,"other":2',
    b'1,"content":2',
    b" 5 ",
]
NUMBERS = [
    b"1",
    b"2",
    b"3",
    b"9",
    b"0",
    b"007",
    b"-1",
    b"1.5",
    b"1e2",
    b"9" * 19,
    b"9" * 30,
    b" 4",
    b'"5"',
    b"true",
]
ENDS = [b"}", b"}}", b"", b"} ", b',"x":1}']


def frame(topic: str, head: messages.Body, number: bytes, content: bytes, end: bytes) -> bytes:
    start = messages.encoded({"header": head})[:-2]
    return topic.encode() + b" @@@ " + start + b',"sequence":' + number + b'},"content":' + content + end


frames = st.builds(
    frame,
    st.sampled_from(["raw", "other", f"{messages.LAST_NUMBER}raw"]),
    st.sampled_from(HEADERS),
    st.sampled_from(NUMBERS),
    st.sampled_from(CONTENTS),
    st.sampled_from(ENDS),
) | st.builds(lambda number: frame("raw", HEADERS[0], b"%d" % number, b'{"n":1}', b"}"), st.integers(1, 9))


@given(st.lists(frames, max_size=12), st.booleans())
def test_a_frame_means_the_same_whatever_came_before_it(came: list[bytes], every: bool) -> None:
    usual, forgetful = inbox(every_transaction=every), inbox(every_transaction=every)
    for each in came:
        forgetful._known.clear()
        assert usual.message(each) == forgetful.message(each), each
        assert usual.missed == forgetful.missed


def test_the_start_of_each_message_of_the_sdk_is_known_after_the_first_one() -> None:
    sent: list[bytes] = []
    usual = inbox()
    for launch in (1, 2):
        publications = Publications(
            launch_spec(launch=launch, transaction="TX", task="a"),
            lambda each: bool(sent.append(each)) or True,
            repeats=False,
        )
        for number in range(3):
            publications.publish("raw", {"n": number})
    found = [usual.message(each) for each in sent]
    assert [(each.sequence, each.content) for each in found if each] == [
        (number, {"n": number - 1}) for number in (1, 2, 3, 1, 2, 3)
    ]
    assert len(usual._known) == 2
    assert all(type(each) is Message for each in found)
    assert found[1] is not None
    with pytest.raises(AttributeError):
        found[1].topic = "x"  # type: ignore[misc]


def test_starts_that_clients_invent_take_bounded_room() -> None:
    usual = inbox()
    for launch in range(3000):
        assert usual.message(frame("raw", header(launch=launch), b"1", b"{}", b"}")) is not None
    assert len(usual._known) <= 1000


def test_a_retained_message_does_not_count_as_a_gap() -> None:
    usual = inbox()
    first = frame("raw", HEADERS[0], b"5", b"{}", b"}")
    assert usual.message(first) is not None
    again = usual.message(RetainedFrame(first))
    assert again is not None
    assert (again.retained, again.missed) == (True, 0)


def test_a_content_that_does_not_fit_is_told_with_its_number() -> None:
    usual = inbox()
    usual.convert = int
    for number in (b"1", b"2"):
        with pytest.raises(ProtocolError, match=f"cannot use message {int(number)} on raw from a"):
            usual.message(frame("raw", HEADERS[0], number, b'"x"', b"}"))
