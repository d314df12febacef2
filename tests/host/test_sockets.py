"""Endpoints and sockets: the endpoints that may be bound, and a publisher's knowledge of its subscribers."""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq
from forwarder import FREE_PORT, Forwarder, received
from waiting import PATIENCE, wait_for

from zmsvc.core.errors import ConfigError, UsageError, ZmsvcError
from zmsvc.host.bus import confirmed_send, socket_options, sockets
from zmsvc.host.bus.endpoints import address


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Forwarder]:
    with Forwarder(tmp_path) as made:
        yield made.start()


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        ("tcp://*:5557", "tcp://127.0.0.1:5557"),
        ("tcp://0.0.0.0:5557", "tcp://127.0.0.1:5557"),
        ("tcp://[::]:5557", "tcp://[::1]:5557"),
        ("tcp://127.0.0.2:5557", "tcp://127.0.0.2:5557"),
        ("tcp://[::1]:5557", "tcp://[::1]:5557"),
        ("tcp://localhost:5557", "tcp://localhost:5557"),
        ("ipc:///run/bus", "ipc:///run/bus"),
    ],
)
def test_without_keys_any_address_means_loopback(given: str, bound: str) -> None:
    assert sockets.safe_bind(given, curve=False) == bound
    assert sockets.safe_bind(given, curve=True) == given


@pytest.mark.parametrize(
    "given", ["tcp://192.0.2.1:5557", "tcp://[2001:db8::1]:5557", "tcp://eth0:5557", "tcp://example.org:5557"]
)
def test_without_keys_a_bind_beyond_loopback_is_refused(given: str) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot bind .* without CURVE keys: .*; bind tcp://127\.0\.0\.1:5557 or"
    ):
        sockets.safe_bind(given, curve=False)
    assert sockets.safe_bind(given, curve=True) == given


@pytest.mark.parametrize(
    "given", ["tcp://127.0.0.1", "tcp://:5557", "tcp://::1:65536", "tcp://127.0.0.1:x", "ipc://run", ""]
)
def test_a_malformed_endpoint_is_refused(given: str) -> None:
    for reads in (lambda: sockets.safe_bind(given, curve=True), lambda: sockets.listen(given)):
        with pytest.raises(ConfigError, match=r"cannot bind .*: it .*, expected"):
            reads()


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ConfigError, match="it has a path of 108 bytes, expected at most 107"):
        sockets.listen("ipc:///" + "x" * 107)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_file_of_an_ipc_endpoint_has_its_mode(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with sockets.listen(f"ipc://{tmp_path}/bus") as listener:
            assert stat.S_IMODE((tmp_path / "bus").stat().st_mode) == 0o660
            assert address(listener) == f"ipc://{tmp_path}/bus"
            assert not listener.get_inheritable()
    finally:
        os.umask(before)


def test_a_file_that_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        with sockets.listen(f"ipc://{tmp_path}/bus"), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "bus"))


def test_a_socket_file_in_use_is_left_alone(tmp_path: Path) -> None:
    with sockets.listen(f"ipc://{tmp_path}/bus"), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(
            ZmsvcError, match=r"/bus: address already in use \(another process listens there; see ss -lxp\)"
        ):
            sockets.listen(f"ipc://{tmp_path}/bus")
        client.connect(str(tmp_path / "bus"))


def test_a_file_that_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "bus").write_text("mine")
    with pytest.raises(
        ZmsvcError, match=r"cannot bind ipc://.*/bus: a file that is not a socket is in the way"
    ):
        sockets.listen(f"ipc://{tmp_path}/bus")
    assert (tmp_path / "bus").read_text() == "mine"


def test_a_port_in_use_is_refused() -> None:
    with (
        sockets.listen(FREE_PORT) as listener,
        pytest.raises(
            ZmsvcError, match=r"cannot bind tcp://127.0.0.1:\d+: address already in use \(.*; see ss -ltnp\)"
        ),
    ):
        sockets.listen(address(listener))


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZmsvcError, match=r"cannot bind ipc://.*: no such file or directory"):
        sockets.listen(f"ipc://{tmp_path}/none/bus")


def test_an_abstract_name_is_refused_since_no_mode_guards_it() -> None:
    with pytest.raises(ConfigError, match="it is abstract and has no file"):
        sockets.listen("ipc://@x")


def test_malformed_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read CURVE keys"):
        sockets.load_curve(tmp_path / "none")
    (tmp_path / "short").write_text('curve\n    public-key = "x"\n')
    with pytest.raises(ConfigError, match="has no public-key of 40 characters"):
        sockets.load_curve(tmp_path / "short")
    (tmp_path / "public").write_text(f'curve\n    public-key = "{"x" * 40}"\n')
    with pytest.raises(ConfigError, match="public has no secret-key"):
        sockets.load_curve(tmp_path / "public")


def test_a_publisher_is_attached_even_when_nobody_subscribed(device: Forwarder) -> None:
    assert sockets.await_device(device.publisher(), PATIENCE)


def test_a_publisher_without_device_is_not_attached(device: Forwarder) -> None:
    device.end()
    assert not sockets.await_device(device.publisher(), 0.1)


