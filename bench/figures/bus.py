"""What a start says on the bus: messages and bytes that a subscriber to everything gets, from the order
until the answer.
"""

from __future__ import annotations

from context import Ear as Subscriber

from bench.contenders.zmsvc import ZmsvcSession


def measure(session: ZmsvcSession) -> dict[str, float]:
    """`bus.messages`, `bus.bytes`, and `bus.largest`, the bytes of the largest message."""
    subscriber = Subscriber(session.context.frontend, session.context.backend)
    socket = subscriber._socket
    sizes: list[int] = []
    try:
        session.order_start()
        session.ear.hear(session.fleet.entry)
        session.started()
        # What was sent before the answer has arrived a good while before this silence ends.
        while socket.poll(500):
            sizes.append(len(socket.recv()))
    finally:
        subscriber.close()
    return {"bus.messages": len(sizes), "bus.bytes": sum(sizes), "bus.largest": max(sizes)}
