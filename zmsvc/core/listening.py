"""The sockets of `<listen>` and their addresses as text. Pure; the keeper opens them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from zmsvc.core.frozen import frozen
from zmsvc.core.values import SUN_PATH, WHITE, Endpoint, quote

MAX_SOCKETS = 32
"""The number of sockets of one task."""
MAX_STORED = 512
"""The most descriptors that one task may store. With its sockets they are fewer than the usual soft limit of
1,024.
"""
STORED = "stored"
"""The name of a descriptor that was stored without one, as in systemd."""
_EXPECTED = "expected a port, ADDRESS:PORT, tcp://ADDRESS:PORT, or the absolute path of a Unix socket"
_TCP = re.compile(r"(?:(\*|[0-9.]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]):)?([0-9]{1,5})")
_NAME = re.compile(r"[!-9;-~]{1,255}")


@frozen
class ListenSocket:
    """One socket. Tasks with the same socket share it: `name` is only how a task finds it."""

    address: str
    """`tcp://ADDRESS:PORT`, `tcp://*:PORT` for every address, `ipc://PATH`, or `ipc://@NAME` for an abstract
    one.
    """
    name: str = ""
    """The name by which the task finds the socket, as FileDescriptorName= of systemd. Empty: the ID of the
    task in the file.
    """
    mode: int = 0o660
    """The permissions of a Unix socket: those who may write may connect."""
    user: str | None = None
    group: str | None = None
    """The owners of a Unix socket. None: those of the keeper."""
    backlog: int = 4096

    @property
    def endpoint(self) -> Endpoint:
        scheme, _, rest = self.address.partition("://")
        if scheme == "ipc":
            return Endpoint(scheme="ipc", host=rest)
        host, _, port = rest.rpartition(":")
        return Endpoint(scheme="tcp", host=host, port=int(port))

    @property
    def path(self) -> str | None:
        """The path of the file of a Unix socket; None for any other socket."""
        place = self.address.removeprefix("ipc://")
        return place if place.startswith("/") else None

    def as_json(self) -> dict[str, Any]:
        """Return what the keeper needs. `socket_from_json` reads it."""
        return {
            "address": self.address,
            "mode": self.mode,
            "user": self.user,
            "group": self.group,
            "backlog": self.backlog,
        }


def socket_from_json(values: Mapping[str, Any]) -> ListenSocket:
    """Return the socket of `as_json`. Raises TypeError."""
    return ListenSocket(**values)


def address(text: str) -> str:
    """Convert the address of a socket to the form of this module. The text may have that of systemd's
    ListenStream= or of ZeroMQ. Raises ValueError.
    """
    word = text.strip(WHITE)
    scheme, separator, rest = word.partition("://")
    place = rest if separator else word
    if (separator and scheme in ("ipc", "unix")) or (not separator and place[:1] in ("/", "@")):
        return f"ipc://{_path(place, text)}"
    match = _TCP.fullmatch(place)
    if match is None or (separator and (scheme != "tcp" or match[1] is None)):
        raise ValueError(f"{quote(text)} is not an address to listen at, {_EXPECTED}")
    host, port = match[1] or "*", int(match[2])
    if not 1 <= port <= 65535:
        raise ValueError(f"{quote(text)} has the port {port}, expected one from 1 to 65535")
    if host == "*":
        return f"tcp://*:{port}"
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError(f"{quote(text)} has no valid IP address, {_EXPECTED}") from None
    return f"tcp://[{found}]:{port}" if found.version == 6 else f"tcp://{found}:{port}"


def _path(place: str, text: str) -> str:
    if place[:1] not in ("/", "@") or len(place) < 2 or "\0" in place or place.endswith("/"):
        raise ValueError(f"{quote(text)} is not the path of a socket, {_EXPECTED}")
    if len(place.encode("utf-8", "surrogateescape")) > SUN_PATH:
        raise ValueError(f"{quote(text)} is too long, expected at most {SUN_PATH} bytes")
    return place


def name(text: str) -> str:
    """Return the name of a socket, as FileDescriptorName= of systemd.socket(5). Raises ValueError."""
    word = text.strip(WHITE)
    if not _NAME.fullmatch(word):
        raise ValueError(f"{quote(text)} cannot be a name, expected up to 255 printable letters without :")
    return word
