"""The device as a process: forwarding, losses at a restart, disconnected subscribers, and its cost when idle."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq
from forwarder import FREE_PORT, Forwarder, received
from needs import need
from waiting import PATIENCE, wait_for, wait_for_line

from zmsvc.core.errors import ZmsvcError
from zmsvc.host.bus import socket_options, sockets

RATE = 1000
"""Messages per second in the tests of restarts."""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Forwarder]:
    with Forwarder(tmp_path) as made:
        yield made


@pytest.mark.parametrize("endpoint", ["", FREE_PORT], ids=["ipc", "tcp"])
def test_messages_reach_those_who_subscribed_and_subscriptions_reach_publishers(
    tmp_path: Path, endpoint: str
) -> None:
    with Forwarder(tmp_path, publish_endpoint=endpoint, subscribe_endpoint=endpoint) as device:
        device.start()
        one, all_of_them = device.subscriber(b"context @@@ "), device.subscriber(b"")
        publisher = device.connected_publisher(b"context @@@ {", b"anything")
        for frame in (b"context2 @@@ {}", b"context @@@ {}"):
            assert publisher.send(frame)
        assert received(one) == b"context @@@ {}"
        assert [received(all_of_them), received(all_of_them)] == [b"context2 @@@ {}", b"context @@@ {}"]


def test_the_device_reports_ready_and_exits_with_0(device: Forwarder) -> None:
    device.start()
    assert device.end() == 0
    assert device.next_notification() == "STOPPING=1"
    assert device.log.read_text() == ""


@pytest.mark.parametrize("way", ["many", "churn"])
def test_the_device_becomes_ready_in_a_flood_of_subscriptions(device: Forwarder, way: str) -> None:
    """This is as after a restart that the flood itself has caused."""
    flood = [
        sys.executable,
        "-P",
        str(Path(__file__).parents[1] / "flood.py"),
        way,
        device.subscribe_endpoint,
        str(3 * PATIENCE),
        "8",
    ]
    with subprocess.Popen(flood, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "go\n"
            device.start("--expect", "1000000000")
            # The status is 1 if the flood lasts longer than the end may take, as on a busy machine.
            assert device.end() in (0, 1)
        finally:
            process.kill()


def test_the_device_stops_while_it_waits_for_subscribers(device: Forwarder) -> None:
    device.launch("--expect", "1000")
    subscriber = socket_options.unconnected_subscriber(device.context, [b""], None)
    device.opened.append(subscriber)
    # The monitor comes before the connection, since the handshake may be over at once.
    news = subscriber.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    device.opened.append(news)
    socket_options.connect(subscriber, device.subscribe_endpoint)
    assert news.poll(PATIENCE * 1000)
    subscriber.disable_monitor()
    news.close()
    assert device.end() == 0


@pytest.mark.parametrize(
    "arguments",
    [("--allow", "/nowhere"), ("--front-fd", "999")],
    ids=["list without keys", "no such descriptor"],
)
def test_invalid_arguments_are_refused(device: Forwarder, arguments: tuple[str, str]) -> None:
    device.launch(*arguments)
    assert device.process is not None
    assert device.process.wait(PATIENCE) == 2
    assert device.log.read_text().startswith("zmsvc device: cannot ")


def test_a_burst_loses_nothing(device: Forwarder) -> None:
    device.start()
    subscriber = device.subscriber(b"x @@@ ")
    publisher = device.connected_publisher(b"x @@@ ")
    for number in range(5000):
        assert publisher.send(b"x @@@ %d" % number + bytes(1500))
    for number in range(5000):
        assert received(subscriber).startswith(b"x @@@ %d\0" % number)


class Traffic:
    """A publisher with a steady rate and a subscriber, each in its own thread."""

    def __init__(self, device: Forwarder) -> None:
        self.seen: list[int] = []
        self._last = -1
        self._enough = threading.Event()
        subscriber, publisher = device.subscriber(b"n @@@ "), device.connected_publisher(b"n @@@ ")
        self._threads = [
            threading.Thread(target=self._receive, args=[subscriber]),
            threading.Thread(target=self._publish, args=[publisher]),
        ]
        for thread in self._threads:
            thread.start()

    def _publish(self, publisher: sockets.Publisher) -> None:
        due = time.monotonic()
        while not self._enough.is_set():
            assert publisher.send(b"n @@@ %d" % (self._last + 1))
            self._last += 1
            # A thread that did not run for a while does not send all messages that were due at once, because
            # then the rate would not be steady.
            due = max(due + 1 / RATE, time.monotonic())
            self._enough.wait(max(0, due - time.monotonic()))
        publisher.send(b"n @@@ end")

    def _receive(self, subscriber: sockets.Socket) -> None:
        while (frame := received(subscriber)) != b"n @@@ end":
            self.seen.append(int(frame.rpartition(b" ")[2]))

    def wait(self, count: int) -> None:
        """Wait until this many more messages have come."""
        goal = len(self.seen) + count
        wait_for(lambda: len(self.seen) >= goal)

    def lost(self) -> list[int]:
        """Stop publishing, receive the rest, and return the messages that never came."""
        self._enough.set()
        for thread in self._threads:
            thread.join()
        assert self.seen == sorted(set(self.seen)), "out of order or twice"
        return sorted(set(range(self._last + 1)) - set(self.seen))


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -9)], ids=["SIGTERM", "SIGKILL"]
)
def test_a_restart_loses_one_part_of_the_flow(device: Forwarder, number: signal.Signals, status: int) -> None:
    """The lost messages were under way between publisher and device when the device ended."""
    device.start()
    traffic = Traffic(device)
    traffic.wait(200)
    assert device.end(number) == status
    device.start("--expect", "1")
    traffic.wait(500)
    lost = traffic.lost()
    assert not lost or lost[-1] - lost[0] == len(lost) - 1, lost


SLEEPER = """
import sys, zmq
from zmsvc.host.bus import socket_options, sockets
with sockets.context() as context, sockets.subscriber(context, sys.argv[1], [b"x @@@ "]) as subscriber:
    while True:
        subscriber.recv()
        print("received", flush=True)
