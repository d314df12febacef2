"""Check endpoints, and create their listening sockets. This module does not import zmq, because zmsvcctl
imports it and must start fast.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from zmsvc.core import values
from zmsvc.core.errors import ConfigError, PlaceError, ZmsvcError
from zmsvc.core.values import Endpoint
from zmsvc.host.directories import check_way, chmod_socket
from zmsvc.host.kernel import unix_sockets

BACKLOG = 1024


def safe_bind(endpoint: str, *, curve: bool) -> str:
    """Return the endpoint to bind: without CURVE keys "any address" becomes loopback.

    Raises ConfigError for an invalid endpoint, and for an address other than loopback without keys.
    """
    place = _read(endpoint)
    if curve:
        return endpoint
    safe = values.without_keys(place)
    if safe is None:
        raise ConfigError(
            [
                f"cannot bind {endpoint} without CURVE keys: any host that reaches that address could give "
                f"orders; bind tcp://127.0.0.1:{place.port or '*'} or an ipc:// path, or make CURVE keys "
                "(zmsvcctl keys make)"
            ]
        )
    return endpoint if safe == place else str(safe)


def is_far(endpoint: str) -> bool:
    """Return True if the text of an endpoint may mean another machine. Every host name but localhost may."""
    place = values.read_endpoint(endpoint, bind=True, any_port=True)
    return isinstance(place, Endpoint) and not place.local


def listen(endpoint: str, mode: int = 0o660) -> socket.socket:
    """Return a non-blocking, close-on-exec listening socket exactly at `endpoint` (port `*` or 0: any free
    one).

    The file of an ipc endpoint has `mode` before a client can connect; the file of a dead process is
    replaced. Raises ConfigError for an invalid endpoint, ZmsvcError if it cannot be bound.
    """
    place = _read(endpoint)
    ipc = place.scheme == "ipc"
    try:
        if ipc:
            path = place.host
            # A stale socket is removed now, and our own one at the end. A symbolic link in the path could
            # redirect these removals to other files.
            check_way(Path(path).parent)
            return _listen_ipc(path, mode)
        return _listen_tcp(place.host.strip("[]"), place.port)
    except PlaceError as error:
        raise ZmsvcError(f"cannot bind {endpoint}: {error}") from error
    except OSError as error:
        raise ZmsvcError(f"cannot bind {endpoint}: {_why(error, ipc)}") from error


def address(listener: socket.socket) -> str:
    """Return the endpoint that a listening socket is bound to, with a numeric address."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"ipc://{os.fsdecode(name)}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"tcp://{host}:{name[1]}"


def _read(endpoint: str) -> Endpoint:
    place = values.read_endpoint(endpoint, bind=True, any_port=True)
    if isinstance(place, str):
        raise ConfigError([f"cannot bind {endpoint}: it {place}"])
    return place


def _listen_tcp(host: str, port: int) -> socket.socket:
    host = "0.0.0.0" if host == "*" else host
    family, kind, protocol, _, name = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        return _listening(listener)
    except OSError:
        listener.close()
        raise


def _listen_ipc(path: str, mode: int) -> socket.socket:
    _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux creates the file with the mode of the unbound socket minus the umask, so it is never wider
        # than `mode`. The second chmod undoes the umask. Before listen() the kernel refuses every connect.
        os.fchmod(listener.fileno(), mode)
        # Do this before a client can connect: a descriptor whose close hangs would hang the only I/O thread
        # of the device.
        unix_sockets.refuse_descriptors(listener)
        listener.bind(path)
        chmod_socket(path, mode)
        return _listening(listener)
    except OSError:
        listener.close()
        raise


def _listening(listener: socket.socket) -> socket.socket:
    listener.listen(BACKLOG)
    # At a restart two devices may share the queue for a moment. The accept() of the one that comes too late
    # must not block.
    listener.setblocking(False)
    return listener


def _clear_stale(path: str) -> None:
    """Remove a socket file on which no process listens. libzmq would also remove the file of a process that
    listens, which would get no more connections and would not notice that.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EEXIST, "a file that is not a socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            return
        except BlockingIOError:
            pass  # The backlog is full, so a process listens.
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _why(error: OSError, ipc: bool) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"address already in use (another process listens there; see ss -l{'x' if ipc else 'tn'}p)"
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
