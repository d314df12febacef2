"""PROGRAM of a user who may not connect. It writes ZMTP itself to a port, in every way that could get a
message past the handshake, and does not use zmsvc. Arguments: port, type of socket to imitate (PUB or SUB),
connections, and seconds between two of them. It prints what it received after handshakes, and how many of its
connections got READY, which admits a peer.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import sys
import time

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
OLD_GREETINGS = (b"\xff" + bytes(8) + b"\x7f\x01\x01\x00", b"\x01\x00")
"""The greetings of ZMTP 2.0 and 1.0, which have no handshake that the device could delay."""


def ready(kind: bytes) -> bytes:
    body = b"\x05READY\x0bSocket-Type" + struct.pack("!I", len(kind)) + kind
    return b"\x04" + bytes([len(body)]) + body


def frame(text: bytes) -> bytes:
    return b"\x00" + bytes([len(text)]) + text


class Attack:
    def __init__(self, port: int, kind: str) -> None:
        self.port = port
        self.kind = kind.encode()
        self.words = b"".join([frame(b"EVIL")] * 5) if kind == "PUB" else frame(b"\x01")
        self.got = b""
        self.let_in = 0
        self.kept: list[socket.socket] = []
        self.ways = (self.patient, self.at_once, self.torn, self.reset, self.idle, self.old, self.bytewise)

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port))
        made.settimeout(0.3)
        return made

    def hear(self, wire: socket.socket) -> bytes:
        """Return the messages until READY, an end or silence."""
        told = b""
        with contextlib.suppress(OSError):
            while b"READY" not in told and (more := wire.recv(4096)):
                told += more
        self.let_in += b"READY" in told
        return told

    def listen(self, wire: socket.socket) -> None:
        """Drop the other messages, which are not meant for this test."""
        with contextlib.suppress(OSError):
            while more := wire.recv(4096):
                self.got += more

    def patient(self, wire: socket.socket) -> None:
        """Do the handshake as libzmq does."""
        wire.sendall(GREETING + ready(self.kind))
        self.hear(wire)
        wire.sendall(self.words)
        self.listen(wire)

    def at_once(self, wire: socket.socket) -> None:
        """Send everything before an answer comes, and disconnect."""
        wire.sendall(GREETING + ready(self.kind) + self.words)
        if random.random() < 0.5:
            self.listen(wire)

    def torn(self, wire: socket.socket) -> None:
        """Send the first half of a message before the end of the handshake."""
        wire.sendall(GREETING + ready(self.kind) + self.words[:1])
        self.hear(wire)
        wire.sendall(self.words[1:])
        self.listen(wire)

    def reset(self, wire: socket.socket) -> None:
        """Reset the connection before the device can look at it."""
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.sendall(GREETING + ready(self.kind) + self.words)

    def idle(self, wire: socket.socket) -> None:
        """Connect, send nothing and stay."""
        self.kept.append(wire.dup())

    def old(self, wire: socket.socket) -> None:
        wire.sendall(random.choice(OLD_GREETINGS) + self.words)
        self.listen(wire)

    def bytewise(self, wire: socket.socket) -> None:
        for byte in GREETING[:20]:
            wire.sendall(bytes([byte]))
        wire.sendall(GREETING[20:] + ready(self.kind))
        wire.shutdown(socket.SHUT_WR)
        self.listen(wire)

    def run(self, count: int, pause: float) -> None:
        for number in range(count):
            with contextlib.suppress(OSError), self.connect() as wire:
                self.ways[number % len(self.ways)](wire)
            time.sleep(pause)


if __name__ == "__main__":
    random.seed(1)
    attack = Attack(int(sys.argv[1]), sys.argv[2])
    attack.run(int(sys.argv[3]), float(sys.argv[4]))
    print(f"let in {attack.let_in} heard {attack.got.count(b'SECRET')}", flush=True)
