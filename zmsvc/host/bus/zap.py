"""Handle ZAP requests (ZeroMQ RFC 27): libzmq asks for each connection whether to accept it. The handler of
this module decides by the CURVE keys in a directory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils import z85

from zmsvc.core.errors import ConfigError
from zmsvc.host.bus.curve_keys import PUBLIC, load_trusted
from zmsvc.host.bus.socket_options import Context, Socket, is_readable
from zmsvc.host.sparse_log import SparseLog

ADDRESS = "inproc://zeromq.zap.01"
"""The endpoint to which libzmq sends its requests."""
BATCH = 256
"""Requests read at once, before other work has its turn."""


class ZapHandler:
    """The interface of a ZAP handler. In each turn the caller first calls `receive`, then passes on the
    events of connections, then calls `answer`.

    A turn may leave some requests and events for the next one. The caller does not call `receive` again
    before it has passed on all events that preceded the last requests.
    """

    socket: Socket

    def receive(self) -> None:
        """Read waiting requests."""

    def accepted(self, side: str, fd: int) -> None:
        """Note that libzmq has accepted a connection with this descriptor for the socket `side`."""

    def ended(self, side: str, fd: int) -> None:
        """Note that libzmq has closed this connection. The events of two sockets are in no order, so the
        other socket may already have a descriptor with the same number.
        """

    def forget(self) -> None:
        """Note that the socket was closed with all its connections."""

    def answer(self, *, complete: bool) -> None:
        """Answer the requests that can be answered; never block. `complete` is True if all events that
        preceded the requests have been passed on.
        """

    def timeout_ms(self) -> int | None:
        """Return the milliseconds after which the caller must call `answer` even without events; None: no
        limit.
        """
        return None

    def close(self) -> None:
        self.socket.close(0)


class KeyHandler(ZapHandler):
    """A handler that accepts the CURVE keys of a directory. It reads the directory for each request, so a new
    key file needs no restart.

    `report` takes a line about refused connections.
    """

    def __init__(self, ctx: Context, directory: Path, report: Callable[[str], None]) -> None:
        self._directory = directory
        self._refused = SparseLog(report)
        self.socket = ctx.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)

    def answer(self, *, complete: bool) -> None:
        """Answer waiting requests; never block. A request has the client's key, so events do not matter."""
        for _ in range(BATCH):
            if not is_readable(self.socket):
                return
            version, request, _domain, address, _identity, mechanism, *credentials = (
                self.socket.recv_multipart()
            )
            name = self._keys().get(z85.encode(credentials[0])) if mechanism == b"CURVE" else None
            verdict = (b"400", b"unknown key", b"") if name is None else (b"200", b"OK", name.encode())
            # The name is in the property User-Id of each message of this connection.
            self.socket.send_multipart([version, request, *verdict, b""])
            if name is None:
                self._refused.add(
                    "a connection from %s is refused: unknown CURVE key", address.decode(errors="replace")
                )

    def _keys(self) -> dict[bytes, str]:
        """Return the names of the clients by their keys."""
        keys = {}
        for file in self._directory.glob(f"*{PUBLIC}"):
            try:
                keys[load_trusted(file)] = file.name.removesuffix(PUBLIC)
            except ConfigError:
                continue  # One bad file must not lock the others out.
        return keys
