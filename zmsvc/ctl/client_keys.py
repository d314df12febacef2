"""The choice of CURVE keys for a command: those of a context, by its name or an endpoint, or those in a
directory.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from zmsvc.core.errors import ConfigError, ZmsvcError
from zmsvc.core.values import Endpoint, endpoint
from zmsvc.host import paths
from zmsvc.host.bus import curve_keys
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.config.xml_text import leaf, tree

SYSTEM = Path("/etc/zmsvc")
_PLACES = ("FrontEndEndpoint", "BackendEndpoint", "FrontBind", "BackendBind", "endpoint")
"""Elements of a context file that contain an endpoint."""


def of_context(name: str) -> Curve | None:
    """Return the keys for this context; None if this machine has none. The user's own keys take precedence
    over the system's. Raises ConfigError.
    """
    for directory in _directories(name):
        if os.path.isdir(directory):
            return _load(directory)
    return None


def needed(name: str) -> Curve:
    """Return the keys for a context that requires some. Raises ConfigError if there are none."""
    found = of_context(name)
    if found is None:
        raise ConfigError(
            [
                f"cannot connect to {name}: it requires CURVE keys, and there are none in "
                f"{paths.keys_dir(name)} "
                f"(zmsvcctl -c {name} keys join server.key makes some, from the public key of the machine "
                f"that runs it)"
            ]
        )
    return found


def of_endpoint(place: str, directory: str | None, name: str | None = None) -> Curve | None:
    """Return the keys for an endpoint: those in `directory`, else those of the context `name`, else those of
    the context whose file has this endpoint.
    """
    if not place.startswith("tcp://"):
        return None
    if directory:
        return _load(Path(directory))
    if name is not None:
        return of_context(name)
    for known, file in paths.known_contexts().items():
        if any(os.path.isdir(each) for each in _directories(known)) and _has(file, place):
            return of_context(known)
    return None


def _load(directory: Path) -> Curve:
    """Load a client's keys, unless another user could change them. Raises ConfigError."""
    curve_keys.check_client_place(directory)
    return curve_keys.load_client(directory)


def _directories(name: str) -> Iterator[Path]:
    yield paths.keys_dir(name)
    if paths.config_dir() != SYSTEM:
        yield SYSTEM / "keys" / name


def _has(file: Path, place: str) -> bool:
    """Return True if a context file names the endpoint `place`. An unreadable file names none."""
    try:
        wanted = endpoint(place, bind=False)
        found = [leaf(element) for element in tree(file.read_bytes(), str(file)).iter(*_PLACES)]
    except (OSError, ValueError, ZmsvcError):
        return False
    return any(_same(text, wanted) for text in found)


def _same(text: str, wanted: Endpoint) -> bool:
    try:
        known = endpoint(text, bind=True)
    except ValueError:
        return False
    if (known.scheme, known.port) != (wanted.scheme, wanted.port):
        return False
    return (
        known.host == wanted.host or (known.local and wanted.local) or (known.wildcard and _ours(wanted.host))
    )


def _ours(host: str) -> bool:
    """Return True if this is an address of this machine. For such a destination the kernel chooses the same
    address as source. Sends nothing.
    """
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(host.strip("[]"), 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(name)
            return bool(probe.getsockname()[0] == name[0])
    except OSError:
        return False
