"""An address of this machine that is not loopback, in a network namespace of the test, and clients there that
use ZeroMQ without zmsvc.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq
import zmq.auth
from waiting import PATIENCE

ADDRESS = "192.0.2.1"
_CLONE_NEWNET = 0x4000_0000

Pair = tuple[bytes, bytes]


@contextmanager
def own_network() -> Iterator[None]:
    """Put this thread into a network namespace of its own, with all processes, sockets and threads that it
    starts from here on. Needs root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "cannot unshare the network")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            # An address is loopback by its number, and not by the network device that has it.
            subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
            yield
        finally:
            libc.setns(before, _CLONE_NEWNET)
    finally:
        os.close(before)


class Client:
    """A socket with these keys, or without keys. It finds out itself if the other side admits it."""

    def __init__(self, kind: int, endpoint: str, *, server: bytes = b"", pair: Pair | None = None) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(kind)
        if pair:
            self.socket.curve_serverkey = server
            self.socket.curve_publickey, self.socket.curve_secretkey = pair
        if kind == zmq.SUB:
            self.socket.subscribe(b"")
        self._news = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_DISCONNECTED
        )
        self.socket.connect(endpoint)

    def let_in(self) -> bool:
        """Return True if the handshake succeeded; the first event of the connection shows it."""
        assert self._news.poll(PATIENCE * 1000), "nothing became of the connection"
        event = int.from_bytes(self._news.recv_multipart()[0][:2], "little")
        return event == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def receive(self) -> bytes:
        assert self.socket.poll(PATIENCE * 1000), "nothing came"
        return self.socket.recv()

    def close(self) -> None:
        self.socket.disable_monitor()
        self._news.close(0)
        self._context.destroy(0)


def public(file: Path) -> bytes:
    """Return the public key of a file, read by pyzmq."""
    return zmq.auth.load_certificate(file)[0]


def pair(directory: Path) -> Pair:
    """Return the client pair of a directory of keys, read by pyzmq."""
    key, secret = zmq.auth.load_certificate(directory / "client.key_secret")
    assert secret is not None
    return key, secret