"""


@pytest.fixture
def sleeper(device: Forwarder) -> Iterator[Callable[[sockets.Publisher], subprocess.Popen[bytes]]]:
    """Yield a function that starts a subscriber in a process of its own, stops it (SIGSTOP) after its first
    message, and returns it.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(publisher: sockets.Publisher) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", SLEEPER, device.subscribe_endpoint], stdout=subprocess.PIPE, bufsize=0
        )
        started.append(process)
        wait_for(lambda: publisher.has_subscriber(b"x @@@ "))
        publisher.send(b"x @@@ first")
        assert process.stdout is not None
        wait_for_line(process.stdout, "received")
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_stopped_subscriber_blocks_no_other_and_can_be_named(
    device: Forwarder, sleeper: Callable[[sockets.Publisher], subprocess.Popen[bytes]]
) -> None:
    device.start()
    publisher = device.connected_publisher()
    pid = sleeper(publisher).pid
    healthy = device.subscriber(b"y @@@ ", b"x @@@ ")
    wait_for(lambda: publisher.has_subscriber(b"y @@@ "))
    for number in range(5000):
        assert publisher.send(b"x @@@ %d" % number + bytes(1500))
    for number in range(5000):
        assert received(healthy).startswith(b"x @@@ %d\0" % number)
    os.kill(device.pid, signal.SIGUSR1)
    status = device.wait_notification("STATUS=")
    assert re.fullmatch(
        rf"STATUS=1 publishers, 2 subscribers; behind: pid {pid} \(\d+ bytes unread\)", status
    )
    assert status.removeprefix("STATUS=") in device.log.read_text()


def test_a_device_that_is_told_to_end_forwards_what_it_has(
    device: Forwarder, sleeper: Callable[[sockets.Publisher], subprocess.Popen[bytes]]
) -> None:
    """The subscriber is stopped, and its socket's buffer holds 0.2 of these 5 MB: the device has the rest."""
    device.start()
    publisher = device.connected_publisher()
    sleeping = sleeper(publisher)
    assert sleeping.stdout is not None
    healthy = device.subscriber(b"y @@@ ", b"x @@@ ")
    wait_for(lambda: publisher.has_subscriber(b"y @@@ "))
    for number in range(500):
        assert publisher.send(b"x @@@ %d" % number + bytes(10_000))
    for number in range(500):
        assert received(healthy).startswith(b"x @@@ %d\0" % number)
    os.kill(device.pid, signal.SIGTERM)
    sleeping.send_signal(signal.SIGCONT)
    for _ in range(500):
        wait_for_line(sleeping.stdout, "received")
    assert device.process is not None
    assert device.process.wait(PATIENCE) == 0


def test_a_subscriber_that_no_longer_answers_is_disconnected_and_named(
    device: Forwarder, sleeper: Callable[[sockets.Publisher], subprocess.Popen[bytes]]
) -> None:
    # Three heartbeats without an answer are the end of a connection, also of ours: the machine may stand still for
    # two of them.
    device.start("--heartbeat", "1")
    publisher = device.connected_publisher()
    healthy = device.subscriber(b"y @@@ ")
    pid = sleeper(publisher).pid
    assert f"subscriber pid {pid} (" in device.wait_notification("STATUS=")
    wait_for(lambda: not publisher.has_subscriber(b"x @@@ "))
    wait_for(lambda: publisher.has_subscriber(b"y @@@ "))
    publisher.send(b"y @@@ ")
    assert received(healthy) == b"y @@@ "
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: publisher.has_subscriber(b"x @@@ "))
    assert device.log.read_text().count("\n") == 1, "those who leave by themselves are not news"


