"""A real device for tests. The test takes the place of the keeper: it holds the listening sockets of the
device, and reads its notifications.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import waiting

from zmsvc.host.bus import sockets
from zmsvc.host.bus.endpoints import address

FREE_PORT = "tcp://127.0.0.1:*"


class Forwarder:
    """The device's process, its two endpoints, and the sockets that tests open on it."""

    def __init__(self, folder: Path, *, publish_endpoint: str = "", subscribe_endpoint: str = "") -> None:
        self.listeners = [
            sockets.listen(publish_endpoint or f"ipc://{folder}/front"),
            sockets.listen(subscribe_endpoint or f"ipc://{folder}/back"),
        ]
        self.publish_endpoint, self.subscribe_endpoint = (address(listener) for listener in self.listeners)
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(folder / "notify"))
        self.notified.settimeout(waiting.PATIENCE)
        self.context = sockets.context()
        self.opened: list[sockets.Socket] = []
        self.process: subprocess.Popen[str] | None = None
        self.more_fds: list[int] = []
        self.log = folder / "log"
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}

    def start(self, *arguments: str) -> Forwarder:
        """Start the process, and wait until it is ready."""
        self.launch(*arguments)
        self.wait_notification("READY=1")
        return self

    def launch(self, *arguments: str) -> None:
        fds = [listener.fileno() for listener in self.listeners]
        command = [
            "--front",
            self.publish_endpoint,
            "--back",
            self.subscribe_endpoint,
            "--front-fd",
            str(fds[0]),
            "--back-fd",
            str(fds[1]),
            *arguments,
        ]
        with self.log.open("a") as log:
            fds += self.more_fds
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zmsvc.device", *command],
                pass_fds=fds,
                env=self.environment,
                stderr=log,
                text=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(waiting.PATIENCE)

    def next_notification(self) -> str:
        return self.notified.recv(4096).decode()

    def wait_notification(self, part: str) -> str:
        """Return the next notification that contains `part`."""
        until = time.monotonic() + waiting.PATIENCE
        while part not in (text := self.next_notification()):
            assert time.monotonic() < until
        return text

    def publisher(self, curve: sockets.Curve | None = None) -> sockets.Socket:
        self.opened.append(sockets.publisher(self.context, self.publish_endpoint, curve))
        return self.opened[-1]

    def subscriber(self, *prefixes: bytes, curve: sockets.Curve | None = None) -> sockets.Socket:
        self.opened.append(sockets.subscriber(self.context, self.subscribe_endpoint, prefixes, curve))
        return self.opened[-1]

    def connected_publisher(self, *wanted: bytes) -> sockets.Publisher:
        """Return a publisher that knows a subscriber to each of these."""
        publisher = sockets.Publisher(self.publisher())
        waiting.wait_for(
            lambda: publisher.wait(1) and all(publisher.has_subscriber(prefix) for prefix in wanted)
        )
        return publisher

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
        for each in self.opened:
            each.close(0)
        self.context.term()
        self.notified.close()
        for listener in self.listeners:
            listener.close()


def received(socket: sockets.Socket, deadline: float = waiting.PATIENCE) -> Any:
    """Return the next message. Fail if none comes in time."""
    assert socket.poll(round(deadline * 1000)), f"no message within {deadline:g} s"
    return socket.recv()
