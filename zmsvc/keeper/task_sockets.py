"""The sockets of `<listen>`: opened when a task is launched, held while the supervisor says so, and shared by
all tasks that name the same one. Which tasks these are is decided in the core.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zmsvc.core.errors import PlaceError, ZmsvcError
from zmsvc.core.listening import ListenSocket, socket_from_json
from zmsvc.core.owners import numeric_id
from zmsvc.host import directories
from zmsvc.host.complain import complain
from zmsvc.keeper.machine import KeeperMachine

_HINTS = {
    errno.EACCES: " (a port below 1024 needs root or CAP_NET_BIND_SERVICE)",
    errno.EADDRINUSE: " (ss -ltnp shows by which process)",
}


class TaskSockets:
    """The open sockets of all tasks of a context."""

    def __init__(self, machine: KeeperMachine) -> None:
        self._machine = machine
        self._open: dict[ListenSocket, socket.socket] = {}
        self._held: frozenset[ListenSocket] = frozenset()
        self._released: list[socket.socket] = []
        """Unix sockets that are to be closed by another process."""

    def hold(self, sockets: Iterable[Mapping[str, Any]]) -> int | None:
        """Hold these sockets, and close every other one. Return the PID of a child that closes some, if there
        is one.
        """
        self._held = frozenset(map(socket_from_json, sockets))
        for each in self._open.keys() - self._held:
            self._release(each, self._open.pop(each))
        return self._dispose()

    def open(self, sockets: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
        """Return the descriptors of the sockets of a launch, for the caller to pass on and not to close.
        Raises ZmsvcError with the reason.
        """
        found = []
        for values in sockets:
            each = socket_from_json(values)
            if each not in self._held:
                # An order that came after the order of the launch has released the socket.
                raise ZmsvcError(f"cannot listen at {each.address}: the task is to be stopped")
            if each not in self._open:
                self._open[each] = _listen(each)
            found.append(self._open[each].fileno())
        return tuple(found)

    def close(self) -> None:
        """Remove the files. The kernel closes the sockets when the keeper ends: see `_dispose`."""
        for each, sock in self._open.items():
            _remove(each)
            sock.detach()
        for sock in self._released:
            sock.detach()
        self._open.clear()
        self._released.clear()

    def _release(self, each: ListenSocket, sock: socket.socket) -> None:
        _remove(each)
        if sock.family == socket.AF_UNIX:
            self._released.append(sock)
        else:
            sock.close()

    def _dispose(self) -> int | None:
        """Close the Unix sockets that are no longer held, in another process.

        A client may have sent descriptors over a connection that no task has accepted. The process that
        closes the socket closes them too, and a descriptor with SO_LINGER, or of a FUSE file system, would
        block the keeper. So the last process that has the socket is another one.
        """
        if not self._released:
            return None
        try:
            pid = self._machine.close_elsewhere(self._released)
        except OSError as error:
            complain(f"zmsvcd: cannot close sockets of tasks now: {error.strerror}; trying again later")
            return None
        self._released.clear()
        return pid


def _listen(each: ListenSocket) -> socket.socket:
    try:
        return _unix(each) if each.endpoint.scheme == "ipc" else _tcp(each)
    except PlaceError as error:
        raise ZmsvcError(f"cannot listen at {each.address}: {error}") from error
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "") if each.path is None else ""
        raise ZmsvcError(f"cannot listen at {each.address}: {error.strerror}{hint}") from error


def _tcp(each: ListenSocket) -> socket.socket:
    end = each.endpoint
    if end.host != "*":
        host = end.host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The address is a number, so no name is looked up.
        kind, flags = socket.SOCK_STREAM, socket.AI_NUMERICHOST
        (found, *_) = socket.getaddrinfo(host, end.port, family, kind, 0, flags)
        return _bound(family, found[4], each)
    try:
        return _bound(socket.AF_INET6, ("::", end.port), each)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return _bound(socket.AF_INET, ("0.0.0.0", end.port), each)


def _bound(family: int, address: Any, each: ListenSocket) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `::` is every address, of IPv4 as well.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
        sock.listen(each.backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _unix(each: ListenSocket) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    path = each.path
    try:
        if path is None:
            sock.bind("\0" + each.endpoint.host[1:])
        else:
            _make_directories(Path(path).parent)
            # Root must not remove or make a file where another user chooses the directory.
            directories.check_way(Path(path).parent)
            _remove_stale(path)
            # Set the mode before the bind, so the file never has another one.
            os.fchmod(sock.fileno(), each.mode)
            _bind_with_mode(sock, path)
            _own(path, each)
        sock.listen(each.backlog)
    except (OSError, ZmsvcError):
        sock.close()
        raise
    return sock


def _bind_with_mode(sock: socket.socket, path: str) -> None:
    old = os.umask(0)
    try:
        sock.bind(path)
    finally:
        os.umask(old)


def _make_directories(directory: Path) -> None:
    if directory.is_dir():
        return
    _make_directories(directory.parent)
    directories.check_way(directory.parent)
    with contextlib.suppress(FileExistsError):
        old = os.umask(0o022)
        try:
            directory.mkdir()
        finally:
            os.umask(old)


def _own(path: str, each: ListenSocket) -> None:
    uid, gid = _number(each.user, user=True), _number(each.group, user=False)
    if (uid, gid) == (-1, -1):
        return
    try:
        os.chown(path, uid, gid, follow_symlinks=False)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _number(owner: str | None, *, user: bool) -> int:
    if owner is None:
        return -1
    number = numeric_id(owner)
    if number is None:
        raise PlaceError(f"this machine has no {'user' if user else 'group'} {owner}")
    return number


def _remove_stale(path: str) -> None:
    """Remove the file of a socket at which no process listens, as a keeper that was killed leaves it."""
    try:
        about = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(about.st_mode):
        raise PlaceError("there is a file, and not a socket (move it away)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # a process listens, and its backlog is full
    raise PlaceError("another process listens there (ss -lxp shows it)")


def _remove(each: ListenSocket) -> None:
    """Remove the file of a Unix socket."""
    if each.path is None:
        return
    with contextlib.suppress(OSError, PlaceError):
        directories.check_way(Path(each.path).parent)
        if stat.S_ISSOCK(os.lstat(each.path).st_mode):
            os.unlink(each.path)
