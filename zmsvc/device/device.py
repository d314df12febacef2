"""Forwards what publishers send to those who subscribed. libzmq's proxy does it in a thread; Python only watches and ends it in order.

The order decides what a restart loses: subscribers are let in first and publishers last, at the end it is the other way round.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import zmq
from zmq.utils.monitor import recv_monitor_message

from zmsvc.host import sockets

GRACE = 1.0
"""Seconds that subscribers have to come back before publishers, which have queued meanwhile, are let in."""
SETTLE_MS = 20
"""Silence of subscribers or publishers that is taken for the end of what they had to say."""


class Device:
    """The two sockets and the thread that joins them."""

    def __init__(self, front: socket.socket, back: socket.socket, *, hwm: int) -> None:
        self._listeners = (front, back)
        self._context = sockets.context()
        self._front = sockets.front(self._context, hwm=hwm, curve=None)
        self._back = sockets.back(self._context, hwm=hwm, heartbeat_s=sockets.HEARTBEAT_S, curve=None)
        # The proxy's control socket: only TERMINATE is used, PAUSE and RESUME are swapped in libzmq 4.3.5.
        self._steer, far = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        far.bind("inproc://steer")
        self._steer.connect("inproc://steer")
        self._proxy = threading.Thread(target=zmq.proxy_steerable, args=(self._front, self._back, None, far), daemon=True)

    def run(self, expected: int, ready: Callable[[], None]) -> None:
        """Forward until SIGTERM, and then until nothing is left to forward."""
        wakeup = _catch_sigterm()
        front, back = self._listeners
        sockets.bind(self._back, back)
        self._let_subscribers_in(expected)
        sockets.bind(self._front, front)
        self._proxy.start()
        ready()
        os.read(wakeup, 1)
        self._end()

    def _let_subscribers_in(self, expected: int) -> None:
        """Pass every distinct subscription on once: XSUB counts them, and one passed on twice would never end."""
        topics = {sockets.SENTINEL}
        if expected:
            self._wait_for_connections(expected)
        while self._back.poll(SETTLE_MS if expected else 0):
            topic = self._back.recv()
            topics.add(topic[1:]) if topic[:1] == b"\x01" else topics.discard(topic[1:])
        for topic in sorted(topics):
            self._front.send(b"\x01" + topic)

    def _wait_for_connections(self, expected: int) -> None:
        monitor = self._back.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        until, there = time.monotonic() + GRACE, 0
        while there < expected and (left := until - time.monotonic()) > 0:
            if monitor.poll(round(left * 1000)):
                recv_monitor_message(monitor)
                there += 1
        self._back.disable_monitor()

    def _end(self) -> None:
        self._steer.send(b"TERMINATE")
        self._proxy.join()
        # Publishers are disconnected and keep what they send from here on; what has arrived is passed on.
        self._front.unbind(sockets.address(self._listeners[0]))
        while self._front.poll(SETTLE_MS):
            self._back.send(self._front.recv(copy=False), copy=False)
        self._back.close(linger=1000)
        self._front.close(linger=0)
        self._steer.close(linger=0)
        self._context.destroy(linger=0)


def _catch_sigterm() -> int:
    """A descriptor that becomes readable at SIGTERM: the main thread waits for nothing else, so an idle device never wakes up."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGTERM, _nothing)
    return reader


def _nothing(_number: int, _frame: object) -> None:
    """A handler, so that the signal reaches the wakeup pipe."""
