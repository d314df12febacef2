"""Bare pyzmq, with which messages of the SDK are compared: `pyzmq_peer.py send ENDPOINT ORDERS LIBRARY` and
`pyzmq_peer.py hear ENDPOINT REPORTS LIBRARY`. Both are what a user would write in ten lines.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import zmq

from bench.sdk_messages import HWM, Tally, content, orders

TOPIC = b"bare @@@ "
HEADER = {
    "service_transaction": "BENCH",
    "service_id": "pyzmq",
    "action": "published",
    "service_name": "pyzmq",
    "launch": 1,
}


def codec(library: str) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """Return functions that write and read JSON."""
    if library == "orjson":
        import orjson

        return orjson.dumps, orjson.loads
    return lambda value: json.dumps(value, separators=(",", ":")).encode(), json.loads


def main() -> None:
    do, endpoint, path, library = sys.argv[1:]
    write, read = codec(library)
    socket = zmq.Context().socket(zmq.PUB if do == "send" else zmq.SUB)
    socket.set_hwm(HWM)
    if do == "send":
        socket.connect(endpoint)
        for count, pace in orders(path):
            due = time.monotonic()
            for number in range(1, count + 1):
                if pace:
                    due += pace
                    time.sleep(max(0.0, due - time.monotonic()))
                body = {"header": HEADER | {"sequence": number}, "content": content(number, count)}
                socket.send(TOPIC + write(body))
    else:
        socket.subscribe(TOPIC)
        socket.connect(endpoint)
        tally = Tally(path)
        while True:
            tally.take(read(socket.recv().partition(b" @@@ ")[2])["content"])


if __name__ == "__main__":
    main()
