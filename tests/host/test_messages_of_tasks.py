"""The messages that a task publishes and hears, in its own process and on a real device."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from typing import Any

import pytest
import waiting
from forked import Nest, launch_spec, update
from forwarder import Forwarder, received

from zmsvc.core import messages, poison
from zmsvc.core.errors import UsageError
from zmsvc.host.bus.socket_options import check_size
from zmsvc.task.publications import Publications

HEARING = """
from __future__ import annotations
import dataclasses, os
from zmsvc.task import AsyncTask, LoopedTask, Message, MessageTask, SingleTask, TaskService

{before}
class Work({kind}):
    topics = ("temperature", "pressure")
{body}

class ServiceWork(TaskService):
    service_name = "work"
    task_class = Work
"""
TOLD = """
    def on_message(self, message):
        self.update(topic=message.topic, content=message.content, sender=message.sender, of=message.transaction,
            number=message.sequence, missed=message.missed)
"""


def hearing(nest: Nest, kind: str, body: str = TOLD, before: str = "") -> None:
    nest.service("Work", HEARING.format(kind=kind, body=body, before=before))


def frame(
    content: Any, sender: str = "ts_101", transaction: str = "TX", topic: str = "temperature", **more: Any
) -> bytes:
    head = messages.header(
        transaction=transaction, service_id=sender, action="published", service_name="x", **more
    )
    return messages.encode(topic, {"header": head, "content": content})


KINDS: Mapping[str, str] = {
    "LoopedTask": TOLD + "    interval = 3600.0\n    def step(self):\n        pass\n",
    "MessageTask": TOLD,
    "SingleTask": TOLD + "    def run(self):\n        self.wait()\n",
    "AsyncTask": TOLD.replace("    def", "    async def")
    + "    async def run(self):\n        await self.wait_async()\n",
    "SingleTask that iterates": """
    def run(self):
        for message in self.messages():
            Hearing.on_message(self, message)
""",
    "AsyncTask that iterates": """
    async def run(self):
        async for message in self.messages():
            Hearing.on_message(self, message)
