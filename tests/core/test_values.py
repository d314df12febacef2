"""core/values: endpoints and amounts. The tests of time spans are in tests/host/test_config.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.values import (
    BoundEndpoints,
    Endpoint,
    amount,
    apart,
    collide,
    endpoint,
    quote,
    reaches,
    timespan,
    whole,
)


def bound(text: str) -> object:
    return endpoint(text, bind=True)


@pytest.mark.parametrize(
    "text",
    [
        "tcp://*:1",
        "tcp://127.0.0.1:65535",
        "tcp://[::1]:5556",
        "tcp://eth0:5556",
        "tcp://a-b.example:5556",
        "ipc:///run/x",
    ],
)
def test_an_endpoint_round_trips(text: str) -> None:
    assert str(bound(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://",
        "tcp://host",
        "tcp://:5556",
        "tcp://host:0",
        "tcp://host:65536",
        "tcp://host:*",
        "tcp://host:+5",
        "tcp://host:5 ",
        "host:5556",
        "inproc://x",
        "ipc://",
        "ipc:///",
        "ipc://x",
        "ipc://*",
        "ipc:///x/",
        "ipc://@",
        "ipc://@x",
        "tcp://a b:5",
        "ipc:///" + "é" * 54,
    ],
)
def test_a_malformed_endpoint_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        bound(text)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("tcp://*:1", "tcp://127.0.0.1:1", True),
        ("tcp://0.0.0.0:1", "tcp://eth0:1", True),
        ("tcp://[::]:1", "tcp://*:1", True),
        ("tcp://localhost:1", "tcp://127.0.0.1:1", True),
        ("tcp://[0:0::1]:1", "tcp://[::1]:1", True),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2", False),
        ("tcp://127.0.0.1:1", "tcp://127.0.0.2:1", False),
        ("ipc:///a", "ipc:///a", True),
        ("ipc:///a", "ipc:///A", False),
        ("ipc:///a", "tcp://*:1", False),
    ],
)
def test_two_endpoints_collide_when_both_cannot_be_bound(one: str, other: str, both: bool) -> None:
    left, right = endpoint(one, bind=True), endpoint(other, bind=True)
    assert collide(left, right) is collide(right, left) is both


PLACES = st.sampled_from(
    [
        endpoint(text, bind=True)
        for text in (
            "tcp://*:1", "tcp://0.0.0.0:1", "tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://eth0:1", "tcp://*:2",
            "tcp://127.0.0.1:2", "ipc:///a", "ipc:///b",
        )
    ]
)  # fmt: skip


@given(st.lists(PLACES, max_size=6), PLACES)
def test_the_first_endpoint_that_collides_with_another_one_is_found(
    bound: list[Endpoint], place: Endpoint
) -> None:
    there: BoundEndpoints[int] = BoundEndpoints()
    for number, each in enumerate(bound):
        there.add(each, number)
    colliding = [number for number, each in enumerate(bound) if collide(each, place)]
    assert there.first_collision(place) == (colliding[0] if colliding else None)


@pytest.mark.parametrize(
    ("connect", "bind", "there", "elsewhere"),
    [
        ("tcp://127.0.0.1:1", "tcp://*:1", True, False),
        ("tcp://localhost:1", "tcp://127.0.0.1:1", True, False),
        ("tcp://10.0.0.1:1", "tcp://127.0.0.1:1", True, True),
        ("tcp://example.org:1", "tcp://10.0.0.1:1", True, False),
        ("tcp://127.0.0.1:1", "tcp://*:2", False, False),
        ("ipc:///a", "ipc:///b", False, False),
        ("ipc:///a", "tcp://*:1", False, False),
    ],
)
def test_a_connect_address_is_matched_with_the_bind_address(
    connect: str, bind: str, there: bool, elsewhere: bool
) -> None:
    left, right = endpoint(connect, bind=False), endpoint(bind, bind=True)
    assert (reaches(left, right), apart(left, right)) == (there, elsewhere)


@given(st.integers(0, (1 << 63) - 1))
def test_an_amount_may_be_a_plain_number(number: int) -> None:
    assert amount(str(number)) == number


@pytest.mark.parametrize(
    ("text", "number"), [("2K", 2048), (" 3M ", 3 << 20), ("4G", 4 << 30), ("infinity", -1)]
)
def test_an_amount_may_have_a_unit(text: str, number: int) -> None:
    assert amount(text) == number


@pytest.mark.parametrize("text", ["", "-1", "1k", "1KB", "1.5G", str(1 << 63), "9" * 400, "٣"])
def test_a_malformed_amount_is_refused_with_the_expected_form(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        amount(text)


@given(st.integers())
def test_an_integer_outside_its_range_is_refused(number: int) -> None:
    if -20 <= number <= 19:
        assert whole(f" {number}", -20, 19) == number
    else:
        with pytest.raises(ValueError, match="expected a whole number from -20 to 19"):
            whole(str(number), -20, 19)


def test_a_quoted_text_of_more_than_60_characters_is_shortened() -> None:
    assert quote("x" * 60) == repr("x" * 60)
    assert quote("x" * 61) == repr("x" * 57 + "...")


@pytest.mark.parametrize(("text", "total"), [("1month", 2629800.0), ("2y 1d", 63201600.0)])
def test_months_and_years_are_those_of_systemd(text: str, total: float) -> None:
    assert timespan(text) == total


def test_a_time_span_is_at_most_that_of_systemd() -> None:
    assert timespan("18446744073709s") == 18446744073709.0  # 2**64 microseconds and no more
    with pytest.raises(ValueError, match="18446744073710s"):
        timespan("18446744073710s")


@given(st.text())
def test_a_quoted_text_is_one_short_printable_line(text: str) -> None:
    shown = quote(text)
    assert shown.isprintable()
    assert len(shown) <= 10 * 60 + 2


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("tcp://127.0.0.2:5", True),
        ("tcp://[::1]:5", True),
        ("tcp://localhost:5", True),
        ("ipc:///run/x", True),
        ("tcp://10.0.0.1:5", False),
        ("tcp://*:5", False),
        ("tcp://eth0:5", False),
        ("tcp://lo:5", False),
    ],
)
def test_only_this_machine_reaches_loopback_and_ipc(text: str, local: bool) -> None:
    assert endpoint(text, bind=True).local is local
