"""Watch: all that the device's main thread does while messages flow: wait for signals, news of connections, key checks, and orders.

It blocks without a time limit, so an idle device has no wake-ups; whoever wants to know who is stuck asks by SIGUSR1.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from zmsvc.core.errors import ZmsvcError
from zmsvc.device.peers import Peer, Peers
from zmsvc.device.unheard import Unheard
from zmsvc.host import monitor
from zmsvc.host.options import Socket
from zmsvc.host.zap import Handler

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_NAMED = 10
"""How many subscribers a report names."""


class Watch:
    """The eyes of the device. To be made before the sockets bind, or connections are missed."""

    def __init__(self, front: Socket, back: Socket, handler: Handler | None, unheard: Unheard, report: Callable[[str], None]) -> None:
        self.stopping = False
        self._report = report
        self._publishers = 0
        self._subscribers = Peers()
        self._broken_handshake = False
        both = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
        self._front_news = monitor.watch(front, both)
        self._back_news = monitor.watch(back, both | monitor.FAILED)
        self._handler = handler
        self._unheard = unheard
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller = zmq.Poller()
        for source in (self._front_news, self._back_news, self._wake_read, *unheard.sockets):
            self._poller.register(source, zmq.POLLIN)
        if handler:
            self._poller.register(handler.socket, zmq.POLLIN)

    def catch_signals(self) -> None:
        """Have SIGTERM and SIGINT end the watch, SIGUSR1 ask it for a report."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in SIGNALS:
            # A handler must be there, else the signal kills; the number arrives through the wake-up pipe.
            signal.signal(number, lambda _number, _frame: None)

    def proxy_ended(self) -> None:
        """Called by the proxy's thread as its last act."""
        os.write(self._wake_write, b"\0")

    @contextmanager
    def also(self, readable: Socket) -> Iterator[None]:
        """Have `turn` end when this socket is readable, too; the caller receives from it."""
        self._poller.register(readable, zmq.POLLIN)
        yield
        self._poller.unregister(readable)

    def turn(self, timeout_ms: int | None = None) -> bool:
        """Wait for something to happen and deal with it; False: nothing did. Raises ZmsvcError when the proxy ended by itself."""
        due = self._handler.timeout_ms() if self._handler else None
        happened = self._poller.poll(timeout_ms if due is None else due if timeout_ms is None else min(due, timeout_ms))
        # In this order: of each connection that asks it is known by then that it has been accepted.
        if self._handler:
            self._handler.receive()
        self._take_publishers()
        self._take_subscribers()
        if self._handler:
            self._handler.answer()
        self._unheard.take()
        self._take_signals()
        return bool(happened)

    def close(self, front: Socket, back: Socket) -> None:
        """Stop watching; only when no proxy runs. From here on unread news must not be able to block libzmq."""
        for watched, news in ((front, self._front_news), (back, self._back_news)):
            watched.disable_monitor()
            news.close(0)
        self._subscribers.close()

    def _take_publishers(self) -> None:
        for event, value in monitor.seen(self._front_news):
            self._publishers += 1 if event == zmq.EVENT_ACCEPTED else -1
            self._hand_on("front", event, value)

    def _hand_on(self, side: str, event: int, fd: int) -> None:
        if self._handler and event == zmq.EVENT_ACCEPTED:
            self._handler.accepted(side, fd)
        elif self._handler and event == zmq.EVENT_DISCONNECTED:
            self._handler.ended(side, fd)

    def _take_subscribers(self) -> None:
        for event, value in monitor.seen(self._back_news):
            self._hand_on("back", event, value)
            if event == zmq.EVENT_ACCEPTED:
                self._subscribers.accepted(value)
            elif event == zmq.EVENT_DISCONNECTED:
                peer, broken = self._subscribers.ended(value), self._broken_handshake
                self._broken_handshake = False
                if peer and not broken:
                    self._report(f"subscriber {_text(peer)}: it no longer answers and was disconnected")
            else:
                # The DISCONNECTED of the same connection comes next, and says nothing of a subscriber.
                self._broken_handshake = True

    def _take_signals(self) -> None:
        try:
            numbers = os.read(self._wake_read, 512)
        except BlockingIOError:
            return
        self.stopping = self.stopping or signal.SIGTERM in numbers or signal.SIGINT in numbers
        if signal.SIGUSR1 in numbers:
            self._report(self._summary())
        if 0 in numbers:
            raise ZmsvcError("cannot forward: libzmq's proxy ended by itself")

    def _summary(self) -> str:
        slow = self._subscribers.unread()
        named = "; ".join(_text(peer) for peer in slow[:_NAMED]) + ("; ..." if len(slow) > _NAMED else "")
        return f"{self._publishers} publishers, {len(self._subscribers)} subscribers" + (f"; behind: {named}" if slow else "")


def _text(peer: Peer) -> str:
    return f"{peer.name} ({peer.unread} bytes unread)"
