"""Forward messages: XSUB for publishers, XPUB for subscribers, and libzmq's proxy between them. The order of
start and stop loses no message.

The proxy runs in a thread without the GIL. Python forwards messages only during an orderly stop.
"""

from __future__ import annotations

import math
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from zmsvc.core.errors import ZmsvcError
from zmsvc.core.frozen import frozen
from zmsvc.device.admission import Admission, places
from zmsvc.device.event_loop import SIGNALS, EventLoop
from zmsvc.device.liveness_probe import LivenessProbe
from zmsvc.device.memory_guard import MAX_MEMORY, MAX_SUBSCRIPTIONS, MemoryGuard
from zmsvc.device.peers import Peers
from zmsvc.device.unheard_orders import UnheardOrders
from zmsvc.host.bus import socket_options
from zmsvc.host.bus.curve_keys import Curve
from zmsvc.host.bus.endpoints import address
from zmsvc.host.bus.loopback_gate import LoopbackGate
from zmsvc.host.bus.socket_options import Context, Socket, is_readable
from zmsvc.host.bus.zap import KeyHandler, ZapHandler

_GRACE_S = 1.0
"""Seconds that publishers wait for subscribers after a restart."""
_QUIET_MS = 20
"""Milliseconds without a message after which the device expects no more."""
_SILENCE_MS = 250
"""Milliseconds without a subscription after which the device no longer waits for missing ones, which may
never come.
"""
_SUBSCRIPTION_BATCH = 1000
"""The number of subscriptions that are read before the clock, signals and connections have their turn, since
a flood has no end.
"""
_LINGER_MS = 1000
_JOIN_S = 5.0


@frozen
class DeviceSettings:
    """The settings of the device. The listening sockets are duplicates of those of the keeper, which outlive
    the device.
    """

    publish_listener: socket.socket
    subscribe_listener: socket.socket
    hwm: int = socket_options.DEVICE_HWM
    expect: int = 0
    """The number of subscriptions before a restart. Publishers can connect when there are as many again, or
    after 1 s.
    """
    heartbeat_s: float = socket_options.HEARTBEAT_S
    curve: Curve | None = None
    """The key pair for tcp. An ipc endpoint is protected by the mode and owner of its file."""
    allow: Path | None = None
    """The directory of the public keys that may connect, with CURVE."""
    members: Path | None = None
    """The file of the users that may connect by tcp without CURVE; None: all users."""
    memory: int = MAX_MEMORY
    """Bytes. When the device uses more memory, it closes the connections that fill it."""
    own: tuple[socket.socket | None, socket.socket | None] = (None, None)
    """Further listening sockets for publishers and subscribers, in the runtime directory. Tasks of the
    context connect there without keys and without a check of their user.
    """


