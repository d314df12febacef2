"""The sockets of a Monitor in its own thread: one turn is limited, and the next turn does the rest."""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from flood import Flood, frame
from others import command, others
from ports import free_ports
from waiting import PATIENCE, wait_for

from zmsvc.core import messages
from zmsvc.host import usage
from zmsvc.host.bus import loopback_gate, socket_monitor
from zmsvc.task.keys import TaskKeys
from zmsvc.task.monitor import AGAIN_S, BATCH, MonitorEndpoint, MonitorTask, StateClient, TransactionView

MANY = 3
ASKERS = 10
"""Each of these sends fewer requests than its queue can have."""


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(0)


@pytest.fixture
def endpoint() -> str:
    (port,) = free_ports(1)
    return f"tcp://127.0.0.1:{port}"


def waits(monitor: MonitorEndpoint, seconds: float = 0) -> bool:
    """Return True if one of the descriptors that the task watches is readable."""
    return bool(select.select(monitor.sources(), [], [], seconds)[0])


def turns(monitor: MonitorEndpoint, wanted: Callable[[], object]) -> int:
    """Take turns until this is true. Return their number."""
    count = 0

    def turn() -> object:
        nonlocal count
        monitor.turn()
        count += 1
        return wanted()

    wait_for(turn)
    return count


def test_a_turn_judges_a_limited_number_of_connections_and_the_next_turn_the_rest(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str
) -> None:
    with closing(MonitorEndpoint(context, endpoint, "pub", TaskKeys(), print)) as monitor:
        connections = [
            socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2])))
            for _ in range(MANY * socket_monitor.BATCH)
        ]
        for each in connections:
            # libzmq greets after it has reported the connection.
            assert each.recv(1)
        monitor.turn()
        assert waits(monitor), "one turn has judged all of them"
        assert turns(monitor, lambda: not waits(monitor)) >= MANY - 2
        listener = context.socket(zmq.SUB)
        listener.subscribe(b"")
        listener.connect(endpoint)

        def heard() -> bool:
            monitor.show(b"sample")
            return bool(listener.poll(10))

        wait_for(heard)
        listener.close(0)
        for each in connections:
            each.close()


HOLD = """
import select, socket, sys
held = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(int(sys.argv[2]))]
for each in held:
    each.recv(10)
print("go", flush=True)
sys.stdin.readline()
print(len(held) - len(select.select(held, [], [], 0)[0]), flush=True)
"""


def test_silent_connections_of_a_user_who_may_not_connect_take_a_bounded_number_of_descriptors(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str
) -> None:
    """The gate gives each connection a second, in which the peer gets the reason. A flood does not wait for
    that.
    """
    words = [
        *command(others(1)[0]),
        sys.executable,
        "-P",
        "-c",
        HOLD,
        endpoint.rpartition(":")[2],
        str(2 * loopback_gate._MAX_WAITING),
    ]
    with (
        closing(
            MonitorEndpoint(context, endpoint, "pub", TaskKeys(), lambda _line: None, grace_s=3600.0)
        ) as monitor,
        subprocess.Popen(
            words, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as stranger,
    ):
        assert stranger.stdout is not None
        assert stranger.stdin is not None
        assert stranger.stdout.readline() == "go\n"
        turns(monitor, lambda: not waits(monitor))
        print(file=stranger.stdin, flush=True)
        assert int(stranger.stdout.readline()) <= loopback_gate._MAX_WAITING


def test_a_turn_answers_a_limited_number_of_questions_and_the_next_turn_the_rest(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/mon"
    with closing(MonitorEndpoint(context, endpoint, "rep", TaskKeys(), print)) as monitor:
        peer = Flood(endpoint, PATIENCE, 1)
        askers = [peer.connect(b"DEALER") for _ in range(ASKERS)]
        for each in askers:
            each.sendall((frame(b"", more=True) + frame(b"?")) * (MANY * BATCH // ASKERS))
        wait_for(lambda: not any(map(unread, askers)))
        monitor.turn()
        assert waits(monitor), "one turn has answered all of them"
        assert turns(monitor, lambda: not waits(monitor)) >= MANY - 2
        for each in askers:
            assert each.recv(1), "no answer"
            each.close()


def test_a_question_to_the_supervisor_ends_in_time_despite_other_messages(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    subscribe_endpoint, over = f"ipc://{tmp_path}/front", threading.Event()
    speaker = context.socket(zmq.XPUB)
    speaker.bind(subscribe_endpoint)
    client = StateClient(context, subscribe_endpoint, None, "T", "ts000")
    assert speaker.poll(PATIENCE * 1000)
    speaker.recv()
    frame = messages.encode(
        "state", {"header": {"service_transaction": "T", "action": "request"}, "content": {}}
    )

    def speak() -> None:
        until = time.monotonic() + PATIENCE
        while not over.is_set() and time.monotonic() < until:
            speaker.send(frame, zmq.DONTWAIT)
        speaker.close(0)

    flood = threading.Thread(target=speak)
    flood.start()
    assert client.ask(lambda _topic, _body: None) is None
    assert flood.is_alive(), "it has waited for the end of them"
    over.set()
    flood.join()
    client.close()


def unread(sock: socket.socket) -> int:
    """Return the bytes that the other side has not read."""
    waiting = array.array("i", [0])
    fcntl.ioctl(sock, termios.TIOCOUTQ, waiting)
    return waiting[0]


def test_a_monitor_that_does_not_know_its_own_state_looks_again_soon() -> None:
    """A busy supervisor answers late, or does not know the process of the Monitor yet."""
    shown: list[bytes] = []
    monitor: Any = SimpleNamespace(
        view=TransactionView("T"),
        transaction="T",
        service_id="m",
        interval=3600.0,
        _frequency=3600.0,
        _age=0.0,
        _ask=lambda: None,
        _endpoint=SimpleNamespace(show=shown.append, is_full=lambda: False),
        _sampler=usage.ProcessSampler(usage.options(None)),
    )
    MonitorTask.step(monitor)
    assert (monitor.interval, shown) == (AGAIN_S, [])
    for pid, interval in ((None, AGAIN_S), (os.getpid(), 3600.0)):
        row = {"service_id": "m", "pid": pid, "action": "started", "state": "", "active_state": ""}
        monitor.view.replace({"tasks": [row]})
        MonitorTask.step(monitor)
        assert (monitor.interval, monitor.view.complete) == (interval, pid is not None)
    assert len(shown) == 2
    monitor._frequency = 0.1
    monitor.view = TransactionView("T")
    MonitorTask.step(monitor)
    assert monitor.interval == 0.1