""",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_that_is_ready_hears_its_topics_from_the_first_message_on(
    nest: Nest, bus: Forwarder, kind: str
) -> None:
    hearing(nest, kind.split(maxsplit=1)[0], KINDS[kind], f"class Hearing:{TOLD}")
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    for topic in (b"temperature @@@ ", b"pressure @@@ "):
        waiting.wait_for(lambda topic=topic: publisher.has_subscriber(topic))  # type: ignore[misc]
    for each in (
        frame({"n": 1}),
        frame({"n": 2}, transaction="OTHER"),
        frame({"n": 3}, "ts_100"),
        frame({"n": 4}, topic="temperatures"),
        b'pressure @@@ {"n": 5}',
        b'pressure @@@ {"content": [6], "header": {"service_id": "x", "service_transaction": "OTHER"}}',
        b"pressure @@@ {",
        b'pressure @@@ {"content": [7], "header": {"service_id": "x", "service_transaction": "TX"}}',
        b"pressure @@@ {}",
    ):
        assert publisher.send(each)
    told = [update(nest) for _ in range(4)]
    assert [(each["topic"], each["content"], each["sender"], each["of"]) for each in told] == [
        ("temperature", {"n": 1}, "ts_101", "TX"),
        ("pressure", {"n": 5}, "", ""),
        ("pressure", [7], "x", "TX"),
        ("pressure", {}, "", ""),
    ]
    waiting.wait_for(lambda: "Ignored a message on pressure: cannot read message" in nest.logged())
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()
    assert "STOPPING=1" in nest.rest()


def test_ready_waits_until_the_device_has_confirmed_the_subscriptions(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask")
    assert bus.process is not None
    bus.process.send_signal(signal.SIGSTOP)
    task = nest.fork()
    try:
        waiting.wait_for(lambda: "Cannot reach" in nest.logged())
        assert nest.empty()
    finally:
        bus.process.send_signal(signal.SIGCONT)
    nest.until("READY")
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


def test_a_task_that_waits_for_its_subscriptions_can_be_stopped(nest: Nest) -> None:
    hearing(nest, "MessageTask")
    task = nest.fork()
    waiting.wait_for(lambda: "Cannot reach" in nest.logged())
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()
    assert nest.rest() == ["STOPPING=1"]


def test_what_a_task_publishes_has_the_standard_header_and_a_number(nest: Nest, bus: Forwarder) -> None:
    nest.single("""
        def run(self):
            self.publish("news", {"celsius": 20})
            self.publish("news", {"content": [1]})
            self.publish("more", {})
            self.publish("news", {"header": {"action": "own"}, "content": 1})
            self.publish("news", {"content": 1, "also": 2})
            self.update(endpoints=list(self.endpoints), sent=True)
    """)
    subscriber = bus.subscriber(b"news @@@ ", b"more @@@ ")
    bus.connected_publisher(b"news @@@ ", b"more @@@ ")
    task = nest.fork()
    frames = [received(subscriber) for _ in range(5)]
    head = (
        b'"header":{"service_transaction":"TX","service_id":"ts_100","action":"published",'
        b'"service_name":"work","launch":17,"sequence":%d}'
    )
    assert frames == [
        b'news @@@ {%s,"content":{"celsius":20}}' % (head % 1),
        b'news @@@ {%s,"content":[1]}' % (head % 2),
        b'more @@@ {%s,"content":{}}' % (head % 1),
        b'news @@@ {"header":{"action":"own"},"content":1}',
        b'news @@@ {%s,"content":{"content":1,"also":2}}' % (head % 3),
    ]
    assert update(nest) == {"endpoints": [bus.subscribe_endpoint, bus.publish_endpoint], "sent": True}
    assert task.end() == 0, nest.logged()


def test_a_subscriber_knows_what_it_has_missed(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask")
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    for sender, topic, launch, number in (
        ("a", "temperature", 1, 500), ("b", "temperature", 2, 7), ("a", "pressure", 1, 3), ("a", "temperature", 1, 501),
        ("a", "temperature", 1, 510), ("a", "pressure", 1, 4), ("b", "temperature", 2, 8), ("a", "temperature", 5, 3),
        ("a", "temperature", 5, 4),
    ):  # fmt: skip
        assert publisher.send(frame(0, sender, topic=topic, launch=launch, sequence=number))
    told = [update(nest) for _ in range(9)]
    assert [each["number"] for each in told] == [500, 7, 3, 501, 510, 4, 8, 3, 4]
    assert [each["missed"] for each in told] == [0, 0, 0, 0, 8, 0, 0, 2, 0]
    full = "the queue of the device for this task was full, or it was restarted"
    assert f"Missed 8 messages on temperature from a: {full} (1 so far)" in nest.logged()
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


def test_the_loss_of_the_last_message_is_seen(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask")
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    for topic, launch, number in (
        ("temperature", 1, 5), ("zmsvc.sequence.temperature", 1, 5), ("zmsvc.sequence.temperature", 1, 8),
        ("zmsvc.sequence.temperature", 1, 8), ("zmsvc.sequence.temperature", 2, 9), ("temperature", 1, 10),
    ):  # fmt: skip
        assert publisher.send(frame(0, "a", topic=topic, launch=launch, sequence=number))
    assert [update(nest)["missed"] for _ in range(2)] == [0, 4]
    lines = [line.partition("Missed ")[2] for line in nest.logged().splitlines() if "Missed" in line]
    full = "the queue of the device for this task was full, or it was restarted"
    assert lines == [
        f"3 messages on temperature from a: {full} (1 so far)",
        f"1 messages on temperature from a: {full} (2 so far)",
    ]
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()
    assert [line for line in nest.rest() if "MISSED" in line][-1] == "X_ZMSVC_MISSED=4"


def test_the_log_says_why_messages_were_missed(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask")
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    for number, dropped in ((1, 1), (5, 4)):
        assert publisher.send(frame(0, "a", launch=1, sequence=number, dropped=dropped))
    assert [update(nest)["missed"] for _ in range(2)] == [0, 3]
    bus.end(signal.SIGKILL)
    bus.start()
    # A new publisher knows the subscriptions to the new device alone.
    again = bus.connected_publisher(b"temperature @@@ ")
    assert again.send(frame(0, "a", launch=1, sequence=8, dropped=4))
    assert update(nest)["missed"] == 2
    reasons = [line.partition("from a: ")[2] for line in nest.logged().splitlines() if "Missed" in line]
    assert reasons == [
        "the sender has dropped 3, because its queue to the device was full (1 so far)",
        "the queue of the device for this task was full, or it was restarted (2 so far)",
    ]
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


def test_a_message_that_is_too_long_has_no_number_that_subscribers_would_miss() -> None:
    numbers: list[int] = []

    def send(each: bytes) -> bool:
        check_size(each)
        numbers.append(messages.decode(each)[1]["header"]["sequence"])
        return True

    published = Publications(launch_spec(), send, repeats=False)
    published.publish("a", {})
    with pytest.raises(UsageError, match="16777216 are allowed"):
        published.publish("a", {"text": "x" * messages.MAX_FRAME})
    published.publish("a", {})
    assert numbers == [1, 2]


def test_a_sender_says_how_many_messages_it_has_dropped() -> None:
    sent: list[Any] = []
    room = iter([True, False, False, True, True, True, True])

    def send(each: bytes) -> bool:
        sent.append(messages.decode(each)[1]["header"])
        return next(room)

    published = Publications(launch_spec(), send, repeats=True)
    assert [published.publish("a", {}) for _ in range(4)] == [True, False, False, True]
    assert published.publish("b", {})
    published.finish()
    assert [(each["sequence"], each.get("dropped")) for each in (sent[0], *sent[3:6])] == [
        (1, None),
        (4, 2),
        (1, None),
        (4, 2),
    ]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("SingleTask", "    def run(self):\n        self.publish('news', {})\n        self.wait()\n"),
        ("AsyncTask", "    async def run(self):\n        self.publish('news', {})\n        await self.wait_async()\n"),
    ],
)  # fmt: skip
def test_a_task_that_falls_silent_repeats_its_last_number(
    nest: Nest, bus: Forwarder, kind: str, body: str
) -> None:
    hearing(nest, kind, body)
    subscriber = bus.subscriber(b"zmsvc.sequence.news @@@ ")
    bus.connected_publisher(b"zmsvc.sequence.news @@@ ")
    task = nest.fork()
    for _ in range(2):
        topic, told = messages.decode(received(subscriber))
        assert (topic, told["header"]["launch"], told["header"]["sequence"]) == ("zmsvc.sequence.news", 17, 1)
        # The second one comes because the task ends, if it is not a repetition.
        task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


def test_a_silent_topic_is_repeated_with_doubling_pauses_and_then_costs_nothing() -> None:
    sent: list[tuple[str, int]] = []

    def send(each: bytes) -> bool:
        topic, body = messages.decode(each)
        sent.append((topic, body["header"]["sequence"]))
        return True

    published = Publications(launch_spec(), send, repeats=True)
    assert published.repeat(100.0) == math.inf
    published.publish("a", {})
    published.publish("a", {})
    assert published.repeat(100.0) == 1.0
    published.publish("b", {})
    published.publish("a", {})
    del sent[:]
    now, times = 100.5, []
    while (pause := published.repeat(now)) < math.inf:
        now += pause
        times.append(now)
    assert times == [101.5, 103.5, 107.5, 115.5]
    assert sorted(sent) == [("zmsvc.sequence.a", 3)] * 4 + [("zmsvc.sequence.b", 1)] * 4
    published.finish()
    assert len(sent) == 8
    published.publish("a", {})
    published.finish()
    assert sent[9:] == [("zmsvc.sequence.a", 4)]


READING = """
@dataclasses.dataclass
class Reading:
    celsius: float
    where: str = ""