def test_a_publisher_knows_its_subscribers(device: Forwarder) -> None:
    publisher = device.connected_publisher()
    header = b'control @@@ {"header":{"service_transaction":"TX"'
    assert not publisher.has_subscriber(header)
    assert not publisher.has_subscriber(b"state @@@ ")
    # The device itself subscribes to `context`, to count the orders that no supervisor receives.
    wait_for(lambda: publisher.has_subscriber(b"context @@@ "))
    subscriber = device.subscriber(header, b"state @@@ ")
    wait_for(lambda: publisher.has_subscriber(b"state @@@ "))
    wait_for(lambda: publisher.has_subscriber(b"control @@@ "))
    assert publisher.has_subscriber(header)
    assert publisher.has_subscriber(header + b',"service_id":"ts_100"')
    assert not publisher.has_subscriber(b'control @@@ {"header":{"service_transaction":"TY"')
    assert publisher.has_subscriber(b"")
    subscriber.unsubscribe(b"state @@@ ")
    wait_for(lambda: not publisher.has_subscriber(b"state @@@ "))
    assert publisher.has_subscriber(header)
    subscriber.subscribe(b"")
    wait_for(lambda: publisher.has_subscriber(b"anything"))


def test_publish_never_blocks_and_tells_when_it_dropped(tmp_path: Path) -> None:
    listener = sockets.listen(f"ipc://{tmp_path}/bus")
    with listener, sockets.context() as context, socket_options.device_xsub(context, hwm=1) as stuck:
        socket_options.bind(stuck, listener)
        stuck.send(b"\x01")
        with sockets.publisher(context, address(listener)) as publisher:
            wait_for(lambda: stuck.poll(0) or publisher.poll(0))
            sent = 0
            while sockets.publish(publisher, bytes(10_000)):
                sent += 1
            assert sent >= 10_000
            assert received(stuck) == bytes(10_000)
            publisher.linger = 0


def test_a_too_long_message_is_refused(device: Forwarder) -> None:
    frame = bytes(socket_options.MAX_MESSAGE + 1)
    publisher = device.connected_publisher()
    for send in (
        publisher.send,
        lambda frame: sockets.publish(publisher.socket, frame),
        lambda frame: sockets.send_once(device.publish_endpoint, frame),
    ):
        with pytest.raises(
            UsageError, match="cannot publish message: it has 16777217 bytes, 16777216 are allowed"
        ):
            send(frame)


def test_connecting_to_a_malformed_endpoint_is_refused() -> None:
    with pytest.raises(UsageError, match=r"cannot connect to bus: "):
        sockets.send_once("bus", b"x")


@pytest.mark.parametrize("endpoint", ["", FREE_PORT], ids=["ipc", "tcp"])
def test_a_single_message_always_arrives(tmp_path: Path, endpoint: str) -> None:
    with Forwarder(tmp_path, publish_endpoint=endpoint, subscribe_endpoint=endpoint) as device:
        device.start()
        subscriber = device.subscriber(b"x @@@ ")
        device.connected_publisher(b"x @@@ ")
        for number in range(50):
            assert sockets.send_once(device.publish_endpoint, b"x @@@ %d" % number)
        assert [received(subscriber) for _ in range(50)] == [b"x @@@ %d" % number for number in range(50)]


def test_a_single_message_may_be_long(device: Forwarder) -> None:
    subscriber = device.subscriber(b"x @@@ ")
    device.connected_publisher(b"x @@@ ")
    assert sockets.send_once(device.publish_endpoint, b"x @@@ " + bytes(12 << 20), PATIENCE)
    assert len(received(subscriber)) == 6 + (12 << 20)


def test_a_single_message_without_subscribers_is_reported(device: Forwarder) -> None:
    device.subscriber(b"y @@@ ")
    device.connected_publisher(b"y @@@ ")
    assert sockets.send_once(device.publish_endpoint, b"x @@@ ") is False


def test_a_single_message_waits_for_its_recipient(device: Forwarder) -> None:
    # The device may take a second or two to accept the connection.
    early = device.subscriber(b"x @@@ ")
    device.connected_publisher(b"x @@@ ")
    assert sockets.send_once(device.publish_endpoint, b"x @@@ too early", 3.0, presence=b"here.") is False
    with ThreadPoolExecutor() as pool:
        sent = pool.submit(sockets.send_once, device.publish_endpoint, b"x @@@ ", PATIENCE, presence=b"here.")
        late = device.subscriber(b"x @@@ ", b"here.42")
        assert received(late) == b"x @@@ "
        assert sent.result()
    assert received(early) == b"x @@@ "


def test_a_single_message_is_not_sent_when_its_recipient_has_left(device: Forwarder) -> None:
    device.subscriber(b"x @@@ ")
    meant = device.subscriber(b"here.42")
    publisher = device.connected_publisher(b"x @@@ ", b"here.42")
    with ThreadPoolExecutor() as pool:
        # The message has no subscriber yet, so it is still there when its recipient leaves.
        sent = pool.submit(sockets.send_once, device.publish_endpoint, b"y @@@ ", 3.0, presence=b"here.")
        meant.close(0)
        wait_for(lambda: not publisher.has_subscriber(b"here.42"))
        device.subscriber(b"y @@@ ")
        assert sent.result() is False


