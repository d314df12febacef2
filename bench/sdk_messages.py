"""The messages that the SDK and bare pyzmq send, and the count of those that arrive. Both use this code."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

HWM = 100_000
_DELAYS = 2_000
"""The number of messages of an order whose delays are recorded."""
_REST: dict[str, Any] = {
    "name": "a sensor in the north of the hall",
    "unit": "C",
    "values": [number * 1.25 for number in range(120)],
    "place": {"row": [*range(60)], "remark": "of the second line " * 25},
}


def content(number: int, count: int) -> dict[str, Any]:
    """Return message `number` of `count`, with 1.5 kB of JSON and the time."""
    return {"number": number, "count": count, "at": time.monotonic_ns(), **_REST}


def orders(path: str) -> Iterator[tuple[int, float]]:
    """Yield the orders that come through a named pipe: a number of messages, and the seconds between two."""
    with open(path) as lines:
        for line in lines:
            count, pace = line.split()
            yield int(count), float(pace)


class Tally:
    """The messages of an order that have arrived. The last one makes a report to a datagram socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._came = 0
        self._delays: list[float] = []

    def take(self, found: Mapping[str, Any]) -> None:
        """Count a message."""
        self._came += 1
        if found["count"] <= _DELAYS:
            self._delays.append((time.monotonic_ns() - found["at"]) / 1e9)
        if found["number"] == found["count"]:
            answer = {"last": time.monotonic(), "came": self._came, "delays": self._delays}
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
                speaker.sendto(json.dumps(answer).encode(), self._path)
            self._came, self._delays = 0, []
