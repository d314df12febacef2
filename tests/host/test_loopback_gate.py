"""The gate of a device without keys: which users may connect over loopback. No message of another user
passes, and that user is told the reason.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import others
import pytest
import zmq
from counting import calls_in
from forwarder import FREE_PORT, Forwarder, received
from waiting import PATIENCE, wait_for

from zmsvc.host.bus import sockets
from zmsvc.host.kernel.sockdiag import SockDiag

HOSTILE = str(Path(__file__).parents[1] / "hostile.py")
RATE = 100
"""Hostile connections per second of each attacker."""

FRIEND = """
import sys, time, zmq
kind, port, patience = sys.argv[1], sys.argv[2], float(sys.argv[3]) * 1000
context = zmq.Context()
made = context.socket(zmq.XPUB if kind == "PUB" else zmq.SUB)
news = made.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
if kind == "SUB":
    made.subscribe(b"")
made.setsockopt(zmq.RECONNECT_IVL, 10)
made.connect(f"tcp://127.0.0.1:{port}")
word = "silence"
if news.poll(patience):
    event = int.from_bytes(news.recv_multipart()[0][:2], "little")
    word = "in" if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else "refused"
print(word, flush=True)
if word == "in" and kind == "PUB" and made.poll(patience):
    made.send(b"GOOD from friend")
    time.sleep(0.2)
made.disable_monitor()
context.destroy(10000)
"""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Forwarder]:
    with Forwarder(tmp_path, publish_endpoint=FREE_PORT, subscribe_endpoint=FREE_PORT) as made:
        yield made


@pytest.fixture
def members(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the members file as the supervisor does."""

    def write(*users: int | str, access: str = "members") -> Path:
        fresh = tmp_path / "members.new"
        fresh.write_text(json.dumps({"access": access, "users": list(map(str, users))}))
        return fresh.rename(tmp_path / "members")

    return write


def port(endpoint: str) -> str:
    return endpoint.rpartition(":")[2]


def friend(uid: int, kind: str, endpoint: str, groups: tuple[int, ...] = ()) -> str:
    """Connect as this user, as libzmq does; return the outcome."""
    done = others.python(uid, FRIEND, kind, port(endpoint), str(PATIENCE), groups=groups)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def attack(uid: int, endpoint: str, kind: str, count: int) -> subprocess.Popen[str]:
    command = [
        *others.command(uid),
        sys.executable,
        "-P",
        HOSTILE,
        port(endpoint),
        kind,
        str(count),
        str(1 / RATE),
    ]
    return subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["PUB", "SUB"])
def test_members_connect_and_another_user_is_told_why_it_may_not(
    device: Forwarder, members: Callable[..., Path], kind: str
) -> None:
    task, stranger = others.others(2)
    device.start("--members", str(members(task)))
    endpoint = device.publish_endpoint if kind == "PUB" else device.subscribe_endpoint
    assert friend(0, kind, endpoint) == "in"
    assert friend(task, kind, endpoint) == "in"
    assert friend(stranger, kind, endpoint) == "refused"
    told = wait_for(lambda: device.log.read_text())
    assert f"a connection of uid {stranger} (uid {stranger}) is refused: only root, the daemon's user" in told
    assert told.count("\n") < 10, "a line for each attempt"


def test_a_changed_members_file_applies_at_once(device: Forwarder, members: Callable[..., Path]) -> None:
    stranger = others.others(1)[0]
    device.start("--members", str(members()))
    assert friend(stranger, "PUB", device.publish_endpoint) == "refused"
    members(stranger)
    assert friend(stranger, "PUB", device.publish_endpoint) == "in"
    members()
    assert friend(stranger, "PUB", device.publish_endpoint) == "refused"
    members(access="anyone")
    assert friend(stranger, "PUB", device.publish_endpoint) == "in"


def test_without_a_members_file_only_the_own_user_connects(device: Forwarder, tmp_path: Path) -> None:
    stranger = others.others(1)[0]
    device.start("--members", str(tmp_path / "nothing"))
    assert friend(0, "PUB", device.publish_endpoint) == "in"
    assert friend(stranger, "PUB", device.publish_endpoint) == "refused"


class Receivers:
    """Receives, in a thread, the messages for subscribers and the notifications for the keeper, since a
    keeper reads those all the time.
    """

    def __init__(self, device: Forwarder) -> None:
        self.heard: list[bytes] = []
        self._device = device
        self._over = threading.Event()
        self._subscriber = device.subscriber(b"")
        self._thread = threading.Thread(target=self._hear)

    def _hear(self) -> None:
        poller = zmq.Poller()
        for each in (self._subscriber, self._device.notified):
            poller.register(each, zmq.POLLIN)
        while not self._over.is_set():
            found = dict(poller.poll(100))
            if self._subscriber in found:
                self.heard.append(self._subscriber.recv())
            if self._device.notified.fileno() in found:
                self._device.notified.recv(4096)

    def __enter__(self) -> Receivers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("attempt", range(2))
