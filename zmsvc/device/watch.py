"""DeviceEvents: all that the device's main thread does while messages flow: wait for signals, news of
connections, key checks, and orders.

It blocks without a time limit, so an idle device has no wake-ups; SIGUSR1 asks it who is stuck. While it is
busy, SIGPROF has the guard look at what peers make it hold.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from zmsvc.core.errors import ZmsvcError
from zmsvc.device.admission import ours
from zmsvc.device.guard import Guard
from zmsvc.device.missed_orders import MissedOrders
from zmsvc.device.peers import Peer, Peers
from zmsvc.device.pulse import Pulse
from zmsvc.host.bus import socket_monitor
from zmsvc.host.bus.socket_options import Socket
from zmsvc.host.bus.zap import ZapHandler
from zmsvc.host.sparse_log import SparseLog
from zmsvc.host.systemd.notify import DROPPED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGPROF)
_NAMED = 10
"""How many subscribers a report names."""
_COUNTS_S = 1.0
"""Seconds between two times that the keeper is told how many connections were refused."""
_PROBE_S = 0.25
"""Seconds that libzmq's I/O thread has at the end to show that it does not hang."""


class DeviceEvents:
    """The eyes of the device. To be made before the sockets bind, or connections are missed.

    `report` takes a line for people, `say` one for the keeper.
    """

    def __init__(
        self,
        front: Socket,
        back: Socket,
        handler: ZapHandler | None,
        unheard: MissedOrders,
        peers: tuple[Peers, Peers],
        guard: Guard,
        pulse: Pulse,
        report: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self.stopping = False
        self._report, self._say = report, say
        self._sides = tuple(_Side(*each) for each in (("front", front, peers[0]), ("back", back, peers[1])))
        self._handler = handler
        self._unheard = unheard
        self._guard, self._pulse = guard, pulse
        self._disconnected = SparseLog(report)
        self._said: Counter[str] = Counter()
        self._say_at: float | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller = zmq.Poller()
        for source in (*(side.news.socket for side in self._sides), self._wake_read, *unheard.sockets):
            self._poller.register(source, zmq.POLLIN)
        if handler:
            self._poller.register(handler.socket, zmq.POLLIN)

    def catch_signals(self) -> None:
        """Have SIGTERM and SIGINT end the watch, SIGUSR1 ask it for a report, SIGPROF have the guard look."""
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
        """Wait for something to happen and deal with it; False: nothing did. Raises ZmsvcError when the
        proxy ended by itself.
        """
        due = [each for each in (timeout_ms, *self._timeouts_ms()) if each is not None]
        happened = self._poller.poll(min(due) if due else None)
        self._judge()
        told = self._unheard.take(self._guard.told)
        if self._take_signals() or told:
            self._guard.look()
        self._guard.give_back()
        self._pulse.need(sum(side.peers.foreign_unix for side in self._sides))
        self._pulse.beat()
        self._tell_counts()
        return bool(happened)

    def _judge(self) -> None:
        """Take a portion of what connections ask and of what becomes of them; the poller tells of what
        is left.
        """
        # In this order: of each connection that asks it is known by the end of the news that it has been
        # accepted.
        if self._handler and self._known:
            self._handler.receive()
            for side in self._sides:
                side.news.drained = False
        for side in self._sides:
            self._take_news(side)
        if self._handler:
            self._handler.answer(complete=self._known)

    @property
    def _known(self) -> bool:
        return all(side.news.drained for side in self._sides)

    def _timeouts_ms(self) -> Iterator[int | None]:
        if self._handler:
            yield self._handler.timeout_ms()
        yield self._guard.timeout_ms()
        yield self._pulse.timeout_ms()
        if self._say_at is not None:
            yield max(0, round((self._say_at - time.monotonic()) * 1000)) + 1

    def works(self) -> bool:
        """Wait a moment for libzmq's I/O thread, if another user could have hung it; False: it hangs."""
        until = time.monotonic() + _PROBE_S
        while self._pulse.waiting and (left := until - time.monotonic()) > 0:
            self._poller.poll(round(left * 1000) + 1)
            for side in self._sides:
                self._take_news(side)
        return not self._pulse.waiting

    def close(self) -> None:
        """Stop watching; only when no proxy runs. From here on unread news must not be able to block libzmq.

        Other users' subscribers that do not read now are let go: the end waits for none of them.
        """
        for side in self._sides:
            side.watched.disable_monitor()
            side.news.socket.close(0)
            side.peers.look()
            for each in side.peers.all():
                if each.behind and not ours(each.owner):
                    each.cut()
            side.peers.close()
        self._pulse.close()

    def _take_news(self, side: _Side) -> None:
        for event, value in side.news.take():
            if event == zmq.EVENT_ACCEPTED:
                self._accepted(side, value)
            elif event == zmq.EVENT_DISCONNECTED:
                self._ended(side, value)
            else:
                # The DISCONNECTED of the same connection comes next, and says nothing of a subscriber.
                side.broken_handshake = True

    def _accepted(self, side: _Side, fd: int) -> None:
        if self._pulse.accepted(fd):
            side.probes.add(fd)
            return
        side.probes.discard(fd)
        if not side.peers.accepted(fd):
            self._guard.dropped["connections"] += 1
        if self._handler:
            self._handler.accepted(side.name, fd)

    def _ended(self, side: _Side, fd: int) -> None:
        if self._handler:
            self._handler.ended(side.name, fd)
        peer, broken = side.peers.ended(fd), side.broken_handshake
        side.broken_handshake = False
        if fd in side.probes:
            side.probes.discard(fd)
        elif broken:
            self._guard.dropped["handshakes"] += 1
        elif peer and side.name == "back":
            why = (
                "it no longer answers"
                if peer.unread
                else "it broke the protocol, as with a subscription that is too long,"
            )
            self._disconnected.add("subscriber %s: %s and was disconnected", _text(peer), why)
            self._guard.dropped["disconnected"] = self._disconnected.count
        self._guard.left()

    def _tell_counts(self) -> None:
        """Tell the keeper what was refused, at once the first time and then once a second at most."""
        if self._guard.dropped == self._said:
            return
        now = time.monotonic()
        if self._say_at is not None and now < self._say_at:
            return
        if self._say_at is None:
            self._say_at = now
        self._say(
            f"{DROPPED}=" + " ".join(f"{name}:{count}" for name, count in sorted(self._guard.dropped.items()))
        )
        self._said = self._guard.dropped.copy()
        self._say_at = now + _COUNTS_S

    def _take_signals(self) -> bool:
        """Whether the guard is to look."""
        try:
            numbers = os.read(self._wake_read, 512)
        except BlockingIOError:
            return False
        self.stopping = self.stopping or signal.SIGTERM in numbers or signal.SIGINT in numbers
        if signal.SIGUSR1 in numbers:
            self._report(self._summary())
        if 0 in numbers:
            raise ZmsvcError("cannot forward: libzmq's proxy ended by itself")
        return signal.SIGPROF in numbers

    def _summary(self) -> str:
        publishers, subscribers = (side.peers for side in self._sides)
        slow = subscribers.unread()
        named = "; ".join(_text(peer) for peer in slow[:_NAMED]) + ("; ..." if len(slow) > _NAMED else "")
        return f"{len(publishers)} publishers, {len(subscribers)} subscribers" + (
            f"; behind: {named}" if slow else ""
        )


class _Side:
    """One of the device's two sockets, and what is known of it."""

    def __init__(self, name: str, watched: Socket, peers: Peers) -> None:
        self.name = name
        self.watched = watched
        self.peers = peers
        self.news = socket_monitor.MonitorEvents(
            watched, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | socket_monitor.FAILED
        )
        self.broken_handshake = False
        self.probes: set[int] = set()
        """Descriptors of connections that the device made to itself."""


def _text(peer: Peer) -> str:
    return f"{peer.name} ({peer.unread} bytes unread)"
