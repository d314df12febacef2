"""A cable between two addresses of this machine, which a test can cut. Neither end notices that: bytes wait,
and go on when the cable is whole again.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

_CHUNK = 1 << 16


class Cable:
    """A relay from `entry` to `goal`, each an address and a port."""

    def __init__(self, entry: tuple[str, int], goal: tuple[str, int]) -> None:
        self._goal = goal
        self._listener = socket.create_server(entry)
        self._bell, self._rung = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._rung, selectors.EVENT_READ)
        self._other: dict[socket.socket, socket.socket] = {}
        self._entries: set[socket.socket] = set()
        self._cut = self._over = False
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        self._cut = True
        self._bell.send(b"x")

    def mend(self) -> None:
        self._cut = False
        self._bell.send(b"x")

    def garble(self) -> None:
        """Send bytes to those that have connected that do not belong to their conversations."""
        for entry in list(self._entries):
            entry.send(b"\xff" * 64)

    def close(self) -> None:
        self._over = True
        self._bell.send(b"x")
        self._thread.join()
        for each in (self._listener, self._bell, self._rung, *self._other):
            each.close()

    def _run(self) -> None:
        whole = True
        while not self._over:
            for key, _ in self._selector.select():
                if key.fileobj is self._rung:
                    self._rung.recv(64)
                elif key.fileobj is self._listener and not self._cut:
                    self._connect()
                elif isinstance(key.fileobj, socket.socket) and not self._cut:
                    self._pass_on(key.fileobj)
            if whole is self._cut:
                whole = not self._cut
                for each in (self._listener, *self._other):
                    if whole:
                        self._selector.register(each, selectors.EVENT_READ)
                    else:
                        self._selector.unregister(each)

    def _connect(self) -> None:
        one, _ = self._listener.accept()
        try:
            other = socket.create_connection(self._goal)
        except OSError:
            one.close()
            return
        self._other |= {one: other, other: one}
        self._entries.add(one)
        for each in (one, other):
            self._selector.register(each, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        if source not in self._other:
            return
        data = b""
        with contextlib.suppress(OSError):
            if data := source.recv(_CHUNK):
                self._other[source].sendall(data)
                return
        for each in (source, self._other.pop(source)):
            self._other.pop(each, None)
            self._entries.discard(each)
            self._selector.unregister(each)
            each.close()
