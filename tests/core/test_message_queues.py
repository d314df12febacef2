"""core/message_queues.py: which messages wait, and which are dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmsvc.core.message_queues import MessageQueue, QueuePolicy, WaitingMessages, queue_from_json

DEFAULT = MessageQueue(mark=20_000)
STREAM = [("a", "x", b"1"), ("b", "x", b"2"), ("a", "y", b"3"), ("a", "x", b"4"), ("a", "z", b"5"), ("b", "y", b"6")]  # fmt: skip


def left(queues: list[MessageQueue], stream: list[tuple[str, str, bytes]] = STREAM) -> list[bytes]:
    waiting = WaitingMessages(queues, DEFAULT)
    for each in stream:
        waiting.put(*each)
    found = []
    while (frame := waiting.pop()) is not None:
        found.append(frame)
    return found


def test_each_policy_drops_what_it_says_and_keeps_the_order() -> None:
    assert left([]) == [b"1", b"2", b"3", b"4", b"5", b"6"]
    assert left([MessageQueue(mark=2, topic="a")]) == [b"1", b"2", b"3", b"6"]
    oldest = QueuePolicy.DROP_OLDEST
    assert left([MessageQueue(mark=2, topic="a", policy=oldest)]) == [b"2", b"4", b"5", b"6"]
    assert left([MessageQueue(mark=1, policy=oldest)]) == [b"5", b"6"]
    last = QueuePolicy.LAST
    assert left([MessageQueue(mark=9, topic="a", policy=last)]) == [b"2", b"3", b"4", b"5", b"6"]
    assert left([MessageQueue(mark=2, topic="a", policy=last)]) == [b"2", b"4", b"5", b"6"]


def test_what_is_dropped_is_counted_once_for_each_topic() -> None:
    waiting = WaitingMessages([MessageQueue(mark=1, policy=QueuePolicy.LAST)], DEFAULT)
    for each in STREAM:
        waiting.put(*each)
    assert [waiting.take_dropped(topic) for topic in "abac"] == [3, 1, 0, 0]
    assert waiting.policy("a") is QueuePolicy.LAST


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.booleans()), max_size=30),
    st.sampled_from(QueuePolicy),
    st.integers(1, 4),
)
def test_no_message_waits_beyond_the_mark_and_all_are_accounted_for(
    events: list[tuple[str, str, bool]], policy: QueuePolicy, mark: int
) -> None:
    waiting = WaitingMessages([MessageQueue(mark=mark, policy=policy)], DEFAULT)
    came = popped = 0
    order = []
    for topic, sender, pops in events:
        waiting.put(topic, sender, b"%d" % came)
        came += 1
        if pops and (frame := waiting.pop()) is not None:
            order.append(int(frame))
            popped += 1
    rest = 0
    while (frame := waiting.pop()) is not None:
        order.append(int(frame))
        rest += 1
    assert rest <= 2 * mark
    assert came == popped + rest + waiting.take_dropped("a") + waiting.take_dropped("b")
    assert len(order) == len(set(order))


def test_a_queue_survives_its_way_to_the_task() -> None:
    queue = MessageQueue(mark=5, topic="a", policy=QueuePolicy.LAST)
    assert queue_from_json(queue.as_json()) == queue
