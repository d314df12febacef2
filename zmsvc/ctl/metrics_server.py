"""A tiny HTTP server for Prometheus: GET /metrics, for some users of this machine, on loopback or a Unix
socket.

Every process of this machine can connect to a loopback port, so the kernel tells the user of each connection,
as for the bus. Only root, the user of this server and the users of --allow get an answer. The server asks the
supervisors as its own user, so it shows nothing that this user may not see, and it has no way to give an
order. It serves one connection at a time, for a bounded time, and reads a bounded number of bytes.
"""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from zmsvc.core.errors import UsageError, ZmsvcError, reason
from zmsvc.core.exposition import CONTENT_TYPE, Family, accepted, text
from zmsvc.ctl import terminal
from zmsvc.ctl.client import CtlError
from zmsvc.host import directories, user_ids
from zmsvc.host.kernel import unix_sockets
from zmsvc.host.kernel.sockdiag import SockDiag
from zmsvc.host.sparse_log import SparseLog

PATIENCE = 5.0
"""Seconds for the request of one connection, and again for its answer."""
MAX_HEAD = 8 << 10
"""Bytes of the request line and the headers."""
BACKLOG = 16
"""Connections that may wait. The kernel refuses more."""
_FIRST_FD = 3
"""The number of the first socket that systemd passes."""
_SYSTEMD = "systemd"


def listen(where: str) -> list[socket.socket]:
    """Return the listening sockets for `ADDRESS:PORT`, or those that systemd has passed for `systemd`. Raises
    UsageError for an address beyond loopback, CtlError if the address is in use.
    """
    if where == _SYSTEMD:
        return _passed()
    host, _, port = where.rpartition(":")
    address = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16) or not _is_loopback(address):
        raise UsageError(
            f"cannot listen on {where}: expected systemd, or a loopback address with a port, such as "
            f"127.0.0.1:9649"
        )
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return [socket.create_server((address, int(port)), family=family, backlog=BACKLOG)]
    except OSError as error:
        raise CtlError(1, f"cannot listen on {where}: {reason(error)}") from error


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _passed() -> list[socket.socket]:
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or int(count) < 1:
        raise UsageError("cannot listen: systemd has passed no socket (see zmsvc-exporter.socket)")
    found = [socket.socket(fileno=_FIRST_FD + at) for at in range(int(count))]
    for each in found:
        if not _fits(each):
            raise UsageError(
                f"cannot listen on {each.getsockname()}: expected a Unix stream socket or a loopback "
                f"address, because the users of other connections are unknown"
            )
    return found


def _fits(sock: socket.socket) -> bool:
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    if sock.family == socket.AF_UNIX:
        return True
    return sock.family in (socket.AF_INET, socket.AF_INET6) and _is_loopback(sock.getsockname()[0])


def users(names: Iterable[str]) -> frozenset[int]:
    """Return the user IDs that get an answer. A name without a user is announced and left out, since the
    program of that user may be installed later.
    """
    found = {0, os.geteuid()}
    for name in names:
        uid = user_ids.number(name)
        if uid is None:
            terminal.complain(f"there is no user {name}: no program of it gets an answer")
        else:
            found.add(uid)
    return frozenset(found)


class MetricsServer:
    """The server on these listening sockets."""

    def __init__(
        self,
        listening: Sequence[socket.socket],
        collect: Callable[[], list[Family]],
        allowed: frozenset[int],
        patience: float = PATIENCE,
    ) -> None:
        self._listening = {each.fileno(): each for each in listening}
        self._collect, self._allowed, self._patience = collect, allowed, patience
        self._poll = select.poll()
        for each in listening:
            each.setblocking(False)
            self._poll.register(each, select.POLLIN)
        self._kernel = SockDiag() if any(each.family != socket.AF_UNIX for each in listening) else None
        self._refusals = SparseLog(terminal.complain)

    def close(self) -> None:
        for each in self._listening.values():
            each.close()
        if self._kernel is not None:
            self._kernel.close()

    def serve(self) -> None:
        """Serve one connection after the other, until Ctrl-C."""
        while True:
            self.serve_next()

    def serve_next(self) -> None:
        """Wait for connections, and serve one of each socket."""
        for number, _ in self._poll.poll():
            try:
                connection = self._listening[number].accept()[0]
            except OSError:
                continue  # The client is gone, or another process has accepted it.
            with connection:
                self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(True)
            uid = self._uid(connection)
            if uid not in self._allowed:
                self._refuse(connection, uid)
                return
            head = self._head(connection)
            if head is None:
                return
            answer = self._answer(head, local=connection.family == socket.AF_UNIX)
            # A client that reads nothing ends here: the limit is that of the whole answer.
            connection.settimeout(self._patience)
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The client is gone, or too slow.

    def _uid(self, connection: socket.socket) -> int | None:
        if connection.family == socket.AF_UNIX:
            return unix_sockets.peer_credentials(connection)[1]
        return None if self._kernel is None else self._kernel.peer(connection)

    def _refuse(self, connection: socket.socket, uid: int | None) -> None:
        """Answer 403 without a wait: a user without rights must not keep others out."""
        who = "a connection without a process" if uid is None else f"a connection of {directories.user(uid)}"
        self._refusals.add("%s is refused (--allow USER admits a user)", who)
        connection.setblocking(False)
        with suppress(BlockingIOError):
            # Read the rest: closing a connection with unread data resets it, and the client may not see the
            # answer.
            connection.recv(MAX_HEAD)
        connection.send(_response(403, f"{who} is refused\n"))

    def _head(self, connection: socket.socket) -> bytes | None:
        """Return the request line and the headers. If they are too long, answer that and return None."""
        until, head = time.monotonic() + self._patience, b""
        while b"\r\n\r\n" not in head:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            more = connection.recv(4096)
            if not more:
                raise ConnectionError("the client has closed the connection")
            head += more
            if len(head) > MAX_HEAD:
                connection.sendall(_response(431, f"the headers have more than {MAX_HEAD} bytes\n"))
                return None
        return head.partition(b"\r\n\r\n")[0]

    def _answer(self, head: bytes, *, local: bool) -> bytes:
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(400, "expected a request of HTTP/1.1\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        # Only a loopback name is accepted: a web page could make a browser on this machine ask under a name
        # of the page's own.
        if not local and not _is_own_name(headers.get("host", "localhost")):
            return _response(403, "the Host is not a name of this machine's loopback\n")
        method, path = words[0], words[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _response(405, "only GET is possible\n", "Allow: GET, HEAD\r\n")
        if path != "/metrics":
            return _response(404, "there is only /metrics\n")
        form = accepted(headers.get("accept", ""))
        try:
            body = text(self._collect(), form)
        except ZmsvcError as error:
            return _response(503, f"{error}\n")
        except OSError as error:
            return _response(503, f"cannot collect the metrics: {reason(error)}\n")
        return _response(200, body, f"Content-Type: {CONTENT_TYPE[form]}\r\n", with_body=method == "GET")


def _is_own_name(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name == "localhost" or _is_loopback(name.removeprefix("[").removesuffix("]"))


_PHRASES = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def _response(status: int, body: str, headers: str = "", *, with_body: bool = True) -> bytes:
    data = body.encode()
    kind = "" if "Content-Type" in headers else "Content-Type: text/plain; charset=utf-8\r\n"
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{kind}{headers}Content-Length: {len(data)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (data if with_body else b"")
