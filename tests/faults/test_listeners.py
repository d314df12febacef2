"""Clients can connect to the control socket and to the notify socket while no supervisor runs. They get no
error, and wait for the next supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from context import Context, Subscriber
from waiting import PATIENCE, stop_process, wait_for_end


@pytest.fixture
def alone(context: Context) -> Iterator[Context]:
    """A context whose keeper is stopped and whose supervisor is dead, until the test lets the keeper go
    on.
    """
    context.looped(
        "Count", "interval = 0.01\nn = 0\ndef step(self):\n    self.n += 1\n    self.update(n=self.n)"
    )
    context.task("ts_1", "Count")
    context.task("ts_2", "Count", entry=False)
    context.start("--transaction", "T")
    assert context.daemon is not None
    supervisor = context.status()["pid"]
    stop_process(context.daemon.pid)
    os.kill(supervisor, signal.SIGKILL)
    wait_for_end(supervisor)
    yield context
    os.kill(context.daemon.pid, signal.SIGCONT)


def go_on(context: Context) -> None:
    assert context.daemon is not None
    os.kill(context.daemon.pid, signal.SIGCONT)


def test_clients_connect_and_are_answered_by_the_next_supervisor(alone: Context) -> None:
    path = str(alone.runtime / alone.name / "control.sock")
    orders = [
        {"verb": "start", "transaction": "T", "tasks": ["ts_2"]},
        *({"verb": "status"} for _ in range(200)),
    ]
    clients = []
    try:
        for order in orders:
            clients.append(socket.socket(socket.AF_UNIX))
            clients[-1].settimeout(PATIENCE)
            clients[-1].connect(path)
            clients[-1].sendall(json.dumps(order).encode() + b"\n")
        go_on(alone)
        answers = []
        for client in clients:
            with client.makefile("rb") as lines:
                answers.append(json.loads(lines.readline()))
    finally:
        for client in clients:
            client.close()
    assert all(answer["ok"] for answer in answers)
    assert alone.tasks()["ts_2"]["sub"] == "running"


def test_clients_connect_to_the_bus_without_a_supervisor(alone: Context) -> None:
    """The device is a process of its own: it accepts connections without a supervisor."""
    subscriber = Subscriber(
        alone.subscribe_endpoint, alone.publish_endpoint, b'control @@@ {"header":{"service_transaction":"T"'
    )
    try:
        go_on(alone)
        first = subscriber.control("updated", "ts_1")["content"]["status"]["n"]
        numbers = [subscriber.control("updated", "ts_1")["content"]["status"]["n"] for _ in range(50)]
    finally:
        subscriber.close()
    assert numbers == list(range(first + 1, first + 51)), "what was said meanwhile is told, too, in order"
