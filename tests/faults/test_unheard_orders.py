"""Orders that are published on the bus while no supervisor runs are lost. The next supervisor reports how many
there were.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
import zmq
from context import Context
from waiting import PATIENCE, stop_process, wait_for, wait_for_end


class Stranger:
    """A publisher that receives the subscriptions of its peers."""

    def __init__(self, publish_endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.connect(publish_endpoint)
        self.until(b"\x01unheard.")

    def until(self, told: bytes) -> None:
        while True:
            assert self._socket.poll(PATIENCE * 1000), told
            if self._socket.recv().startswith(told):
                return

    def say(self, topic: str, body: object) -> None:
        self._socket.send(f"{topic} @@@ {json.dumps(body)}".encode())

    def order(self, action: str, **header: str) -> None:
        head = {
            "action": action,
            "service_id": "context001",
            "service_name": "context",
            "service_transaction": "T",
            **header,
        }
        self.say("context", {"header": head, "content": {}})

    def close(self) -> None:
        self._context.destroy(0)


@pytest.fixture
def stranger(context: Context) -> Iterator[Stranger]:
    context.looped("Echo")
    context.task("ts_1", "Echo")
    context.start("--transaction", "T")
    made = Stranger(context.publish_endpoint)
    yield made
    made.close()


def without_supervisor(context: Context, stranger: Stranger) -> None:
    """Kill the supervisor while the keeper cannot start the next one yet."""
    assert context.daemon is not None
    supervisor = context.status()["pid"]
    stop_process(context.daemon.pid)
    os.kill(supervisor, signal.SIGKILL)
    wait_for_end(supervisor)
    stranger.until(b"\x00unheard.")


def supervisor_again(context: Context) -> None:
    assert context.daemon is not None
    os.kill(context.daemon.pid, signal.SIGCONT)


def unheard(context: Context) -> int:
    return int(context.status()["dropped"]["unheard_orders"])


def test_orders_without_a_supervisor_are_counted_and_reported(context: Context, stranger: Stranger) -> None:
    without_supervisor(context, stranger)
    for action in ("stop", "start", "restart", "exit", "update", "started", "nonsense"):
        stranger.order(action)
    inner = {"action": "stop", "service_id": "ts_1", "service_name": "echo", "transaction": "T"}
    stranger.say("process", {"Task": {"message": {"header": inner}}})
    stranger.say("process", {"no": "order"})
    stranger.say("talk", {"header": {"action": "stop"}})
    supervisor_again(context)
    wait_for(lambda: unheard(context) == 5)
    assert context.tasks()["ts_1"]["restarts"] == 0, "they are lost"
    assert "5 unheard orders" in context.ctl("status", check=None).stdout
    rows = [json.loads(line) for line in context.ctl("--json", "events").stdout.splitlines()]
    (row,) = [row for row in rows if row["event"] == "dropped"]
    assert row["detail"]["orders"] == 5
    wait_for(lambda: "no supervisor was there to receive orders of the bus" in context.log.read_text())


def test_received_orders_are_not_counted_as_missed(context: Context, stranger: Stranger) -> None:
    for _ in range(3):
        stranger.order("stop", service_transaction="NOBODY")
    stranger.order("start", service_transaction="OTHER")
    context.task_is("ts_1", "running", "OTHER")
    context.kill_supervisor()
    # The next supervisor answers `status` before all publishers have its subscriptions.
    stranger.until(b"\x01unheard.")
    assert context.status()["restarts"] == 1
    stranger.order("stop", service_transaction="OTHER")
    wait_for(lambda: context.tasks("OTHER")["ts_1"]["sub"] == "stopped")
    assert unheard(context) == 0, "nor are its own reports, of which there were some"


def test_the_count_of_unheard_orders_restarts_after_a_report(context: Context, stranger: Stranger) -> None:
    for count in (2, 3):
        without_supervisor(context, stranger)
        for _ in range(count):
            stranger.order("stop")
        supervisor_again(context)
        stranger.until(b"\x01unheard.")
        wait_for(lambda count=count: unheard(context) == count)  # type: ignore[misc]
