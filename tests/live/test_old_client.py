"""A client of zmicroservices 1.0 of a few dozen lines, written by the manual and docs/from-zmicroservices.md,
works with zmsvc.

It writes JSON as 1.0 did (sorted, indented, `content` first) and reads messages by the fields that 1.0 had.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from context import Context, Subscriber
from tutorial import Tutorial
from waiting import PATIENCE

TX = "6FDAHH3WPRVV7FGZCRIN"


class OldClient:
    """Publishes at the pub_port and listens at the sub_port, as display.py and conf_command.py of 1.0 do."""

    def __init__(self, sub: str, pub: str) -> None:
        self._context = zmq.Context()
        self._subscriber, self._publisher = self._context.socket(zmq.SUB), self._context.socket(zmq.XPUB)
        for topic in ("control", "process", "state", "~last"):
            self._subscriber.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._subscriber.connect(sub)
        self._publisher.connect(pub)
        self.info: dict[str, Any] = {}
        """Our transaction, as the last `context_info` has it."""
        # 1.0 slept here until its sockets were connected. The device tells us of a topic that no other asks for;
        # libzmq sends the topics in their alphabetical order.
        told = b""
        while told != b"\x01~last":
            assert self._publisher.poll(PATIENCE * 1000), "the device does not know the subscription"
            told = self._publisher.recv()

    def say(self, topic: str, message: dict[str, Any]) -> None:
        text = json.dumps(message, sort_keys=True, indent=4, separators=(",", ": "))
        self._publisher.send_string(f"{topic} @@@ {text}")

    def context(
        self,
        action: str,
        configuration: dict[str, Any],
        *,
        service_id: str = "context001",
        name: str = "context",
    ) -> None:
        head = {"action": action, "service_id": service_id, "service_name": name, "service_transaction": TX}
        self.say("context", {"header": head, "content": {"configuration": configuration}})

    def state(self, action: str) -> dict[str, Any]:
        head = {"action": action, "service_id": "", "service_name": "state", "service_transaction": TX}
        self.say("state", {"header": head, "content": {"configuration": {}}})
        answer = self.until(
            lambda topic, body: topic == "state" and body["header"]["action"] == f"reply_{_REPLY[action]}"
        )
        assert answer["header"] == {**head, "action": f"reply_{_REPLY[action]}"}, (
            "the header of the question with another action"
        )
        return answer

    def until(self, wanted: Callable[[str, dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            assert self._subscriber.poll(PATIENCE * 1000), "nothing more on the bus"
            topic, text = self._subscriber.recv_string().split("@@@", 1)
            body = json.loads(text.strip())
            body.setdefault("header", {})
            for each in body.get("content", {}).get("status", {}).get("data", []):
                self.info = each.get(TX, self.info)
            if wanted(topic.strip(), body):
                return body

    def control(self, action: str, task: str) -> dict[str, Any]:
        """The status of the next report of this task."""
        wanted = ("control", action, task)
        body = self.until(
            lambda topic, body: (
                (topic, body["header"].get("action"), body["header"].get("service_id")) == wanted
            )
        )
        assert body["header"]["service_transaction"] == TX
        return dict(body["content"]["status"])

    def service(self, task: str) -> dict[str, Any]:
        """Look a task up as ContextInfo.GetServiceID of 1.0 does: by the ID of the TaskService that is stored
        with each task.
        """
        return next(each for each in self.info["tasks"] if each["task"]["id"] == task)

    def services(self) -> list[str]:
        """Return the services as ContextInfo.GetContextServices of 1.0 does: those whose state is success."""
        return [each["service_id"] for each in self.info["tasks"] if each["state"] == "success"]

    def close(self) -> None:
        self._context.destroy(0)


_REPLY = {"request": "context", "top": "top"}


@pytest.fixture
def old(home: Path) -> Iterator[tuple[Tutorial, OldClient]]:
    """A context that the old commands have made and started, and the client."""
    tutorial = Tutorial(home)
    flags = {
        "service_path": str(home),
        "task_service": "EchoAction",
        "task_file": "task_file_name",
        "task_class": "EchoShouting",
        "task_desc": "An echo action",
        "context_name": "EchoAction",
        "service_name": "echo_action",
        "server_ip": "127.0.0.1",
        "sub_port": str(tutorial.sub_port),
        "pub_port": str(tutorial.pub_port),
        "task_id": "ts_100",
        "device_action": "shout",
    }
    tutorial.run("create_service.py", *(f"--{name}={value}" for name, value in flags.items()))
    tutorial.begin_context("Conf/Context-EchoAction.xml")
    client = OldClient(f"tcp://127.0.0.1:{tutorial.sub_port}", f"tcp://127.0.0.1:{tutorial.pub_port}")
    yield tutorial, client
    client.close()
    tutorial.close()


def test_a_client_of_1_0_goes_through_its_whole_life(old: tuple[Tutorial, OldClient]) -> None:
    tutorial, client = old
    # conf_command.py of 1.0 sends `none` where --service_id is left out.
    client.context("start", {}, service_id="none")
    started = client.control("started", "ts_100")
    assert (started["result"], started["device_action"]) == ("success", "shout")
    # Messages from before the start may still arrive; their state is `in_progress`.
    client.until(lambda *_: bool(client.info) and client.services() == ["ts_100"])
    service = client.service("ts_100")
    assert (service["pid"], service["serviceName"]) == (started["pid"], "echo_action")
    assert client.services() == ["ts_100"]

    content = client.state("request")["content"]
    assert (content["contextId"], content["contextLogName"]) == ("context001", "EchoAction")
    (told,) = content["tasks"]
    assert (told["service_id"], told["instance"], told["pid"]) == ("ts_100", "EchoAction", started["pid"])
    assert told["action"] in ("started", "updated")
    assert told["task"].keys() >= {"id", "instance", "serviceType", "topic", "Task"}
    (row,) = client.state("top")["content"]["tasks"]
    assert (row["service_id"], row["pid"]) == ("ts_100", started["pid"])

    # 1.0 stops a service by the stored TaskService with another action in its header.
    message = dict(service["task"])
    assert message["Task"]["message"]["header"] == {
        "action": "start", "service_id": "ts_100", "service_name": "echo_action", "transaction": TX,
    }  # fmt: skip
    message["Task"]["message"]["header"]["action"] = "stop"
    client.say("process", message)
    assert client.control("stopped", "ts_100")["pid"] == started["pid"]
    client.context("start", {"TaskService": [{"id": "ts_100"}]}, service_id="")
    again = client.control("started", "ts_100")
    client.context("restart", {"TaskService": {}}, name="all")
    client.control("stopped", "ts_100")
    assert client.control("started", "ts_100")["pid"] not in (started["pid"], again["pid"])
    client.context("stop", {"TaskService": {"id": "ts_100"}}, service_id="context002")
    refused = client.control("failed", "ts_100")
    assert (refused["result"], refused["reason"]) == ("failure", "refused")
    # With its `exit` 1.0.0 sends an empty map for the tasks.
    client.context("exit", {"TaskLogName": "EchoAction", "TaskService": {}})
    client.control("stopped", "ts_100")
    assert tutorial.running[0].wait(PATIENCE) == 0


FORMS = {
    "sorted and indented, as 1.0 wrote it": {"sort_keys": True, "indent": 4, "separators": (",", ": ")},
    "with a blank after each colon": {},
    "compact": {"separators": (",", ":")},
    "sorted and compact": {"sort_keys": True, "separators": (",", ":")},
}
LISTENER = """
from zmsvc.task import LoopedTask, TaskService