def test_no_hostile_message_passes_among_many_mixed_connections(
    device: Forwarder, members: Callable[..., Path], attempt: int
) -> None:
    task, *attackers = others.others(3)
    device.start("--members", str(members(task)))
    with Receivers(device) as receivers:
        publisher = device.connected_publisher(b"")
        attacks = [
            attack(uid, place, kind, 250)
            for uid in attackers
            for place, kind in ((device.publish_endpoint, "PUB"), (device.subscribe_endpoint, "SUB"))
        ]
        came: list[str] = []
        try:
            while any(each.poll() is None for each in attacks):
                publisher.send(b"SECRET")
                kind = "PUB" if len(came) % 2 else "SUB"
                came.append(
                    friend(
                        task if len(came) % 3 else 0,
                        kind,
                        device.publish_endpoint if kind == "PUB" else device.subscribe_endpoint,
                    )
                )
            told = [each.communicate()[0] for each in attacks]
            good = len(came) // 2
            wait_for(lambda: sum(b"GOOD" in frame for frame in receivers.heard) == good)
        finally:
            for each in attacks:
                each.kill()
    assert told == ["let in 0 heard 0\n"] * 4
    assert [frame for frame in receivers.heard if b"EVIL" in frame] == []
    assert {*came} == {"in"}
    # One that waited for the end of the attack would be the only one. On a busy machine there is time for two.
    assert len(came) > 1, "a permitted client waits for the end of the attack"


def test_without_the_gate_the_same_attack_comes_through(device: Forwarder) -> None:
    """This shows that the test above can fail."""
    device.start()
    with Receivers(device) as receivers:
        device.connected_publisher(b"")
        told = attack(others.others(1)[0], device.publish_endpoint, "PUB", 35).communicate()[0]
    assert not told.startswith("let in 0")
    assert [frame for frame in receivers.heard if b"EVIL" in frame]


IDLE = """
import socket, sys
held = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(50)]
for each in held:
    while each.recv(4096):
        pass
"""


def test_an_idle_connection_of_another_user_does_not_stay(
    device: Forwarder, members: Callable[..., Path]
) -> None:
    """Meanwhile a permitted client is not delayed, either."""
    stranger = others.others(1)[0]
    device.start("--members", str(members()))
    with subprocess.Popen(
        [*others.command(stranger), sys.executable, "-c", IDLE, port(device.publish_endpoint)], cwd="/"
    ) as idle:
        try:
            assert friend(0, "PUB", device.publish_endpoint) == "in"
            assert idle.wait(PATIENCE) == 0
        finally:
            idle.kill()


def test_tasks_of_the_context_connect_without_the_gate(tmp_path: Path, members: Callable[..., Path]) -> None:
    with Forwarder(tmp_path, publish_endpoint=FREE_PORT, subscribe_endpoint=FREE_PORT) as device:
        own = [sockets.listen(f"ipc://{tmp_path}/pub"), sockets.listen(f"ipc://{tmp_path}/sub")]
        fds = [each.fileno() for each in own]
        device.more_fds = fds
        device.start("--members", str(members()), "--own-front-fd", str(fds[0]), "--own-back-fd", str(fds[1]))
        subscriber = sockets.subscriber(device.context, f"ipc://{tmp_path}/sub", [b"x"])
        device.opened.append(subscriber)
        pub_socket = sockets.publisher(device.context, f"ipc://{tmp_path}/pub")
        device.opened.append(pub_socket)
        publisher = sockets.Publisher(pub_socket)
        wait_for(lambda: publisher.wait(1) and publisher.has_subscriber(b"x"))
        publisher.send(b"x own")
        assert received(subscriber) == b"x own"
        assert friend(others.others(1)[0], "PUB", device.publish_endpoint) == "refused"
        assert device.end() == 0
        for each in own:
            each.close()


# --- the kernel


def test_the_kernel_knows_the_user_at_the_other_end() -> None:
    stranger = others.others(1)[0]
    kernel = SockDiag()
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.create_server((host, 0), family=family) as listening:
            address = listening.getsockname()[:2]
            code = f"import socket, signal; s = socket.create_connection({address!r}); signal.pause()"
            with subprocess.Popen([*others.command(stranger), sys.executable, "-c", code], cwd="/") as client:
                accepted, _ = listening.accept()
                with accepted:
                    assert kernel.peer(accepted) == stranger
                    client.send_signal(signal.SIGKILL)
                    client.wait()
                    # The kernel reports uid 0 for a closed socket, which must not be taken for root.
                    assert kernel.peer(accepted) is None
            with socket.create_connection(address) as own:
                accepted, _ = listening.accept()
                with accepted:
                    assert kernel.peer(accepted) == os.geteuid()
                    own.shutdown(socket.SHUT_WR)
                    assert kernel.peer(accepted) is None
    kernel.close()


def test_a_look_up_costs_no_more_with_many_connections() -> None:
    """The kernel is asked for one connection, and does not list all of them."""
    kernel = SockDiag()
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:

        def connected() -> tuple[socket.socket, socket.socket]:
            return socket.create_connection(listening.getsockname()), listening.accept()[0]

        pairs = [connected()]
        alone = calls_in(lambda: kernel.peer(pairs[0][1]))
        pairs += [connected() for _ in range(399)]
        assert all(kernel.peer(accepted) == os.geteuid() for _, accepted in pairs)
        assert calls_in(lambda: kernel.peer(pairs[200][1])) == alone
        for pair in pairs:
            for each in pair:
                each.close()
    kernel.close()
