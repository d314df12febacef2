"""Zap: which CURVE keys may connect: those in a directory. libzmq asks here once for each connection
(ZeroMQ RFC 27).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils import z85

from zmsvc.core.errors import ConfigError
from zmsvc.host.bus.curve_keys import PUBLIC, load_kept
from zmsvc.host.bus.socket_options import Context, Socket, is_readable
from zmsvc.host.sparse_log import SparseLog

ADDRESS = "inproc://zeromq.zap.01"
"""Where libzmq asks whether a connection may be let in."""
ASKED = 256
"""Requests that are taken at once, before others have their turn."""


class ZapHandler:
    """What is done for whoever judges connections, a turn at a time: it is handed the requests first, then
    the news of connections.

    A turn may leave some of either. No more requests are handed on before the news that was there when the
    last ones came.
    """

    socket: Socket

    def receive(self) -> None:
        """Take requests that wait."""

    def accepted(self, side: str, fd: int) -> None:
        """libzmq has accepted a connection with this descriptor for one of the device's sockets."""

    def ended(self, side: str, fd: int) -> None:
        """libzmq has ended it. The news of two sockets have no order between them, and the number may be
        the other's already.
        """

    def forget(self) -> None:
        """The socket was closed with all its connections."""

    def answer(self, *, known: bool) -> None:
        """Answer what can be answered; does not block. `known` tells that all news has come which preceded
        the requests.
        """

    def timeout_ms(self) -> int | None:
        """Milliseconds after which `answer` is to be called even if nothing happens."""
        return None

    def close(self) -> None:
        self.socket.close(0)


class KeyHandler(ZapHandler):
    """Answers libzmq's question for a connection. The directory is read each time: a new key file needs no
    restart.

    `report` takes a line about those who were refused.
    """

    def __init__(self, ctx: Context, directory: Path, report: Callable[[str], None]) -> None:
        self._directory = directory
        self._refused = SparseLog(report)
        self.socket = ctx.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)

    def answer(self, *, known: bool) -> None:
        """Answer what waits; does not block. Who asks shows a key, so nothing else needs to be known."""
        for _ in range(ASKED):
            if not is_readable(self.socket):
                return
            version, request, _domain, address, _identity, mechanism, *credentials = (
                self.socket.recv_multipart()
            )
            known = mechanism == b"CURVE" and z85.encode(credentials[0]) in self._keys()
            verdict = (b"200", b"OK") if known else (b"400", b"unknown key")
            self.socket.send_multipart([version, request, *verdict, b"", b""])
            if not known:
                self._refused.add(
                    "a connection from %s is refused: unknown CURVE key", address.decode(errors="replace")
                )

    def _keys(self) -> set[bytes]:
        keys = set()
        for file in self._directory.glob(f"*{PUBLIC}"):
            try:
                keys.add(load_kept(file))
            except ConfigError:
                continue  # One bad file must not lock the others out.
        return keys
