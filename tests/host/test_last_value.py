"""The service LastValue and the tasks that get its messages, in a simulation and on a real device."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
import waiting
from forked import Nest, update
from forwarder import Forwarder, received

from zmsvc import testing
from zmsvc.core import messages
from zmsvc.core.last_values import Request
from zmsvc.host.bus import sockets
from zmsvc.task import AsyncTask, LoopedTask, Message, MessageTask, SingleTask, sdk
from zmsvc.task.bus import Subscription
from zmsvc.task.last_value import LastValueTask
from zmsvc.task.recorder import Recorder
from zmsvc.task.sdk import cause_of
from zmsvc.testing import Simulation


class Sensor(LoopedTask):
    interval = 10.0

    def setup(self) -> None:
        self.number = 0

    def step(self) -> None:
        self.number += 1
        self.publish(self.config.get("topic", "temperature"), {"n": self.number})


class Hearing(MessageTask):
    topics = ("temperature", "pressure")

    def on_message(self, message: Message[Any]) -> None:
        self.update(**as_told(message))


class Iterating(SingleTask):
    topics = "temperature"

    def run(self) -> None:
        for message in self.messages():
            self.update(**as_told(message))


class HearingInAnEventLoop(AsyncTask):
    topics = ("temperature",)

    async def run(self) -> None:
        await self.wait_async()

    async def on_message(self, message: Message[Any]) -> None:
        self.update(**as_told(message))


def as_told(message: Message[Any]) -> dict[str, Any]:
    return {
        "n": message.content["n"],
        "of": message.sender,
        "sequence": message.sequence,
        "missed": message.missed,
        "retained": message.retained,
    }


def told(n: int, of: str = "Sensor", **more: Any) -> dict[str, Any]:
    return {"n": n, "of": of, "sequence": n, "missed": 0, "retained": False} | more


@pytest.mark.parametrize("kind", [Hearing, Iterating, HearingInAnEventLoop])
def test_a_task_that_starts_later_gets_the_last_messages_first(
    zmsvc_simulation: Simulation, kind: type[Any]
) -> None:
    zmsvc_simulation.start(testing.ServiceLastValue, service_id="ts_last")
    zmsvc_simulation.start(Sensor)
    zmsvc_simulation.start(Sensor, service_id="other", config={"topic": "humidity"})
    zmsvc_simulation.run(25)
    late = zmsvc_simulation.start(kind)
    assert late.state == "active"
    zmsvc_simulation.run(6)
    assert late.updates == [told(3, retained=True), told(4)]
    zmsvc_simulation.run(10)
    again = zmsvc_simulation.start(kind, service_id="again")
    zmsvc_simulation.run(2)
    assert again.updates == [told(5, retained=True)]


def test_without_a_last_value_nothing_is_asked(zmsvc_simulation: Simulation) -> None:
    zmsvc_simulation.start(Hearing)
    zmsvc_simulation.run(5)
    assert [topic for topic, _ in zmsvc_simulation.messages] == ["control"]


def test_a_last_value_keeps_only_the_topics_that_it_subscribes_to(zmsvc_simulation: Simulation) -> None:
    zmsvc_simulation.start(testing.ServiceLastValue, config={"subscribe": "pressure"})
    zmsvc_simulation.start(Sensor)
    zmsvc_simulation.start(Sensor, service_id="gauge", config={"topic": "pressure"})
    late = zmsvc_simulation.start(Hearing)
    zmsvc_simulation.run(1)
    assert late.updates == [told(1, "gauge", retained=True)]


def test_no_other_client_can_have_the_address_of_a_task_answered_first(zmsvc_simulation: Simulation) -> None:
    zmsvc_simulation.start(testing.ServiceLastValue, service_id="ts_last")
    for _ in range(2):
        zmsvc_simulation.start(Hearing, service_id="late")
    asked = [body for topic, body in zmsvc_simulation.messages if topic == "zmsvc.snapshot.TEST:ts_last"]
    assert len({each["content"]["answer_to"] for each in asked}) == len(asked) == 2


def test_messages_for_one_task_and_those_of_zmsvc_are_not_kept(zmsvc_simulation: Simulation) -> None:
    zmsvc_simulation.start(testing.ServiceLastValue)
    for head in ({"recipient": "late"}, {"service_transaction": "OTHER"}, {"service_id": "x"}):
        zmsvc_simulation.publish("temperature", {"header": head, "content": {"n": 1}})
    zmsvc_simulation.publish("zmsvc.news", {"content": {"n": 1}})
    late = zmsvc_simulation.start(Hearing, service_id="late")
    zmsvc_simulation.run(1)
    assert late.updates == [told(1, "x", sequence=None, retained=True)]


def test_a_task_waits_two_seconds_for_a_last_value_that_does_not_answer(zmsvc_simulation: Simulation) -> None:
    class Silent(testing.ServiceLastValue):
        pass

    zmsvc_simulation.start(Silent, service_id="ts_last").task._take_request = lambda frame: None
    late = zmsvc_simulation.start(Hearing)
    zmsvc_simulation.run(1.9)
    assert late.state == "activating"
    zmsvc_simulation.publish("temperature", {"content": {"n": 1}})
    zmsvc_simulation.run(0.2)
    assert late.state == "active"
    assert [each["n"] for each in late.updates] == [1]


class HearingEverywhere(Hearing):
    every_transaction = True


def test_invented_subscriptions_delay_a_start_briefly_and_are_not_named_in_the_log(
    zmsvc_simulation: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    zmsvc_simulation.start(testing.ServiceLastValue, service_id="ts_last")
    zmsvc_simulation.start(Sensor)

    class Inventor(MessageTask):
        topics = tuple(f"zmsvc.snapshot.INVENTED:{number}" for number in range(200))

        def on_message(self, message: Message[Any]) -> None:
            pass

    zmsvc_simulation.start(Inventor)
    late = zmsvc_simulation.start(HearingEverywhere)
    zmsvc_simulation.run(0.1)
    assert late.state == "activating"
    zmsvc_simulation.run(0.2)
    assert late.state == "active"
    assert [each["n"] for each in late.updates] == [1]
    assert "INVENTED" not in caplog.text
    assert "8 LastValues of other transactions do not answer" in caplog.text


def test_a_retained_message_disturbs_no_count_of_missed_ones(zmsvc_simulation: Simulation) -> None:
    """The LastValue may not have run for some time. The first message after the retained one is the first."""
    zmsvc_simulation.start(testing.ServiceLastValue)

    def publish(number: int) -> None:
        head = messages.header(
            transaction="TEST", service_id="x", action="published", service_name="", launch=9, sequence=number
        )
        zmsvc_simulation.publish("temperature", {"header": head, "content": {"n": number}})

    publish(3)
    late = zmsvc_simulation.start(Hearing)
    for number in (7, 9):
        publish(number)
    zmsvc_simulation.run(1)
    assert late.updates == [told(3, "x", retained=True), told(7, "x"), told(9, "x", missed=1)]


@pytest.mark.parametrize("kind", [Hearing, HearingInAnEventLoop])
def test_a_retained_message_that_a_task_cannot_handle_does_not_end_it(
    zmsvc_simulation: Simulation, kind: type[Any]
) -> None:
    """Each next process of the task would get it again, and fail as well."""
    zmsvc_simulation.start(testing.ServiceLastValue)
    for sender, content in (("a", {}), ("b", {"n": 1})):
        zmsvc_simulation.publish("temperature", {"header": {"service_id": sender}, "content": content})
    late = zmsvc_simulation.start(kind)
    zmsvc_simulation.run(1)
    assert late.state == "active"
    assert [each["of"] for each in late.updates] == ["b"]
    assert [each["sender"] for each in late.quarantined] == ["a"]
    zmsvc_simulation.publish("temperature", {"header": {"service_id": "a"}, "content": {}})
    with pytest.raises(KeyError):
        zmsvc_simulation.run(1)


def test_dropped_messages_are_counted_and_logged(
    zmsvc_simulation: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    zmsvc_simulation.start(testing.ServiceLastValue, config={"max_messages": "2", "max_bytes": "1K"})
    for sender in "abcd":
        zmsvc_simulation.publish("temperature", {"header": {"service_id": sender}, "content": {"n": 1}})
    zmsvc_simulation.publish("temperature", {"header": {"service_id": "d"}, "content": {"n": "x" * 1024}})
    late = zmsvc_simulation.start(Hearing)
    zmsvc_simulation.run(1)
    assert [each["of"] for each in late.updates] == ["c"]
    assert (
        "more than max_messages or max_bytes allow: a message on temperature has come (2 so far)"
        in caplog.text
    )
    assert "a message on temperature of 1" in caplog.text


def test_many_messages_are_kept_in_little_memory(zmsvc_simulation: Simulation) -> None:
    last = zmsvc_simulation.start(testing.ServiceLastValue)
    body = {"header": {"service_id": "x"}, "content": {"n": 1, "text": "x" * 100_000}}
    for _ in range(50):
        zmsvc_simulation.publish("temperature", body)
    zmsvc_simulation.publish("temperature", body | {"content": {"n": 2}})
    late = zmsvc_simulation.start(Hearing)
    zmsvc_simulation.run(1)
    assert [each["n"] for each in late.updates] == [2]
    assert sum(os.fstat(fd).st_size for fd in last.task._fds) < 2 << 20


class NarrowSubscription(Subscription):
    """A queue to the device with little room. A task that waits for room watches `room`."""

    def __init__(self) -> None:
        self.free, self.sent = 0, list[bytes]()

    def is_subscribed(self, prefix: bytes) -> bool:
        return True

    def offer(self, frame: bytes) -> bool:
        if self.free:
            self.free -= 1
            self.sent.append(frame)
            return True
        return False

    def confirmation_fileno(self) -> int:
        return 99


class WatchingRecorder(Recorder):
    """Notes which descriptors a task watches, and what it calls when one is readable."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.watched: dict[int, Any] = {}

    def watch(self, fd: int, callback: Any) -> None:
        assert fd not in self.watched
        self.watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]


