"""core/wiring.py: who publishes what to whom, and which senders cannot be what they say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from zmsvc.core import messages, wiring
from zmsvc.core.wiring import Declared, Running, Sender, Topic, Traffic

DECLARED = {
    "ts_sensor": Declared(publishes=("temperature", "raw")),
    "ts_filter": Declared(hears=("temperature",), publishes=("filtered",)),
    "ts_alarm": Declared(hears=("smoke",)),
}


def frame(topic: str = "temperature", task: str = "ts_sensor", transaction: str = "T", **more: Any) -> bytes:
    head = messages.header(
        transaction=transaction, service_id=task, action="published", service_name="x", **more
    )
    return messages.encode(topic, {"header": head, "content": {"celsius": 20}})


def test_declared_topics_join_publishers_and_subscribers() -> None:
    topics = wiring.topics_of(DECLARED)
    assert topics == [
        Topic(name="filtered", senders=(Sender(task="ts_filter", declared=True),)),
        Topic(name="raw", senders=(Sender(task="ts_sensor", declared=True),)),
        Topic(name="smoke", hearers=("ts_alarm",)),
        Topic(name="temperature", senders=(Sender(task="ts_sensor", declared=True),), hearers=("ts_filter",)),
    ]
    assert [each.name for each in wiring.unheard(topics)] == ["filtered", "raw"]
    assert [each.name for each in wiring.unfed(topics)] == ["smoke"]
    assert wiring.sentences(topics) == [
        "topic filtered: ts_filter, and no task hears it",
        "topic raw: ts_sensor, and no task hears it",
        "topic smoke: heard by ts_alarm, and no task declares that it publishes it",
        "topic temperature: ts_sensor to ts_filter",
    ]


def test_a_task_publishes_what_is_expected_of_it_and_zmsvc_hears_that() -> None:
    declared = {"ts_1": Declared(expected=("beat",)), "ts_2": Declared(hears=("beat",))}
    (topic,) = wiring.topics_of(declared)
    assert topic == Topic(
        name="beat", senders=(Sender(task="ts_1", declared=True),), hearers=("ts_2",), expected=True
    )
    assert wiring.sentences([topic]) == ["topic beat: ts_1 to ts_2"]
    topics = wiring.topics_of({"ts_1": declared["ts_1"]})
    assert wiring.unheard(topics) == []
    assert wiring.sentences(topics) == ["topic beat: ts_1, watched by zmsvc"]
    assert wiring.as_json(topics, 0.0)[0]["expected"]


def test_a_subscription_of_any_client_makes_a_topic_heard_except_one_to_all_topics() -> None:
    own = messages.prefix(messages.UNHEARD_ORDERS.decode() + "1")
    subscriptions = [b"", b"raw @@@ {", b"news @@@ ", b"x", b"control @@@ ", own]
    topics = {each.name: each for each in wiring.topics_of(DECLARED, None, subscriptions)}
    assert topics["raw"].heard
    assert not topics["filtered"].heard
    assert topics["news"] == Topic(name="news", subscribed=True)
    assert topics.keys() == {"filtered", "news", "raw", "smoke", "temperature"}


def test_messages_are_counted_by_topic_and_sender_with_those_that_did_not_come() -> None:
    traffic = Traffic()
    for sequence in (5, 6, 10):
        traffic.add(frame(task="ts_sensor@1", launch=3, sequence=sequence))
    traffic.add(frame(task="ts_sensor@2", launch=4, sequence=1))
    plain = b'temperature @@@ {"content": 1}'
    traffic.add(plain)
    size = len(frame(task="ts_sensor@1", launch=3, sequence=5))
    for own in (b"control", b"zmsvc.sequence.temperature", b"state"):
        traffic.add(own + b' @@@ {"content": 1}')
    traffic.add(b"nonsense")
    (topic,) = (each for each in wiring.topics_of(DECLARED, traffic) if each.name == "temperature")
    assert topic.senders == (
        Sender(task="ts_sensor", declared=True, count=7, size=size),
        Sender(task="", count=1, size=len(plain)),
    )
    assert json.loads(json.dumps(wiring.as_json([topic], 2.0)))[0]["senders"] == [
        {"task": "ts_sensor", "declared": True, "messages_per_second": 3.5, "bytes": size},
        {"task": None, "declared": False, "messages_per_second": 0.5, "bytes": len(plain)},
    ]


def test_each_message_is_counted_even_if_its_number_is_repeated() -> None:
    traffic = Traffic()
    for sequence in (5, 5, 4):
        traffic.add(frame(launch=3, sequence=sequence))
    (found,) = traffic.senders()["temperature"]
    assert found.count == 3


def test_the_header_of_the_sdk_and_any_other_form_of_it_count_alike() -> None:
    forms = [frame(launch=3, sequence=1), frame(launch=3, sequence=2)]
    topic, _, body = forms[1].partition(b" @@@ ")
    forms[1] = topic + b" @@@ " + json.dumps(json.loads(body), indent=1, sort_keys=True).encode()
    traffic = Traffic()
    for each in forms:
        traffic.add(each)
    (found,) = traffic.senders()["temperature"]
    assert (found.task, found.count) == ("ts_sensor", 2)


def test_one_transaction_and_messages_of_none_are_counted_alone() -> None:
    traffic = Traffic("T")
    for transaction in ("T", "OTHER", ""):
        traffic.add(frame(transaction=transaction))
    (found,) = traffic.senders()["temperature"]
    assert found.count == 2


RUNS = Running(launch=5, process=True)
RESTARTED = Running(launch=8, process=True)
RESTS = Running(launch=5, process=False)


@pytest.mark.parametrize(
    ("sent", "before", "after", "lie"),
    [
        ([{"launch": 5, "sequence": 1}, {"launch": 5, "sequence": 2}], RUNS, RUNS, ""),
        ([{}], RUNS, RUNS, ""),
        ([{"launch": 5, "sequence": 1}, {"launch": 8, "sequence": 1}], RUNS, RESTARTED, ""),
        ([{"launch": 8, "sequence": 1}], RESTS, RESTARTED, ""),
        ([{"launch": 8, "sequence": 1}], None, RESTARTED, ""),
        ([{"launch": 1, "sequence": 1}], None, Running(launch=1, process=False), ""),
        ([{"launch": 5, "sequence": 1}], RUNS, RESTS, ""),
        ([{"launch": 5, "sequence": 1}], RUNS, None, ""),
        ([{"launch": 5, "sequence": 1}], Running(launch=None, process=True), RUNS, ""),
        ([{}], RESTS, RESTS, "{who}, which has no process"),
        ([{}], None, None, "{who}, which has no such task"),
        ([{"transaction": "X"}], RUNS, RUNS, "{who}, a transaction that the context does not have"),
        ([{"launch": 9}], RUNS, RUNS, ""),
        (
            [{"launch": 9, "sequence": 1}],
            RUNS,
            RESTARTED,
            "{who}, and that this is launch 9, which it is not",
        ),
        ([{"launch": 4, "sequence": 1}], RUNS, RUNS, "{who}, and that this is launch 4, which it is not"),
        (
            [{"launch": 5, "sequence": 7}, {"launch": 5, "sequence": 7}],
            RUNS,
            RUNS,
            "two senders on temperature say that they are ts_sensor of T",
        ),
        ([{"task": ""}], RUNS, RUNS, ""),
    ],
)
def test_a_forged_sender_is_named(
    sent: list[dict[str, Any]], before: Running | None, after: Running | None, lie: str
) -> None:
    traffic = Traffic()
    for each in sent:
        traffic.add(frame(**each))
    key, other = ("T", "ts_sensor"), {("T", "ts_other"): RUNS}
    first = other | ({key: before} if before else {})
    last = other | ({key: after} if after else {})
    transaction = sent[0].get("transaction", "T")
    who = f"a sender on temperature says that it is ts_sensor of {transaction}"
    assert traffic.lies(first, last) == ([lie.format(who=who)] if lie else [])


def test_invented_senders_take_a_bounded_amount_of_memory() -> None:
    traffic = Traffic(max_senders=10)
    for number in range(30):
        traffic.add(frame(task=f"t{number}"))
    assert len(traffic.senders()["temperature"]) == 10
    assert traffic.others == 20