"""
TYPED = """
    def on_message(self, message: Message[Reading]) -> None:
        self.update(reading=repr(message.content))
        if message.content.celsius > 100:
            raise ValueError("too hot")
"""


@pytest.mark.parametrize(
    ("content", "line", "status"),
    [
        ({"celsius": "x"}, "cannot use message 3 on temperature from ts_101: content.celsius is 'x', expected a number", None),
        ({"celsius": 101}, "Message 3 on temperature from ts_101 ends this task: on_message raised an exception", "ValueError: too hot"),
    ],
)  # fmt: skip
def test_a_poison_message_fails_the_task_and_the_log_says_which(
    nest: Nest, bus: Forwarder, content: Any, line: str, status: str | None
) -> None:
    hearing(nest, "MessageTask", TYPED, READING)
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    assert publisher.send(frame({"celsius": 20, "unknown": 1}, launch=1, sequence=2))
    assert update(nest) == {"reading": "Reading(celsius=20.0, where='')"}
    assert publisher.send(frame(content, launch=1, sequence=3))
    number, found = poison.from_json(nest.until("X_ZMSVC_POISON")["X_ZMSVC_POISON"])
    assert (number, found.sequence, found.error) == (1, 3, status or line)
    assert nest.until("STATUS")["STATUS"] == (status or line)
    assert task.end() == 1
    assert line in nest.logged()


POISONED = """
    {before}def on_message(self, message):
        if message.content["n"] % 2:
            raise ValueError("odd")
        self.update(n=message.content["n"])
