"""Monitor: what libzmq tells of a socket's connections, as events. What to make of them is the caller's
matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import zmq

from zmsvc.host.bus.socket_options import Socket, readable

TAKEN = 100
"""Events that are taken at once, before others have their turn: to judge a connection takes 0.2 ms, and
anybody can make thousands.
"""
FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


def watch(watched: Socket, events: int) -> Socket:
    """A socket to read `events` of another one from; to be made before that binds or connects.

    It must be read or closed: when some 2,000 events wait, libzmq stops until they are.
    """
    return watched.get_monitor_socket(events)


def seen(monitor: Socket, most: int = TAKEN) -> Iterator[tuple[int, int]]:
    """The events that wait, as (event, value); the value is a file descriptor or an error number. Does not
    block.
    """
    for _ in range(most):
        if not readable(monitor):
            return
        # pyzmq's own parser imports asyncio, which costs the device 8 MB.
        event, value = struct.unpack("=Hi", monitor.recv_multipart()[0])
        yield event, value


class News:
    """The events of a socket in portions, for whoever must know when all that was there has been taken."""

    def __init__(self, watched: Socket, events: int) -> None:
        self.socket = watch(watched, events)
        self.over = True
        """Nothing was left since this was last set to False."""

    def take(self) -> Iterator[tuple[int, int]]:
        """The next events, as `seen` gives them. What is left over calls nobody again."""
        yield from seen(self.socket)
        self.over = self.over or not readable(self.socket)
