"""The bus between machines: the host of the device vanishes, another host takes the address over, and a
subscriber receives messages again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import zmq
from needs import need
from outside import own_network
from waiting import PATIENCE, wait_for, wait_for_line

from zmsvc.host.bus import curve_keys, sockets

DEVICE, HERE = "192.0.2.1", "192.0.2.2"
BACK, FRONT = f"tcp://{DEVICE}:5556", f"tcp://{DEVICE}:5557"


class Host:
    """Another host: a network namespace at the other end of a cable, with the address of the device."""

    def __init__(self, name: str) -> None:
        self.cable, end = f"to-{name}", f"{name}-end"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo there; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout
        wait_for_line(self._holder.stdout, "there")
        ip("link", "add", self.cable, "type", "veth", "peer", "name", end, "netns", str(self._holder.pid))
        ip("link", "set", self.cable, "up")
        for command in (
            ["address", "add", f"{DEVICE}/32", "dev", "lo"],
            ["link", "set", "lo", "up"],
            ["link", "set", end, "up"],
            ["route", "add", HERE, "dev", end, "src", DEVICE],
        ):
            subprocess.run([*self._inside(), "ip", *command], check=True)

    def _inside(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    @contextmanager
    def device(self, home: Path) -> Iterator[None]:
        command = [sys.executable, "-m", "zmsvc.device", "--front", FRONT, "--back", BACK]
        command += ["--curve", str(home / "server.key_secret"), "--allow", str(home / "clients")]
        with subprocess.Popen([*self._inside(), *command]) as process:
            try:
                yield
            finally:
                process.terminate()

    def all_acknowledged(self) -> bool:
        """Return True if the other side has acknowledged all data of this host."""
        told = subprocess.run(
            [*self._inside(), "ss", "-Htn", "state", "established"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        sent = [line.split()[1] for line in told.splitlines()]
        return len(sent) == 2 and set(sent) == {"0"}

    def close(self) -> None:
        # Close its input, at which it ends, and the pipes.
        self._holder.communicate()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    need(os.geteuid() == 0, "only root can make a network")
    need(
        all(map(shutil.which, ("ip", "ss", "unshare", "nsenter"))), "iproute2 or util-linux is not installed"
    )
    need(zmq.has("curve"), "this libzmq has no CURVE")
    with own_network(), ExitStack() as stack:
        ip("address", "add", f"{HERE}/32", "dev", "lo")
        # In the network of the other tests the address of the device is a local one.
        ip("address", "del", f"{DEVICE}/32", "dev", "lo")
        both = Host("first"), Host("second")
        for host in both:
            stack.callback(host.close)
        yield both


@pytest.fixture
def curve(tmp_path: Path) -> sockets.Curve:
    """Make the keys of a context. The client has its own pair and the public key of the device, but no secret
    of the device.
    """
    for name, directory in (("server", tmp_path), ("client", tmp_path / "there")):
        directory.mkdir(exist_ok=True)
        public, secret = zmq.curve_keypair()
        (directory / f"{name}.key").write_text(curve_keys.text(public))
        (directory / f"{name}.key_secret").write_text(curve_keys.text(public, secret))
        (directory / f"{name}.key_secret").chmod(0o600)
    (tmp_path / "clients").mkdir()
    shutil.copy(tmp_path / "there/client.key", tmp_path / "clients")
    shutil.copy(tmp_path / "server.key", tmp_path / "there")
    return curve_keys.load_client(tmp_path / "there")


def heard_from(publisher: sockets.Socket, subscriber: sockets.Socket, times: int) -> int:
    """Publish until the subscriber has received a message; return the number of tries."""
    for tries in range(times):
        sockets.publish(publisher, b"beat @@@ {}")
        if subscriber.poll(200):
            subscriber.recv()
            return tries
    raise AssertionError("the subscriber hears nothing")


def test_a_subscriber_reconnects_after_the_devices_host_has_vanished(
    hosts: tuple[Host, Host], curve: sockets.Curve, tmp_path: Path
) -> None:
    first, second = hosts
    context = sockets.context()
    with ExitStack() as stack:
        stack.callback(context.term)
        ip("route", "add", DEVICE, "dev", first.cable, "src", HERE)
        stack.enter_context(first.device(tmp_path))
        publisher, subscriber = (
            sockets.publisher(context, FRONT, curve),
            sockets.subscriber(context, BACK, [b"beat"], curve),
        )
        for each in (publisher, subscriber):
            stack.callback(each.close, 0)
        assert sockets.await_device(publisher, PATIENCE)
        heard_from(publisher, subscriber, 200)

        # The second host would answer a late acknowledgment with a reset.
        wait_for(first.all_acknowledged)
        # The cable is cut, so no packet says that the host is gone. From now on another host has the address.
        ip("link", "set", first.cable, "down")
        ip("route", "add", DEVICE, "dev", second.cable, "src", HERE)
        stack.enter_context(second.device(tmp_path))
        heard_from(publisher, subscriber, 200)