def test_an_answer_waits_for_room_without_looking_for_it_and_stops_no_other_work() -> None:
    recorder = WatchingRecorder(
        LastValueTask, cause_of({"by": "operator"}), transaction="TX", service_id="ts_last"
    )
    task, queue = sdk._attach(object.__new__(LastValueTask), recorder), NarrowSubscription()
    task.__init__()  # type: ignore[misc]
    task.begin(queue)
    task.setup()
    for sender in ("a", "b"):
        task.on_frame(messages.encode("temperature", {"header": {"service_id": sender}, "content": {"n": 1}}))
    for address in ("A", "B"):
        request = Request(topics=("temperature",), address=address, recipient="x").body({"service_id": "x"})
        task.on_frame(messages.encode("zmsvc.snapshot.TX:ts_last", request))
    assert (queue.sent, recorder.waited, [*recorder.watched]) == ([], [], [99])
    # A message that comes meanwhile is kept, and sent.
    task.on_frame(messages.encode("temperature", {"header": {"service_id": "b"}, "content": {"n": 2}}))
    for room in (1, 2, 3):
        assert recorder.watched
        queue.free = room
        recorder.watched[99]()
    assert not recorder.watched, "nothing waits any more"
    found = [messages.decode(frame) for frame in queue.sent]
    assert [topic[-1] for topic, _ in found] == ["A"] * 3 + ["B"] * 3
    for part in (found[:3], found[3:]):
        assert sorted(body["message"]["content"]["n"] for _, body in part[:-1]) == [1, 2]
        assert part[-1][1]["content"] == {"messages": 2}
    task.close()


