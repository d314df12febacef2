"""The event loop of the device's main thread while the proxy forwards: signals, events of connections, ZAP
requests, and orders.

It blocks without a timeout, so an idle device does not wake up. SIGUSR1 requests a report of slow
subscribers. While the device is busy, SIGPROF makes the guard check the memory that peers use.
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
from zmsvc.device.liveness_probe import LivenessProbe
from zmsvc.device.memory_guard import MemoryGuard
from zmsvc.device.peers import Peer, Peers
from zmsvc.device.unheard_orders import UnheardOrders
from zmsvc.host.bus import socket_monitor
from zmsvc.host.bus.socket_options import Socket
from zmsvc.host.bus.zap import ZapHandler
from zmsvc.host.sparse_log import SparseLog
from zmsvc.host.systemd.notify import DROPPED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGPROF)
_NAMED = 10
"""The most subscribers that a report names."""
_COUNTS_S = 1.0
"""Seconds between two reports of the counters to the keeper."""
_PROBE_S = 0.25
"""Seconds that libzmq's I/O thread has at the end to answer a probe."""


class EventLoop:
    """The event loop. Create it before the sockets bind, or connections are missed.

    `report` takes a line for the operator, `notify` one for the keeper, and returns False if it was not sent.
    """

    def __init__(
        self,
        xsub: Socket,
        xpub: Socket,
        handler: ZapHandler | None,
        unheard_orders: UnheardOrders,
        peers: tuple[Peers, Peers],
        guard: MemoryGuard,
        liveness: LivenessProbe,
        report: Callable[[str], None],
        notify: Callable[[str], bool],
    ) -> None:
        self.stopping = False
        self._report, self._notify = report, notify
        self._sides = tuple(
            _Side(*each) for each in (("publish", xsub, peers[0]), ("subscribe", xpub, peers[1]))
        )
        self._handler = handler
        self._unheard_orders = unheard_orders
        self._guard, self._liveness = guard, liveness
        self._disconnected = SparseLog(report)
        self._reported: Counter[str] = Counter()
        self._notify_at: float | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poller = zmq.Poller()
        for source in (
            *(side.monitor.socket for side in self._sides),
            self._wake_read,
            *unheard_orders.sockets,
        ):
            self._poller.register(source, zmq.POLLIN)
        if handler:
            self._poller.register(handler.socket, zmq.POLLIN)

    def catch_signals(self) -> None:
        """Handle signals: SIGTERM and SIGINT end the loop, SIGUSR1 requests a report, SIGPROF a check by the
        guard.
        """
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in SIGNALS:
            # Without a handler the signal would end the process. Its number arrives through the wake-up pipe.
            signal.signal(number, lambda _number, _frame: None)

    def proxy_ended(self) -> None:
        """Wake the loop. The proxy's thread calls this last."""
        os.write(self._wake_write, b"\0")

    @contextmanager
    def waking_on(self, readable: Socket) -> Iterator[None]:
        """Let `turn` also end when this socket is readable. The caller receives from it."""
        self._poller.register(readable, zmq.POLLIN)
        yield
        self._poller.unregister(readable)

    def turn(self, timeout_ms: int | None = None) -> bool:
        """Wait for events and handle them; return False after a timeout. Raises ZmsvcError if the proxy ended
        by itself.
        """
        due = [each for each in (timeout_ms, *self._timeouts_ms()) if each is not None]
        events = self._poller.poll(min(due) if due else None)
        self._handle_connections()
        subscriptions_changed = self._unheard_orders.take(self._guard.count_subscriptions)
        if self._take_signals() or subscriptions_changed:
            self._guard.look()
        self._guard.trim_if_due()
        self._liveness.require(sum(side.peers.foreign_unix for side in self._sides))
        self._liveness.connect_if_due()
        self._report_counts()
        return bool(events)

    def _handle_connections(self) -> None:
        """Handle a batch of ZAP requests and a batch of events of connections. The poller announces the
        rest.
        """
        # Requests first: then the events that are read after them include ACCEPTED of each connection that
        # has sent a request.
        if self._handler and self._known:
            self._handler.receive()
            for side in self._sides:
                side.monitor.drained = False
        for side in self._sides:
            self._take_events(side)
        if self._handler:
            self._handler.answer(complete=self._known)

    @property
    def _known(self) -> bool:
        return all(side.monitor.drained for side in self._sides)

    def _timeouts_ms(self) -> Iterator[int | None]:
        if self._handler:
            yield self._handler.timeout_ms()
        yield self._guard.timeout_ms()
        yield self._liveness.timeout_ms()
        if self._notify_at is not None:
            yield max(0, round((self._notify_at - time.monotonic()) * 1000)) + 1

    def is_alive(self) -> bool:
        """Wait for libzmq's I/O thread to answer a pending probe; return False if it hangs."""
        until = time.monotonic() + _PROBE_S
        while self._liveness.waiting and (left := until - time.monotonic()) > 0:
            self._poller.poll(round(left * 1000) + 1)
            for side in self._sides:
                self._take_events(side)
        return not self._liveness.waiting

    def close(self) -> None:
        """Close the monitors, whose unread events could block libzmq from now on. The proxy must have ended.
        Disconnect subscribers of other users that do not read now, because the end does not wait for them.
        """
        for side in self._sides:
            side.watched.disable_monitor()
            side.monitor.socket.close(0)
            side.peers.look()
            for each in side.peers.all():
                if each.not_reading and not ours(each.owner):
                    each.cut()
            side.peers.close()
        self._liveness.close()

    def _take_events(self, side: _Side) -> None:
        events = [*side.monitor.take()]
        for at, (event, value) in enumerate(events, 1):
            if event == zmq.EVENT_ACCEPTED:
                self._accepted(side, value)
            elif event == zmq.EVENT_DISCONNECTED:
                self._ended(side, value, reused=(zmq.EVENT_ACCEPTED, value) in events[at:])
            else:
                # DISCONNECTED of the same connection comes next, and is not about a subscriber.
                side.broken_handshake = True

    def _accepted(self, side: _Side, fd: int) -> None:
        if self._liveness.accepted(fd):
            side.probes.add(fd)
            return
        side.probes.discard(fd)
        if not side.peers.accepted(fd):
            self._guard.dropped["connections"] += 1
        if self._handler:
            self._handler.accepted(side.name, fd)

    def _ended(self, side: _Side, fd: int, *, reused: bool) -> None:
        if self._handler:
            self._handler.ended(side.name, fd)
        peer, broken = side.peers.ended(fd, reused=reused), side.broken_handshake
        side.broken_handshake = False
        if fd in side.probes:
            side.probes.discard(fd)
        elif broken:
            self._guard.dropped["handshakes"] += 1
        elif peer and side.name == "subscribe":
            why = (
                "it no longer answers"
                if peer.unread
                else "it broke the protocol, as with a subscription that is too long,"
            )
            self._disconnected.add("subscriber %s: %s and was disconnected", _text(peer), why)
            self._guard.dropped["disconnected"] = self._disconnected.count
        self._guard.peer_left()

    def _report_counts(self) -> None:
        """Report the counters to the keeper, but not more often than once a second. Report them again if the
        keeper could not take them.
        """
        now = time.monotonic()
        if self._notify_at is not None and now < self._notify_at:
            return
        self._notify_at = None
        if self._guard.dropped == self._reported:
            return
        counts = " ".join(f"{name}:{count}" for name, count in sorted(self._guard.dropped.items()))
        if self._notify(f"{DROPPED}={counts}"):
            self._reported = self._guard.dropped.copy()
        self._notify_at = now + _COUNTS_S

    def _take_signals(self) -> bool:
        """Read pending signals. Return True if the guard has to check."""
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
    """One of the device's two sockets, with its peers and events."""

    def __init__(self, name: str, watched: Socket, peers: Peers) -> None:
        self.name = name
        self.watched = watched
        self.peers = peers
        self.monitor = socket_monitor.MonitorEvents(
            watched, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | socket_monitor.FAILED
        )
        self.broken_handshake = False
        self.probes: set[int] = set()
        """Descriptors of the device's connections to itself."""


def _text(peer: Peer) -> str:
    return f"{peer.name} ({peer.unread} bytes unread)"
