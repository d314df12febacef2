"""Monitor: what libzmq tells of a socket's connections, as events. What to make of them is the caller's
matter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import zmq

from zmsvc.host.bus.socket_options import Socket, readable

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


def seen(monitor: Socket) -> Iterator[tuple[int, int]]:
    """The events that wait, as (event, value); the value is a file descriptor or an error number. Does not
    block.
    """
    while readable(monitor):
        # pyzmq's own parser imports asyncio, which costs the device 8 MB.
        event, value = struct.unpack("=Hi", monitor.recv_multipart()[0])
        yield event, value
