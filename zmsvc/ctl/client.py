"""Asks a supervisor over its control socket: a request line out, answer lines in. Imports little: the time
of zmsvcctl is import time.
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
from zmsvc.host.paths import Places

TYPE_CHECKING = (
    False  # To import typing costs 4 ms of the 40 that `status` takes, and only for this constant.
)
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

MAX_DROPS = 5
"""How often in a row the connection may be dropped. Each time the next supervisor is waited for, so this is
no question of time: a request that kills every supervisor that reads it must not go on for ever."""
MAX_LINE = 16 << 20
"""Bytes of one answer; the status of 1,000 tasks has 0.5 MiB."""
LINE = 10.0
"""Seconds that an answer may take from its first byte to its last: a supervisor sends it at once."""
GRACE = 0.5
"""Seconds beyond --timeout: the supervisor has the same limit and can say what is unfinished, so it goes
first.
"""
_CHUNK = 256 << 10


class CtlError(ZmsvcError):
    """An outcome that is not success; `code` is the exit status, `data` what the supervisor said about it."""

    def __init__(self, code: int, text: str, data: Json | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.data: Json = data or {}


class NotRunningError(CtlError):
    """Nobody listens."""


class DroppedError(CtlError):
    """The connection was closed before the answer was complete."""


class Client:
    """One context's supervisor.

    `timeout` is the user's, in seconds; to pass it has exit status 124. `patience` is ours where the user
    gave none; to pass it means that the supervisor does not answer. Without either we wait for the
    supervisor's own limits. Both are for the client's whole life.
    """

    def __init__(
        self, places: Places, timeout: float | None = None, *, patience: float | None = None
    ) -> None:
        self.name = places.name
        self.drops = 0
        """How often the connection was dropped and the request sent again."""
        self.uid: int | None = None
        """Whose process listens, as the kernel says; None before there was a connection."""
        self._path = str(paths.control_socket(places.name))
        self._timeout = timeout
        limit = timeout + GRACE if timeout else patience
        self._until = time.monotonic() + limit if limit else None

    def ask(self, verb: str, **request: Any) -> Json:
        """The data of the one answer. Raises CtlError for a no, with its code and data."""
        for data in self.stream(verb, **request):
            return data
        return {}

    def stream(self, verb: str, **request: Any) -> Iterator[Json]:
        """The data of each answer until the last, the last one included when it is the only one.

        Raises CtlError: 5 when nobody can be reached or understood, 124 when it takes longer than the user
        wanted to wait, and the supervisor's own no. A repeatable request is asked again when the connection
        is dropped before the first answer: the keeper's listening socket outlives the supervisor, so the
        connection waits there for the next one.
        """
        line = json.dumps({"verb": verb, **request}).encode() + b"\n"
        while True:
            told = False
            try:
                with self.open() as connection:
                    connection.write(line)
                    while True:
                        answer = self._judged(verb, connection.read())
                        if not (told and not answer["more"]):
                            yield answer["data"]
                        told = True
                        if not answer["more"]:
                            return
            except DroppedError:
                self.drops += 1
                # Imported here for start-up time: most connections are not dropped.
                from zmsvc.core.access import REPEATABLE

                if told or verb not in REPEATABLE or self.drops > MAX_DROPS:
                    raise

    def _judged(self, verb: str, text: bytes | None) -> Json:
        """An answer of the right shape, `data` and `more` always in it; raises CtlError when it is a no or
        no answer.
        """
        if text is None:
            raise DroppedError(
                5,
                f"cannot {verb}: the supervisor of {self.name} went away over it (zmsvcctl -c {self.name} "
                f"status shows what is so)",
            )
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._garbled(str(error)) from None
        if not isinstance(answer, dict) or not isinstance(answer.get("data", {}), dict):
            raise self._garbled("it is not an object with data")
        data = answer.get("data", {})
        if answer.get("ok") is not True:
            code = answer.get("code")
            code = code if isinstance(code, int) and 1 <= code <= 255 else 1
            raise CtlError(
                code,
                str(answer.get("error") or f"cannot {verb}: the supervisor of {self.name} does not say why"),
                data,
            )
        return {"data": data, "more": answer.get("more") is True}

    def _garbled(self, why: str) -> CtlError:
        return CtlError(
            5, f"cannot understand the supervisor of {self.name}: {why} (is it of another version?)"
        )

    # --- connections

    def open(self) -> ControlConnection:
        """A new connection. Raises NotRunningError when nobody listens, CtlError 5 for other reasons, 124
        when it takes too long.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            left = self.left()
            if left is not None:
                # A connect to a full backlog fails at once on a socket that does not block. So it blocks, and
                # the kernel's limit for sending, which holds for connect too, bounds it.
                limit = struct.pack("ll", int(left), int(left % 1 * 1e6))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            sock.connect(self._path)
            self._know(sock)
        except BlockingIOError:
            sock.close()
            raise self.late() from None
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

    def _know(self, sock: socket.socket) -> None:
        """Note whose socket this is. Raises CtlError for that of a user who is neither root, nor us, nor
        the owner of the directory.
        """
        uid: int = struct.unpack(
            "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )[1]
        if uid not in (0, os.geteuid(), os.stat(os.path.dirname(self._path)).st_uid):
            raise CtlError(
                5,
                f"cannot reach the supervisor of {self.name}: {self._path} is of uid {uid}, who does not "
                f"own its directory",
            )
        self.uid = uid

    def left(self) -> float | None:
        """Seconds until we give up, None for never. Raises CtlError when that is now."""
        if self._until is None:
            return None
        left = self._until - time.monotonic()
        if left <= 0:
            raise self.late()
        return max(left, 0.001)

    def late(self) -> CtlError:
        """What to raise when it has taken too long."""
        if self._timeout:
            return CtlError(
                124,
                f"timed out: no answer from the supervisor of {self.name} within {self._timeout:g} s; the "
                f"order may go on",
            )
        return CtlError(
            5,
            f"cannot reach the supervisor of {self.name}: it does not answer (is it hung? systemctl status "
            f"zmsvc@{self.name})",
        )

    def unfinished_line(self) -> CtlError:
        return CtlError(
            5, f"cannot reach the supervisor of {self.name}: an answer is not complete within {LINE:g} s"
        )

    def garbled_line(self) -> CtlError:
        return self._garbled(f"an answer is longer than {MAX_LINE >> 20} MiB")


class ControlConnection:
    """Lines to and from a supervisor; none is longer than the limit, none comes after the deadline."""

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
            self._sock.settimeout(self._client.left())
            self._sock.sendall(line)
        except TimeoutError:
            raise self._client.late() from None
        except ConnectionError:
            return  # What it still said before it hung up, if anything, can be read.

    def read(self) -> bytes | None:
        """The next line; None when the other side has hung up, also in the middle of one."""
        searched, until = 0, time.monotonic() + LINE if self._buffer else None
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE:
                raise self._client.garbled_line()
            try:
                self._sock.settimeout(self._left(until))
                data = self._sock.recv(_CHUNK)
            except TimeoutError:
                self._left(until)
                raise self._client.late() from None
            except ConnectionError:
                return None
            if until is None:
                until = time.monotonic() + LINE
            if not data:
                return None
            self._buffer += data
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _left(self, until: float | None) -> float | None:
        """Seconds to wait for more of a line that has begun, and of one that has not; None for ever.
        Raises CtlError when that is over.
        """
        left = self._client.left()
        if until is None:
            return left
        more = until - time.monotonic()
        if more <= 0:
            raise self._client.unfinished_line()
        return more if left is None else min(left, more)

    def wait_for_end(self) -> None:
        """Until the other side hangs up; what it says before is dropped."""
        while self.read() is not None:
            pass


def listens(places: Places) -> bool:
    """Whether somebody listens there, perhaps only for others than us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(paths.control_socket(places.name)))
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
        return True
