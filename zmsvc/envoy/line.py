"""The connection of an envoy to the supervisor of its context."""

from __future__ import annotations

import zmq

from zmsvc.host.bus import socket_options
from zmsvc.host.bus.curve_keys import Curve


class Line:
    """A DEALER. A message that was not sent does not wait for the next connection."""

    def __init__(self, endpoint: str, curve: Curve) -> None:
        self._endpoint, self._curve = endpoint, curve
        self._context = socket_options.context()
        self._socket = socket_options.envoy(self._context, endpoint, curve)

    def fileno(self) -> int:
        return socket_options.fileno(self._socket)

    @property
    def is_connected(self) -> bool:
        """True if a message can be sent now. The descriptor announces each change of this."""
        return bool(int(self._socket.get(zmq.EVENTS)) & int(zmq.POLLOUT))

    @property
    def has_message(self) -> bool:
        return socket_options.is_readable(self._socket)

    def send(self, data: bytes) -> bool:
        """Send a message. Return False if there is no connection, or its queue is full."""
        try:
            self._socket.send(data, zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def receive(self) -> bytes | None:
        """Return the next message; None if there is none."""
        try:
            return self._socket.recv(zmq.DONTWAIT)
        except zmq.Again:
            return None

    def renew(self) -> None:
        """Connect with a new socket. libzmq connects again after a connection was lost, but never after an
        error of the protocol, such as a message that is too long.
        """
        # The new one first: there may be no descriptor for it.
        renewed = socket_options.envoy(self._context, self._endpoint, self._curve)
        self._socket.close(0)
        self._socket = renewed

    def close(self) -> None:
        # The last messages may still be on their way.
        self._socket.close(500)
        self._context.term()
