"""Tells whether this user may not connect to an endpoint: libzmq connects again and again in silence.

At a socket with a file its mode says it; of a tcp endpoint one connection without ZMQ does.
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
"""Bytes that are read of an answer; a greeting and a command have about 100."""


def refusal(endpoint: str) -> RefusedError:
    """The error of a client that was refused; it names who may connect."""
    return RefusedError(
        f"cannot connect to {endpoint}: uid {os.geteuid()} may not; without CURVE keys only {MAY_CONNECT} may"
    )


def barred(endpoint: str) -> bool:
    """Tell whether an ipc endpoint has a socket that this user may not open. No connection is made."""
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
    """Tell whether this user may not connect to an endpoint without keys as a PUB or a SUB. False where
    nobody answers.
    """
    if barred(endpoint):
        return True
    try:
        place = read(endpoint, bind=False)
    except ValueError:
        return False
    told = b""
    with contextlib.suppress(OSError):
        if place.scheme == "tcp":
            with socket.create_connection((place.host.strip("[]"), place.port), _PATIENCE_S) as wire:
                wire.sendall(_GREETING)
                said = False
                while b"READY" not in told and len(told) < _MOST and (more := wire.recv(_MOST)):
                    told += more
                    if len(told) >= len(_GREETING) and not said:
                        wire.sendall(_READY % kind)
                        said = True
    return _ERROR in told
