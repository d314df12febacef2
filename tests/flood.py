"""PROGRAM of another user: a peer that makes the device take as much memory as it can. It writes ZMTP itself
and does not use zmsvc. Arguments: the kind of flood, the endpoint, seconds, connections. It prints `go` when
it begins, and at the end how often its connections were closed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
PIECE = 256 << 10


def ready(kind: bytes) -> bytes:
    body = b"\x05READY\x0bSocket-Type" + struct.pack("!I", len(kind)) + kind
    return b"\x04" + bytes([len(body)]) + body


def frame(body: bytes, more: bool = False) -> bytes:
    if len(body) < 256:
        return bytes([more, len(body)]) + body
    return bytes([2 | more]) + struct.pack("!Q", len(body)) + body


class Flood:
    def __init__(self, endpoint: str, seconds: float, count: int) -> None:
        self.endpoint = endpoint
        self.until = time.monotonic() + seconds
        self.count = count
        self.ended = 0
        self.number = 0

    def connect(self, kind: bytes | None) -> socket.socket:
        """Open a connection that is admitted; without a kind it sends nothing."""
        if self.endpoint.startswith("ipc://"):
            made = socket.socket(socket.AF_UNIX)
            made.connect(self.endpoint.removeprefix("ipc://"))
        else:
            host, _, port = self.endpoint.removeprefix("tcp://").rpartition(":")
            made = socket.create_connection((host, int(port)))
        made.settimeout(5)
        if kind is None:
            return made
        made.sendall(GREETING + ready(kind))
        told = b""
        while b"READY" not in told:
            more = made.recv(4096)
            if not more:
                raise ConnectionError
            told += more
        return made

    def repeat(self, kind: bytes | None, words: Callable[[], bytes]) -> None:
        """Send without end on each connection in turn, and connect again when one was closed."""
        wires: list[socket.socket | None] = [None] * self.count
        rest = [b""] * self.count
        while time.monotonic() < self.until:
            moved = False
            for place, wire in enumerate(wires):
                try:
                    if wire is None:
                        wire = wires[place] = self.connect(kind)
                        wire.setblocking(False)
                        rest[place] = b""
                    rest[place] = rest[place] or words()
                    rest[place] = rest[place][wire.send(rest[place]) :]
                    moved = True
                except BlockingIOError:
                    pass
                except OSError:
                    self.ended += 1
                    if wire is not None:
                        wire.close()
                    wires[place] = None
            if not moved:
                select.select([], [wire for wire in wires if wire is not None], [], 0.1)

    def prefix(self) -> bytes:
        self.number += 1
        return b"evil %d %d " % (os.getpid(), self.number)

    # --- the ways

    def long(self) -> None:
        """Subscriptions of a megabyte."""
        self.repeat(b"SUB", lambda: frame(b"\x01" + self.prefix().ljust(1 << 20, b"x")))

    def many(self) -> None:
        """Short subscriptions, all different."""
        self.repeat(b"SUB", lambda: b"".join(frame(b"\x01" + self.prefix()) for _ in range(1000)))

    def churn(self) -> None:
        """Subscriptions that begin and end at once."""

        def words() -> bytes:
            prefixes = [self.prefix() for _ in range(1000)]
            return b"".join(frame(b"\x01" + each) + frame(b"\x00" + each) for each in prefixes)

        self.repeat(b"SUB", words)

    def words(self) -> None:
        """Messages that are not subscriptions. libzmq passes them on to every publisher."""
        self.repeat(b"SUB", lambda: b"".join(frame(b"\x02" + self.prefix()) for _ in range(1000)))

    def parts(self) -> None:
        """One message of parts without end."""
        self.repeat(b"PUB", lambda: frame(b"x" * PIECE, more=True))

    def parts_of_subscriptions(self) -> None:
        self.repeat(b"SUB", lambda: b"".join(frame(b"x" * 1000, more=True) for _ in range(200)))

    def orders(self) -> None:
        """Huge messages that a supervisor receives."""
        self.repeat(b"PUB", lambda: frame(b"context @@@ {" + b" " * (8 << 20)))

    def silent(self) -> None:
        """Connections that send nothing."""
        self.hold(None)

    def deaf(self) -> None:
        """Subscribers to everything that never read."""
        self.hold(b"SUB", frame(b"\x01"))

    def hold(self, kind: bytes | None, words: bytes = b"") -> None:
        wires: list[socket.socket] = []
        while time.monotonic() < self.until:
            while len(wires) < self.count and time.monotonic() < self.until:
                with contextlib.suppress(OSError):
                    wires.append(self.connect(kind))
                    wires[-1].sendall(words)
                # 200 in a second. This tries how many of them stay open.
                time.sleep(0.005)
            if kind is None:
                found, _, _ = select.select(wires, [], [], 0.1)
            else:
                # It never reads, so only POLLHUP shows that the connection was closed.
                poll = select.poll()
                for wire in wires:
                    poll.register(wire, select.POLLRDHUP)
                fds = {fd for fd, _ in poll.poll(100)}
                found = [wire for wire in wires if wire.fileno() in fds]
            for wire in found:
                self.ended += 1
                wires.remove(wire)
                wire.close()


if __name__ == "__main__":
    flood = Flood(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
    print("go", flush=True)
    getattr(flood, sys.argv[1])()
    print(f"ended {flood.ended}", flush=True)
