"""Read libzmq's monitor sockets: events about the connections of another socket. The caller decides what an
event means.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import zmq

from zmsvc.host.bus.socket_options import Socket, is_readable

BATCH = 100
"""The number of events that are read before other work has its turn. To judge a connection takes 0.2 ms, and
any user can open thousands.
"""
FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


def open_monitor(watched: Socket, events: int) -> Socket:
    """Return a socket that yields `events` of `watched`. Call it before `watched` binds or connects.

    Read the monitor or close it: when some 2,000 events wait, libzmq's I/O thread blocks.
    """
    return watched.get_monitor_socket(events)


def pending_events(monitor: Socket, most: int = BATCH) -> Iterator[tuple[int, int]]:
    """Yield the events that wait, as (event, value). The value is a file descriptor or an error number. Never
    blocks.
    """
    for _ in range(most):
        if not is_readable(monitor):
            return
        # pyzmq's own parser imports asyncio, which costs the device 8 MB.
        event, value = struct.unpack("=Hi", monitor.recv_multipart()[0])
        yield event, value


class MonitorEvents:
    """The events of a socket in batches, for a caller that must know when it has read all of them."""

    def __init__(self, watched: Socket, events: int) -> None:
        self.socket = open_monitor(watched, events)
        self.drained = True
        """True if, at some moment since the caller last set this to False, no event was waiting."""

    def take(self) -> Iterator[tuple[int, int]]:
        """Yield the next events, as `pending_events` does. ZMQ's descriptor does not announce the rest
        again.
        """
        yield from pending_events(self.socket)
        self.drained = self.drained or not is_readable(self.socket)
