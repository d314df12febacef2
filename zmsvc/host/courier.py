"""Publishes a single message from a short-lived process, and knows that the device has it. PUB/SUB alone would lose it in silence."""

from __future__ import annotations

import time

from zmsvc.core.errors import ZmsvcError
from zmsvc.host import sockets


def send_once(endpoint: str, frame: bytes, timeout_s: float = 5.0) -> bool:
    """Publish `frame` at `endpoint`; True when somebody is subscribed to it.

    Raises ZmsvcError when no device answers there in time.
    """
    context = sockets.context()
    try:
        mouth = sockets.Mouth(sockets.publisher(context, endpoint))
        until = time.monotonic() + timeout_s
        if not mouth.wait(timeout_s):
            mouth.socket.close(0)
            raise ZmsvcError(f"cannot reach {endpoint}: no device answers within {timeout_s:g} s (is the context running?)")
        wanted = mouth.wants(frame)
        mouth.send(frame)
        # The socket closes only when the device's side of the connection has taken the message.
        mouth.socket.close(round(max(0.5, until - time.monotonic()) * 1000))
        return wanted
    finally:
        context.term()