def test_it_sends_what_was_asked_for_once_to_an_address_with_a_subscription(
    nest: Nest, bus: Forwarder
) -> None:
    task = nest.fork(instance="LastValue", task="ts_last")
    nest.until("READY")
    request = b"zmsvc.snapshot.TX:ts_last @@@ "
    publisher = bus.connected_publisher(request)
    onlooker = bus.subscriber(b"zmsvc.retained.")
    # The onlooker subscribes first: the task answers as soon as there is a subscription to the address.
    waiting.wait_for(lambda: publisher.has_subscription(b"zmsvc.retained."))
    asker = bus.subscriber(b"zmsvc.retained.A @@@ ")
    for topic in ("temperature", "pressure"):
        assert publisher.send(messages.encode(topic, {"header": {"service_id": "x"}, "content": {"n": 1}}))

    def ask(address: str, *topics: str) -> None:
        body = Request(topics=topics, address=address, recipient="ts_9").body({"service_id": "ts_9"})
        assert publisher.send(request + json.dumps(body).encode())

    def is_answered() -> bool:
        ask("B", "temperature")
        ask("A", "pressure", "humidity")
        return bool(asker.poll(50))

    waiting.wait_for(is_answered)
    answers = [messages.decode(received(asker)) for _ in range(2)]
    assert [topic for topic, _ in answers] == ["zmsvc.retained.A"] * 2
    (_, first), (_, last) = answers
    assert first["message"] == {"header": {"service_id": "x"}, "content": {"n": 1}}
    assert (first["topic"], first["header"]["recipient"]) == ("pressure", "ts_9")
    assert (last["header"]["action"], last["content"]) == ("end", {"messages": 1})
    # Nothing else was sent to any address, however often it was asked.
    ask("A", "temperature")
    assert publisher.send(b"zmsvc.retained. @@@ {}")
    told = [received(onlooker) for _ in range(3)]
    assert [each.startswith(b"zmsvc.retained.A @@@ ") for each in told] == [True, True, False]
    task.signal(signal.SIGTERM)
    assert task.end() == 0, nest.logged()


EVERYWHERE = """
from zmsvc.task import MessageTask, TaskService

class Work(MessageTask):
    topics = "temperature"
    every_transaction = True
    def on_message(self, message):
        self.update(of=message.transaction, retained=message.retained)

class ServiceWork(TaskService):
    task_class = Work
"""


def test_a_task_that_hears_every_transaction_gets_the_last_messages_of_all(
    nest: Nest, bus: Forwarder
) -> None:
    transactions = ["OTHER", "TX"]
    for each in transactions:
        nest.fork(instance="LastValue", task="ts_last", transaction=each)
        nest.until("READY")
    publisher = sockets.Publisher(bus.publisher())
    for each in transactions:
        request = f"zmsvc.snapshot.{each}:ts_last @@@ ".encode()
        waiting.wait_for(lambda request=request: publisher.has_subscription(request))  # type: ignore[misc]
        head = {"service_transaction": each, "service_id": "x"}
        assert publisher.send(messages.encode("temperature", {"header": head, "content": {}}))
    nest.service("Work", EVERYWHERE)
    nest.fork(retained=("ts_last",))
    told = [update(nest) for _ in transactions]
    assert sorted(told, key=lambda each: each["of"]) == [
        {"of": each, "retained": True} for each in transactions
    ]
