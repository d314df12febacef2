"""Clients that ask and hang up: their order is carried out, and their resources are freed. Other clients keep
their connections.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest
from context import Context
from waiting import PATIENCE, wait_for


@pytest.fixture
def slow(context: Context) -> Context:
    """A context with a task that is ready when the file `go` exists."""
    until = f"while not os.path.exists('{context.home}/go') and not self.wait(0.01):"
    context.looped("Slow", f"def setup(self):\n    import os\n    {until}\n        pass")
    context.looped("Echo")
    context.task("slow", "Slow", entry=False)
    context.task("steady", "Echo")
    context.start("--transaction", "T")
    return context


def send(context: Context, **request: Any) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(context.runtime / context.name / "control.sock"))
    client.sendall(json.dumps(request).encode() + b"\n")
    return client


def files(context: Context) -> int:
    return len(os.listdir(f"/proc/{context.status()['pid']}/fd"))


@pytest.mark.parametrize(
    "request_",
    [
        {"verb": "start", "transaction": "T", "tasks": ["slow"]},
        {"verb": "events", "follow": True, "limit": 1},
    ],
    ids=["waits for a start", "follows the history"],
)
def test_nothing_is_kept_for_clients_that_have_hung_up(slow: Context, request_: dict[str, Any]) -> None:
    slow.ask(verb="start", transaction="T", tasks=["slow"], block=False)
    slow.task_is("slow", "start")
    before = files(slow)
    clients = [send(slow, **request_) for _ in range(100)]
    # The connections of earlier clients may still have been open when this was counted.
    wait_for(lambda: files(slow) >= before + 90)
    for client in clients:
        client.close()
    wait_for(lambda: files(slow) <= before)
    assert slow.tasks()["slow"]["sub"] == "start", "nothing has happened that they waited for"


def test_the_order_of_a_client_that_hangs_up_is_carried_out(slow: Context) -> None:
    send(slow, verb="start", transaction="T", tasks=["slow"]).close()
    slow.task_is("slow", "start")
    (slow.home / "go").touch()
    slow.task_is("slow", "running")


def test_a_client_that_has_shut_down_its_sending_side_is_answered(slow: Context) -> None:
    with send(slow, verb="start", transaction="T", tasks=["slow"]) as client:
        client.shutdown(socket.SHUT_WR)
        slow.task_is("slow", "start")
        (slow.home / "go").touch()
        with client.makefile("rb") as answers:
            assert json.loads(answers.readline())["ok"]
