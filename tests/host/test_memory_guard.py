"""The subscriptions that a publisher remembers, and the device's defense against peers that fill its
memory.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from forwarder import FREE_PORT, Forwarder, received
from waiting import PATIENCE, wait_for

from zmsvc.device.unheard_orders import UnheardOrders
from zmsvc.host.bus import socket_options, sockets
from zmsvc.host.bus.endpoints import address
from zmsvc.host.config import reader

FLOOD = str(Path(__file__).parents[1] / "flood.py")


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Callable[[bytes], None], sockets.Publisher]]:
    """Yield a publisher, and a function that sends it a subscription or the end of one."""
    listener = sockets.listen(f"ipc://{tmp_path}/bus")
    with listener, sockets.context() as context, socket_options.device_xsub(context, hwm=1) as xsub:
        xsub.sndhwm = 200_000
        socket_options.bind(xsub, listener)
        with sockets.publisher(context, address(listener)) as pub_socket:
            publisher = sockets.Publisher(pub_socket)
            xsub.send(b"\x01first")
            # Poll the XSUB socket until it knows the publisher.
            wait_for(lambda: xsub.poll(0) or publisher.has_subscriber(b"first"))
            yield xsub.send, publisher
            pub_socket.linger = 0


def test_a_publisher_takes_a_bounded_number_of_subscriptions_at_once(
    told: tuple[Callable[[bytes], None], sockets.Publisher],
) -> None:
    tell, publisher = told
    numbers = itertools.count()

    def behind() -> bool:
        """Send more subscriptions than the publisher reads at once, and wait until this many have arrived."""
        for _ in range(3 * sockets.DRAIN_BATCH):
            tell(b"\x01%d" % next(numbers))
        known = len(publisher._known)
        wanted = publisher.has_subscriber(b"nobody")
        assert len(publisher._known) <= known + sockets.DRAIN_BATCH
        assert wanted == publisher.behind
        return publisher.behind

    wait_for(behind)
    tell(b"\x01last")
    publisher.expect_subscription(b"last")
    wait_for(lambda: publisher.has_expected_subscription(b"last"))
    wait_for(lambda: not publisher.has_subscriber(b"nobody"))
    assert publisher.has_subscriber(b"last")


def read_all(publisher: sockets.Publisher) -> bool:
    """Read the subscriptions that wait. Return True if no more are known to wait."""
    for _ in range(200):
        publisher.drain()
        if not publisher.behind:
            break
    return not publisher.behind


@pytest.mark.parametrize(
    ("count", "size"), [(sockets.MAX_KNOWN, 6), (sockets.MAX_KNOWN_BYTES // 1000, 1000)], ids=["many", "long"]
)
def test_beyond_its_bound_a_publisher_assumes_subscribers(
    told: tuple[Callable[[bytes], None], sockets.Publisher], count: int, size: int
) -> None:
    tell, publisher = told
    for number in range(count + 100):
        tell(b"\x01" + (b"%06d" % number).ljust(size, b"x"))
    wait_for(lambda: read_all(publisher) and publisher.has_subscriber(b"nobody") and publisher.forgotten)
    assert publisher.forgotten <= 101
    assert len(publisher._known) <= sockets.MAX_KNOWN
    assert sum(map(len, publisher._known)) <= sockets.MAX_KNOWN_BYTES
    for number in range(count + 100):
        tell(b"\x00" + (b"%06d" % number).ljust(size, b"x"))
    wait_for(lambda: read_all(publisher) and not publisher.has_subscriber(b"nobody"))
    assert publisher.has_subscriber(b"first")


def test_a_subscribers_other_messages_do_not_end_subscriptions(
    told: tuple[Callable[[bytes], None], sockets.Publisher],
) -> None:
    """libzmq passes each message of a subscriber on to all publishers. It must not be taken for the end of
    another subscription.
    """
    tell, publisher = told
    for word in (b"", b"\x02first", b"xfirst"):
        tell(word)
    tell(b"\x01last")
    wait_for(lambda: publisher.has_subscriber(b"last"))
    assert publisher.has_subscriber(b"first")
    tell(b"\x00first")
    wait_for(lambda: not publisher.has_subscriber(b"first"))


def test_a_subscribers_other_messages_do_not_free_subscriptions() -> None:
    """It counts as a change, so a flood of it is found, and never as the end of a subscription."""
    counted: list[tuple[int, ...]] = []
    with (
        sockets.context() as context,
        socket_options.device_xsub(context, hwm=1000) as xsub,
        socket_options.device_xpub(context, hwm=1000, heartbeat_s=30) as xpub,
    ):
        unheard = UnheardOrders(context, xsub, xpub)
        for word in (b"\x01one", b"\x02one", b"xyz", b"", b"\x01two", b"\x00one"):
            xsub.send(word)
        wait_for(
            lambda: unheard.take(lambda *figures, more: counted.append(figures)) and _sum(counted)[0] == 6
        )
        assert _sum(counted) == (6, 1, 3)
        unheard.close()


def _sum(counted: list[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*counted, strict=True)))


def memory(pid: int) -> int:
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("endpoint", ["", FREE_PORT], ids=["ipc", "tcp"])
def test_a_flooding_peer_is_cut_off_and_others_are_not(tmp_path: Path, endpoint: str) -> None:
    with Forwarder(tmp_path, publish_endpoint=endpoint, subscribe_endpoint=endpoint) as device:
        device.environment["ZMSVC_DEVICE_MEMORY"] = str(200 << 20)
        device.start()
        healthy = device.subscriber(b"x @@@ ")
        publisher = device.connected_publisher(b"x @@@ ")
        news = healthy.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        device.opened.append(news)
        with subprocess.Popen(
            [sys.executable, FLOOD, "many", device.subscribe_endpoint, "100", "1"],
            stdout=subprocess.PIPE,
            text=True,
        ) as flood:
            device.wait_notification("flooding_peers")
            flood.kill()
        assert device.process is not None
        assert device.process.poll() is None
        wait_for(lambda: memory(device.pid) < 100 << 20)
        assert not news.poll(0), "an innocent subscriber was cut off"
        wait_for(lambda: publisher.send(b"x @@@ 1") and healthy.poll(100), 40)
        assert received(healthy) == b"x @@@ 1"
        healthy.disable_monitor()


def test_a_subscriber_that_does_not_read_is_disconnected_and_the_publisher_is_not(tmp_path: Path) -> None:
    with Forwarder(tmp_path) as device:
        # The device looks at its memory after each 10 ms of CPU time, in which it takes 16 MB of these messages or
        # more. It must look often enough between a half of the limit, where it begins, and five quarters, where
        # it no longer waits for the third look that shows who does not read.
        device.environment["ZMSVC_DEVICE_MEMORY"] = str(128 << 20)
        device.start()
        pub_socket = device.publisher()
        # A device that had no CPU time for a second must not get the messages of this second at once: at
        # twice its limit it gives up.
        pub_socket.set(zmq.SNDHWM, 8)
        news = pub_socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        device.opened.append(news)
        publisher = sockets.Publisher(pub_socket)
        with subprocess.Popen(
            [sys.executable, FLOOD, "deaf", device.subscribe_endpoint, "30", "2"],
            stdout=subprocess.PIPE,
            text=True,
        ) as flood:
            wait_for(lambda: publisher.has_subscriber(b"x @@@ "))
            # Half a megabyte for each look at the notifications, 200 times a second at most.
            device.notified.settimeout(0.005)
            until = time.monotonic() + PATIENCE
            notification = ""
            while "slow_subscribers" not in notification:
                assert time.monotonic() < until, "the subscriber was not cut off"
                assert device.process is not None
                assert device.process.poll() is None, "the device has given up"
                publisher.send(b"x @@@ ".ljust(512 << 10, b"x"))
                with suppress(TimeoutError):
                    notification = device.next_notification()
            flood.kill()
        assert not news.poll(0), "the publisher was cut off"
        assert device.process is not None
        assert device.process.poll() is None
        pub_socket.disable_monitor()


def test_a_subscription_that_is_too_long_ends_the_connection(tmp_path: Path) -> None:
    with Forwarder(tmp_path) as device:
        device.start()
        greedy = device.subscriber(b"x" * (socket_options.MAX_SUBSCRIPTION + 100))
        device.notified.setblocking(False)

        def told() -> bool:
            # libzmq subscribes again only when the thread of this socket calls it. On a busy machine the
            # first connections may end before the device has looked at them.
            greedy.poll(0)
            with suppress(BlockingIOError):
                return "a subscription that is too long" in device.next_notification()
            return False

        wait_for(told)
        assert device.connected_publisher().send(b"y @@@ ")


def test_context_info_of_5000_tasks_is_far_below_the_longest_message() -> None:
    from zmsvc.core import messages
    from zmsvc.core.world import Task, Transaction, World
    from zmsvc.supervisor import status_report

    text = (
        Path(__file__).parents[2] / "zmsvc" / "data" / "examples" / "Context-StateMachine.xml"
    ).read_text()
    start, end = text.index("<TaskService "), text.index("</TaskService>") + len("</TaskService>")
    one = text[start:end]
    ident = one.partition('id="')[2].partition('"')[0]
    many = "".join(one.replace(ident, f"ts_{number}") for number in range(1000))
    rest = text[text.rindex("</TaskService>") + len("</TaskService>") :]
    context = reader.parse((text[:start] + many + rest).encode(), path="x", name="X")
    tasks = {("T" * 20, task): Task(launch=1) for task in context.tasks}
    world = World(context=context, transactions={"T" * 20: Transaction(id="T" * 20)}, tasks=tasks)
    head = messages.header(
        transaction="T" * 20, service_id="context001", action="update", service_name="context"
    )
    (frame,) = messages.context_infos([head], status_report.pictures(world))
    assert frame.count(b"service_id") > 1000
    assert 5 * len(frame) < socket_options.MAX_MESSAGE / 4