"""


@pytest.mark.parametrize("kind", ["MessageTask", "AsyncTask"])
def test_a_task_that_sets_poison_messages_aside_reports_each_and_goes_on(
    nest: Nest, bus: Forwarder, kind: str
) -> None:
    awaits = kind == "AsyncTask"
    body = POISONED.format(before="async " if awaits else "")
    runs = "    async def run(self):\n        await self.wait_async()\n" if awaits else ""
    hearing(nest, kind, body + runs)
    publisher = bus.connected_publisher()
    task = nest.fork(poison_action="set-aside")
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    large = "x" * (100 << 10)
    for content in ({"n": 1, "large": large}, {"n": 2}):
        assert publisher.send(frame(content, launch=1, sequence=content["n"]))
    number, found = poison.from_json(nest.until("X_ZMSVC_POISON_FD")["X_ZMSVC_POISON"])
    assert (number, found.sender, found.sequence) == (1, "ts_101", 1)
    assert found.error == "ValueError: odd"
    assert 'raise ValueError("odd")' in found.traceback
    assert found.frame is not None
    assert messages.decode(found.frame.encode())[1]["content"] == {"n": 1, "large": large}
    assert update(nest) == {"n": 2}
    assert "Message 1 on temperature from ts_101 is set aside: ValueError: odd" in nest.logged()
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


ITERATING = """
    {a}def run(self):
        {a}for message in self.messages():
            n = message.content["n"]
            if n > 2:
                break
            self.update(n=10 // n)
        {a}for message in self.messages():
            try:
                if message.content["n"] == 4:
                    raise KeyError("skipped")
            except KeyError:
                continue
            break
        raise RuntimeError("later")
"""


@pytest.mark.parametrize(
    ("last", "sequence", "error"),
    [
        ([0], 2, "ZeroDivisionError: integer division or modulo by zero"),
        ([3, 4, {"n": "x"}], 4, "RuntimeError: later"),
    ],
)
@pytest.mark.parametrize("kind", ["SingleTask", "AsyncTask"])
def test_a_message_at_which_the_body_of_a_loop_raises_is_in_the_quarantine(
    nest: Nest, bus: Forwarder, kind: str, last: list[Any], sequence: int, error: str
) -> None:
    body = ITERATING.format(a="async " if kind == "AsyncTask" else "")
    hearing(nest, kind, body)
    publisher = bus.connected_publisher()
    task = nest.fork(poison_action="set-aside")
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    for number, n in enumerate([1, *last], start=1):
        content = n if isinstance(n, dict) else {"n": n}
        assert publisher.send(frame(content, launch=1, sequence=number))
    assert update(nest) == {"n": 10}
    if sequence == 2:
        _, found = poison.from_json(nest.until("X_ZMSVC_POISON")["X_ZMSVC_POISON"])
        assert (found.sequence, found.error) == (sequence, error)
        assert "10 // n" in found.traceback
    else:
        # The second loop ended by `break`: the task has handled its message.
        lines = dict(nest.next().lines)
        assert lines["STATUS"] == error
    assert task.end() == 1
    assert error in nest.logged()
    ends = "Message 2 on temperature from ts_101 ends this task: the loop over messages raised an exception"
    assert (ends in nest.logged()) == (sequence == 2)


SHARED = """
    {a}def run(self):
        {a}for message in self.messages():
            self.update(celsius=message.content.celsius)
    def on_message(self, message: Message[Reading]):
        pass
"""


def test_an_iterated_message_that_cannot_be_converted_is_set_aside(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "SingleTask", SHARED.format(a=""), READING)
    publisher = bus.connected_publisher()
    task = nest.fork(poison_action="set-aside")
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    assert publisher.send(frame({"celsius": "hot"}, launch=1, sequence=1))
    _, found = poison.from_json(nest.until("X_ZMSVC_POISON")["X_ZMSVC_POISON"])
    assert found.sequence == 1
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


def test_of_many_poison_messages_some_are_reported_and_all_are_counted(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask", POISONED.format(before=""))
    publisher = bus.connected_publisher()
    task = nest.fork(poison_action="set-aside")
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    for number in range(1, 301):
        assert publisher.send(frame({"n": 1}, launch=1, sequence=number))
    numbers = []
    while 300 not in numbers:
        numbers.append(poison.from_json(nest.until("X_ZMSVC_POISON")["X_ZMSVC_POISON"])[0])
    assert numbers[0] == 1
    assert numbers == sorted(set(numbers))
    assert len(numbers) < 300
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


def test_a_task_ignores_messages_that_are_for_another_one(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask")
    publisher = bus.connected_publisher()
    nest.fork()
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    assert publisher.send(frame(1, recipient="ts_102"))
    assert publisher.send(frame(2, recipient="ts_100"))
    assert update(nest)["content"] == 2


def test_subscribe_elements_replace_the_topics_of_the_class(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask")
    publisher = bus.connected_publisher()
    task = nest.fork(configuration={"subscribe": ["news", "more"]})
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"news @@@ "))
    assert not publisher.has_subscriber(b"temperature @@@ ")
    assert publisher.send(frame(1, topic="news"))
    assert publisher.send(frame(2, topic="more"))
    assert [update(nest)["content"] for _ in range(2)] == [1, 2]
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


@pytest.mark.parametrize(
    ("kind", "configuration", "why"),
    [
        ("MessageTask", {"subscribe": ""}, "cannot start Work: a MessageTask needs topics and on_message"),
        ("LoopedTask", {"subscribe": ["a", "b @@@ c"]}, "cannot subscribe: <subscribe>: 'b @@@ c' cannot be a topic, expected the name of a topic, without @@@"),
        ("LoopedTask", {"subscribe": {"topic": "a"}}, "cannot subscribe: <subscribe>: \"{'topic': 'a'}\" is not a text, expected the name of a topic, without @@@"),
    ],
)  # fmt: skip
def test_a_task_without_a_usable_topic_says_why(nest: Nest, kind: str, configuration: Any, why: str) -> None:
    hearing(nest, kind)
    task = nest.fork(configuration=configuration)
    assert nest.until("STATUS")["STATUS"] == why
    assert task.end() != 0


def test_an_iteration_subscribes_to_the_topics_it_names_and_ends_after_its_timeout(
    nest: Nest, bus: Forwarder
) -> None:
    hearing(nest, "SingleTask", """
    def run(self):
        self.update(silent=[each.content for each in self.messages("news", timeout=0.01)])
        self.publish("go", {})
        for message in self.messages("news"):
            if message.content == 2:
                break
        self.update(next=next(self.messages("news")).content)
""")  # fmt: skip
    publisher, subscriber = bus.connected_publisher(), bus.subscriber(b"go @@@ ")
    bus.connected_publisher(b"go @@@ ")
    task = nest.fork()
    assert update(nest) == {"silent": []}
    received(subscriber)
    for number in range(4):
        assert publisher.send(frame(number, topic="news"))
    assert update(nest) == {"next": 3}
    assert task.end() == 0, nest.logged()


def test_a_task_that_hears_every_transaction(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask", f"    every_transaction = True\n{TOLD}")
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    assert publisher.send(frame(1, transaction="OTHER"))
    assert update(nest)["of"] == "OTHER"
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


def test_a_message_task_is_idle_while_no_message_comes(nest: Nest, bus: Forwarder) -> None:
    hearing(nest, "MessageTask")
    publisher = bus.connected_publisher()
    task = nest.fork()
    nest.until("READY")
    waiting.wait_for(lambda: publisher.has_subscriber(b"temperature @@@ "))
    waiting.wait_until_still(lambda: waiting.context_switches(task.pid))
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()
