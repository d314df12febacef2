"""The old protocol with another ZMQ client: orders on `context` and `process`, reports on `control`, requests
on `state`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from context import Context, Subscriber
from waiting import PATIENCE, wait_for

from zmsvc.supervisor.context_info import COALESCE

TX = "5HGAHZ3WPZUI71PACRPP"


class Stranger:
    """A client that may publish anything."""

    def __init__(self, publish_endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.connect(publish_endpoint)
        assert self._socket.poll(PATIENCE * 1000)

    def say(self, frame: bytes) -> None:
        self._socket.send(frame)

    def order(
        self, action: str, *tasks: str, transaction: str = TX, context_id: str = "context001", **header: Any
    ) -> None:
        head = {
            "action": action,
            "service_id": context_id,
            "service_name": "context",
            "service_transaction": transaction,
            **header,
        }
        services = [{"id": task} for task in tasks]
        content = (
            {"configuration": {"TaskService": services[0] if len(services) == 1 else services}}
            if tasks
            else {}
        )
        self.say(b"context @@@ " + json.dumps({"content": content, "header": head}, indent=2).encode())

    def close(self) -> None:
        self._context.destroy(0)


@pytest.fixture
def stranger(context: Context) -> Iterator[Callable[[], Stranger]]:
    made: list[Stranger] = []

    def make() -> Stranger:
        made.append(Stranger(context.publish_endpoint))
        return made[-1]

    yield make
    for each in made:
        each.close()


def three(context: Context) -> None:
    """Add a task that goes on, and one that ends by itself and starts a third one by its rule."""
    context.looped("Echo")
    context.service(
        "Short",
        """
        from zmsvc.task import SingleTask, TaskService
        class Work(SingleTask):
            def run(self):
                self.update(done=True)
        class ServiceShort(TaskService):
            task_class = Work
        """,
    )
    context.task("ts_1", "Echo", entry=False)
    context.task("ts_2", "Short", entry=False, rules={"on_exit": ("start", "ts_3")})
    context.task("ts_3", "Echo", entry=False)


def test_the_full_life_of_three_services(
    context: Context, subscriber: Callable[..., Subscriber], stranger: Callable[[], Stranger]
) -> None:
    three(context)
    context.start("--no-autostart")
    listener, speaker = subscriber(b"control @@@ "), stranger()
    speaker.order("start", "ts_1")
    assert listener.control("started", "ts_1", TX)["content"]["status"]["pid"]
    speaker.order("start", "ts_2")
    words = [("started", "ts_2"), ("updated", "ts_2"), ("stopped", "ts_2"), ("started", "ts_3")]
    seen: list[tuple[str, str]] = []
    while ("started", "ts_3") not in seen:
        _, body = listener.next()
        if body["header"]["action"] != "update":
            seen.append((body["header"]["action"], body["header"]["service_id"]))
            assert body["header"]["service_transaction"] == TX
            assert list(body) == ["header", "content"]
    assert seen == words
    speaker.order("restart", "ts_1", "ts_3")
    restarted = {}
    for _ in range(2):
        body = listener.until(lambda topic, body: body["header"]["action"] == "started")
        restarted[body["header"]["service_id"]] = body["content"]["status"]["pid"]
    assert set(restarted) == {"ts_1", "ts_3"}
    speaker.order("exit")
    ended = {}
    for _ in range(2):
        body = listener.until(
            lambda topic, body: (
                body["header"]["action"] == "stopped"
                and body["content"]["status"]["pid"] in restarted.values()
            )
        )
        ended[body["header"]["service_id"]] = body["content"]["status"]["reason"]
    assert ended == {"ts_1": "requested", "ts_3": "requested"}
    assert context.wait() == 0


def test_a_context_message_without_tasks_means_all(
    context: Context, subscriber: Callable[..., Subscriber], stranger: Callable[[], Stranger]
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo")
    context.start("--no-autostart")
    listener, speaker = subscriber(b"control @@@ "), stranger()
    speaker.order("start")
    for _ in range(2):
        listener.until(lambda topic, body: body["header"]["action"] == "started")
    speaker.order("stop")
    for _ in range(2):
        listener.until(lambda topic, body: body["header"]["action"] == "stopped")
    wait_for(lambda: context.status()["transactions"][0]["state"] == "inactive")


def test_a_start_without_a_transaction_means_the_only_open_one_for_a_task_and_a_new_one_for_all(
    context: Context, subscriber: Callable[..., Subscriber], stranger: Callable[[], Stranger]
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", TX)
    listener, speaker = subscriber(b"control @@@ "), stranger()
    speaker.order("start", "ts_2", transaction="")
    assert listener.control("started", "ts_2")["header"]["service_transaction"] == TX
    speaker.order("start", transaction="")
    other = listener.control("started", "ts_1")["header"]["service_transaction"]
    assert len(other) == 20
    speaker.order("start", "ts_2", transaction="")
    assert (
        f"several transactions are open ({TX}, {other})"
        in listener.control("failed", "ts_2")["content"]["status"]["message"]
    )


def test_a_process_message_of_another_client_is_an_order(
    context: Context, subscriber: Callable[..., Subscriber], stranger: Callable[[], Stranger]
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    listener, speaker = subscriber(), stranger()
    speaker.order("restart", "ts_1")
    order = listener.until(lambda topic, body: topic == "process" and body["header"]["action"] == "start")
    listener.control("started", "ts_1")
    del order["header"]
    order["Task"]["message"]["header"]["action"] = "stop"
    speaker.say(b"process @@@ " + json.dumps(order).encode())
    assert listener.control("stopped", "ts_1")["content"]["status"]["reason"] == "requested"


def test_invalid_orders_are_refused_and_never_executed(
    context: Context, subscriber: Callable[..., Subscriber], stranger: Callable[[], Stranger]
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    before = context.tasks()["ts_1"]["pid"]
    listener, speaker = subscriber(b"control @@@ "), stranger()
    for garbage in (
        b"context @@@ {not json",
        b"context @@@ []",
        b"context @@@ {}",
        b'context @@@ {"header": {"action": "stop"}}',
        b'context @@@ {"header": []}',
        b"context",
        b"process @@@ {}",
        b'process @@@ {"Task": {"message": {"header": {"action": "stop"}}}}',
        b"context @@@ " + b"[" * 100_000,
        b"context @@@ \xff\xfe",
    ):
        speaker.say(garbage)
    speaker.order("stop", context_id="somebody_elses")
    elsewhere = listener.control("failed", "somebody_elses", TX)["content"]["status"]
    assert (elsewhere["result"], elsewhere["reason"]) == ("failure", "refused")
    assert elsewhere["message"] == "cannot stop somebody_elses: the ContextID of this context is context001"
    speaker.order("start", "ts_999")
    refused = listener.control("failed", "ts_999")["content"]["status"]
    assert refused["result"] == "failure"
    assert "no such task" in refused["message"]
    foreign = {"id": "ts_1", "Task": {"message": {"content": {"configuration": {"location": "/tmp/evil"}}}}}
    head = {
        "action": "restart",
        "service_id": "context001",
        "service_name": "context",
        "service_transaction": TX,
    }
    speaker.say(
        b"context @@@ "
        + json.dumps({"header": head, "content": {"configuration": {"TaskService": foreign}}}).encode()
    )
    assert "configuration" in listener.control("failed", "ts_1")["content"]["status"]["message"]
    speaker.order("stop", transaction="NOBODY")
    assert "no such transaction" in listener.control("failed", "context001")["content"]["status"]["message"]
    assert context.tasks()["ts_1"]["pid"] == before
    assert context.status()["dropped"]["messages_in"] >= 10
    assert context.log.read_text().count("is refused") < 10, "a flood is told in a line now and then"


def test_bursts_of_changes_cost_one_context_info(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    for number in range(20):
        context.task(f"ts_{number}", "Echo")
    context.start("--no-autostart")
    listener = subscriber(b"control @@@ ")
    begun = time.monotonic()
    context.ctl("start", "--transaction", TX)
    started, infos, last = 0, 0, {}
    while (
        started < 20
        or TX not in last
        or not all(task["active_state"] == "active" for task in last[TX]["tasks"])
    ):
        _, body = listener.next()
        started += body["header"]["action"] == "started"
        if body["header"]["action"] == "update":
            infos += 1
            (last,) = body["content"]["status"]["data"]
    # Each of 20 tasks has three changes.
    assert infos <= 2 + (time.monotonic() - begun) / COALESCE
    assert set(last[TX]) == {"contextId", "contextName", "contextLogName", "configuration", "tasks"}
    assert set(last[TX]["tasks"][0]) == {
        "service_id",
        "serviceName",
        "instance",
        "pid",
        "action",
        "state",
        "active_state",
        "sub_state",
        "task",
    }


def closes_when_told(context: Context, home: Path) -> None:
    """Add a service whose end waits for the file `go`; until then only orders change something."""
    gate = f"while not __import__('os').path.exists('{home}/go'):\n        __import__('time').sleep(0.01)"
    context.looped("Echo", f"def close(self):\n    {gate}")


def told(body: dict[str, Any], task: int = 0) -> dict[str, str]:
    """Return the state of this task in each transaction of a `context_info`."""
    data = body["content"]["status"].get("data", [])
    return {name: part["tasks"][task]["active_state"] for each in data for name, part in each.items()}


def test_context_info_comes_under_the_header_of_each_transaction_that_changed_and_lists_all(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    closes_when_told(context, home)
    context.task("ts_1", "Echo")
    context.task("ts_2", "Echo", entry=False)
    context.start("--transaction", "A")
    context.ctl("start", "--transaction", "B")
    # One client subscribes to A alone, by the prefix that the device filters. One order changes A and B at
    # the same moment, and not C.
    of_a, of_all = (
        subscriber(b'control @@@ {"header":{"service_transaction":"A"'),
        subscriber(b"control @@@ "),
    )
    context.ctl("start", "--transaction", "C", "--task", "ts_2")
    of_all.until(lambda _topic, body: told(body, 1).get("C") == "active")
    context.ask(verb="stop", tasks=["ts_1"], block=False)
    now = {"A": "deactivating", "B": "deactivating", "C": "inactive"}
    of_a.until(lambda _topic, body: told(body) == now)
    heads = [of_all.until(lambda _topic, body: told(body) == now)["header"] for _ in range(2)]
    assert [head["service_transaction"] for head in heads] == ["A", "B"]
    assert all(
        (head["service_id"], head["action"], head["service_name"]) == ("context001", "update", "context")
        for head in heads
    )
    assert {body["header"]["service_transaction"] for _, body in of_a.heard} == {"A"}
    (home / "go").touch()


def test_many_changes_at_once_do_not_cost_the_square_of_their_number(
    context: Context, home: Path, subscriber: Callable[..., Subscriber]
) -> None:
    closes_when_told(context, home)
    context.task("ts_1", "Echo", config=f"<notes>{'x' * 10_000}</notes>")
    names = [f"T{number:02}" for number in range(20)]
    context.start("--transaction", names[0])
    of_one, of_all = (
        subscriber(b'control @@@ {"header":{"service_transaction":"T00"'),
        subscriber(b"control @@@ "),
    )
    for name in names[1:]:
        context.ask(verb="start", transaction=name)
    of_all.until(lambda _topic, body: told(body) == dict.fromkeys(names, "active"))
    context.ask(verb="stop", block=False)
    heard = [of_all.until(lambda _topic, body: "deactivating" in told(body).values()) for _ in names]
    assert [body["header"]["service_transaction"] for body in heard] == names
    assert [told(body) for body in heard[:-1]] == [{name: "deactivating"} for name in names[:-1]]
    assert told(heard[-1]) == dict.fromkeys(names, "deactivating"), (
        "a subscriber to all of it knows all of it in the end"
    )
    of_one.until(lambda _topic, body: told(body) == {"T00": "deactivating"})
    (home / "go").touch()


def test_the_last_context_info_shows_no_running_task(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    listener = subscriber(b"control @@@ ")
    context.ctl("exit")
    listener.control("stopped", "ts_1")
    listener.until(lambda _topic, body: told(body) == {TX: "inactive"})
    assert "Exception" not in context.log.read_text()


def test_a_flood_of_large_orders_leaves_the_supervisor_responsive(
    context: Context, stranger: Callable[[], Stranger]
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    before, speaker = context.status(), stranger()
    names = [{"id": f"nobody{number}"} for number in range(30_000)]
    head = {
        "action": "explode",
        "service_id": "context001",
        "service_name": "context",
        "service_transaction": TX,
    }
    large = (
        b"context @@@ "
        + json.dumps({"header": head, "content": {"configuration": {"TaskService": names}}}).encode()
    )
    for _ in range(30):
        speaker.say(large)
    # Each takes some 30 ms. If all were read at once, the first answer would have to wait for them.
    assert wait_for(lambda: context.status()["dropped"]["messages_in"]) < 30
    assert context.status()["pid"] == before["pid"]
    # Each has the time of a fact: all together may take longer on a busy machine.
    for count in range(1, 31):
        wait_for(lambda count=count: context.status()["dropped"]["messages_in"] >= count)  # type: ignore[misc]
    assert context.status()["dropped"]["messages_in"] == 30


def test_state_request_is_answered(
    context: Context, subscriber: Callable[..., Subscriber], stranger: Callable[[], Stranger]
) -> None:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", TX)
    listener, speaker = subscriber(b"state @@@ "), stranger()
    head = {
        "action": "request",
        "service_id": "context001",
        "service_name": "state",
        "service_transaction": TX,
    }
    speaker.say(b"state @@@ " + json.dumps({"header": head, "content": {}}).encode())
    reply = listener.until(lambda topic, body: body["header"]["action"] == "reply_context")
    assert reply["content"]["tasks"][0]["service_id"] == "ts_1"
    assert reply["content"]["tasks"][0]["pid"] == context.tasks()["ts_1"]["pid"]


def test_two_transactions_do_not_touch_each_other(
    context: Context, subscriber: Callable[..., Subscriber], stranger: Callable[[], Stranger]
) -> None:
    three(context)
    context.start("--no-autostart")
    listener, speaker = subscriber(b"control @@@ "), stranger()
    speaker.order("start", "ts_1", transaction="A")
    listener.control("started", "ts_1", "A")
    speaker.order("start", "ts_2", transaction="B")
    listener.control("started", "ts_3", "B")
    speaker.order("stop", transaction="B")
    listener.control("stopped", "ts_3", "B")
    assert context.tasks("A")["ts_1"]["sub"] == "running"
    assert context.tasks("A")["ts_3"]["sub"] == "waiting"
