"""The client of the control socket of a supervisor: it sends a request as one line, and reads lines with
answers.

This module imports little, because most of the run time of zmsvcctl is import time.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator

from zmsvc.core.errors import ZmsvcError
from zmsvc.host import paths
from zmsvc.host.kernel import unix_sockets
from zmsvc.host.paths import Places

TYPE_CHECKING = (
    False  # An import of typing only for this constant would cost 4 ms of the 40 that `status` takes.
)
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

MAX_DROPS = 5
"""The number of dropped connections in a row before the client gives up. After each one it waits for the next
supervisor. Without a limit, a request that kills each supervisor that reads it would be repeated for ever.
"""
SERVED = 600.0
"""Seconds. When a connection has lasted for this time, its drop does not count: the keeper replaces a hung
supervisor in less time, so the request has not killed this one. A wait may outlive many supervisors.
"""
MAX_LINE = 64 << 20
"""Bytes of one answer. A task has about 900 bytes in the status, and at most 20 KiB: 64 sources of its cause,
4 KiB of their updates and two texts of 4 KiB.
"""
ANSWER_TIME = 10.0
"""Seconds from the first byte of an answer to its last one. A supervisor sends it in one piece."""
GRACE = 0.5
"""Seconds that the client waits beyond --timeout. The supervisor has the limit as well and can report
unfinished tasks, so its limit comes first.
"""
_CHUNK = 256 << 10


class CtlError(ZmsvcError):
    """A failure; `code` is the exit status, `data` the details from the supervisor."""

    def __init__(self, code: int, text: str, data: Json | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.data: Json = data or {}


class NotRunningError(CtlError):
    """No process listens at the control socket."""


class DroppedError(CtlError):
    """The connection was closed before the answer was complete."""


class DropCount:
    """The dropped connections in a row of one request. The drop of a connection that lasted `served` seconds
    does not count.
    """

    def __init__(self, served: float = SERVED) -> None:
        self._served = served
        self._count = 0
        self._sent = time.monotonic()

    def send(self) -> None:
        """Note the time at which the request is sent."""
        self._sent = time.monotonic()

    def answer(self) -> None:
        """Begin to count again: an answer came."""
        self._count = 0

    def drop(self) -> bool:
        """Count a dropped connection. Return False if the client gives up."""
        if time.monotonic() - self._sent >= self._served:
            self._count = 0
        self._count += 1
        return self._count <= MAX_DROPS


class Client:
    """One context's supervisor.

    `timeout` is the limit of the user in seconds; when it has passed, the exit status is 124. `patience` is
    the limit of this program if the user gave none; when it has passed, the supervisor counts as hung.
    Without both, the client waits as long as the limits of the supervisor allow. Both count from the creation
    of the client.
    """

    def __init__(
        self,
        places: Places,
        timeout: float | None = None,
        *,
        patience: float | None = None,
        max_line: int = MAX_LINE,
        answer_time: float = ANSWER_TIME,
        grace: float = GRACE,
        served: float = SERVED,
    ) -> None:
        self.max_line, self.answer_time, self._served = max_line, answer_time, served
        self.name = places.name
        self.drops = 0
        """The number of times that the connection was dropped and the request sent again."""
        self.uid: int | None = None
        """The user of the listening process, from the kernel; None before the first connection."""
        self._path = str(paths.control_socket(places.name))
        self._timeout = timeout
        limit = timeout + grace if timeout else patience
        self._deadline = time.monotonic() + limit if limit else None

    def ask(self, verb: str, **request: Any) -> Json:
        """Return the data of the only answer. Raises CtlError for a refusal, with its code and data."""
        for data in self.stream(verb, **request):
            return data
        return {}

    def stream(self, verb: str, **request: Any) -> Iterator[Json]:
        """Yield the data of each answer but the last one. If there is only one answer, yield its data.

        Raises CtlError: 5 if no supervisor can be reached or its answer is malformed, 124 if the user's
        timeout has passed, or the code of the supervisor's refusal. A repeatable request is sent again if the
        connection is dropped before the first answer: the keeper's listening socket outlives the supervisor,
        so the new connection waits there for the next supervisor.
        """
        line = json.dumps({"verb": verb, **request}).encode() + b"\n"
        count = DropCount(self._served)
        while True:
            answered = False
            count.send()
            try:
                with self.open() as connection:
                    connection.write(line)
                    while True:
                        answer = self._parsed(verb, connection.read())
                        if not (answered and not answer["more"]):
                            yield answer["data"]
                        answered = True
                        if not answer["more"]:
                            return
            except DroppedError:
                self.drops += 1
                # Imported here for start-up time: most connections are not dropped.
                from zmsvc.core.access import REPEATABLE

                if answered or verb not in REPEATABLE or not count.drop():
                    raise

    def _parsed(self, verb: str, text: bytes | None) -> Json:
        """Parse an answer; `data` and `more` are always set. Raises CtlError if the supervisor refused or
        closed the connection.
        """
        if text is None:
            raise DroppedError(
                5,
                f"cannot {verb}: the supervisor of {self.name} went away over it (zmsvcctl -c {self.name} "
                f"status shows the outcome)",
            )
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._malformed(str(error)) from None
        if not isinstance(answer, dict) or not isinstance(answer.get("data", {}), dict):
            raise self._malformed("it is not an object with data")
        data = answer.get("data", {})
        if answer.get("ok") is not True:
            code = answer.get("code")
            code = code if isinstance(code, int) and 1 <= code <= 255 else 1
            raise CtlError(
                code,
                str(
                    answer.get("error")
                    or f"cannot {verb}: the supervisor of {self.name} does not say why "
                    f"(zmsvcctl -c {self.name} logs)"
                ),
                data,
            )
        return {"data": data, "more": answer.get("more") is True}

    def _malformed(self, why: str) -> CtlError:
        return CtlError(
            5, f"cannot understand the supervisor of {self.name}: {why} (is it of another version?)"
        )

    # --- connections

    def open(self) -> ControlConnection:
        """Open a connection. Raises NotRunningError if no process listens, CtlError 5 for other reasons, and
        124 if it takes too long.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            remaining = self.remaining()
            if remaining is not None:
                # If the backlog is full, a non-blocking connect fails at once. So the socket blocks, with the
                # limit SO_SNDTIMEO, which the kernel also applies to connect(2).
                limit = struct.pack("ll", int(remaining), int(remaining % 1 * 1e6))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            sock.connect(self._path)
            self._check_owner(sock)
        except BlockingIOError:
            sock.close()
            raise self.timed_out() from None
        except (ConnectionRefusedError, FileNotFoundError):
            sock.close()
            raise NotRunningError(
                5,
                f"cannot reach the supervisor of {self.name}: nobody listens at {self._path} "
                f"(is it running? zmsvcctl -c {self.name} status)",
            ) from None
        except OSError as error:
            sock.close()
            why = (error.strerror or str(error)).lower()
            way = " (root, the daemon's user and its group may)" if isinstance(error, PermissionError) else ""
            raise CtlError(
                5, f"cannot reach the supervisor of {self.name}: {self._path}: {why}{way}"
            ) from None
        except CtlError:
            sock.close()
            raise
        return ControlConnection(self, sock)

    def _check_owner(self, sock: socket.socket) -> None:
        """Note the user of the listening process. Raises CtlError unless it is root, the caller's user, or
        the owner of the directory.
        """
        uid = unix_sockets.peer_credentials(sock)[1]
        if uid not in (0, os.geteuid(), os.stat(os.path.dirname(self._path)).st_uid):
            raise CtlError(
                5,
                f"cannot reach the supervisor of {self.name}: {self._path} belongs to uid {uid}, who does "
                f"not own its directory (another user listens there: end that process, or set "
                f"ZMSVC_RUNTIME_DIR)",
            )
        self.uid = uid

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, None without one. Raises CtlError if it has passed."""
        if self._deadline is None:
            return None
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise self.timed_out()
        return max(remaining, 0.001)

    def timed_out(self) -> CtlError:
        """Return the error for an answer that takes too long."""
        if self._timeout:
            return CtlError(
                124,
                f"timed out: no answer from the supervisor of {self.name} within {self._timeout:g} s; the "
                f"order may go on (zmsvcctl -c {self.name} status)",
            )
        return CtlError(
            5,
            f"cannot reach the supervisor of {self.name}: it does not answer (does it hang? systemctl status "
            f"zmsvc@{self.name})",
        )

    def slow_answer(self) -> CtlError:
        return CtlError(
            5,
            f"cannot reach the supervisor of {self.name}: an answer is not complete within "
            f"{self.answer_time:g} "
            f"s (does it hang? systemctl status zmsvc@{self.name})",
        )

    def long_answer(self) -> CtlError:
        return CtlError(
            5,
            f"cannot read an answer of the supervisor of {self.name}: it is longer than "
            f"{self.max_line >> 20} MiB (name some of the tasks, or a transaction: "
            f"zmsvcctl -c {self.name} status TASK)",
        )


class ControlConnection:
    """A connection to a supervisor that reads and writes lines, with a limit of their length
    and a deadline.
    """

    def __init__(self, client: Client, sock: socket.socket) -> None:
        self._client = client
        self._sock = sock
        self._buffer = bytearray()

    def __enter__(self) -> ControlConnection:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def write(self, line: bytes) -> None:
        try:
            self._sock.settimeout(self._client.remaining())
            self._sock.sendall(line)
        except TimeoutError:
            raise self._client.timed_out() from None
        except ConnectionError:
            return  # The supervisor may have sent an answer before it closed the connection.

    def read(self) -> bytes | None:
        """Return the next line; None if the supervisor has closed the connection, even in the middle of a
        line.
        """
        searched, until = 0, time.monotonic() + self._client.answer_time if self._buffer else None
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > self._client.max_line:
                raise self._client.long_answer()
            try:
                self._sock.settimeout(self._left(until))
                data = self._sock.recv(_CHUNK)
            except TimeoutError:
                self._left(until)
                raise self._client.timed_out() from None
            except ConnectionError:
                return None
            if until is None:
                until = time.monotonic() + self._client.answer_time
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _left(self, until: float | None) -> float | None:
        """Return the seconds to wait for more data, or None for ever. `until` is the limit of a line that has
        begun. Raises CtlError if a limit has passed.
        """
        remaining = self._client.remaining()
        if until is None:
            return remaining
        more = until - time.monotonic()
        if more <= 0:
            raise self._client.slow_answer()
        return more if remaining is None else min(remaining, more)

    def wait_for_end(self) -> None:
        """Read and drop everything until the supervisor closes the connection."""
        while self.read() is not None:
            pass


def listens(places: Places) -> bool:
    """Return True if a process listens at the control socket, even if it refuses this user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(paths.control_socket(places.name)))
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
        return True
