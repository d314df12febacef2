"""core/watched_topics: what the watcher process reports about the topics of Commands."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.expected_topics import ExpectedTopic
from zmsvc.core.message_origin import MessageOrigin
from zmsvc.core.watched_topics import SECOND_LOOK, Heard, LaunchWatch, Silent, WatchedTopics

T30 = LaunchWatch(
    launch=1, transaction="T", task="a", has_process=True, expect=(ExpectedTopic(topic="t", within=30.0),)
)
READY = LaunchWatch(launch=1, transaction="T", task="a", has_process=True, ready="up")
MINE = MessageOrigin(transaction="T", sender="a")


def watching(*watches: LaunchWatch) -> WatchedTopics:
    """Return the watches of a process that decides at its first look."""
    topics = WatchedTopics(second_look=0.0)
    topics.connected(0.0)
    for each in watches:
        topics.watch(each, 0.0)
    return topics


def test_a_topic_is_silent_once_when_its_time_has_passed_since_the_last_message() -> None:
    topics = watching(T30)
    assert (topics.topics, topics.pause(10.0)) == ({"t"}, 20.0)
    topics.heard("t", MINE, 20.0)
    topics.heard("x", MINE, 29.0)
    assert (topics.reports(49.9), topics.pause(49.9)) == ([], pytest.approx(0.1))
    assert topics.reports(50.0) == [Silent(launch=1, topic="t")]
    assert (topics.reports(500.0), topics.pause(500.0)) == ([], math.inf)
    topics.heard("t", MINE, 500.0)
    assert topics.reports(5000.0) == [], "each silence is reported once"


def test_a_process_that_stood_still_looks_a_second_time() -> None:
    """The messages that came meanwhile are read a moment after it goes on."""
    topics = WatchedTopics()
    topics.connected(0.0)
    topics.watch(T30, 0.0)
    for at in (100.0, 200.0):
        assert topics.reports(at) == []
        assert topics.pause(at) == SECOND_LOOK
        topics.heard("t", MINE, at + 0.1)
        assert topics.reports(at + SECOND_LOOK) == []
        assert topics.pause(at + SECOND_LOOK) == pytest.approx(30.1 - SECOND_LOOK)
    assert topics.reports(300.0) == []
    assert topics.reports(300.0 + SECOND_LOOK) == [Silent(launch=1, topic="t")]


def test_the_shortest_time_of_a_topic_counts() -> None:
    twice = (ExpectedTopic(topic="t", within=9.0), ExpectedTopic(topic="t", within=3.0))
    topics = watching(replace(T30, expect=twice))
    assert (topics.pause(0.0), topics.reports(3.0)) == (3.0, [Silent(launch=1, topic="t")])


def test_without_a_connection_no_topic_becomes_silent() -> None:
    topics = WatchedTopics(second_look=0.0)
    topics.watch(T30, 0.0)
    assert (topics.reports(100.0), topics.pause(100.0)) == ([], math.inf)
    topics.connected(100.0)
    assert topics.pause(100.0) == 30.0
    topics.disconnected()
    assert topics.reports(500.0) == []
    topics.connected(500.0)
    assert topics.reports(529.9) == []
    assert topics.reports(530.0) == [Silent(launch=1, topic="t")]


@pytest.mark.parametrize(
    ("origin", "counts"),
    [
        (MessageOrigin(transaction="T", sender="a"), True),
        (MessageOrigin(transaction="T", sender="a", launch=1), True),
        (MessageOrigin(transaction="T"), True),
        (MessageOrigin(sender="a"), True),
        (MessageOrigin(), True),
        (MessageOrigin(transaction="T", sender="a", launch=2), False),
        (MessageOrigin(transaction="T", sender="b"), False),
        (MessageOrigin(transaction="U", sender="a"), False),
        (MessageOrigin(transaction="U"), False),
    ],
)
def test_a_message_counts_for_the_launch_that_its_header_names(origin: MessageOrigin, counts: bool) -> None:
    topics = watching(T30, replace(READY, launch=2, task="b"))
    topics.heard("t", origin, 25.0)
    assert bool(topics.reports(30.0)) is not counts
    first = watching(READY)
    first.heard("up", origin, 1.0)
    assert first.reports(1.0) == ([Heard(launch=1, topic="up")] if counts else [])


def test_the_first_message_is_reported_once_and_again_when_it_is_asked_for_again() -> None:
    topics = watching(READY)
    for at in (1.0, 2.0):
        topics.heard("up", MINE, at)
    assert topics.reports(2.0) == [Heard(launch=1, topic="up")]
    topics.watch(READY, 3.0)
    assert topics.reports(3.0) == [Heard(launch=1, topic="up")], "a new supervisor asks again"


def test_a_message_from_before_the_fork_is_known_is_reported_then() -> None:
    topics = watching(replace(READY, has_process=False))
    topics.heard("up", MINE, 1.0)
    assert topics.reports(1.0) == []
    topics.watch(READY, 2.0)
    assert topics.reports(2.0) == [Heard(launch=1, topic="up")]


def test_the_message_of_an_earlier_launch_makes_the_next_one_not_ready() -> None:
    topics = watching(READY)
    topics.heard("up", MINE, 1.0)
    topics.end(1)
    assert (topics.topics, topics.reports(1.0)) == (set(), [Heard(launch=1, topic="up")])
    topics.watch(replace(READY, launch=2), 2.0)
    assert topics.reports(2.0) == []
    topics.heard("up", replace(MINE, launch=1), 3.0)
    assert topics.reports(3.0) == []


def test_a_first_message_of_one_task_takes_nothing_from_another() -> None:
    """A message without a sender counts for both, also for the one that is watched already."""
    topics = watching(T30)
    topics.heard("t", MessageOrigin(), 20.0)
    topics.watch(replace(READY, launch=2, task="b", ready="t"), 21.0)
    assert topics.reports(49.0) == []
    topics.heard("t", MessageOrigin(), 49.0)
    assert topics.reports(49.0) == [Heard(launch=2, topic="t")]
    topics.end(2)
    assert topics.reports(78.9) == []


def test_the_same_watch_again_lets_the_clock_go_on_and_repeats_a_silence() -> None:
    topics = watching(T30)
    topics.watch(T30, 20.0)
    assert topics.reports(30.0) == [Silent(launch=1, topic="t")]
    topics.watch(T30, 31.0)
    assert topics.reports(31.0) == [Silent(launch=1, topic="t")], "the supervisor that got it has died"


def test_outdated_times_take_no_room() -> None:
    topics = watching()
    for launch in range(5000):
        topics.watch(replace(T30, launch=launch), float(launch) / 1000)
        topics.heard("t", MINE, float(launch) / 1000)
        assert topics._heard
        topics.end(launch)
    assert len(topics._due) < 100
    assert not topics._senders
    assert not topics._heard


Step = tuple[str, int, float]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["watch", "end", "heard", "anyone", "connected", "lost"]),
            st.integers(1, 3),
            st.floats(0.0, 20.0),
        ),
        max_size=40,
    )
)
def test_a_silence_is_reported_when_the_slow_way_finds_it(steps: list[Step]) -> None:
    """Compare with a model that keeps every message."""
    topics, now, connected = WatchedTopics(second_look=0.0), 0.0, False
    began: dict[int, float] = {}
    heard: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for what, launch, pause in steps:
        now += pause
        due = (
            {each for each, at in began.items() if now >= max([at, *heard[each]]) + 30.0}
            if connected
            else set()
        )
        assert {each.launch for each in topics.reports(now)} == due
        began = {each: at for each, at in began.items() if each not in due}
        match what:
            case "watch":
                topics.end(launch)
                topics.watch(replace(T30, launch=launch, task=str(launch)), now)
                began[launch], heard[launch] = now, []
            case "end":
                topics.end(launch)
                began.pop(launch, None)
            case "heard":
                topics.heard("t", MessageOrigin(transaction="T", sender=str(launch), launch=launch), now)
                heard[launch].append(now)
            case "anyone":
                topics.heard("t", MessageOrigin(), now)
                heard = {each: [*before, now] for each, before in heard.items()}
            case "connected":
                topics.connected(now)
                began, connected = {each.launch: now for each in topics._watches.values()}, True
            case _:
                topics.disconnected()
                connected = False
                began = {}