def test_a_single_message_without_a_listener_fails(tmp_path: Path) -> None:
    with pytest.raises(ZmsvcError, match=r"cannot reach ipc://.*/bus: no process listens there"):
        sockets.send_once(f"ipc://{tmp_path}/bus", b"x", 1.0)


def test_a_timeout_before_the_connection_is_not_reported_as_a_missing_subscriber(device: Forwarder) -> None:
    with pytest.raises(ZmsvcError, match=r"cannot reach ipc://.*: no connection was made in time"):
        sockets.send_once(device.publish_endpoint, b"x", 0.0)


def test_a_single_message_to_the_subscriber_port_fails(device: Forwarder) -> None:
    with pytest.raises(
        ZmsvcError, match=r"cannot reach .*: the peer closed the connection \(is this the subscriber port\?"
    ):
        sockets.send_once(device.subscribe_endpoint, b"x", 3.0)


def test_a_single_message_without_a_device_fails(device: Forwarder) -> None:
    device.end()
    with pytest.raises(
        ZmsvcError,
        match=r"cannot reach .*: the peer accepted the connection, but did not answer as a device in time",
    ):
        sockets.send_once(device.publish_endpoint, b"x", 3.0)


def test_a_single_message_to_a_hung_device_fails(device: Forwarder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device hangs after it has sent its subscriptions, so the message is sent and never read."""
    device.subscriber(b"x @@@ ")
    device.connected_publisher(b"x @@@ ")
    stop_then_send(device, monkeypatch, signal.SIGSTOP)
    with pytest.raises(ZmsvcError, match=r"cannot send to .*: the device did not take the message in time"):
        sockets.send_once(device.publish_endpoint, b"x @@@ ", 5.0)


def test_a_single_message_to_a_dying_device_fails(device: Forwarder, monkeypatch: pytest.MonkeyPatch) -> None:
    device.subscriber(b"x @@@ ")
    device.connected_publisher(b"x @@@ ")
    stop_then_send(device, monkeypatch, signal.SIGKILL)
    with pytest.raises(ZmsvcError, match=r"cannot send to .*: the device went away; the message may be lost"):
        sockets.send_once(device.publish_endpoint, b"x @@@ ", 5.0)


def when_written(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Call `act` after the next message has been written and before its connection is checked."""
    plain = confirmed_send._Connection._close

    def close(connection: confirmed_send._Connection, linger_ms: int) -> None:
        plain(connection, linger_ms)
        if linger_ms:
            act()

    monkeypatch.setattr(confirmed_send._Connection, "_close", close)


def test_a_single_message_that_ends_the_device_has_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order to exit, for example: the device reads it and closes the connection before the sender looks."""
    context = sockets.context()
    device = context.socket(zmq.XSUB)
    device.bind("tcp://127.0.0.1:*")
    device.send(b"\x01x @@@ ")
    with ThreadPoolExecutor() as pool:

        def read_and_close() -> bytes:
            # Before its socket is closed, the sender would take the end of the connection for a loss.
            device.poll()
            written.wait(PATIENCE)
            frame = device.recv()
            device.close(0)
            context.term()
            return frame

        def await_the_end() -> None:
            written.set()
            told.result()

        written = threading.Event()
        told = pool.submit(read_and_close)
        when_written(monkeypatch, await_the_end)
        assert sockets.send_once(device.last_endpoint.decode(), b"x @@@ exit")
        assert told.result() == b"x @@@ exit"


def test_a_single_message_that_a_dying_device_had_not_read_may_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Forwarder(tmp_path, publish_endpoint=FREE_PORT, subscribe_endpoint=FREE_PORT) as device:
        device.start()
        device.subscriber(b"x @@@ ")
        device.connected_publisher(b"x @@@ ")
        stop_then_send(device, monkeypatch, signal.SIGSTOP)
        when_written(monkeypatch, lambda: device.end(signal.SIGKILL))
        with pytest.raises(
            ZmsvcError, match=r"cannot send to .*: the device went away; the message may be lost"
        ):
            sockets.send_once(device.publish_endpoint, b"x @@@ ", 5.0)


def stop_then_send(device: Forwarder, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Stop or kill the device right before the next publisher sends."""
    plain = zmq.Socket.send

    def send(self: sockets.Socket, *args: object, **more: object) -> object:
        assert device.process is not None
        device.process.send_signal(number)
        os.waitid(os.P_PID, device.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return plain(self, *args, **more)

    monkeypatch.setattr(zmq.Socket, "send", send)


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "lost"])
def test_a_bare_context_ends_also_with_a_socket_that_an_exception_has_lost(
    device: Forwarder, closed: bool
) -> None:
    context = sockets.BareContext()
    made = sockets.subscriber(context, device.subscribe_endpoint, [b"x"])
    if closed:
        made.close(0)
    del made
    with ThreadPoolExecutor(1) as other:
        other.submit(context.term).result(PATIENCE)
    assert context.closed
