"""A running context gets garbage on all its sockets. It keeps its state, answers, counts the messages that it
refuses, and runs no foreign code.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from context import Context
from damage import ODD_TEXTS, ODD_VALUES, bytes_of, values_of
from effort import DEADLINE, effort
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE, wait_for

from zmsvc.core import messages
from zmsvc.core.errors import ProtocolError

TX = "FUZZ"
TASKS = {"steady", "still", "target", "babbler", "other"}
SHORT = 0.2
"""Seconds after which a client hangs up if its wait may take for ever."""
BABBLER = """
import array, os, socket
from zmsvc.task import SingleTask, TaskService

class Work(SingleTask):
    def run(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            line.connect("{home}/line")
            memory, reader = os.memfd_create("x"), os.open("/dev/null", os.O_RDONLY)
            while (packet := line.recv(1 << 20)) != b"end":
                fds = [memory, reader][: packet[0] % 3]
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                for address in (os.environ["NOTIFY_SOCKET"], "{home}/run/Live/keeper.sock"):
                    try:
                        out.sendmsg([packet[1:]], rights, 0, address)
                    except OSError as error:
                        self.log.info("not sent: %s", error)
                line.send(b"sent")

class ServiceBabbler(TaskService):
    task_class = Work
"""


@pytest.fixture
def fuzzed(context: Context) -> Iterator[Context]:
    """A context with a task that sends updates all the time. Afterwards everything must be as before."""
    context.looped(
        "Echo", "interval = 0.05\nn = 0\ndef step(self):\n    self.n += 1\n    self.update(n=self.n)"
    )
    context.looped("Still")
    context.service("Babbler", BABBLER.format(home=context.home))
    context.task("steady", "Echo", service="<watchdog>10s</watchdog>")
    context.task("still", "Still", entry=False)
    # This task is for signals, which may end it, or stop it until it is killed.
    context.task(
        "target",
        "Still",
        rules={"on_fail": ("restart", "target"), "on_exit": ("start", "target")},
        service="<stop_timeout>0.2</stop_timeout><restart_delay>1ms</restart_delay>"
        "<restart_max_delay>1ms</restart_max_delay>",
    )
    context.task("babbler", "Babbler", entry=False)
    # `other` runs as another user where the test is root, and then notifies over a socket of its own.
    context.task("other", "Babbler", entry=False, service="" if os.geteuid() else "<user>daemon</user>")
    context.home.chmod(0o755)
    context.start("--transaction", TX)
    before, pid = context.status(), context.tasks(TX)["steady"]["pid"]
    yield context
    after = context.status()
    for name in (
        "pid",
        "keeper_pid",
        "device_pid",
        "restarts",
        "device_restarts",
        "frontend",
        "backend",
        "id",
    ):
        assert after[name] == before[name], name
    steady = context.tasks(TX)["steady"]
    assert (steady["pid"], steady["sub"], steady["restarts"]) == (pid, "running", 0)
    for each in after["transactions"]:
        assert {task["id"] for task in each["tasks"]} == TASKS
    assert not (context.home / "pwned").exists(), "something ran that the file does not name"
    log = context.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
    assert context.stop() == 0


# --- frames on the bus


def frames(home: Path) -> st.SearchStrategy[bytes]:
    """Draw damaged orders of the old protocol, some with the configuration of another context, and none for
    this transaction.
    """
    foreign = {
        "id": "still",
        "topic": "process",
        "instance": "Evil",
        "serviceType": "Command",
        "Task": {
            "message": {
                "header": {
                    "action": "start",
                    "service_id": "still",
                    "service_name": "evil",
                    "transaction": "EVIL",
                },
                "content": {"configuration": {"command": f"touch {home}/pwned", "location": str(home)}},
            }
        },
    }
    head = {
        "action": "start",
        "service_id": "context001",
        "service_name": "context",
        "service_transaction": "EVIL",
    }
    bodies = [
        {"header": head, "content": {"configuration": {"TaskService": foreign}}},
        {
            "header": {**head, "action": "restart"},
            "content": {"configuration": {"TaskService": [foreign, {"id": "nobody"}]}},
        },
        {"header": {**head, "action": "stop"}, "content": {}},
        {"header": head, "content": {"TaskService": foreign}},
        {"Task": foreign["Task"], "id": "evil"},
        {"header": {"action": "request", "service_transaction": TX}},
        {
            "header": {"action": "top", "service_transaction": TX},
            "content": {"configuration": {"memory_maps": True}},
        },
    ]
    topics = st.sampled_from(
        [b"context", b"process", b"state", b"control", b"unheard.", b"", b"context ", b"\xff"]
    )
    said = st.tuples(topics, values_of(bodies) | ODD_VALUES).map(
        lambda pair: pair[0] + b" @@@ " + json.dumps(pair[1]).encode()
    )
    deep = st.integers(1, 200_000).map(lambda depth: b"process @@@ " + b"[" * depth)
    examples = [
        b"%s @@@ %s" % (topic, json.dumps(body).encode())
        for body in bodies
        for topic in (b"context", b"process", b"state")
    ]
    return said | bytes_of(examples) | deep | st.binary(max_size=60).map(lambda data: b"context @@@ " + data)


def harmless(frame: bytes) -> bool:
    """Return True if the message cannot address our steady task, which another client may stop, nor end
    everything.
    """
    if TX.encode() in frame and not (b'"request"' in frame or b'"top"' in frame):
        return False
    try:
        topic, body = messages.decode(frame)
        order = messages.order(topic, body)
    except ProtocolError:
        return True
    # An order without a transaction is for all that are open, ours as well.
    return order.action == "start" or bool(order.transaction)


@pytest.mark.deadline(DEADLINE)
def test_random_frames_on_the_bus_do_no_harm(fuzzed: Context) -> None:
    refused = fuzzed.status()["dropped"]["messages_in"]
    with zmq.Context() as zmq_context, zmq_context.socket(zmq.XPUB) as speaker:
        speaker.connect(fuzzed.publish_endpoint)
        assert speaker.poll(PATIENCE * 1000)

        @given(st.lists(frames(fuzzed.home), min_size=1, max_size=20))
        @effort(400)
        def feed(batch: list[bytes]) -> None:
            for frame in batch:
                if b"exit" not in frame and harmless(frame):
                    speaker.send(frame)
            assert fuzzed.status()["restarts"] == 0

        feed()
        speaker.send(b"context @@@ the last one")
    wait_for(lambda: fuzzed.status()["dropped"]["messages_in"] > refused + 10)
    ran = {
        task["id"]
        for each in fuzzed.status()["transactions"]
        for task in each["tasks"]
        if each["id"] != TX and task["pid"]
    }
    assert ran <= TASKS


# --- requests at the control socket

REQUESTS: list[Any] = [
    {"verb": "status", "transaction": TX, "tasks": ["still"]},
    {"verb": "events", "transaction": TX, "limit": 10, "tasks": ["still"]},
    {"verb": "start", "transaction": "EVIL", "tasks": ["still"], "block": False},
    {"verb": "stop", "transaction": "EVIL", "tasks": ["still"], "timeout": 0.2, "triggers": False},
    {"verb": "restart", "transaction": "EVIL", "tasks": ["still"], "timeout": 0.2},
    {"verb": "reset-failed", "transaction": "EVIL", "tasks": ["still"]},
    {"verb": "wait", "transaction": TX, "tasks": ["steady"], "for": "active", "timeout": 0.05},
    {"verb": "wait", "transaction": TX, "tasks": ["still"], "for": "failed", "timeout": 0.05},
    {"verb": "signal", "transaction": TX, "tasks": ["target"], "signal": "USR2"},
    {"verb": "signal", "transaction": TX, "tasks": ["target"], "signal": "STOP", "all": True},
    {"verb": "signal", "transaction": None, "tasks": ["target"], "signal": 9, "all": False},
    {"verb": "reload-tasks", "transaction": TX, "tasks": ["target"], "timeout": 0.05},
    {"verb": "reload"},
    {"verb": "reload-dry-run"},
    {"verb": "disable", "tasks": ["target", "still"]},
    {"verb": "enable", "tasks": ["target", "still"]},
]


def lines() -> st.SearchStrategy[bytes]:
    said = values_of(REQUESTS).map(lambda value: json.dumps(value).encode())
    examples = [json.dumps(request).encode() for request in REQUESTS]
    deep = st.integers(1, 200_000).map(lambda depth: b'{"verb":' + b"[" * depth)
    return (
        said
        | bytes_of(examples)
        | deep
        | st.binary(max_size=80)
        | ODD_VALUES.map(lambda value: json.dumps(value).encode())
    )


def allowed(line: bytes) -> bool:
    """Return False for a request that may rightly end or change our steady task, and for one without an
    answer of one line.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return True
    if not isinstance(request, dict):
        return True
    verb, tasks = request.get("verb"), request.get("tasks") or ()
    steady = request.get("transaction") in (None, TX) and verb in ("stop", "restart")
    if verb == "signal" and isinstance(tasks, list) and "steady" in tasks:
        return False
    return not steady and not request.get("follow") and request.get("verb") not in ("exit", "reexec")


def waits(line: bytes) -> bool:
    """Return True if the request may be a wait whose time limit was changed or lost."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return False
    limit = request.get("timeout") if isinstance(request, dict) else None
    short = isinstance(limit, int | float) and 0 < limit <= SHORT
    return isinstance(request, dict) and request.get("verb") == "wait" and not short


def answers(path: str, line: bytes, patience: float = PATIENCE) -> list[Any]:
    """Return the replies to one line; each has the form of a reply."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(patience)
        client.connect(path)
        client.sendall(line + b"\n")
        client.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as stream:
            return [json.loads(answer) for answer in stream]


@pytest.mark.deadline(DEADLINE)
def test_random_requests_at_the_control_socket_do_no_harm(fuzzed: Context) -> None:
    path = str(fuzzed.runtime / fuzzed.name / "control.sock")

    @given(lines())
    @effort(2000)
    def feed(line: bytes) -> None:
        if not allowed(line):
            return
        for part in line.split(b"\n"):
            if waits(part):
                with contextlib.suppress(TimeoutError):
                    answers(path, part, SHORT)
                continue
            found = answers(path, part)
            assert found, part
            for answer in found:
                assert isinstance(answer["ok"], bool), answer
                assert (
                    answer.get("more")
                    or answer["ok"]
                    or (answer["error"] and answer["code"] in (1, 2, 4, 124))
                ), answer

    feed()
    rows = [json.loads(line) for line in fuzzed.ctl("--json", "events").stdout.splitlines()]
    signaled = [row for row in rows if row["event"] == "signaled"]
    assert {row["task"] for row in signaled} == {"target"}, "signals were sent, and to no other task"


@pytest.mark.deadline(DEADLINE)
def test_half_lines_huge_lines_and_many_connections_do_no_harm(fuzzed: Context) -> None:
    path = str(fuzzed.runtime / fuzzed.name / "control.sock")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    try:
        for number, client in enumerate(clients):
            client.settimeout(PATIENCE)
            client.connect(path)
            client.sendall(b'{"verb":"status"'[: 1 + number % 16])
        assert fuzzed.status()["restarts"] == 0, "others are served meanwhile"
        for client in clients[:100]:
            client.sendall(b"\n")
            with client.makefile("rb") as stream:
                assert json.loads(stream.readline())["code"] == 2
    finally:
        for client in clients:
            client.close()
    (answer,) = answers(path, b'{"verb":"status","transaction":"' + b"x" * 200_000 + b'"}')
    assert answer["code"] == 4
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(path)
        with pytest.raises(ConnectionError):
            client.sendall(b"x" * (64 << 20))
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(path)
        deaf.sendall(b'{"verb":"events","limit":100000,"follow":true}\n' * 50)
        assert fuzzed.status()["restarts"] == 0


# --- datagrams of a task


def datagrams() -> st.SearchStrategy[bytes]:
    keys = st.sampled_from(
        [
            "READY",
            "STATUS",
            "WATCHDOG",
            "WATCHDOG_USEC",
            "EXTEND_TIMEOUT_USEC",
            "STOPPING",
            "RELOADING",
            "MAINPID",
            "ERRNO",
            "BARRIER",
            "FDSTORE",
            "X_ZMSVC_UPDATE",
            "X_ZMSVC_UPDATE_FD",
            "X_ZMSVC_SEQ",
            "X_ZMSVC_TASK",
            "",
        ]
    )
    values = st.sampled_from(
        [
            "1",
            "0",
            "-1",
            "9" * 400,
            "1e308",
            "nan",
            "",
            "steady",
            "{}",
            '{"a":NaN}',
            "[" * 50_000,
            '{"a":' * 5_000,
            "1\0",
            "trigger",
        ]
    )
    pairs = st.tuples(keys, values | ODD_TEXTS | ODD_VALUES.map(json.dumps)).map("=".join)
    lines = st.lists(pairs, max_size=6).map(lambda found: "\n".join(found).encode())
    return (
        lines
        | bytes_of([b'X_ZMSVC_SEQ=1\nX_ZMSVC_UPDATE={"n":1}', b"READY=1\nSTATUS=well"])
        | st.binary(max_size=200)
    )


@pytest.mark.deadline(DEADLINE)
@pytest.mark.parametrize("babbler", ["babbler", "other"], ids=["of the daemon's user", "of another user"])
def test_random_datagrams_of_a_task_do_no_harm(fuzzed: Context, babbler: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(fuzzed.home / "line"))
        (fuzzed.home / "line").chmod(0o666)
        listener.listen()
        listener.settimeout(PATIENCE)
        fuzzed.ctl("start", "--transaction", TX, "--task", babbler)
        line, _ = listener.accept()
    with line:
        line.settimeout(PATIENCE)

        @given(st.lists(st.tuples(st.integers(0, 2), datagrams()), min_size=1, max_size=20))
        @effort(400)
        def feed(batch: list[tuple[int, bytes]]) -> None:
            for number, datagram in batch:
                line.send(bytes([number]) + datagram)
                assert line.recv(100) == b"sent"
            assert fuzzed.status()["restarts"] == 0
            assert fuzzed.tasks(TX)[babbler]["sub"] == "running"

        feed()
        descriptors = (
            len(os.listdir(f"/proc/{fuzzed.status()['pid']}/fd")),
            len(os.listdir(f"/proc/{fuzzed.status()['keeper_pid']}/fd")),
        )
        assert max(descriptors) < 60, "passed descriptors are closed"
        line.send(b"end")
    assert fuzzed.task_is(babbler, "exited")["exit"]["code"] == 0