def test_normal_disconnects_are_not_logged(device: Forwarder) -> None:
    device.start()
    publisher = device.connected_publisher()
    subscriber = device.subscriber(b"x @@@ ")
    wait_for(lambda: publisher.has_subscriber(b"x @@@ "))
    subscriber.close()
    wait_for(lambda: not publisher.has_subscriber(b"x @@@ "))
    os.kill(device.pid, signal.SIGUSR1)
    assert device.wait_notification("STATUS=") == "STATUS=1 publishers, 0 subscribers"
    assert device.log.read_text().count("\n") == 1


def test_an_idle_device_makes_no_system_calls(device: Forwarder, tmp_path: Path) -> None:
    device.start()
    device.subscriber(b"x @@@ ")
    device.connected_publisher(b"x @@@ ")
    assert calls_in_a_second(device, tmp_path) == []


def test_a_device_that_has_reported_a_refusal_is_idle_again(device: Forwarder, tmp_path: Path) -> None:
    device.start()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(device.publish_endpoint.removeprefix("ipc://"))
        stranger.sendall(b"this is no ZMTP" * 10)
    device.wait_notification("handshakes:1")
    # It looks once more a second later, since there may be more to report.
    wait_for(lambda: calls_in_a_second(device, tmp_path) == [])


def calls_in_a_second(device: Forwarder, tmp_path: Path) -> list[str]:
    """Return the system calls that a device begins within a second."""
    strace = shutil.which("strace")
    need(strace, "strace is not installed")
    trace = tmp_path / "trace"
    # With -f strace sees every thread: ours, that of the proxy and those of libzmq. When strace attaches,
    # each thread shows once the call in which it waits.
    words = [str(strace), "-f", "-qq", "-p", str(device.pid), "-o", str(trace)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            # strace may take long to start.
            wait_for(lambda: tracer.poll() is not None or all(_tracers(device.pid)))
            began = time.monotonic()
            wait_for(lambda: tracer.poll() is not None or time.monotonic() - began > 1.0)
        finally:
            tracer.send_signal(signal.SIGINT)
        _, said = tracer.communicate(timeout=PATIENCE)
    need("Operation not permitted" not in said, "strace may not attach here")
    calls = trace.read_text().splitlines()
    assert len(calls) >= 3, said
    return [call for call in calls if not re.search(r"<unfinished|<detached|resuming", call)]


def _tracers(pid: int) -> list[int]:
    """Return the PID of the process that traces each thread of a process, 0 if none does."""
    return [
        int(each.read_text().partition("TracerPid:")[2].split()[0])
        for each in Path(f"/proc/{pid}/task").glob("*/status")
    ]


def _has_reported(device: Forwarder, times: int) -> bool:
    return device.log.read_text().count("publishers,") == times


def test_a_keeper_that_does_not_read_holds_up_no_device(device: Forwarder) -> None:
    """A datagram waits until the receiver has room, unless the sender does not want to wait."""
    device.start()
    room = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for number in range(1, room + 4):
        os.kill(device.pid, signal.SIGUSR1)
        wait_for(partial(_has_reported, device, number))
    assert device.end() == 0


def keys(folder: Path, name: str, server: Path | None = None) -> sockets.Curve:
    """Make a pair of keys in files, as `zmq.auth` does."""
    from zmq.auth import create_certificates  # imported here because only tests with CURVE pay its time

    folder.mkdir(exist_ok=True)
    secret = Path(create_certificates(folder, name)[1])
    secret.chmod(0o600)
    return sockets.load_curve(secret, server)


@pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")
def test_only_keys_on_the_list_may_connect(tmp_path: Path) -> None:
    secret, allowed = tmp_path / "own", tmp_path / "allowed"
    keys(secret, "device")
    friend, stranger = (
        keys(folder, "peer", secret / "device.key") for folder in (allowed, tmp_path / "others")
    )
    (allowed / "broken.key").write_text("no key")
    with Forwarder(tmp_path, publish_endpoint=FREE_PORT, subscribe_endpoint=FREE_PORT) as device:
        device.start("--curve", str(secret / "device.key_secret"), "--allow", str(allowed))
        subscriber = device.subscriber(b"x @@@ ", curve=friend)
        publisher = sockets.Publisher(device.publisher(friend))
        wait_for(lambda: publisher.has_subscriber(b"x @@@ "))
        with pytest.raises(ZmsvcError, match="the device does not know our CURVE key"):
            sockets.send_once(device.publish_endpoint, b"x @@@ stranger", curve=stranger)
        with pytest.raises(ZmsvcError, match="cannot reach"):
            sockets.send_once(device.publish_endpoint, b"x @@@ nobody", 0.2)
        shutil.copy(tmp_path / "others" / "peer.key", allowed / "other.key")
        assert sockets.send_once(device.publish_endpoint, b"x @@@ welcome", curve=stranger)
        assert received(subscriber) == b"x @@@ welcome"


def test_the_device_ends_when_its_keeper_has_already_ended(tmp_path: Path) -> None:
    with Forwarder(tmp_path) as device:
        device.environment["ZMSVC_KEEPER"] = "1"
        device.launch()
        assert device.process is not None
        assert device.process.wait(PATIENCE) == -signal.SIGKILL