class Work(LoopedTask):
    interval = 3600.0
    def step(self):
        pass

class ServiceListener(TaskService):
    task_class = Work
    def on_control(self, message):
        if message["content"]["status"].get("device_action") == "track_found":
            self.update(heard=message["content"]["status"]["number"], action=message["header"]["action"])
"""


def test_on_control_hears_a_message_in_any_form_of_json(
    context: Context, subscriber: Callable[..., Subscriber]
) -> None:
    context.service("Listener", LISTENER)
    context.task("ts_1", "Listener")
    context.start("--transaction", TX)
    listener = subscriber(b"control @@@ ")
    head = {"service_name": "sniffer", "action": "updated", "service_id": "ts010", "service_transaction": TX}
    orders = [head, dict(reversed(head.items())), {"sent_at": 1, **head}, {"action": "updated", **head}]
    ctx = zmq.Context()
    try:
        pub_socket = ctx.socket(zmq.XPUB)
        pub_socket.connect(context.publish_endpoint)
        assert pub_socket.poll(PATIENCE * 1000)
        number = 0
        for form in FORMS.values():
            for first in ("header", "content"):
                for order in orders:
                    number += 1
                    status = {"result": "success", "device_action": "track_found", "number": number}
                    parts = {"header": order, "content": {"status": status}}
                    body = {first: parts[first], **parts, "extra": [1, {"a": None}]}
                    pub_socket.send(b"control @@@ " + json.dumps(body, **form).encode())  # type: ignore[arg-type]
                    heard = listener.control("updated", "ts_1")["content"]["status"]
                    assert (heard["heard"], heard["action"]) == (number, "updated"), body
        # No message of another transaction is passed on, whatever its form.
        for transaction in ("OTHER", TX):
            number += 1
            status = {"result": "success", "device_action": "track_found", "number": number}
            body = {"content": {"status": status}, "header": {**head, "service_transaction": transaction}}
            pub_socket.send(b"control @@@ " + json.dumps(body, indent=1).encode())
        assert listener.control("updated", "ts_1")["content"]["status"]["heard"] == number
    finally:
        ctx.destroy(0)


@pytest.mark.parametrize("address", ["192.0.2.77", "127.0.1.1"])
def test_endpoints_that_nobody_could_reach_are_refused_at_once(context: Context, address: str) -> None:
    """The template of 1.0 writes server_ip into both endpoints and `tcp://*` into both binds, which is
    loopback without keys.
    """
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.write()
    text = context.file.read_text()
    for tag, was, place in (
        ("FrontEndEndpoint", context.subscribe_endpoint, f"tcp://{address}:5556"),
        ("BackendEndpoint", context.publish_endpoint, f"tcp://{address}:5557"),
        ("FrontBind", context.publish_endpoint, "tcp://*:5557"),
        ("BackendBind", context.subscribe_endpoint, "tcp://*:5556"),
    ):
        text = text.replace(f"<{tag}>{was}<", f"<{tag}>{place}<")
    context.file.write_text(text)
    why = (
        f"FrontEndEndpoint tcp://{address}:5556 is not where the device listens: BackendBind tcp://*:5556 "
        f"is bound at tcp://127.0.0.1:5556"
    )
    assert why in context.ctl("check", str(context.file)).stdout
    command = [sys.executable, "-P", "-m", "zmsvc.keeper", str(context.file)]
    done = subprocess.run(
        command, env=context.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2, done.stderr
    assert (
        f"{context.file}:1: {why}, expected tcp://127.0.0.1:5556, or keys (zmsvcctl -c {context.name} keys "
        f"make)" in done.stderr
    )
