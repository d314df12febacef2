"""One client of the control socket. A thread receives from it and closes the connection, since both may hang.

A client can send descriptors with its bytes. The kernel drops them if the receiver does not ask for them. It
then closes the file, in the thread that receives or closes the connection, if that was the last reference. A
TCP socket with SO_LINGER, or a file of FUSE, blocks that thread for as long as its owner likes. So the event
loop only sends. A blocked thread costs one of the places for connections and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from collections import deque
from collections.abc import Callable

GRACE = 1.0
"""Seconds in which a client that has sent too much has to read the answer."""
_PORTION = 65536


class TooLongError(Exception):
    """The client has sent more bytes than may wait for answers."""


class ClientConnection:
    """A stream of lines for the event loop. At most `limit` bytes may wait for the reader."""

    def __init__(self, sock: socket.socket, limit: int, closed: Callable[[], object]) -> None:
        """The loop calls `closed` when the descriptor has been closed, which may never happen."""
        self.sock = sock
        self._limit = limit
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._lines: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._ended = self._too_long = self._writing = self._gone = False
        self._hung_up: Callable[[], object] | None = None
        self._waiting = 0
        """Bytes of the lines that have not been read. Guarded by the lock: both threads change it."""
        self._lock = threading.Lock()
        self._let_go = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="control client", daemon=True)
        self._thread.start()

    # --- in the loop

    async def readline(self) -> bytes:
        """Return the next line, or nothing at the end. Raises TooLongError."""
        while not self._lines:
            if self._too_long:
                raise TooLongError
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        line = self._lines.popleft()
        with self._lock:
            self._waiting -= len(line)
        return line

    async def write(self, data: bytes) -> None:
        """Send all of the data. Raises ConnectionError if the client is gone, or has sent too much and does
        not read.
        """
        self._writing = True
        try:
            async with asyncio.timeout(GRACE if self._too_long else None):
                await self._loop.sock_sendall(self.sock, data)
        except TimeoutError:
            raise ConnectionAbortedError from None
        finally:
            self._writing = False

    def on_hang_up(self, call: Callable[[], object] | None) -> None:
        """Set the function to call when the client hangs up. If it has hung up already, call it at once. A
        client that only shuts down its writing side is still there.
        """
        self._hung_up = call
        if self._gone:
            self._call_hung_up()

    def end(self) -> None:
        """Shut down the writing side."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Hang up. The thread closes the descriptor."""
        # The client may have hung up before.
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._let_go.set()

    # --- in the thread

    def _receive(self) -> None:
        try:
            self._read_lines()
            poll = select.poll()
            poll.register(self.sock, 0)
            poll.poll()
            self._tell(self._note_hang_up)
        finally:
            self._let_go.wait()
            self.sock.close()
            self._tell(self._closed)

    def _read_lines(self) -> None:
        """Pass lines on until the client ends them, or sends too much."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        rest = b""
        while True:
            poll.poll()
            try:
                data = self.sock.recv(_PORTION)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._tell(self._note_end)
                return
            *lines, rest = (rest + data).split(b"\n")
            with self._lock:
                self._waiting += sum(len(line) + 1 for line in lines)
                too_long = self._waiting + len(rest) > self._limit
            self._tell(self._note_lines, [line + b"\n" for line in lines], too_long)
            if too_long:
                return

    def _tell(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # The loop is closed: the supervisor is about to end.

    # --- in the loop, called by the thread

    def _note_lines(self, lines: list[bytes], too_long: bool) -> None:
        self._lines += lines
        self._too_long = too_long
        self._news.set()
        if too_long and self._writing:
            # The client goes on sending and reads no answer, so it would not read the refusal either.
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)

    def _note_end(self) -> None:
        self._ended = True
        self._news.set()

    def _note_hang_up(self) -> None:
        self._gone = True
        self._note_end()
        self._call_hung_up()

    def _call_hung_up(self) -> None:
        # Call it later: an asyncio task that is canceled before its first step runs no code, and the order
        # would be lost.
        if self._hung_up is not None:
            self._loop.call_soon(self._hung_up)
