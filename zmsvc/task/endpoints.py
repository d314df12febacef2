"""The endpoints of the bus that a task connects to."""

from __future__ import annotations

from typing import NamedTuple


class Endpoints(NamedTuple):
    """The endpoints of the bus, for sockets of one's own."""

    subscribe: str
    """The endpoint to subscribe at; ZMSVC_FRONTEND in the environment."""
    publish: str
    """The endpoint to publish to; ZMSVC_BACKEND in the environment."""
