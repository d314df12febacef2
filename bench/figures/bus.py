"""Traffic of a start: messages and bytes that a subscriber to everything receives, from the order until the
answer.
"""

from __future__ import annotations

from context import Subscriber

from bench.contenders.zmsvc import ZmsvcSession


def measure(session: ZmsvcSession) -> dict[str, float]:
    """Return `bus.messages`, `bus.bytes`, and `bus.largest`, the bytes of the largest message."""
    subscriber = Subscriber(session.context.subscribe_endpoint, session.context.publish_endpoint)
    socket = subscriber._socket
    sizes: list[int] = []
    try:
        session.order_start()
        session.receiver.hear(session.fleet.entry)
        session.started()
        # After this time without a message, all that were sent before the answer have arrived.
        while socket.poll(500):
            sizes.append(len(socket.recv()))
    finally:
        subscriber.close()
    return {"bus.messages": len(sizes), "bus.bytes": sum(sizes), "bus.largest": max(sizes)}
