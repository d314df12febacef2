"""Unheard: counts the orders that reach the device while no supervisor hears them, and tells the next one how many there were.

It is a peer of the device within its own process, so nothing is looked at on the way from publishers to subscribers. A supervisor is
there while somebody subscribes to `unheard.ORIGIN`, ORIGIN being the mark of its own messages, which are no orders to it.
"""

from __future__ import annotations

import zmq

from zmsvc.core import messages
from zmsvc.core.access import BUS
from zmsvc.core.errors import ProtocolError
from zmsvc.host import options
from zmsvc.host.options import Context, Socket, readable

_FRONT, _BACK = "inproc://front", "inproc://back"


class Unheard:
    """To be made before the proxy runs, since from then on nobody else may touch its sockets; to be connected in the last moment."""

    def __init__(self, ctx: Context, front: Socket, back: Socket) -> None:
        front.bind(_FRONT)
        back.bind(_BACK)
        self.count = 0
        self._present: set[bytes] = set()
        self._origin = ""
        self._ear, self._mouth = ctx.socket(zmq.SUB), ctx.socket(zmq.XPUB)
        for peer in (self._ear, self._mouth):
            peer.set_hwm(options.CLIENT_HWM)
            peer.setsockopt(zmq.LINGER, 0)

    @property
    def sockets(self) -> tuple[Socket, Socket]:
        """What to wait for before calling `take`."""
        return self._ear, self._mouth

    def connect(self) -> None:
        for topic in ("context", "process"):
            self._ear.subscribe(messages.prefix(topic))
        self._ear.connect(_BACK)
        self._mouth.connect(_FRONT)

    def take(self) -> None:
        """Take in who subscribes now and what was ordered; does not block."""
        while readable(self._mouth):
            told = self._mouth.recv()
            if not told[1:].startswith(messages.UNHEARD):
                continue
            if told[:1] == b"\x01":
                topic = told[1:].removesuffix(messages.SEPARATOR).decode("utf-8", "replace")
                self._origin = topic.rpartition(".")[2]
                # What waits came before it was there, but for what came in the moment since the proxy let it in.
                self._hear()
                self._present.add(told[1:])
                self._tell(topic)
            else:
                self._present.discard(told[1:])
        self._hear()

    def _hear(self) -> None:
        while readable(self._ear):
            frame = self._ear.recv()
            if not self._present and self._is_order(frame):
                self.count += 1

    def _is_order(self, frame: bytes) -> bool:
        try:
            topic, body = messages.decode(frame)
            if body.get("header", {}).get("origin") == self._origin:
                return False
            return messages.order(topic, body).action in BUS.get(topic, ())
        except ProtocolError:
            return False

    def _tell(self, topic: str) -> None:
        if self.count:
            self._mouth.send(messages.encode(topic, messages.unheard(self.count)))
            self.count = 0

    def close(self) -> None:
        for peer in self.sockets:
            peer.close(0)