class Device:
    """One run of the device: `start`, `watch` until SIGTERM, `stop`. `report` takes a line for the operator,
    `notify` one for the keeper.
    """

    def __init__(
        self, settings: DeviceSettings, report: Callable[[str], None], notify: Callable[[str], bool]
    ) -> None:
        self._settings = settings
        # One I/O thread: the loopback gate relies on the order of its events.
        self._context: Context = zmq.Context(1)
        self._xsub = socket_options.device_xsub(self._context, hwm=settings.hwm)
        self._xpub = socket_options.device_xpub(
            self._context, hwm=settings.hwm, heartbeat_s=settings.heartbeat_s
        )
        self._handler = _handler(self._context, settings, report)
        self._unheard_orders = UnheardOrders(self._context, self._xsub, self._xpub)
        listening = (settings.publish_listener, settings.subscribe_listener, *settings.own)
        tcp = any(each is not None and each.family != socket.AF_UNIX for each in listening)
        self._admission = Admission(places(), tcp=tcp)
        inodes: set[int] = set()
        peers = Peers(self._admission, inodes), Peers(self._admission, inodes)
        self._guard = MemoryGuard(self._admission, *peers, settings.memory, report)
        liveness = LivenessProbe(listening, notify)
        self._events = EventLoop(
            self._xsub,
            self._xpub,
            self._handler,
            self._unheard_orders,
            peers,
            self._guard,
            liveness,
            report,
            notify,
        )
        self._control_sender, self._control = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._control.bind("inproc://order")
        self._control_sender.connect("inproc://order")
        self._proxy = threading.Thread(target=self._forward, name="proxy", daemon=True)

    def start(self) -> None:
        """Start the device. Subscribers first: a publisher sends its queued messages as soon as it
        connects.
        """
        self._events.catch_signals()
        self._bind(self._xpub, self._settings.own[1], self._settings.subscribe_listener)
        self._xsub.send(b"\x01" + socket_options.SENTINEL)
        if self._settings.expect:
            for subscription in self._wait_for_subscribers():
                self._xsub.send(subscription)
        self._unheard_orders.connect()
        self._bind(self._xsub, self._settings.own[0], self._settings.publish_listener)
        # Signals must arrive in the main thread, because only there do they end a wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._proxy.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._guard.start()

    def _bind(self, sock: Socket, own: socket.socket | None, listening: socket.socket) -> None:
        """Bind both listening sockets. ZAP applies only to the second one, and only if that is tcp."""
        if own is not None:
            socket_options.bind(sock, own)
        if address(listening).startswith("tcp://"):
            socket_options.enable_zap(sock, self._settings.curve, gate=self._handler is not None)
        socket_options.bind(sock, listening)

    def watch(self) -> None:
        """Run until SIGTERM or SIGINT. Raises ZmsvcError if the proxy ends by itself."""
        while not self._events.stopping:
            self._events.turn()

    def stop(self) -> None:
        """Stop the proxy, disconnect publishers (they queue from now on), forward what they had sent, and
        wait until subscribers have it.

        Raises ZmsvcError if libzmq hangs: then no message can be forwarded, and its context cannot be closed.
        """
        self._guard.stop()
        if not self._events.is_alive():
            raise ZmsvcError("cannot stop in order: libzmq hangs in a descriptor that another user has sent")
        self._control_sender.send(
            b"TERMINATE"
        )  # libzmq 4.3.5 has PAUSE and RESUME swapped; only TERMINATE and STATISTICS are safe.
        self._proxy.join(_JOIN_S)
        if self._proxy.is_alive():
            raise ZmsvcError(f"cannot stop in order: libzmq's proxy did not end within {_JOIN_S:.0f} s")
        # From now on this thread may use the sockets. While the proxy runs, only the thread of the proxy may.
        self._events.close()
        self._admission.close()
        self._unheard_orders.close()
        for listening in (self._settings.publish_listener, self._settings.own[0]):
            if listening is not None:
                self._xsub.unbind(address(listening))
        while self._xsub.poll(_QUIET_MS):
            self._xpub.send_multipart(self._xsub.recv_multipart(copy=False), copy=False)
        self._xpub.close(_LINGER_MS)
        for rest in (self._xsub, self._control_sender, self._control):
            rest.close(0)
        if self._handler:
            self._handler.close()
        self._context.term()

    def _wait_for_subscribers(self) -> set[bytes]:
        """Return the subscriptions of the expected subscribers. Equal ones are returned only once, because
        XSUB counts them.

        A connection alone is not enough: a subscriber sends its subscriptions again only when its own thread
        uses the socket.
        """
        subscriptions: set[bytes] = set()
        count, until = 0, time.monotonic() + _GRACE_S
        # Without this, libzmq passes on equal subscriptions of two subscribers only once, and `count` is too
        # low.
        self._xpub.setsockopt(zmq.XPUB_VERBOSE, 1)
        with self._events.waking_on(self._xpub):
            # Above the limit of the guard, some subscriptions are part of a flood, and publishers need not
            # know those.
            while (
                not self._events.stopping
                and len(subscriptions) <= MAX_SUBSCRIPTIONS
                and (left := until - time.monotonic()) > 0
            ):
                quiet = (
                    _QUIET_MS if count >= self._settings.expect else _SILENCE_MS if count else _GRACE_S * 1000
                )
                if not self._events.turn(math.ceil(min(quiet, left * 1000))):
                    break
                for _ in range(_SUBSCRIPTION_BATCH):
                    if not is_readable(self._xpub):
                        break
                    change, count = socket_options.parse_subscription(self._xpub.recv()), count + 1
                    if change is not None and change[0]:
                        subscriptions.add(b"\x01" + change[1])
                    elif change is not None:
                        subscriptions.discard(b"\x01" + change[1])
        self._xpub.setsockopt(zmq.XPUB_VERBOSE, 0)
        return subscriptions

    def _forward(self) -> None:
        try:
            zmq.proxy_steerable(self._xsub, self._xpub, None, self._control)
        finally:
            self._events.proxy_ended()


def _handler(ctx: Context, settings: DeviceSettings, report: Callable[[str], None]) -> ZapHandler | None:
    """Return the ZAP handler for tcp connections: by key, by user, or None."""
    if settings.allow:
        return KeyHandler(ctx, settings.allow, report)
    if settings.members and any(
        address(each).startswith("tcp://")
        for each in (settings.publish_listener, settings.subscribe_listener)
    ):
        return LoopbackGate(ctx, settings.members, report)
    return None
