"""Free TCP ports for the tests."""

from __future__ import annotations

import random
import socket

_FIRST, _END = 10_000, 32_000
"""A range below the one from which the kernel takes the port of a client (net.ipv4.ip_local_port_range)."""


def free_ports(count: int = 2) -> list[int]:
    """Return TCP ports on loopback that no process uses at this moment. Between this moment and the bind of the
    daemon, no client of another test gets one of them.
    """
    found: list[int] = []
    chance = random.SystemRandom()
    while len(found) < count:
        port = chance.randrange(_FIRST, _END)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found
