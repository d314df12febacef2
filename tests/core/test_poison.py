"""core/poison and core/quarantine: reports about messages that a task could not handle, and their bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from simulation import Simulation, task

from zmsvc.core import effects as fx
from zmsvc.core import facts as ft
from zmsvc.core import messages, poison
from zmsvc.core.errors import ProtocolError

FRAME = messages.published(
    messages.published_head(
        "temperature",
        messages.encoded(
            messages.header(
                transaction="T", service_id="ts_9", action="published", service_name="x", launch=3
            )
        ),
    ),
    5,
    b'{"celsius":"\xc3\xa9\\ud800"}',
)
FOUND = poison.poison(FRAME, "ValueError: too hot", "Traceback ...\nValueError: too hot\n")


def test_a_report_says_which_message_it_was_and_has_it_unchanged() -> None:
    assert (FOUND.topic, FOUND.sender, FOUND.sender_transaction, FOUND.sequence) == (
        "temperature",
        "ts_9",
        "T",
        5,
    )
    assert poison.from_json(poison.as_json(7, FOUND)) == (7, FOUND)
    assert FOUND.frame is not None
    assert FOUND.frame.encode() == FRAME
    strange = poison.poison(
        b'x @@@ {"header":{"service_id":5,"sequence":true},"content":"\xed\xa0\x80"}', "", ""
    )
    assert (strange.sender, strange.sequence) == ("", None)
    assert poison.from_json(poison.as_json(1, strange)) == (1, strange)


def test_of_a_large_message_only_the_report_is_kept() -> None:
    large = poison.poison(b'x @@@ {"content":"%s"}' % (b"a" * poison.MAX_FRAME), "e" * 9999, "t" * 99999)
    assert (large.frame, large.bytes) == (None, poison.MAX_FRAME + 20)
    assert (len(large.error), len(large.traceback)) == (poison.MAX_TEXT, poison.MAX_TRACEBACK)


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 0},
        {"number": True},
        {"number": None},
        {"bytes": "x"},
        {"bytes": -1},
        {"sequence": 2**60},
        {"frame": 5},
    ],
)
def test_a_report_with_a_wrong_type_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="a value has a wrong type"):
        poison.from_json(json.dumps(json.loads(poison.as_json(1, FOUND)) | changes))


@pytest.mark.parametrize("text", ["[]", "{}", "5", "{", "[" * 100_000, '{"number":1,"bytes":1,"sequence":1}'])
def test_a_text_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="cannot read a report"):
        poison.from_json(text)


def test_texts_of_any_size_and_type_are_cut_or_empty() -> None:
    values = json.loads(poison.as_json(1, FOUND))
    long = json.dumps({**values, "topic": 5, "error": "x" * 9999, "frame": "x" * (poison.MAX_FRAME + 1)})
    _, found = poison.from_json(long)
    assert (found.topic, found.error, found.frame) == ("", "x" * poison.MAX_TEXT, None)


def test_the_oldest_messages_of_a_task_and_then_of_all_have_to_go() -> None:
    assert poison.excess([(1, "a", 1), (2, "a", 1)]) == {}
    many = [(number, "a", 1) for number in range(poison.MAX_OF_TASK + 2)]
    assert poison.excess([(-1, "b", 1), *many]) == {0: "a", 1: "a"}, "another task keeps its own"
    half = poison.MAX_BYTES_OF_TASK // 2
    assert poison.excess([(1, "a", half), (2, "a", half), (3, "a", half)]) == {1: "a"}
    assert poison.excess([(1, "a", poison.MAX_BYTES_OF_TASK + 1), (2, "a", 1)]) == {1: "a"}
    tasks = poison.MAX_BYTES // poison.MAX_BYTES_OF_TASK
    full = [(number, f"t{number}", poison.MAX_BYTES_OF_TASK) for number in range(tasks + 1)]
    assert poison.excess(full) == {0: "t0"}
    crowd = [(number, f"t{number}", 1) for number in range(poison.MAX_MESSAGES + 3)]
    assert poison.excess(crowd) == {0: "t0", 1: "t1", 2: "t2"}


def test_a_message_that_is_sent_again_is_for_one_task_and_has_no_number() -> None:
    assert FOUND.frame is not None
    topic, body = messages.decode(poison.republished(FOUND.frame, "ts_1", None))
    assert topic == "temperature"
    assert body["header"] == {
        "service_transaction": "T", "service_id": "ts_9", "action": "published", "service_name": "x",
        "recipient": "ts_1",
    }  # fmt: skip
    assert body["content"] == messages.decode(FRAME)[1]["content"]
    assert messages.decode(poison.republished('x @@@ {"n": 1}', "ts_1", "T2"))[1] == {
        "header": {"service_transaction": "T2", "recipient": "ts_1"}, "n": 1
    }  # fmt: skip


def running() -> Simulation:
    sim = Simulation.of(task("a"))
    sim.begin()
    sim.ready()
    return sim


def reported(sim: Simulation, number: int) -> tuple[fx.Quarantine | None, int]:
    """Report message `number`. Return the effect, and the number of records of the history."""
    effects = sim.happen(ft.MessagePoisoned(launch=1, number=number, message=FOUND))
    found = [each for each in effects if isinstance(each, fx.Quarantine)]
    records = [each for each in effects if isinstance(each, fx.Record) and each.event == "quarantined"]
    return (found[0] if found else None), len(records)


def test_a_report_is_quarantined_once_and_its_number_says_what_was_not_reported() -> None:
    sim = running()
    key = sim.world.launches[1]
    assert reported(sim, 1) == (fx.Quarantine(key=key, launch=1, number=1, lost=0, message=FOUND), 1)
    assert reported(sim, 1) == (None, 0), "the report is read again after a crash"
    assert reported(sim, 5) == (fx.Quarantine(key=key, launch=1, number=5, lost=3, message=FOUND), 1)
    assert sim.world.tasks[key].poisoned == 5


def test_a_task_that_reports_too_fast_is_counted() -> None:
    sim = running()
    burst = int(poison.BURST)
    for number in range(1, burst + 1):
        assert reported(sim, number)[1] == 1
    effect, records = reported(sim, burst + 3)
    assert effect is not None
    assert (effect.message, effect.lost, records) == (None, 3, 0)
    sim.now += 1 / poison.RATE
    effect, records = reported(sim, burst + 4)
    assert effect == replace(effect, message=FOUND, lost=0)  # type: ignore[type-var]
    assert records == 1
