"""Send messages through a device, and receive them. The sender and its subscribers are two processes, which
are the same for each device that is compared.

`traffic.py send ENDPOINT` and `traffic.py hear ENDPOINT SUBSCRIBERS` take orders on their standard input, and
answer in lines of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import zmq

HWM = 1_000_000
TOPIC = b"bench"
PROBE = b"probe"
_STAMP = 20


def context() -> zmq.Context[zmq.Socket[bytes]]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made.set(zmq.MAX_SOCKETS, 4096)
    return made


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def orders() -> Any:
    for line in sys.stdin:
        yield json.loads(line)


# --- sending


def send(endpoint: str) -> None:
    socket = context().socket(zmq.PUB)
    socket.set_hwm(HWM)
    socket.connect(endpoint)
    say(ready=True)
    for order in orders():
        if order["do"] == "probe":
            socket.send(PROBE)
        else:
            _send(socket, order["count"], order["size"], order["pace"])
        say(sent=True)


def _send(socket: zmq.Socket[bytes], count: int, size: int, pace: float) -> None:
    """Send messages of `size` bytes, `pace` seconds apart. Each has the time at which it was sent."""
    padding = b"x" * (size - len(TOPIC) - _STAMP)
    due = time.monotonic()
    for _ in range(count):
        if pace:
            due += pace
            time.sleep(max(0.0, due - time.monotonic()))
        socket.send(TOPIC + b"%020d" % time.monotonic_ns() + padding)


# --- hearing


def hear(endpoint: str, subscribers: int) -> None:
    made = context()
    poller = zmq.Poller()
    sockets = []
    for _ in range(subscribers):
        socket = made.socket(zmq.SUB)
        socket.set_hwm(HWM)
        socket.subscribe(TOPIC)
        socket.subscribe(PROBE)
        socket.connect(endpoint)
        poller.register(socket, zmq.POLLIN)
        sockets.append(socket)
    say(ready=True)
    for order in orders():
        if order["do"] == "probe":
            say(heard=_probed(poller, subscribers))
        else:
            say(**_heard(poller, order["count"] * subscribers))


def _probed(poller: zmq.Poller, wanted: int) -> bool:
    """Return True if every subscriber has received a probe within a short time."""
    got: set[zmq.Socket[bytes]] = set()
    while len(got) < wanted:
        ready = poller.poll(500)
        if not ready:
            return False
        for socket, _ in ready:
            socket.recv()
            got.add(socket)
    return True


def _heard(poller: zmq.Poller, wanted: int) -> dict[str, Any]:
    """Return `last`, the time at which the last message came; `lost`, the number of messages that did not
    come; and `delays` in seconds, of a part of them.
    """
    got, delays, last = 0, [], 0.0
    every = max(1, wanted // 5000)
    while got < wanted:
        ready = poller.poll(3000)
        if not ready:
            break
        for socket, _ in ready:
            try:
                while True:
                    message = socket.recv(zmq.DONTWAIT)
                    if message.startswith(PROBE):
                        continue
                    got += 1
                    if got % every == 0:
                        delays.append(
                            (time.monotonic_ns() - int(message[len(TOPIC) : len(TOPIC) + _STAMP])) / 1e9
                        )
            except zmq.Again:
                pass
        last = time.monotonic()
    return {"last": last, "lost": wanted - got, "delays": delays}


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2])
    else:
        hear(sys.argv[2], int(sys.argv[3]))
