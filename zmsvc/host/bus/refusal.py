"""Find out whether the device refuses this user at an endpoint: libzmq reconnects for ever without an error.

For ipc the mode of the socket's file shows it. For tcp this module makes one connection without libzmq.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from zmsvc.core.access import MAY_CONNECT
from zmsvc.core.errors import RefusedError
from zmsvc.core.values import endpoint as read

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
_READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03%b"
_ERROR = b"\x05ERROR\x03400"
_PATIENCE_S = 1.0
_MOST = 4096
"""The most bytes to read; a greeting and a command have about 100."""


def refusal(endpoint: str) -> RefusedError:
    """Return the error for a refused client; it names the users that may connect."""
    return RefusedError(
        f"cannot connect to {endpoint}: uid {os.geteuid()} may not; without CURVE keys only {MAY_CONNECT} may"
    )


def barred(endpoint: str) -> bool:
    """Return True if an ipc endpoint has a socket that this user may not open. Makes no connection."""
    path = endpoint.removeprefix("ipc://")
    if path == endpoint:
        return False
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode) and not os.access(
            path, os.W_OK, effective_ids=os.access in os.supports_effective_ids
        )
    except PermissionError:
        return True
    except OSError:
        return False


def refused(endpoint: str, kind: bytes) -> bool:
    """Return True if the device refuses this user at an endpoint without keys, as a PUB or a SUB. False if no
    device answers.
    """
    if barred(endpoint):
        return True
    try:
        place = read(endpoint, bind=False)
    except ValueError:
        return False
    received = b""
    with contextlib.suppress(OSError):
        if place.scheme == "tcp":
            with socket.create_connection((place.host.strip("[]"), place.port), _PATIENCE_S) as wire:
                wire.sendall(_GREETING)
                ready_sent = False
                while b"READY" not in received and len(received) < _MOST and (more := wire.recv(_MOST)):
                    received += more
                    if len(received) >= len(_GREETING) and not ready_sent:
                        wire.sendall(_READY % kind)
                        ready_sent = True
    return _ERROR in received
